"""Find the flow by which each of two frames, warped, becomes the other.

Paper: UnFlow: Unsupervised Learning of Optical Flow with a Bidirectional Census Loss
Authors: Simon Meister, Junhwa Hur, Stefan Roth
Venue: AAAI 2018
URL: https://arxiv.org/abs/1711.07837
Family: photometric
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders, layers
from tfssl.encoders import dense
from tfssl.errors import BadInput
from tfssl.method import Method, Run
from tfssl.objectives import geometry
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_flip, to_float
from tfssl.pipelines.sample.clips import frame_pair

# The released config.ini; lists run from the finest scale, 1/4, to the coarsest, 1/64.
WEIGHTS, RADII = (12.7, 4.35, 3.9, 3.4, 1.1), (3, 2, 2, 1, 1)
SMOOTHNESS, CONSISTENCY, OCCLUSION = 3.0, 0.2, 12.4
FLOW_SCALE = 5.0  # pixels of the finest scale by unit of the network's output
FINEST = 4  # pixels of the input by pixel of the finest scale
BORDER = 0.1  # share of the shorter side where nothing is compared


def views(examples, seed, size=(320, 1152), zoom=(0.9, 1.1), photometric=1.0):
    """Two consecutive frames for the network, the same without colour changes for the loss.

    Returns:
        dict of `frames` and `clean`, float32 [B, 2, height, width, 3], and `mask` float32
        [B, height, width], 0 near the border and where a frame shows nothing.

    A crop, flipped and zoomed by U(zoom), frame 2 once more; colours as `recolour`. Nothing is
    turned or shifted: the paper has affine maps, but those of its released code zoom and no more.
    """
    seeds = tf.random.split(seed, 5)
    pair = crop(frame_pair(examples["frames"], seeds[0]), seeds[1], size)
    pair = random_flip(pair, seeds[2])
    factor = tf.random.stateless_uniform([tf.shape(pair)[0], 2], seeds[3], *zoom)
    flows = [magnification(size, f) for f in (factor[:, 0], factor[:, 0] * factor[:, 1])]
    clean = tf.stack([geometry.warp(pair[:, i], flow) for i, flow in enumerate(flows)], axis=1)
    mask = geometry.interior(clean[:, 0], -int(-min(size) * BORDER // 1))  # rounded up
    return {
        "frames": recolour(clean, seeds[4], photometric),
        "clean": clean,
        "mask": mask * geometry.inside(flows[0]) * geometry.inside(flows[1]),
    }


def crop(pair, seed, size):
    """A window of `size` (height, width) from frames [B, 2, H, W, 3], enlarged where too small."""
    pair, extent = to_float(pair), tf.shape(pair)[2:4]
    if any(have is None or have < wanted for have, wanted in zip(pair.shape[2:4], size)):
        larger = tf.reduce_max(tf.constant(size, tf.float32) / tf.cast(extent, tf.float32))
        larger = tf.cast(extent, tf.float32) * tf.maximum(larger, 1.0)
        flat, extent = layers.fold(pair), tf.cast(tf.math.ceil(larger), tf.int32)
        pair = layers.unfold(tf.image.resize(flat, extent), 2)
    room = tf.cast(extent - size + 1, tf.float32)
    corner = tf.cast(tf.random.stateless_uniform([tf.shape(pair)[0], 2], seed) * room, tf.int32)
    corner = tf.minimum(corner, extent - size)
    for axis in (0, 1):
        window = corner[:, axis, None] + tf.range(size[axis])
        pair = tf.gather(pair, window, axis=2 + axis, batch_dims=1)
    return tf.ensure_shape(pair, [None, 2, *size, 3])


def magnification(size, factor):
    """The flow [B, height, width, 2] that scales by `factor` [B] about the middle."""
    x, y = (tf.range(n, dtype=tf.float32) - (n - 1) / 2 for n in size[::-1])
    return (factor - 1)[:, None, None, None] * tf.stack(tf.meshgrid(x, y), axis=-1)


def recolour(pair, seed, strength=1.0):
    """Contrast, brightness, colour, gamma (one draw a pair) and noise, all times `strength`."""
    seeds, batch = tf.random.split(seed, 3), tf.shape(pair)[0]
    u = tf.random.stateless_uniform([5, batch, 1, 1, 1, 1], seeds[0], -strength, strength)
    shift = 0.02 * strength * tf.random.stateless_normal([batch, 1, 1, 1, 1], seeds[1])
    pair = pair * (1 + 0.3 * u[0]) + shift
    pair *= 1 + 0.1 * tf.concat([u[1], u[2], u[3]], axis=-1)
    gamma = 1.0 + tf.where(u[4] < 0, 0.3, 0.5) * u[4]  # in 0.7 .. 1.5, 1 in the middle
    pair = tf.maximum(pair, 0.0) ** (1 / gamma)
    noise = 0.04 * strength * tf.random.stateless_normal(tf.shape(pair), seeds[2])
    return tf.clip_by_value(pair + noise, 0.0, 1.0)


class UnFlow(Method):
    """Flow both ways at several scales: census, smoothness and, once masking is on, consistency.

    Args:
        encoder: `flownet_c`, which correlates the two frames, `flownet_s`, or one with their taps.
        masking_from: the step from which occluded pixels are masked and flows must agree.
        weights, radii: of the scales, finest first, and of their census windows in pixels.
    """

    def __init__(self, encoder, masking_from, weights=WEIGHTS, radii=RADII):
        super().__init__(encoder)
        self.network = dense.expand(encoder)
        self.flow = dense.flow_model(self.network, FLOW_SCALE * FINEST)
        self.masking_from, self.scales = masking_from, tuple(zip(weights, radii))
        self.step = layers.step_counter(self)

    @property
    def published(self):
        """The contracting encoder, and the whole: a pair -> flow of frame 1, in its pixels."""
        return {"encoder": self.encoder, "flow": self.flow}

    def call(self, x, training=False):
        both = tf.stack([x["frames"], tf.reverse(x["frames"], [1])], axis=1)  # [B, 2 ways, 2, ..]
        flows = self.network(layers.fold(both), training=training)
        return [layers.unfold(flow, 2) for flow in flows[: len(self.scales)]]

    def objective(self, x, y, outputs):
        masking = tf.cast(tf.convert_to_tensor(self.step) >= self.masking_from, tf.float32)
        total = 0.0
        for i, ((weight, radius), flow) in enumerate(zip(self.scales, outputs)):
            k = FINEST * 2**i
            shrink = functools.partial(tf.nn.avg_pool2d, ksize=k, strides=k, padding="VALID")
            first, second = (shrink(x["clean"][:, j]) for j in (0, 1))
            mask = shrink(x["mask"][..., None])[..., 0]
            there, back = tf.unstack(flow * FLOW_SCALE / 2**i, axis=1)
            total += weight * one_way(first, second, there, back, mask, radius, masking)
            total += weight * one_way(second, first, back, there, mask, radius, masking)
        return total

    def after_step(self):
        self.step.assign_add(1)


def one_way(first, second, flow, back, mask, radius, masking):
    """Equation 7's terms for one direction and scale; flows in pixels of these images."""
    hidden = masking * geometry.occlusion(flow, back)
    visible = mask * (1 - hidden)
    data = geometry.census_loss(first, geometry.warp(second, flow), visible, 2 * radius + 1)
    smooth = geometry.second_order_smoothness(flow)
    agree = masking * geometry.consistency(flow, back, visible)
    # No gradient comes of it: the price only keeps losses before and after masking comparable.
    price = masking * tf.reduce_mean(geometry.charbonnier(hidden, 0.001, 0.45))
    return data + SMOOTHNESS * smooth + CONSISTENCY * agree + OCCLUSION * price


def recipe(
    data="kitti_raw",  # a folder of KITTI's raw sequences as videos
    size=(320, 1152),
    batch_size=4,
    epochs=27027,  # 1,000,000 steps on 151 sequences, a pair of each an epoch
    learning_rate=1e-4,
    encoder="flownet_c",
    width=64,
    weights=WEIGHTS,
    radii=RADII,
    masking=0.5,
    zoom=(0.9, 1.1),
    photometric=1.0,
    seed=0,
):
    """The paper's two stages of 500,000 steps (section 4), here both on one dataset.

    Stage 1, the share `masking` of all steps (the paper's is on SYNTHIA), masks nothing. The rate
    halves at 2, 3 and 4 fifths of a stage; stage 2 starts at a tenth. Pairs come from the first 300
    frames of a file, and frames are scaled down only so far that no crop of them needs enlarging.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    if any(side % 64 or side < 64 for side in size):
        raise BadInput(f"unflow: size {size} must be multiples of 64, the network's deepest scale.")
    view = functools.partial(views, size=size, zoom=zoom, photometric=photometric)
    examples = load(data, keys=("frames",), short_side=max(size))
    dataset = batching.train(examples, view, batch_size, seed)
    steps = max(1, round(dataset.steps * epochs))
    encoder = encoders.get(encoder, width=width) if isinstance(encoder, str) else encoder
    model = UnFlow(encoder, round(steps * masking), weights, radii)
    falls = [
        (begin + (end - begin) * fifth / 5, part * 0.5 ** max(0, fifth - 1))
        for begin, end, part in ((0.0, masking, 1.0), (masking, 1.0, 0.1))
        for fifth in range(5)
    ]
    rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        [round(steps * share) for share, _ in falls[1:]], [learning_rate * f for _, f in falls]
    )
    model.compile(keras.optimizers.Adam(rate))
    return Run(model, dataset, epochs)


SMALL = dict(
    data="world:n=256",
    size=64,
    batch_size=8,
    epochs=47,  # some 1,500 steps
    learning_rate=1e-3,
    encoder="flownet_s",  # finds flow within fewer steps than flownet_c
    width=16,
    weights=WEIGHTS[:3],
    radii=(2, 1, 1),
)
