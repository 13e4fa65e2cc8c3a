"""Set an untrained network's weights from a few images, so that all its layers learn alike.

Paper: Data-dependent Initializations of Convolutional Neural Networks
Authors: Philipp Krähenbühl, Carl Doersch, Jeff Donahue, Trevor Darrell
Venue: ICLR 2016
URL: https://arxiv.org/abs/1511.06856
Family: clustering
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.image import normalise
from tfssl.errors import BadInput
from tfssl.layers.filters import directions, linear_part
from tfssl.method import Method, Run
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop

LEARNT = (keras.layers.Conv2D, keras.layers.Dense)
FILTERS = ("elwise", "pca", "zca", "kmeans", "rand")
HOMOGENEOUS = (None, *map(keras.activations.get, ("linear", "relu", "leaky_relu")))  # step 3
SWEEPS, AGREED = 10, 1.01  # of the layers' rates: most sweeps, and when they are equal


def views(examples, seed, size=224, area=(0.25, 1.0)):
    """One crop: float32 [B, size, size, 3]."""
    return random_resized_crop(examples["image"], size, seed, area=area)


def plain_cnn(widths=(96, 256, 384, 384, 256), size=224):
    """A chain of convolutions and ReLUs without batch norm: images -> [B, widths[-1]].

    Above 64 px AlexNet's kernels, strides and pools; below, 3 x 3 with a stride of 2. Float32
    whatever the policy, for statistics of 16 bits are not worth taking. Taps: c1, c2, ...
    """
    x = normalise(image := keras.Input([None, None, 3], name="image"))
    for i, width in enumerate(widths, 1):
        kernel, stride = {1: (11, 4), 2: (5, 1)}.get(i, (3, 1)) if size > 64 else (3, 2)
        name = f"c{i}_conv"
        conv = keras.layers.Conv2D(width, kernel, stride, "same", name=name, dtype="float32")
        x = keras.layers.ReLU(name=f"c{i}", dtype="float32")(conv(x))
        if size > 64 and i in (1, 2):
            x = keras.layers.MaxPooling2D(3, 2, "same", dtype="float32")(x)
    pool = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")
    return keras.Model(image, pool(x), name="plain_cnn")


class DataDependentInit(Method):
    """No optimiser: `fit` looks at a few batches once and sets the encoder's weights.

    Args:
        encoder: a chain of Conv2D or Dense, ReLU and pooling layers; BadInput if not.
        filters: one of FILTERS, for the first `depth` layers (`directions`); normal ones above.
        beta: mean of the pre-activations.
        batches: looked at.
    """

    def __init__(self, encoder, filters="kmeans", depth=2, beta=0.1, batches=10, seed=0):
        super().__init__(encoder)
        if filters not in FILTERS:
            raise BadInput(f"filters={filters}: choose among {', '.join(FILTERS)}.")
        for layer in encoder.layers:
            plain = not layer.weights or isinstance(layer, keras.layers.Normalization)
            alone = len(layer._inbound_nodes[0].input_tensors) < 2
            scales = getattr(layer, "activation", None) in HOMOGENEOUS
            if not (alone and scales and (plain or type(layer) in LEARNT)):
                raise BadInput(
                    f"data_dependent_init sets chains of convolutions, Dense, ReLU and pooling; "
                    f"{encoder.name} has {layer.name} ({type(layer).__name__}): leave the encoder "
                    "out for a plain chain, or give one without batch norm, shortcuts or sigmoids."
                )
        self.learnt = [layer for layer in encoder.layers if isinstance(layer, LEARNT)]
        self.filters, self.depth, self.beta = filters, depth, beta
        self.batches, self.seed, self.optimizer = batches, seed, None

    def call(self, x, training=False):
        return self.encoder(x, training=training)

    def fit(self, x, epochs=1, callbacks=(), steps_per_epoch=None, verbose="auto", **kwargs):
        """One look at the first batches of `x`; the row of its History is `rates(...)`."""
        steps = min(self.batches, steps_per_epoch or getattr(x, "steps", self.batches))
        callbacks = [*callbacks, history := keras.callbacks.History()]
        watching = keras.callbacks.CallbackList(callbacks, model=self, epochs=1, steps=steps)
        self._initial_epoch = None
        watching.on_train_begin()
        if not self._initial_epoch:  # else a checkpoint has brought the weights
            watching.on_epoch_begin(0)
            images = []
            for step, batch in enumerate(x.take(steps)):
                watching.on_train_batch_begin(step)
                images.append(batch)
                watching.on_train_batch_end(step, {})
            logs = self.initialise(tf.concat(images, axis=0))
            watching.on_epoch_end(0, logs)
        watching.on_train_end()
        return history

    def initialise(self, images):
        """Sets all weights from `images` [N, H, W, 3] in [0, 1]; what the rates came to."""
        random = np.random.default_rng(self.seed)
        x = tf.cast(images, tf.float32)
        for layer in self.encoder.layers[1:]:
            if layer in self.learnt:
                made = self.filters if self.learnt.index(layer) < self.depth else "elwise"
                x = self.within(layer, directions(layer, x, made, random), x, random)
            else:
                x = tf.cast(layer(x), tf.float32)
        return self.between(images)

    def within(self, layer, kernel, x, random):
        """Step 2 of the paper (section 3.1): every channel with mean beta and deviation 1.

        Returns the layer's output on `x`, with the weights in place.
        """
        for _ in range(SWEEPS):
            y = linear_part(layer, x, kernel)
            axes = list(range(y.shape.rank - 1))
            mean, deviation = tf.reduce_mean(y, axes), tf.math.reduce_std(y, axes)
            dead = deviation.numpy() < 1e-6
            if not dead.any():
                break
            kernel[..., dead] = random.normal(size=kernel[..., dead].shape)
        deviation = tf.where(dead, 1.0, deviation)
        layer.kernel.assign(kernel / deviation)
        y = y / deviation
        if layer.use_bias:
            layer.bias.assign(self.beta - mean / deviation)
            y += tf.convert_to_tensor(layer.bias)
        return layer.activation(y)

    def rates(self, images):
        """r_k of every layer: how fast noise at the output changes it, relative to its size."""
        kernels = [layer.kernel.value for layer in self.learnt]
        with tf.GradientTape() as tape:
            y = tf.cast(self.encoder(images, training=False), tf.float32)
            loss = tf.reduce_sum(y * tf.random.stateless_normal(tf.shape(y), [self.seed, 1]))
        squares = [
            tf.reduce_mean(g**2) / tf.reduce_mean(w**2)
            for g, w in zip(tape.gradient(loss, kernels), kernels)
        ]
        return np.sqrt(np.array(squares))

    def between(self, images):
        """Step 3 (section 3.2): all layers at one rate; the output keeps its scale."""
        rates = before = self.rates(images)
        for _ in range(SWEEPS):
            if rates.max() / rates.min() < AGREED:
                break
            self.rescale(np.sqrt(rates / np.exp(np.log(rates).mean())))
            rates = self.rates(images)
        ratio, ratio_before = (float(r.max() / r.min()) for r in (rates, before))
        return {"ratio": ratio, "ratio_before": ratio_before}

    def rescale(self, factors):
        """Kernels times `factors`, biases so that every layer's output is only scaled."""
        for layer, factor, total in zip(self.learnt, factors, np.cumprod(factors)):
            layer.kernel.assign(layer.kernel * float(factor))
            if layer.use_bias:
                layer.bias.assign(layer.bias * float(total))


def recipe(
    encoder="",
    data="tfds:imagenet2012",
    size=224,
    batch_size=16,
    epochs=1,
    widths=(96, 256, 384, 384, 256),
    filters="kmeans",
    depth=5,
    beta=0.1,
    batches=10,
    area=(0.25, 1.0),
    seed=0,
):
    """The released defaults, philkr/magic_init, with the paper's best filters, those of k-means.

    Without an `encoder` a plain chain of `widths`. One pass, however many `epochs`."""
    view = functools.partial(views, size=size, area=area)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = encoders.get(encoder, size=size) if encoder else plain_cnn(widths, size)
    method = DataDependentInit(model, filters, depth, beta, batches, seed)
    return Run(method, dataset, min(epochs, 1))


SMALL = dict(
    data="digits",
    size=32,
    batch_size=64,
    epochs=1,
    widths=(32, 64, 128, 256),
    depth=2,
    batches=8,
    area=(0.5, 1.0),
)
