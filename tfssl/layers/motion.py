"""What moves by itself before a moving camera, seen in two frames, without any label."""

import tensorflow as tf

from tfssl.objectives.geometry import warp

STEPS = 4  # of Gauss and Newton at each scale
LOCAL = 5  # pixels over which motion is averaged, twice: smooth surfaces follow their edges
NOISE = 0.02  # slopes of grey (0..1 a pixel) that are not to be trusted


def motion(pair):
    """How far each pixel of the first frame moves against the background, about: [B, H, W] pixels.

    The camera's motion, taken as an affine map, is found by Gauss-Newton steps that give less
    weight to whatever disagrees, from coarse to fine; the second frame is warped back by it. What
    differs still, over the slopes of grey, is a length: normal flow, averaged where slopes are.

    A camera that moves by more than about half a wave of the background's finest strong pattern
    between the two frames is mistaken for objects: take frames that follow close on each other.

    Args:
        pair: two frames [B, 2, H, W, 3] in [0, 1]. Equal ones give exactly 0.

    Source: Irani & Anandan 1998 (a unified approach to moving object detection), section 3.
    """
    grey = tf.tensordot(pair, tf.constant([0.299, 0.587, 0.114]), 1)[..., None]
    first, second = grey[:, 0], grey[:, 1]
    affine = tf.zeros([tf.shape(pair)[0], 6])
    for coarse in (4, 2, 1):
        levels = [tf.nn.avg_pool2d(_smooth(g), coarse, coarse, "SAME") for g in (first, second)]
        affine = _aligned(*levels, affine, coarse)
    first, second = _smooth(first), _smooth(second)
    difference, slopes, _ = _compared(first, second, affine, 1)
    steep = tf.reduce_sum(tf.square(slopes), axis=-1, keepdims=True)
    pull = tf.abs(difference) * tf.sqrt(steep + 1e-12)
    local = [_smooth(_smooth(x, LOCAL), LOCAL) for x in (pull, steep)]
    return (local[0] / (local[1] + NOISE**2))[..., 0]


def _aligned(first, second, affine, coarse):
    """`affine` [B, 6] after a few steps at one scale; a loop, since each is a large graph."""

    def step(count, found):
        return count + 1, found + _gauss_newton(first, second, found, coarse)

    return tf.while_loop(lambda count, _: count < STEPS, step, [0, affine])[1]


def _gauss_newton(first, second, affine, coarse):
    """The step [B, 6] that explains best what differs, in pixels of the finest level."""
    difference, slopes, (x, y) = _compared(first, second, affine, coarse)
    design = tf.concat([slopes * z for z in (tf.ones_like(x), x, y)], axis=-1)  # [B, h, w, 6]
    scale = tf.reduce_mean(tf.abs(difference), axis=[1, 2, 3], keepdims=True) + 1e-4
    weight = 1 / tf.square(1 + tf.square(difference / scale))  # Geman and McClure
    normal = tf.einsum("bhwi,bhwj->bij", weight * design, design)
    right = tf.einsum("bhwi,bhw->bi", weight * design, difference[..., 0])
    ridge = (1e-6 + 1e-3 * tf.linalg.trace(normal))[:, None, None] * tf.eye(6)
    return -coarse * tf.linalg.solve(normal + ridge, right[..., None])[..., 0]


def _compared(first, second, affine, coarse):
    """(second warped - first, slopes of the first, both 0 beyond the border; coordinates)."""
    height, width = tf.shape(first)[1], tf.shape(first)[2]
    x, y = tf.meshgrid(tf.linspace(-1.0, 1.0, width), tf.linspace(-1.0, 1.0, height))
    x, y = x[None, :, :, None], y[None, :, :, None]
    terms = tf.reshape(affine / coarse, [-1, 1, 1, 6])
    flow = terms[..., 0:2] + terms[..., 2:4] * x + terms[..., 4:6] * y
    warped = warp(tf.concat([second, tf.ones_like(second)], -1), flow)
    seen = tf.cast(warped[..., 1:] > 0.999, tf.float32)
    rows, columns = tf.image.image_gradients(first)
    slopes = tf.concat([columns, rows], axis=-1) * seen
    return (warped[..., :1] - first) * seen, slopes, (x, y)


def _smooth(maps, side=3):
    """Mean over side x side pixels; at the border over what there is."""
    return tf.nn.avg_pool2d(maps, side, 1, "SAME")
