"""The same feature agrees across two views, and no two features say the same.

Paper: Barlow Twins: Self-Supervised Learning via Redundancy Reduction
Authors: Jure Zbontar, Li Jing, Ishan Misra, Yann LeCun, Stéphane Deny
Venue: ICML 2021
URL: https://arxiv.org/abs/2103.03230
Family: contrastive
"""

import functools

import tensorflow as tf

from tfssl import layers
from tfssl.encoders import residual
from tfssl.method import Method, Run
from tfssl.objectives.decorrelation import barlow_twins
from tfssl.optimizers import LARS, warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.zoo.image.byol import views  # section 2.2, "image augmentations": the same as BYOL's


class BarlowTwins(Method):
    """A wide projector, and the cross-correlation of the two views' embeddings.

    There is no predictor, no momentum and no stop of the gradient: a constant feature has no
    correlation of 1 with anything, and equal features pay off the diagonal.

    Args:
        widths: of the projector's layers.
        off_diagonal: the paper's lambda.
    """

    def __init__(self, encoder, widths=(8192, 8192, 8192), off_diagonal=0.0051):
        super().__init__(encoder)
        self.projector = layers.mlp(encoder.output_shape[-1], widths, normalise_last=True)
        self.off_diagonal = off_diagonal

    def call(self, x, training=False):
        # View by view, not folded: each is standardised over its own batch.
        z = [
            self.projector(self.encoder(view, training=training), training=training)
            for view in tf.unstack(x, axis=1)
        ]
        return tf.stack(z, axis=1)  # [B, 2, D]

    def objective(self, x, y, outputs):
        return barlow_twins(outputs[:, 0], outputs[:, 1], self.off_diagonal)  # equation 1


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    size=224,
    batch_size=2048,
    epochs=1000,
    learning_rate=1.6,  # 0.2 x batch / 256
    bias_rate=0.024,  # 0.0048 / 0.2, for biases and batch norm
    warmup_epochs=10,
    weight_decay=1e-6,  # the released code; the paper says 1.5e-6
    widths=(8192, 8192, 8192),
    off_diagonal=0.0051,
    area=(0.08, 1.0),
    blur=(1.0, 0.1),
    solarisation=(0.0, 0.2),
    seed=0,
):
    """The paper's ImageNet run (section 2.2; numbers as facebookresearch/barlowtwins gives them).

    Crops are bilinear where the paper's are bicubic.
    """
    view = functools.partial(views, size=size, area=area, blur=blur, solarisation=solarisation)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = BarlowTwins(residual.get(encoder, size), widths, off_diagonal)
    end = learning_rate / 1000
    rate = warmup_cosine(learning_rate, dataset.steps, epochs, warmup_epochs, end)
    model.compile(LARS(rate, weight_decay=weight_decay, bias_rate=bias_rate))
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
