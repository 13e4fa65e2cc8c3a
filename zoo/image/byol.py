"""Predict what a slow copy of the network makes of another view; nothing is pushed apart.

Paper: Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning
Authors: Jean-Bastien Grill, Florian Strub, Florent Altché, Corentin Tallec, Pierre H. Richemond, Elena Buchatskaya, Carl Doersch, Bernardo Avila Pires, Zhaohan Daniel Guo, Mohammad Gheshlaghi Azar, Bilal Piot, Koray Kavukcuoglu, Rémi Munos, Michal Valko
Venue: NeurIPS 2020
URL: https://arxiv.org/abs/2006.07733
Family: contrastive
"""  # noqa: E501

import functools
import math

import tensorflow as tf

from tfssl import encoders, layers
from tfssl.method import Method, Run
from tfssl.objectives.decorrelation import normalised_mse
from tfssl.optimizers import LARS, warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import contrastive_view


def views(examples, seed, size=224, area=(0.08, 1.0), blur=(1.0, 0.1), solarisation=(0.0, 0.2)):
    """Two views of different laws on axis 1: float32 [B, 2, size, size, 3].

    Table 6: both are cropped to `area`, flipped, jittered and greyed alike; `blur` and
    `solarisation` are the probabilities of the first and the second view.
    """
    return tf.stack(
        [
            contrastive_view(
                examples["image"],
                size,
                view_seed,
                area=area,
                brightness=0.4,
                contrast=0.4,
                saturation=0.2,
                hue=0.1,
                blur=blur[view],
                solarisation=solarisation[view],
            )
            for view, view_seed in enumerate(tf.unstack(tf.random.split(seed, 2)))
        ],
        axis=1,
    )


class BYOL(Method):
    """Encoder, projector and predictor learn; the target follows the first two and has no third.

    Args:
        momentum: of the target at the first step; it rises to 1 over `steps`, and stays where it
            is when there is no end to them.
    """

    def __init__(self, encoder, hidden=4096, width=256, momentum=0.996, steps=math.inf):
        super().__init__(encoder)
        self.projector = layers.mlp(encoder.output_shape[-1], [hidden, width])
        self.predictor = layers.mlp(width, [hidden, width], name="predictor")
        self.target = layers.Momentum(encoder, self.projector)
        self.momentum, self.steps = momentum, steps
        self.step = layers.step_counter(self)

    def call(self, x, training=False):
        # View by view, not folded: each gets batch statistics of its own, as in the released code.
        predictions, targets = [], []
        for view in tf.unstack(x, axis=1):
            z = self.projector(self.encoder(view, training=training), training=training)
            predictions.append(self.predictor(z, training=training))
            targets.append(self.target(view, training=training))
        return {"prediction": tf.stack(predictions, 1), "target": tf.stack(targets, 1)}

    def objective(self, x, y, outputs):
        p, z = outputs["prediction"], outputs["target"]  # [B, 2, width]
        return normalised_mse(p[:, 0], z[:, 1]) + normalised_mse(p[:, 1], z[:, 0])  # equation 2

    def after_step(self):
        step = tf.convert_to_tensor(self.step)
        self.target.follow(layers.cosine_momentum(self.momentum, step, self.steps))
        self.step.assign(step + 1)


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    size=224,
    batch_size=4096,
    epochs=1000,
    learning_rate=3.2,  # 0.2 x batch / 256
    warmup_epochs=10,
    weight_decay=1.5e-6,
    momentum=0.996,  # 0.99 for 300 epochs (appendix)
    hidden=4096,
    width=256,
    area=(0.08, 1.0),
    blur=(1.0, 0.1),
    solarisation=(0.0, 0.2),
    seed=0,
):
    """The paper's ImageNet run (section 3.3, appendix B and C).

    Crops are bilinear where the paper's are bicubic.
    """
    view = functools.partial(views, size=size, area=area, blur=blur, solarisation=solarisation)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    steps = round(dataset.steps * epochs)
    model = BYOL(encoders.get(encoder, size=size), hidden, width, momentum, steps)
    rate = warmup_cosine(learning_rate, dataset.steps, epochs, warmup_epochs)
    model.compile(LARS(rate, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=20,
    learning_rate=1.0,
    momentum=0.99,
    hidden=256,
    width=64,
    blur=(0.0, 0.0),
)
