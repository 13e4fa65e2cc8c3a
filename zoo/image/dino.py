"""Match, from any crop of an image, what a slow, centred and sharpened teacher makes of its whole.

Paper: Emerging Properties in Self-Supervised Vision Transformers
Authors: Mathilde Caron, Hugo Touvron, Ishan Misra, Hervé Jégou, Julien Mairal, Piotr Bojanowski, Armand Joulin
Venue: ICCV 2021
URL: https://arxiv.org/abs/2104.14294
Family: contrastive
"""  # noqa: E501

import functools
import math

import keras
import tensorflow as tf

from tfssl import encoders, layers
from tfssl.encoders.resized import at_size
from tfssl.layers.cosines import gelu_cosines
from tfssl.method import Method, Run
from tfssl.objectives import replicas
from tfssl.objectives.clustering import self_distillation
from tfssl.optimizers import AdamW, WarmupCosine, warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import contrastive_view
from tfssl.zoo.image import byol


def views(
    examples,
    seed,
    size=224,
    local_size=96,
    local_crops=8,
    area=(0.4, 1.0),
    local_area=(0.05, 0.4),
    blur=(1.0, 0.1, 0.5),
):
    """Multi-crop: two large crops by BYOL's laws, and several small ones.

    Returns "global" float32 [B, 2, size, size, 3] and, unless there are none, "local" float32
    [B, local_crops, local_size, local_size, 3]. `blur`: the probability for the first and the
    second large crop and for a small one; one in five of the second large ones is solarised.
    """
    seeds = tf.unstack(tf.random.split(seed, 1 + local_crops))
    x = {"global": byol.views(examples, seeds[0], size, area, blur[:2])}
    if local_crops:
        law = dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
        law |= dict(size=local_size, area=local_area, blur=blur[2])
        small = [contrastive_view(examples["image"], seed=s, **law) for s in seeds[1:]]
        x["local"] = tf.stack(small, axis=1)
    return x


class DINO(Method):
    """A student of all crops, a teacher of the large ones, and the centre of what it says.

    In the logs, both in shares of ln K: `teacher_entropy`, of one target, falls as targets get
    sharp; `teacher_spread`, of the mean target of a batch, stays high unless one class takes all.

    Args:
        units: K, the number of classes that nobody names.
        widths: of the layers of the head.
        teacher_temperature: at the first step and after `warm_steps`, linear between.
        local_size: of small crops, for encoders that are built for one size (ViT).
        momentum: of the teacher at the first step; it rises to 1 over `steps`.
        centre_momentum: of the running mean of the teacher's logits.
        freeze_steps: the first steps, in which the last layer does not move.
        student_temperature: of the student's softmax.
    """

    def __init__(
        self,
        encoder,
        units=65536,
        widths=(2048, 2048, 256),
        teacher_temperature=(0.04, 0.07),
        local_size=96,
        warm_steps=0,
        momentum=0.996,
        steps=math.inf,
        centre_momentum=0.9,
        freeze_steps=0,
        student_temperature=0.1,
    ):
        super().__init__(encoder)
        self.head = gelu_cosines(encoder.output_shape[-1], widths, units)
        self.teacher = layers.Momentum(encoder, self.head)
        small = at_size(encoder, local_size)
        self.encode = lambda: {"global": encoder, "local": small}  # Keras shall not list them twice
        self.student_temperature, self.momentum = student_temperature, momentum
        self.teacher_temperature, self.warm_steps = teacher_temperature, warm_steps
        self.centre_momentum, self.freeze_steps, self.steps = centre_momentum, freeze_steps, steps
        self.chance = math.log(units)
        # Every replica writes the same numbers, so the first one's may stand for all.
        state = dict(initializer="zeros", trainable=False, aggregation="only_first_replica")
        self.centre = self.add_weight(name="centre", shape=[units], dtype="float32", **state)
        self.step = layers.step_counter(self)
        self.entropy, self.spread = map(keras.metrics.Mean, ("teacher_entropy", "teacher_spread"))

    @property
    def published(self):
        """The teacher's network, which is the better of the two (section 5.1)."""
        return {"encoder": self.teacher.copies[0]}

    def call(self, x, training=False):
        h = []
        for name in sorted(x):  # crops of one size pass the network together, the large ones first
            z = self.encode()[name](layers.fold(x[name]), training=training)
            h.append(layers.unfold(z, x[name].shape[1]))
        z = tf.concat(h, axis=1)  # [B, V, D]
        *hidden, last = self.head.layers
        z = functools.reduce(lambda z, layer: layer(z), hidden, z)
        student = last(z, frozen=tf.convert_to_tensor(self.step) < self.freeze_steps)
        teacher = self.teacher(layers.fold(x["global"]), training=training)
        return {"student": student, "teacher": layers.unfold(teacher, 2)}

    def temperature(self):
        """The teacher's, at this step."""
        first, last = self.teacher_temperature
        step = tf.cast(tf.convert_to_tensor(self.step), tf.float32)
        return first + (last - first) * tf.minimum(step / max(1.0, float(self.warm_steps)), 1.0)

    def objective(self, x, y, outputs):
        student, teacher = outputs["student"], outputs["teacher"]  # [B, V, K], [B, 2, K]
        centre, temperature = tf.convert_to_tensor(self.centre), self.temperature()
        targets = tf.nn.softmax((teacher - centre) / temperature)
        self.entropy.update_state(tf.reduce_mean(entropy(targets)) / self.chance)
        self.spread.update_state(entropy(tf.reduce_mean(targets, axis=[0, 1])) / self.chance)
        return self_distillation(student, teacher, centre, self.student_temperature, temperature)

    def after_step(self):
        batch = replicas.average(tf.reduce_mean(self.step_outputs["teacher"], axis=[0, 1]))
        m, step = self.centre_momentum, tf.convert_to_tensor(self.step)
        self.centre.assign(m * tf.convert_to_tensor(self.centre) + (1 - m) * batch)  # equation 4
        self.teacher.follow(layers.cosine_momentum(self.momentum, step, self.steps))
        self.step.assign(step + 1)


def entropy(p):
    return -tf.reduce_sum(tf.math.xlogy(p, p), axis=-1)


def recipe(
    encoder="vit_small",
    data="tfds:imagenet2012",
    size=224,
    batch_size=1024,
    epochs=100,  # 800 for the numbers of table 2
    learning_rate=2e-3,  # 5e-4 x batch / 256
    warmup_epochs=10,
    weight_decay=(0.04, 0.4),  # by a cosine, from the first step to the last
    units=65536,
    widths=(2048, 2048, 256),
    teacher_temperature=(0.04, 0.07),
    warm_epochs=30,
    momentum=0.996,
    local_size=96,
    local_crops=8,
    area=(0.4, 1.0),
    local_area=(0.05, 0.4),
    blur=(1.0, 0.1, 0.5),
    seed=0,
):
    """The paper's ImageNet run (section 3.2, "implementation details", and facebookresearch/dino).

    Departures: no drop-path (0.1 there); our ViT pools its patches where the paper takes the class
    token, has fixed positions and Glorot's weights; the teacher's temperature rises by steps; crops
    are bilinear. While frozen the last layer has a gradient of 0, there none: Adam steps on larger.
    """
    law = dict(size=size, local_size=local_size, local_crops=local_crops)
    law |= dict(area=area, local_area=local_area, blur=blur)
    view = functools.partial(views, **law)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    steps = round(dataset.steps * epochs)
    warm, frozen = min(dataset.steps * warm_epochs, steps), min(dataset.steps, steps // 10)
    schedule = dict(warm_steps=warm, momentum=momentum, steps=steps, freeze_steps=frozen)
    network, small = encoders.get(encoder, size=size), local_size if local_crops else size
    model = DINO(network, units, widths, teacher_temperature, small, **schedule)
    rate = warmup_cosine(learning_rate, dataset.steps, epochs, warmup_epochs, end=1e-6)
    decay = WarmupCosine(weight_decay[0], steps, end=weight_decay[1])
    model.compile(AdamW(rate, decay, clip=3.0))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=15,
    learning_rate=3e-3,
    units=512,
    widths=(256, 256, 64),
    teacher_temperature=(0.04, 0.04),
    momentum=0.99,
    local_size=16,
    local_crops=2,
    local_area=(0.1, 0.4),
    blur=(0, 0, 0),
)
