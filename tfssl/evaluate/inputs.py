"""What an encoder declares to take, and whether given examples are that."""

import keras
import tensorflow as tf

from tfssl.errors import BadInput

# What an unbatched example's input looks like; the order is the order of preference.
RANKS = {"image": 3, "frames": 4, "audio": 1, "text": 0}
# What the last axis of an input counts, by the input's rank with its batch.
LAST = {2: "values", 4: "channels", 5: "channels"}


def input_specs(encoder):
    """{name: (shape, dtype)} of what an encoder declares to take; {} where it declares nothing."""
    if isinstance(encoder, keras.Model) and getattr(encoder, "inputs", None):
        return {x.name: (tuple(x.shape), tf.as_dtype(x.dtype)) for x in encoder.inputs}
    signatures = getattr(encoder, "signatures", None) or {}
    if "serving_default" in signatures:
        specs = signatures["serving_default"].structured_input_signature[1]
        if all(spec.shape.rank is not None for spec in specs.values()):
            return {name: (tuple(spec.shape), spec.dtype) for name, spec in specs.items()}
    return {}


def kind(shape, dtype):
    """Which of `RANKS` an input of this shape, with its batch, holds; "" for none."""
    return next(
        (
            name
            for name, rank in RANKS.items()
            if rank + 1 == len(shape) and (name == "text") == (dtype == tf.string)
        ),
        "",
    )


def refuse_other_kinds(encoder, protocol):
    """Raises BadInput for an encoder that declares other inputs than one of pictures in colour."""
    declared = input_specs(encoder)
    for shape, dtype in declared.values():
        if len(declared) > 1 or kind(shape, dtype) != "image" or shape[-1] not in (None, 3):
            takes = ", ".join(
                f"{name} ({dtype.name} {shape})" for name, (shape, dtype) in declared.items()
            )
            raise BadInput(
                f"{protocol} needs an encoder of pictures [batch, height, width, 3], but this one "
                f"takes {takes}"
            )


def refuse_misfits(declared, x, batched=True):
    """Raises BadInput where inputs (or their specs) have other channels, or another length, than
    `input_specs` declares.
    """
    for name, part in (x if isinstance(x, dict) else {"": x}).items() if declared else ():
        wanted, shape = declared.get(name, next(iter(declared.values())))[0], part.shape
        shape = shape if batched else tf.TensorShape([None]).concatenate(shape)
        if shape.rank != len(wanted) or shape.rank < 2:
            continue
        if None not in (wanted[-1], shape[-1]) and wanted[-1] != shape[-1]:
            what = LAST.get(shape.rank, "values").removesuffix("" if wanted[-1] > 1 else "s")
            raise BadInput(
                f"the encoder takes {wanted[-1]} {what} (input shape {wanted}), but the examples "
                f"have {shape[-1]}: give data like those that it was trained on"
            )
