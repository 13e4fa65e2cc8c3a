"""Predict from one crop the balanced cluster assignment of another crop of the same image.

Paper: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments
Authors: Mathilde Caron, Ishan Misra, Julien Mairal, Priya Goyal, Piotr Bojanowski, Armand Joulin
Venue: NeurIPS 2020
URL: https://arxiv.org/abs/2006.09882
Family: clustering
"""

import functools
import math

import tensorflow as tf

from tfssl import encoders, layers
from tfssl.method import Method, Run
from tfssl.objectives import replicas
from tfssl.objectives.clustering import sinkhorn, swapped_prediction
from tfssl.optimizers import LARS, warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import contrastive_view


def views(
    examples,
    seed,
    size=224,
    local_size=96,
    local_crops=6,
    area=(0.14, 1.0),
    local_area=(0.05, 0.14),
    strength=1.0,
    blur=0.5,
):
    """Multi-crop (section 3.3): two large crops, and several small ones that cost little.

    Returns "global" float32 [B, 2, size, size, 3] and, unless there are none, "local" float32
    [B, local_crops, local_size, local_size, 3]; all jittered by SimCLR's law.
    """

    def crops(count, side, share, seed):
        jitter = dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
        law = {name: value * strength for name, value in jitter.items()}
        seeds = tf.unstack(tf.random.split(seed, count))
        images = examples["image"]
        return tf.stack(
            [contrastive_view(images, side, s, area=share, blur=blur, **law) for s in seeds], axis=1
        )

    seeds = tf.unstack(tf.random.split(seed, 2))
    x = {"global": crops(2, size, area, seeds[0])}
    if local_crops:
        x["local"] = crops(local_crops, local_size, local_area, seeds[1])
    return x


class SwAV(Method):
    """A projector, prototypes on the unit sphere, and codes that Sinkhorn spreads over them.

    Args:
        prototypes: their number, K.
        temperature: of the prediction.
        epsilon, iterations: of Sinkhorn.
        freeze_steps: the first steps, in which the prototypes do not move.
        queue: past embeddings of each large crop that join the batch where codes are made, for
            batches that are small against K; 0 for none.
        queue_steps: the first steps, in which the queue only fills.
    """

    def __init__(
        self,
        encoder,
        prototypes=3000,
        hidden=2048,
        width=128,
        temperature=0.1,
        epsilon=0.05,
        iterations=3,
        freeze_steps=0,
        queue=0,
        queue_steps=0,
    ):
        super().__init__(encoder)
        self.projector = layers.mlp(encoder.output_shape[-1], [hidden, width])
        self.prototypes = layers.Prototypes(prototypes, width)
        self.queues = [layers.Queue(queue, width, seed) for seed in range(2) if queue]
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.freeze_steps, self.queue_steps = freeze_steps, queue_steps
        self.chance = math.log(prototypes)
        self.step = layers.step_counter(self)

    def call(self, x, training=False):
        # Crops of one size pass the encoder together, all embeddings the projector (section 3.3).
        crops = [x[name] for name in ("global", "local") if name in x]
        h = [self.encoder(layers.fold(crop), training=training) for crop in crops]
        h = tf.concat([layers.unfold(f, crop.shape[1]) for f, crop in zip(h, crops)], axis=1)
        z = self.projector(layers.fold(h), training=training)
        z = layers.unfold(z, h.shape[1])  # [B, V, width]
        frozen = tf.convert_to_tensor(self.step) < self.freeze_steps
        return {"embedding": z, "scores": self.prototypes(z, frozen=frozen)}

    def objective(self, x, y, outputs):
        scores = outputs["scores"]  # [B, V, K]
        codes = tf.stack([self.codes(scores[:, view], view) for view in range(2)], axis=1)
        return swapped_prediction(scores, codes, self.temperature)

    def codes(self, scores, view):
        """Codes [B, K] of one large crop's scores [B, K], with its queue's where it has one."""
        codes = sinkhorn(scores, self.epsilon, self.iterations)
        if not self.queues:
            return codes
        past = self.prototypes(self.queues[view]())
        # Each replica brings the whole batch and queue: to repeat all rows changes no code.
        everything = tf.concat([replicas.gather(scores), past], axis=0)
        among = sinkhorn(everything, self.epsilon, self.iterations)
        among = tf.gather(among, replicas.own_columns(scores))
        return tf.where(tf.convert_to_tensor(self.step) < self.queue_steps, codes, among)

    def after_step(self):
        self.prototypes.normalise()
        for view, queue in enumerate(self.queues):
            queue.enqueue(self.step_outputs["embedding"][:, view])
        self.step.assign(tf.convert_to_tensor(self.step) + 1)


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    size=224,
    batch_size=4096,
    epochs=800,
    learning_rate=4.8,
    warmup_epochs=10,  # from 0; the released code begins at 0.3
    weight_decay=1e-6,
    prototypes=3000,
    hidden=2048,
    width=128,
    epsilon=0.05,
    freeze_epochs=1,  # 313 steps there
    queue=0,  # 3840 for a batch of 256
    queue_epochs=15,
    local_size=96,
    local_crops=6,
    area=(0.14, 1.0),
    local_area=(0.05, 0.14),
    strength=1.0,
    blur=0.5,
    seed=0,
):
    """The paper's ImageNet run, 2 x 224 + 6 x 96 px (appendix A and facebookresearch/swav).

    Its LARC decays and adapts every weight; our LARS leaves biases and batch norm alone.
    """
    law = dict(size=size, local_size=local_size, local_crops=local_crops)
    law |= dict(area=area, local_area=local_area, strength=strength, blur=blur)
    dataset = batching.train(
        load(data, keys=("image",)), functools.partial(views, **law), batch_size, seed
    )
    steps = round(dataset.steps * epochs)
    model = SwAV(
        encoders.get(encoder, size=size),
        prototypes,
        hidden,
        width,
        epsilon=epsilon,
        freeze_steps=min(round(dataset.steps * freeze_epochs), steps // 10),
        queue=queue,
        queue_steps=round(dataset.steps * queue_epochs),
    )
    end = learning_rate / 1000
    rate = warmup_cosine(learning_rate, dataset.steps, epochs, warmup_epochs, end)
    model.compile(LARS(rate, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=15,
    learning_rate=1.0,
    prototypes=100,
    hidden=256,
    width=64,
    local_size=16,
    local_crops=2,
    local_area=(0.1, 0.3),
    strength=0.5,
    blur=0.0,
)
