"""Two random views of an image attract each other and repel every other image of the batch.

Paper: A Simple Framework for Contrastive Learning of Visual Representations
Authors: Ting Chen, Simon Kornblith, Mohammad Norouzi, Geoffrey Hinton
Venue: ICML 2020
URL: https://arxiv.org/abs/2002.05709
Family: contrastive
"""

import functools

import tensorflow as tf

from tfssl import encoders, layers
from tfssl.method import Method, Run
from tfssl.objectives.contrastive import nt_xent
from tfssl.optimizers import LARS, warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import contrastive_view


def views(examples, seed, size=224, area=(0.08, 1.0), strength=1.0, blur=0.5):
    """Two views on axis 1: float32 [B, 2, size, size, 3].

    Section 3 and appendix A: crop of a share `area`, flip, colour jitter of `strength`, grey,
    blur with probability `blur` (CIFAR: strength 0.5, no blur).
    """
    return tf.stack(
        [
            contrastive_view(
                examples["image"],
                size,
                view_seed,
                area=area,
                brightness=0.8 * strength,
                contrast=0.8 * strength,
                saturation=0.8 * strength,
                hue=0.2 * strength,
                blur=blur,
            )
            for view_seed in tf.unstack(tf.random.split(seed, 2))
        ],
        axis=1,
    )


class SimCLR(Method):
    """A projector on the encoder, and NT-Xent between the two views' projections.

    Args:
        width: of the embeddings.
        hidden: of the projector's hidden layer; 0 for the encoder's own width.
    """

    def __init__(self, encoder, temperature=0.1, width=128, hidden=0):
        super().__init__(encoder)
        features = encoder.output_shape[-1]
        self.projector = layers.mlp(features, [hidden or features, width], normalise=False)
        self.temperature = temperature

    def call(self, x, training=False):
        h = self.encoder(layers.fold(x), training=training)  # [2B, D], what is kept
        return layers.unfold(self.projector(h), 2)  # [B, 2, width]

    def objective(self, x, y, outputs):
        return nt_xent(outputs[:, 0], outputs[:, 1], self.temperature)


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    size=224,
    batch_size=4096,
    epochs=100,
    learning_rate=4.8,  # 0.3 x batch / 256
    warmup_epochs=10,
    weight_decay=1e-6,  # the released commands say 1e-4
    temperature=0.1,
    area=(0.08, 1.0),
    strength=1.0,
    blur=0.5,
    seed=0,
):
    """The paper's ImageNet run (section 2.3, "default setting").

    Crops are bilinear where the released code's are bicubic.
    """
    view = functools.partial(views, size=size, area=area, strength=strength, blur=blur)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = SimCLR(encoders.get(encoder, size=size), temperature)
    rate = warmup_cosine(learning_rate, dataset.steps, epochs, warmup_epochs)
    model.compile(LARS(rate, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=20,
    learning_rate=3.0,
    temperature=0.2,
    area=(0.2, 1.0),
    strength=0.5,
    blur=0.0,
)
