"""Predict one view's embedding from the other's, which is held fixed: a twin without momentum.

Paper: Exploring Simple Siamese Representation Learning
Authors: Xinlei Chen, Kaiming He
Venue: CVPR 2021
URL: https://arxiv.org/abs/2011.10566
Family: contrastive
"""

import functools

import keras
import tensorflow as tf

from tfssl import layers
from tfssl.encoders import residual
from tfssl.method import Method, Run
from tfssl.objectives.decorrelation import negative_cosine
from tfssl.optimizers import SGD, warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.zoo.image.moco import views  # the law of MoCo's second version (section 3, "baseline")


class SimSiam(Method):
    """A projector that ends in batch norm, a predictor, and a stop of the gradient.

    `std` in the logs is the deviation of the unit embeddings, times the root of their width: about
    1 where they are spread, 0 where they have collapsed (section 4.1).

    Args:
        hidden: widths of the projector's layers before its last.
        width: of the embeddings.
        bottleneck: of the predictor's hidden layer.
    """

    def __init__(self, encoder, hidden=(2048, 2048), width=2048, bottleneck=512):
        super().__init__(encoder)
        widths = [*hidden, width]
        self.projector = layers.mlp(encoder.output_shape[-1], widths, normalise_last=True)
        self.predictor = layers.mlp(width, [bottleneck, width], name="predictor")
        self.std = keras.metrics.Mean(name="std")

    def call(self, x, training=False):
        # View by view, not folded: each is normalised by its own batch, as in the released code.
        embeddings, predictions = [], []
        for view in tf.unstack(x, axis=1):
            z = self.projector(self.encoder(view, training=training), training=training)
            embeddings.append(z)
            predictions.append(self.predictor(z, training=training))
        return {"embedding": tf.stack(embeddings, 1), "prediction": tf.stack(predictions, 1)}

    def objective(self, x, y, outputs):
        z, p = outputs["embedding"], outputs["prediction"]  # [B, 2, width]
        unit = tf.math.l2_normalize(z[:, 0], axis=1)
        width = tf.cast(tf.shape(unit)[1], tf.float32)
        self.std.update_state(tf.reduce_mean(tf.math.reduce_std(unit, axis=0)) * tf.sqrt(width))
        # Equation 4; `negative_cosine` holds its second argument fixed.
        return (negative_cosine(p[:, 0], z[:, 1]) + negative_cosine(p[:, 1], z[:, 0])) / 2


class HalfFixedSGD(SGD):
    """SGD in which some weights keep the first learning rate.

    It knows them as variables of one model, which no config can name: it is not made of one.

    Args:
        schedule: the learning rate.
        weight_decay: as in `SGD`.
        fixed: variables whose learning rate stays `schedule(0)`.
    """

    def __init__(self, schedule, weight_decay=0.0, fixed=(), name="half_fixed_sgd"):
        super().__init__(schedule, weight_decay=weight_decay, name=name)
        self.fixed = frozenset(self._var_key(variable) for variable in fixed)
        self.first_rate = float(schedule(0))

    def rate_of(self, variable):
        """The learning rate of a variable at this step."""
        return self.first_rate if self._var_key(variable) in self.fixed else self.learning_rate

    def update_step(self, gradient, variable, learning_rate):
        if self._var_key(variable) in self.fixed:
            learning_rate = self.first_rate
        super().update_step(gradient, variable, learning_rate)


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    size=224,
    batch_size=512,
    epochs=100,
    learning_rate=0.1,  # 0.05 x batch / 256
    weight_decay=1e-4,
    hidden=(2048, 2048),
    width=2048,
    bottleneck=512,
    area=(0.2, 1.0),
    blur=0.5,
    seed=0,
):
    """The paper's ImageNet run (section 3, "baseline settings", and facebookresearch/simsiam).

    Its CIFAR-10 run (appendix D): size=32, hidden=(2048,), epochs=800, learning_rate=0.06,
    weight_decay=5e-4, blur=0.0, with a ResNet-18.
    """
    view = functools.partial(views, size=size, area=area, blur=blur)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = SimSiam(residual.get(encoder, size), hidden, width, bottleneck)
    rate = warmup_cosine(learning_rate, dataset.steps, epochs)  # without a warm-up
    fixed = model.predictor.trainable_variables  # table 1, row (c)
    model.compile(HalfFixedSGD(rate, weight_decay, fixed))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=20,
    learning_rate=0.2,
    weight_decay=5e-4,
    hidden=(256, 256),
    width=256,
    bottleneck=64,
    blur=0.0,
)
