"""Two views agree, each feature keeps a spread, and features do not repeat one another.

Paper: VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning
Authors: Adrien Bardes, Jean Ponce, Yann LeCun
Venue: ICLR 2022
URL: https://arxiv.org/abs/2105.04906
Family: contrastive
"""

import functools

import tensorflow as tf

from tfssl import layers
from tfssl.encoders import residual
from tfssl.method import Method, Run
from tfssl.objectives.decorrelation import vicreg
from tfssl.optimizers import LARS, warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.zoo.image.byol import views  # appendix C.1: the same as BYOL's


class VICReg(Method):
    """An expander whose output is normalised in no way, and three terms on it.

    Args:
        widths: of the expander's layers.
        invariance, variance, covariance: weights of the terms, see `objectives.decorrelation`.
    """

    def __init__(
        self, encoder, widths=(8192, 8192, 8192), invariance=25.0, variance=25.0, covariance=1.0
    ):
        super().__init__(encoder)
        features = encoder.output_shape[-1]
        self.expander = layers.mlp(features, widths, bias_last=False, name="expander")
        self.weights_of_terms = (invariance, variance, covariance)

    def call(self, x, training=False):
        # View by view, not folded: each branch is normalised and regularised by itself.
        z = [
            self.expander(self.encoder(view, training=training), training=training)
            for view in tf.unstack(x, axis=1)
        ]
        return tf.stack(z, axis=1)  # [B, 2, D]

    def objective(self, x, y, outputs):
        return vicreg(outputs[:, 0], outputs[:, 1], *self.weights_of_terms)  # equation 6


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    size=224,
    batch_size=2048,
    epochs=1000,
    learning_rate=1.6,  # 0.2 x batch / 256
    warmup_epochs=10,
    weight_decay=1e-6,
    widths=(8192, 8192, 8192),
    invariance=25.0,
    variance=25.0,
    covariance=1.0,
    area=(0.08, 1.0),
    blur=(1.0, 0.1),
    solarisation=(0.0, 0.2),
    seed=0,
):
    """The paper's ImageNet run (section 4.2; numbers as facebookresearch/vicreg gives them).

    Crops are bilinear where the released code's are bicubic.
    """
    view = functools.partial(views, size=size, area=area, blur=blur, solarisation=solarisation)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = VICReg(residual.get(encoder, size), widths, invariance, variance, covariance)
    end = learning_rate / 1000
    rate = warmup_cosine(learning_rate, dataset.steps, epochs, warmup_epochs, end)
    model.compile(LARS(rate, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=20,
    learning_rate=1.0,
    widths=(256, 256, 256),
    area=(0.2, 1.0),
    blur=(0.0, 0.0),
)
