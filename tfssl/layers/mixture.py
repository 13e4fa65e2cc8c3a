"""A task reads a weighted sum of an encoder's layers, few of them, that it chooses itself."""

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.errors import BadInput


class LayerMixture(keras.layers.Layer):
    """sum_m alpha_m Unit_m of M tensors of one shape, with an L1 penalty on alpha [M].

    All units weigh 1 / M to begin with. `alpha` stays float32 under 16-bit policies.

    Args:
        penalty: lambda; lambda sum_m |alpha_m| joins the model's `losses`. Without it every task
            comes to read everything.

    Source: Doersch & Zisserman 2017, section 3.4.
    """

    def __init__(self, penalty=1e-3, **kwargs):
        super().__init__(**kwargs)
        self.penalty = penalty

    def build(self, shapes):
        self.alpha = self.add_weight(
            name="alpha",
            shape=[len(shapes)],
            dtype="float32",
            initializer=keras.initializers.Constant(1 / len(shapes)),
            regularizer=keras.regularizers.L1(self.penalty),
            autocast=False,
        )

    def call(self, units):
        alpha = tf.convert_to_tensor(self.alpha)
        weighted = [alpha[m] * tf.cast(unit, tf.float32) for m, unit in enumerate(units)]
        return tf.cast(tf.add_n(weighted), self.compute_dtype)

    def compute_output_shape(self, shapes):
        return tuple(shapes[0])

    def get_config(self):
        return {**super().get_config(), "penalty": self.penalty}


def units(encoder):
    """Names of the layers that a mixture reads: the longest row of units of one shape.

    Units are an encoder's taps, the sums that end residual units and the ReLUs behind those; of two
    rows as long, the deeper. A ResNet-50 gives the six of its stage 4 (the paper's "block 3"), a
    transformer all its blocks, `resnet9` its two last taps.

    Raises:
        BadInput: where no two layers have one shape.
    """
    found = encoders.tap_names(encoder)
    sums = [layer for layer in encoder.layers if isinstance(layer, keras.layers.Add)]
    found = found[1:] if sums else found  # a ResNet's first tap is no unit but its stem
    for layer in sums:
        after = list({node.operation for node in layer._outbound_nodes})
        alone = len(after) == 1 and isinstance(after[0], keras.layers.ReLU)
        found.append(after[0].name if alone else layer.name)
    found = [layer.name for layer in encoder.layers if layer.name in found]
    model = keras.Model(encoder.input, list(encoders.outputs_of(encoder, found).values()))
    rows = {}
    for name, spec in zip(found, model.compute_output_spec(_probe(encoder))):
        rows.setdefault(tuple(spec.shape), []).append(name)
    longest = max(reversed(list(rows.values())), key=len, default=())
    if len(longest) < 2:
        raise BadInput(
            f"{encoder.name} has no two layers of one shape that a task could mix: take an encoder "
            "of residual units or of blocks, for example resnet18, resnet50 or vit_mini."
        )
    return longest


def _probe(encoder):
    return encoders.with_sizes(encoder.input, encoders.side_for(encoder))


def readers(encoder, penalty):
    """(encoder up to its last unit, a function that makes one more reader of its units).

    A reader is a model of its own over the same layers: features [B, D] of its own mixture, which
    is its deepest tap. `reader.get_layer("mixture")` holds its alpha.
    """
    rows = list(encoders.outputs_of(encoder, units(encoder)).values())
    trunk = encoders.get(keras.Model(encoder.input, rows[-1], name=encoder.name))
    last = encoders.tap_names(trunk)[-1]
    prefix = "block_" if last.startswith("block_") else "c"
    tap = f"{prefix}{int(''.join(filter(str.isdigit, last)) or 0) + 1}"

    def reader():
        mixture = LayerMixture(penalty, name="mixture")(rows)
        tapped = keras.layers.Activation("linear", name=tap)(mixture)
        return encoders.get(keras.Model(encoder.input, tapped, name=encoder.name))

    return trunk, reader
