"""Photometric self-supervision: warp one image onto another and compare what can be compared.

Pixel centres lie at integers; flow is in pixels of the map it is stored on, x (right) then y
(down). Masks never carry gradient.
"""

import tensorflow as tf

from tfssl.objectives.numerics import float32

# UnFlow's census constants, for grey values in [0, 255] and for their distance.
TERNARY_SOFTNESS = 0.81
DISTANCE_SOFTNESS = 0.1


def warp(images, flow):
    """Backward warp: output(p) = images(p + flow(p)), bilinear, zeros outside the image.

    Args:
        images: [B, H, W, C].
        flow: [B, H, W, 2] in pixels, x then y.

    Differentiable in both; at whole pixels the slope is that towards the right and below. The last
    row and column count as inside at integer coordinates; within one pixel outside, the image fades
    to zero. Source: Jaderberg et al. 2015, equation 5.
    """
    images, flow = float32(images), float32(flow)
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    x = flow[..., 0] + float32(tf.range(width))
    y = flow[..., 1] + float32(tf.range(height))[:, None]
    left, top = tf.floor(x), tf.floor(y)
    # Not |x - corner|: its slope at 0, at whole pixels, is 0, and the left corner would be lost.
    to_right, to_down = (x - left)[..., None], (y - top)[..., None]

    def corner(cx, cy):
        inside = (cx >= 0) & (cx <= float32(width - 1)) & (cy >= 0) & (cy <= float32(height - 1))
        # Clipped as floats, since a huge flow has no integer; of no place at all, where the flow
        # is NaN, any will do: the weights are NaN too.
        cx, cy = (tf.where(tf.math.is_finite(c), c, 0.0) for c in (cx, cy))
        column = tf.cast(tf.clip_by_value(cx, 0, float32(width - 1)), tf.int32)
        row = tf.cast(tf.clip_by_value(cy, 0, float32(height - 1)), tf.int32)
        values = tf.gather_nd(images, tf.stack([row, column], axis=-1), batch_dims=1)
        return tf.where(inside[..., None], values, 0.0)

    return (
        (1 - to_down) * (1 - to_right) * corner(left, top)
        + (1 - to_down) * to_right * corner(left + 1, top)
        + to_down * (1 - to_right) * corner(left, top + 1)
        + to_down * to_right * corner(left + 1, top + 1)
    )


def inside(flow):
    """[B, H, W] float mask: 1 where p + flow(p) lies inside the image, its border included."""
    flow = float32(flow)
    height, width = tf.shape(flow)[1], tf.shape(flow)[2]
    x = flow[..., 0] + float32(tf.range(width))
    y = flow[..., 1] + float32(tf.range(height))[:, None]
    there = (x >= 0) & (x <= float32(width - 1)) & (y >= 0) & (y <= float32(height - 1))
    return tf.stop_gradient(float32(there))


def interior(x, border):
    """[1, H, W] float mask for x [B, H, W, ...]: 0 within `border` pixels of the edge, else 1."""
    height, width = tf.shape(x)[1], tf.shape(x)[2]
    row, column = tf.range(height), tf.range(width)
    rows = (row >= border) & (row < height - border)
    columns = (column >= border) & (column < width - border)
    return float32(rows[:, None] & columns)[None]


def charbonnier(x, epsilon, exponent):
    """(x^2 + epsilon^2)^exponent, element by element: a robust |x|.

    UnFlow has epsilon 0.001, exponent 0.45. Source: Meister et al. 2018, section 3.1.
    """
    return tf.pow(tf.square(float32(x)) + epsilon**2, exponent)


def census(images, patch):
    """Ternary census transform: how each neighbour's grey value compares with the pixel's own.

    Args:
        images: [B, H, W, 1 or 3] in [0, 1]; greyed and scaled to 255 inside.
        patch: odd side length of the neighbourhood, 2 r + 1.

    Returns:
        [B, H, W, patch^2], offsets row by row: d / sqrt(0.81 + d^2) with d the neighbour minus the
        pixel. The centre's channel is 0, and so are all channels of pixels whose neighbourhood
        leaves the image. Adding a constant to the image changes nothing.

    Source: Meister et al. 2018 (UnFlow), section 3.1, with Stein 2004; constants from the code.
    """
    images = float32(images)
    grey = 255 * (tf.image.rgb_to_grayscale(images) if images.shape[-1] == 3 else images)
    radius = patch // 2
    height, width = tf.shape(grey)[1], tf.shape(grey)[2]
    padded = tf.pad(grey, [[0, 0], [radius, radius], [radius, radius], [0, 0]])
    differences = tf.concat(
        [
            padded[:, dy : dy + height, dx : dx + width] - grey
            for dy in range(patch)
            for dx in range(patch)
        ],
        axis=-1,
    )
    transformed = differences * tf.math.rsqrt(TERNARY_SOFTNESS + tf.square(differences))
    return transformed * interior(grey, radius)[..., None]


def census_distance(a, b):
    """Soft Hamming distance [B, H, W] of two census transforms: sum of d^2 / (0.1 + d^2)."""
    squared = tf.math.squared_difference(float32(a), float32(b))
    return tf.reduce_sum(squared / (DISTANCE_SOFTNESS + squared), axis=-1)


def census_loss(a, b, mask, patch, epsilon=0.001, exponent=0.45):
    """UnFlow's data term: robust census distance of two images where they can be compared.

    Args:
        a, b: [B, H, W, C] in [0, 1]; b is usually the other frame, warped.
        mask: [B, H, W] visibility, or anything that broadcasts; no gradient.
        patch: side length of the census neighbourhood; its border counts as invisible.

    Sum over visible pixels divided by the number of *all* pixels, or hiding would pay twice.
    Source: Meister et al. 2018, equation 1.
    """
    distance = charbonnier(census_distance(census(a, patch), census(b, patch)), epsilon, exponent)
    visible = tf.stop_gradient(float32(mask)) * interior(distance, patch // 2)
    return tf.reduce_mean(visible * distance)


def occlusion(flow, back, relative=0.01, absolute=0.5):
    """[B, H, W] float mask, 1 where the way forth and back does not lead home.

    Args:
        flow: [B, H, W, 2] from this image to the other.
        back: [B, H, W, 2] from the other image to this.

    |w + w'|^2 > relative (|w|^2 + |w'|^2) + absolute, with w' = back(p + flow(p)); no gradient.
    Source: Meister et al. 2018, equation 2 (Sundaram et al. 2010).
    """
    flow = float32(flow)
    returned = warp(back, flow)

    def squared(w):
        return tf.reduce_sum(tf.square(w), axis=-1)

    bound = relative * (squared(flow) + squared(returned)) + absolute
    return tf.stop_gradient(float32(squared(flow + returned) > bound))


def consistency(flow, back, mask, epsilon=0.001, exponent=0.45):
    """Robust difference of the way forth and back where visible: flow(p) = -back(p + flow(p)).

    Args as in `occlusion`; mask [B, H, W]. The two components are summed; divided by the number of
    all pixels. Source: Meister et al. 2018, equation 4.
    """
    there_and_back = float32(flow) + warp(back, flow)
    cost = tf.reduce_sum(charbonnier(there_and_back, epsilon, exponent), axis=-1)
    return tf.reduce_mean(tf.stop_gradient(float32(mask)) * cost)


def second_order_smoothness(flow, epsilon=0.001, exponent=0.45):
    """Robust second differences of the flow in x, y and both diagonals; not edge-aware.

    `flow` [B, H, W, C]. For each component the mean over all pixels and the 4 directions, places
    whose neighbours lie outside counted as 0; components summed. An affine flow costs only the
    floor of the Charbonnier function. Source: Meister et al. 2018, equation 3, scaled as coded.
    """
    flow = float32(flow)
    middle = flow[:, 1:-1, 1:-1]
    directions = [
        flow[:, :, :-2] + flow[:, :, 2:] - 2 * flow[:, :, 1:-1],
        flow[:, :-2] + flow[:, 2:] - 2 * flow[:, 1:-1],
        flow[:, :-2, :-2] + flow[:, 2:, 2:] - 2 * middle,
        flow[:, :-2, 2:] + flow[:, 2:, :-2] - 2 * middle,
    ]
    total = tf.add_n([tf.reduce_sum(charbonnier(d, epsilon, exponent)) for d in directions])
    return total / float32(tf.reduce_prod(tf.shape(flow)[:3]) * len(directions))


def ssim(a, b):
    """Structural dissimilarity: mean of clip((1 - SSIM) / 2, 0, 1) over 3x3 windows, no padding.

    a, b: [B, H, W, C] in [0, 1], H and W at least 3; window means are plain averages, constants
    0.01^2 and 0.03^2. Source: Wang et al. 2004, equation 13; Godard et al. 2017, equation 2.
    """

    def windows(x):  # [9, B, H-2, W-2, C]
        height, width = tf.shape(x)[1] - 2, tf.shape(x)[2] - 2
        offsets = [(dy, dx) for dy in range(3) for dx in range(3)]
        return tf.stack([x[:, dy : dy + height, dx : dx + width] for dy, dx in offsets])

    a, b = windows(float32(a)), windows(float32(b))
    mean_a, mean_b = tf.reduce_mean(a, axis=0), tf.reduce_mean(b, axis=0)
    # Centred first: in float32 the difference of two means of squares drowns flat windows in noise.
    a, b = a - mean_a, b - mean_b
    variance_a, variance_b = tf.reduce_mean(a * a, axis=0), tf.reduce_mean(b * b, axis=0)
    covariance = tf.reduce_mean(a * b, axis=0)
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (tf.square(mean_a) + tf.square(mean_b) + c1) * (variance_a + variance_b + c2)
    return tf.reduce_mean(tf.clip_by_value((1 - above / below) / 2, 0, 1))


def smoothness(field, image, order):
    """Edge-aware smoothness: the field may bend where the image does.

    Args:
        field: [B, H, W, C], disparity or flow.
        image: [B, H, W, C'] of the same size; no gradient.
        order: 1, first differences weighted by exp(-|image difference|) of the same two pixels; or
            2, second differences weighted by the image difference across the middle pixel.

    Mean over the x direction plus mean over the y direction; |image difference| is averaged over
    channels. Source: Godard et al. 2017, equation 3; Mahjourian et al. 2018 for order 2.
    """
    if order not in (1, 2):
        raise ValueError(f"smoothness knows order 1 and 2, not {order!r}.")
    field, image = float32(field), tf.stop_gradient(float32(image))

    def along(axis):
        def at(x, start):  # the pixels from `start`, as many as have all their neighbours
            return tf.gather(x, tf.range(start, tf.shape(x)[axis] - order + start), axis=axis)

        bend = at(field, order) - at(field, order - 1)
        if order == 2:
            bend -= at(field, 1) - at(field, 0)
        edge = tf.reduce_mean(tf.abs(at(image, order) - at(image, 0)), axis=-1, keepdims=True)
        return tf.reduce_mean(tf.abs(bend) * tf.exp(-edge))

    return along(1) + along(2)
