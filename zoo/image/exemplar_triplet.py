"""Crops of one image lie closer together than to any crop of another, by a margin.

Paper: Multi-task Self-Supervised Visual Learning
Authors: Carl Doersch, Andrew Zisserman
Venue: ICCV 2017
URL: https://arxiv.org/abs/1708.07860
Family: contrastive
"""

import functools

import tensorflow as tf

from tfssl import encoders, layers
from tfssl.errors import BadInput
from tfssl.method import Method, Run
from tfssl.objectives import replicas
from tfssl.objectives.numerics import normalise
from tfssl.optimizers import SGD, WarmupCosine
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import contrastive_view

FARTHEST = 2.0  # 1 - cosine of opposite directions


def views(examples, seed, size=224, crops=8, area=(0.05, 1.0), strength=1.0, grey=0.66):
    """Random crops of each image on axis 1: float32 [B, crops, size, size, 3].

    Crop of a share `area`, flip, colour jitter of `strength` (Inception's at 1), grey with
    probability `grey`. The re-implementation greys all crops of an image or none, by which images
    could be told apart; here each crop has its own draw.
    """
    return tf.stack(
        [
            contrastive_view(
                examples["image"],
                size,
                crop_seed,
                area=area,
                brightness=0.125 * strength,
                contrast=0.5 * strength,
                saturation=0.5 * strength,
                hue=0.2 * strength,
                jitter=1.0,
                grey=grey,
                blur=0.0,
            )
            for crop_seed in tf.unstack(tf.random.split(seed, crops))
        ],
        axis=1,
    )


class ExemplarTriplet(Method):
    """A linear embedding on the encoder, and triplets with semi-hard negatives of the batch.

    Args:
        width: of the embedding.
        margin: M; a network that tells nothing apart pays exactly this.
    """

    def __init__(self, encoder, width=1024, margin=0.5):
        super().__init__(encoder)
        self.embedding = layers.linear(encoder.output_shape[-1], width, name="embedding")
        self.margin = self.chance = margin

    def call(self, x, training=False):
        h = self.encoder(layers.fold(x), training=training)  # [BV, D], what is kept
        return layers.unfold(self.embedding(h), x.shape[1])  # [B, V, width]

    def objective(self, x, y, outputs):
        return semi_hard(outputs, self.margin)


def semi_hard(z, margin):
    """Mean of max(D(a, p) - D(a, n) + margin, 0) over all pairs (a, p) of crops of one image.

    Args:
        z: [B, V, width], the embeddings of V crops of B images, of any length.
        margin: by which the negative must be farther than the positive.

    D is 1 - cosine (Doersch & Zisserman, section 3.1), every row made a unit vector by itself: the
    re-implementation divides by the norm over the batch. The negative n is the nearest crop of
    another image that is farther than p; where none is, the farthest (Schroff et al., CVPR 2015,
    section 3.2). The hardest negatives would draw everything into one point.
    """
    crops = z.shape[1]
    z = normalise(layers.fold(z))  # [n, width]
    everything = replicas.gather(z)
    distance = 1 - tf.matmul(z, everything, transpose_b=True)  # [n, N]
    own = replicas.own_columns(z)
    siblings = crops * (own[:, None] // crops) + tf.range(crops)  # [n, V], the anchor among them
    positive = tf.gather(distance, siblings, axis=1, batch_dims=1)[:, :, None]  # [n, V, 1]
    others = own[:, None] // crops != tf.range(tf.shape(everything)[0]) // crops  # [n, N]
    distance, others = distance[:, None], others[:, None]
    beyond = others & (distance > positive)  # [n, V, N]
    nearest = tf.reduce_min(tf.where(beyond, distance, FARTHEST), axis=2)
    farthest = tf.reduce_max(tf.where(others, distance, 0.0), axis=2)
    negative = tf.where(tf.reduce_any(beyond, axis=2), nearest, farthest)
    costs = tf.nn.relu(positive[..., 0] - negative + margin)
    pairs = tf.cast(siblings != own[:, None], tf.float32)
    return tf.reduce_sum(costs * pairs) / tf.reduce_sum(pairs)


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    size=224,
    batch_size=64,  # images; 512 crops
    epochs=35,
    learning_rate=0.025,  # 0.1 x batch / 256
    crops=8,
    width=1000,
    margin=0.5,
    area=(0.05, 1.0),
    strength=1.0,
    grey=0.66,
    weight_decay=1e-4,
    seed=0,
):
    """The ImageNet run of google/revisiting-self-supervised (config/exemplar/imagenet.sh).

    The paper trains this task among others, with an embedding of 1024 and two crops an image. The
    rate falls along a cosine after a seventh of warm-up, there in steps at epochs 15 and 25.
    """
    if min(batch_size, crops) < 2:
        raise BadInput("exemplar_triplet: batch_size and crops must be 2 or more, to be compared.")
    view = functools.partial(views, size=size, crops=crops, area=area, strength=strength, grey=grey)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = ExemplarTriplet(encoders.get(encoder, size=size), width, margin)
    steps = round(dataset.steps * epochs)
    rate = WarmupCosine(learning_rate, steps, warmup=steps // 7)
    model.compile(SGD(rate, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000",
    size=32,
    batch_size=32,
    epochs=3,
    learning_rate=0.05,
    crops=4,
    width=128,
    area=(0.2, 1.0),
    grey=0.5,
)
