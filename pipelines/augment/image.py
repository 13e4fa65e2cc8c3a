"""Image augmentation for whole batches, fast enough on a CPU to keep a network busy.

Every function takes images [B, H, W, 3] or clips [B, T, H, W, 3], uint8 or float in [0, 1], and
gives float32 in [0, 1] (where not, the docstring says so). `seed` is int32 [2]; the same seed gives
the same result. Parameters are drawn once an example, so all frames of a clip get the same draw.
Sizes given as arguments are static in the result, even where those of the input are unknown.
"""

import math

import numpy as np
import tensorflow as tf

from tfssl.pipelines.augment import tensorflow_io

# ITU-R BT.601 luma, the grey of PIL, torchvision and tf.image.
GREY = (0.299, 0.587, 0.114)
# Direction green-magenta in which a simple lens spreads colour (Doersch et al., ICCV 2015).
CHROMATIC_AXIS = (-1.0, 2.0, -1.0)


def to_float(images):
    """Float32 in [0, 1]: integers divided by their type's maximum, floats as they are."""
    images = tf.convert_to_tensor(images)
    return tf.cast(images, tf.float32) * (1 / _white(images))


def _white(images):
    return float(images.dtype.max) if images.dtype.is_integer else 1.0


def fold(images):
    """Images [B, ..., H, W, C] as [N, H, W, C], and how many frames each example has."""
    images = tf.convert_to_tensor(images)
    if images.shape.rank == 4:
        return images, 1
    if images.shape.rank != 5:
        raise ValueError(f"images must be [B, H, W, 3] or [B, T, H, W, 3], not {images.shape}")
    frames = images.shape[1] or tf.shape(images)[1]
    folded = tf.reshape(images, tf.concat([[-1], tf.shape(images)[2:]], 0))
    known = None not in images.shape[:2].as_list()
    folded.set_shape([math.prod(images.shape[:2]) if known else None, *images.shape[2:]])
    return folded, frames


def examples_in(images):
    """The number of examples, static where known: TensorFlow's planner complains otherwise."""
    return images.shape[0] or tf.shape(images)[0]


def unfold(folded, images):
    """The inverse of fold; height, width and channels may have changed."""
    if images.shape.rank == 4:
        folded.set_shape([images.shape[0], *folded.shape[1:]])
        return folded
    shape = tf.concat([tf.shape(images)[:2], tf.shape(folded)[1:]], 0)
    result = tf.reshape(folded, shape)
    result.set_shape([*images.shape[:2], *folded.shape[1:]])
    return result


def for_frames(draws, frames):
    """Draws [B, ...] repeated for every frame [B * T, ...]."""
    return draws if isinstance(frames, int) and frames == 1 else tf.repeat(draws, frames, axis=0)


def uniform(seed, images, *shape):
    return tf.random.stateless_uniform([examples_in(images), *shape], seed)


def _chosen(seed, images, probability):
    """Which examples get it: bool [B, 1, ..., 1], of the rank of images."""
    chosen = uniform(seed, images) < probability
    return tf.reshape(chosen, [-1] + [1] * (images.shape.rank - 1))


def resize(images, size):
    """Stretched to [B, size, size, 3], antialiased bilinear; the aspect ratio is not kept."""
    images = tf.convert_to_tensor(images)
    folded, _ = fold(images)
    # The kernel's weights sum to 1 within rounding only.
    resized = tf.image.resize(folded, [size, size], antialias=True) * (1 / _white(images))
    return unfold(tf.clip_by_value(resized, 0.0, 1.0), images)


def centre_crop(images, size, fraction=1.0):
    """The central square, `fraction` of the shorter side wide, as [B, size, size, 3].

    Antialiased bilinear. `fraction=0.875` is the classic crop of 224 from 256.
    """
    images = tf.convert_to_tensor(images)
    folded, _ = fold(images)
    height, width = tf.shape(folded)[1], tf.shape(folded)[2]
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(tf.cast(tf.round(shorter * fraction), tf.int32), 1)
    top, left = (height - side) // 2, (width - side) // 2
    square = folded[:, top : top + side, left : left + side]
    resized = tf.image.resize(square, [size, size], antialias=True) * (1 / _white(images))
    return unfold(tf.clip_by_value(resized, 0.0, 1.0), images)


def crop_boxes(height, width, batch, seed, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)):
    """Random crops in pixels: float32 [batch, 4] of top, left, height, width.

    `area` is the range of the uniform fraction of the image's area, `aspect` that of width over
    height, uniform in its logarithm (as torchvision; the Inception original draws it uniformly).
    Ten tries; when none fits, the largest central crop whose aspect is allowed.
    """
    tries = 10
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    u = tf.random.stateless_uniform([batch, 4, tries], seed)
    fraction = area[0] + u[:, 0] * (area[1] - area[0])
    low, high = math.log(aspect[0]), math.log(aspect[1])
    ratio = tf.exp(low + u[:, 1] * (high - low))
    w = tf.sqrt(fraction * height * width * ratio)
    h = tf.sqrt(fraction * height * width / ratio)
    fits = (w <= width) & (h <= height)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    found = tf.reduce_any(fits, axis=1)
    w, h, y, x = (tf.gather(v, first, axis=1, batch_dims=1) for v in (w, h, u[:, 2], u[:, 3]))
    w = tf.where(found, w, tf.minimum(width, height * aspect[1]))
    h = tf.where(found, h, tf.minimum(height, width / aspect[0]))
    y, x = tf.where(found, y, 0.5), tf.where(found, x, 0.5)
    return tf.stack([y * (height - h), x * (width - w), h, w], axis=1)


def crop(images, boxes, size, flip=None):
    """Crops `boxes` [B, 4] (top, left, height, width in pixels) as [B, size, size, 3].

    Bilinear at pixel centres, mirrored left to right where `flip` (bool [B]) says so. Crops of
    three or more times `size` are sampled more densely and averaged, so that large photographs do
    not alias. Positions in the outer half pixel of the image are moved inside it.
    """
    images = tf.convert_to_tensor(images)
    return unfold(_crop(images, boxes, size, flip) * (1 / _white(images)), images)


def _crop(images, boxes, size, flip):
    """Crops of the folded images, still in the units of the input."""
    folded, frames = fold(images)
    static = folded.shape[1:3].as_list()
    dense = 1
    if None in static or max(static) >= 3 * size:
        longest = tf.reduce_max(boxes[:, 2:])
        dense = tf.maximum(tf.cast(tf.floor(longest / (2 * size) + 0.5), tf.int32), 1)
    samples = tf.cast(size * dense, tf.float32)
    extent = tf.cast(tf.shape(folded)[1:3], tf.float32)
    start, length = boxes[:, :2], boxes[:, 2:]
    first = start + 0.5 * length / samples - 0.5
    last = start + length - 0.5 * length / samples - 0.5
    # crop_and_resize paints black whatever lies outside the image by so much as a rounding error.
    inside = 1e-6 * extent
    first = tf.clip_by_value(first, tf.minimum(inside, extent - 1), extent - 1 - inside)
    last = tf.clip_by_value(last, tf.minimum(inside, extent - 1), extent - 1 - inside)
    if flip is not None:
        mirrored = tf.stack([tf.zeros_like(flip), flip], axis=1)
        first, last = tf.where(mirrored, last, first), tf.where(mirrored, first, last)
    ends = tf.concat([first, last], axis=1) / tf.tile(tf.maximum(extent - 1, 1.0), [2])
    ends = tf.maximum(for_frames(ends, frames), 0.0)
    # Half as fast again on floats as on bytes, and two views share the cast.
    folded = tf.cast(folded, tf.float32)
    sides = [size * dense] * 2
    crops = tf.image.crop_and_resize(folded, ends, tf.range(examples_in(folded)), sides)
    if not isinstance(dense, int):
        crops = tf.cond(dense > 1, lambda: _average(crops, size, dense), lambda: crops)
    crops.set_shape([folded.shape[0], size, size, folded.shape[3]])
    return crops


def _average(images, size, dense):
    shape = tf.stack([tf.shape(images)[0], size, dense, size, dense * tf.shape(images)[3]])
    rows = tf.reduce_mean(tf.reshape(images, shape), axis=2)
    shape = tf.stack([tf.shape(images)[0], size, size, dense, tf.shape(images)[3]])
    return tf.reduce_mean(tf.reshape(rows, shape), axis=3)


def _draw_crop(images, seed, area, aspect, flip):
    seeds = tf.random.split(seed, 2)
    height, width = tf.shape(images)[-3], tf.shape(images)[-2]
    boxes = crop_boxes(height, width, examples_in(images), seeds[0], area, aspect)
    return boxes, uniform(seeds[1], images) < flip


def random_resized_crop(images, size, seed, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3), flip=0.5):
    """Random crops resized to [B, size, size, 3], mirrored with probability `flip`.

    The law of `crop_boxes`, sampled as in `crop` (whole pixels are not asked of the corners).
    """
    images = tf.convert_to_tensor(images)
    boxes, mirrored = _draw_crop(images, seed, area, aspect, flip)
    return crop(images, boxes, size, mirrored)


def random_square_crop(images, size, seed, share=1.0):
    """A square window, `share` of the shorter side wide and anywhere, as [B, size, size, 3].

    What resizing the shorter side to size / share pixels and cutting out `size` gives, in one
    interpolation; not mirrored.
    """
    images = tf.convert_to_tensor(images)
    extent = tf.cast(tf.shape(images)[-3:-1], tf.float32)
    side = share * tf.reduce_min(extent)
    start = uniform(seed, images, 2) * (extent - side)
    return crop(images, tf.concat([start, tf.fill(tf.shape(start), side)], axis=1), size)


def turned_crop(images, boxes, angle, size):
    """Crops `boxes` [B, 4] (top, left, height, width in pixels) turned by `angle` [B] in radians.

    The picture within [B, size, size, 3] turns counter-clockwise about the box's centre. Bilinear;
    what lies outside the image is its mirror picture, so that no frame tells how far was turned.
    Boxes of three or more times `size` are sampled more densely and averaged.
    """
    images = tf.convert_to_tensor(images)
    folded, frames = fold(images)
    dense = 1
    if None in folded.shape[1:3] or max(folded.shape[1:3]) >= 3 * size:
        longest = tf.reduce_max(boxes[:, 2:])
        dense = tf.maximum(tf.cast(tf.floor(longest / (2 * size) + 0.5), tf.int32), 1)
    samples = tf.cast(size * dense, tf.float32)
    (top, left, height, width), middle = tf.unstack(boxes, axis=1), (samples - 1) / 2
    down, right = height / samples, width / samples
    cos, sin = tf.cos(angle), tf.sin(angle)
    xx, xy, yx, yy = cos * right, -sin * down, sin * right, cos * down
    x = left + (width - 1) / 2 - middle * (xx + xy)
    y = top + (height - 1) / 2 - middle * (yx + yy)
    nothing = tf.zeros_like(x)
    crops = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(folded, tf.float32) * (1 / _white(images)),
        transforms=for_frames(tf.stack([xx, xy, x, yx, yy, y, nothing, nothing], 1), frames),
        output_shape=tf.stack([size * dense] * 2),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    if not isinstance(dense, int):
        crops = tf.cond(dense > 1, lambda: _average(crops, size, dense), lambda: crops)
    crops.set_shape([folded.shape[0], size, size, folded.shape[3]])
    return unfold(crops, images)


def random_crop_with_padding(images, size, seed, padding=4):
    """A random window [B, size, size, 3] of the image framed with `padding` black pixels.

    The usual CIFAR crop: pad 4, crop 32. No interpolation. Raises where the frame is too small.
    """
    images = tf.convert_to_tensor(images)
    folded, frames = fold(images)
    framed = tf.pad(folded, [[0, 0], [padding] * 2, [padding] * 2, [0, 0]])
    room = tf.shape(framed)[1:3] - size
    known = [s + 2 * padding - size for s in folded.shape[1:3] if s is not None]
    if known and min(known) < 0:
        raise ValueError(
            f"a crop of {size} px does not fit {folded.shape[1:3]} px framed with {padding}"
        )
    corner = uniform(seed, images, 2) * tf.cast(room + 1, tf.float32)
    corner = for_frames(tf.minimum(tf.cast(corner, tf.int32), room), frames)  # [N, 2]
    for axis in (1, 2):
        window = corner[:, axis - 1, None] + tf.range(size)
        framed = tf.gather(framed, window, axis=axis, batch_dims=1)
    framed.set_shape([folded.shape[0], size, size, folded.shape[3]])
    return unfold(to_float(framed), images)


def random_flip(images, seed, probability=0.5):
    """Mirrored left to right with `probability`."""
    images = to_float(images)
    return tf.where(_chosen(seed, images, probability), tf.reverse(images, [-2]), images)


def rotate90(images, turns):
    """Rotated counter-clockwise by `turns` (int [B] or one int) quarter turns; square images only.

    Transposes and mirrors alone, so nothing is interpolated and nothing tells the angle but the
    content (Gidaris et al., ICLR 2018). Keeps the dtype of the images.
    """
    images = tf.convert_to_tensor(images)
    if images.shape[-3] != images.shape[-2]:
        raise ValueError(f"only square images can be turned by quarters, not {images.shape}")
    turns = tf.convert_to_tensor(turns, tf.int32) % 4
    *leading, height, width, channels = range(images.shape.rank)
    transposed = tf.transpose(images, [*leading, width, height, channels])
    quarters = [
        images,
        tf.reverse(transposed, [-3]),
        tf.reverse(images, [-3, -2]),
        tf.reverse(transposed, [-2]),
    ]
    shape = tf.concat([tf.shape(turns), tf.ones([tf.rank(images) - tf.rank(turns)], tf.int32)], 0)
    turns = tf.reshape(turns, shape)
    result = quarters[0]
    for k in (1, 2, 3):
        result = tf.where(turns == k, quarters[k], result)
    result.set_shape(images.shape)
    return result


def _grey_matrix():
    return tf.tile(tf.constant([GREY]), [3, 1])  # every channel becomes the luma


def _hue_matrix(turn):
    """Rotation about the grey axis by `turn` [B] of a full circle: [B, 3, 3]."""
    angle = 2 * math.pi * turn[:, None, None]
    cross = tf.constant([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    mean = tf.ones([3, 3]) / 3
    return tf.cos(angle) * (tf.eye(3) - mean) + mean + tf.sin(angle) * cross


def _jitter(mean, seed, brightness, contrast, saturation, hue, probability):
    """The affine colour map (matrix [B, 3, 3], offset [B, 3]) of one jitter an example.

    Brightness, contrast, saturation and hue are each affine in the colour, contrast once the mean
    colour [B, 3] is known, which is itself carried through the steps before.
    """
    batch = tf.shape(mean)[0]
    u = tf.random.stateless_uniform([batch, 9], seed)

    def factor(column, strength):
        low = max(0.0, 1.0 - strength)
        return (low + u[:, column] * (1.0 + strength - low))[:, None, None]

    one, grey = tf.eye(3, batch_shape=[batch]), _grey_matrix()
    saturate, contrasted = factor(2, saturation), factor(1, contrast)
    steps = tf.stack(
        [
            factor(0, brightness) * one,
            contrasted * one,
            saturate * one + (1 - saturate) * grey,
            _hue_matrix((2 * u[:, 3] - 1) * hue),
        ],
        axis=1,
    )  # [B, 4, 3, 3]
    # Contrast alone has an offset: (1 - factor) times the grey of the mean.
    pull = tf.concat([tf.zeros([batch, 1]), 1 - contrasted[:, :, 0], tf.zeros([batch, 2])], 1)
    order = tf.argsort(u[:, 4:8], axis=1)
    matrix, offset, centre = one, tf.zeros([batch, 3, 1]), mean[:, :, None]
    for k in range(4):
        step = tf.gather(steps, order[:, k], axis=1, batch_dims=1)
        shift = tf.gather(pull, order[:, k], axis=1, batch_dims=1)[:, None, None]
        shift = shift * tf.matmul(tf.broadcast_to(grey, [batch, 3, 3]), centre)
        matrix, offset, centre = (
            tf.matmul(step, matrix),
            tf.matmul(step, offset) + shift,
            tf.matmul(step, centre) + shift,
        )
    chosen = (u[:, 8] < probability)[:, None, None]
    matrix = tf.where(chosen, matrix, one)
    offset = tf.where(chosen, offset, 0.0)
    return matrix, offset[:, :, 0]


def _grey_some(matrix, offset, seed, probability):
    """Follows the colour map by a greyscale for some of the examples."""
    chosen = tf.random.stateless_uniform([tf.shape(matrix)[0]], seed) < probability
    grey = tf.broadcast_to(_grey_matrix(), tf.shape(matrix))
    matrix = tf.where(chosen[:, None, None], tf.matmul(grey, matrix), matrix)
    offset = tf.where(chosen[:, None], tf.linalg.matvec(grey, offset), offset)
    return matrix, offset


def _recolour(folded, matrix, offset):
    """clip(matrix x + offset) of every pixel: a matrix product, the fastest form on a CPU."""
    shape = tf.shape(folded)
    pixels = tf.reshape(folded, tf.stack([shape[0], -1, 3]))
    pixels = tf.matmul(pixels, matrix, transpose_b=True)
    # Whole rows at a time: broadcasting over an innermost axis of 3 is ten times slower.
    rows = tf.reshape(pixels, tf.stack([shape[0], shape[1], -1]))
    across = tf.tile(tf.eye(3), tf.stack([1, folded.shape[2] or shape[2]]))
    rows += tf.matmul(offset, across)[:, None]
    result = tf.reshape(tf.clip_by_value(rows, 0.0, 1.0), shape)
    result.set_shape(folded.shape)
    return result


def _mean_colour(images):
    """[B, 3]; by columns first, because a sum that leaves an axis of 3 alone is slow."""
    shape = tf.shape(images)
    rows = tf.reshape(images, tf.stack([shape[0], -1, shape[-2] * 3]))
    columns = tf.reshape(tf.reduce_mean(rows, axis=1), tf.stack([shape[0], shape[-2], 3]))
    return tf.reduce_mean(columns, axis=1)


def colour_jitter(
    images, seed, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8
):
    """Brightness, contrast, saturation and hue changed at random, in an order drawn for each image.

    Factors are uniform in [max(0, 1 - strength), 1 + strength] and blend with black, with the mean
    grey and with the pixel's grey; hue is a shift uniform in [-hue, hue] of a full circle. The
    defaults are SimCLR's strength 1 (Chen et al., ICML 2020, appendix A).

    Two departures buy a single matrix product a pixel: the hue circle is that about the grey axis
    (equal to HSV's at thirds of a turn, smooth between), and values are clipped once, at the end.
    A clip's contrast pulls to the mean grey of the whole clip.
    """
    images = to_float(images)
    matrix, offset = _jitter(
        _mean_colour(images), seed, brightness, contrast, saturation, hue, probability
    )
    folded, frames = fold(images)
    matrix, offset = for_frames(matrix, frames), for_frames(offset, frames)
    return unfold(_recolour(folded, matrix, offset), images)


def random_greyscale(images, seed, probability=0.2):
    """The luma in all three channels, with `probability`."""
    images = to_float(images)
    grey = tf.tensordot(images, tf.constant(GREY), 1)[..., None]
    return tf.where(_chosen(seed, images, probability), grey, images)


def _band(length, radius):
    """[radius + 1, length * length]: where tap k of a symmetric filter enters its matrix."""
    band = np.zeros([radius + 1, length, length], np.float32)
    rows = np.arange(length)
    period = max(2 * (length - 1), 1)
    for tap in range(-radius, radius + 1):
        columns = np.abs(rows + tap) % period
        columns = np.minimum(columns, period - columns) if length > 1 else 0 * columns
        np.add.at(band[abs(tap)], (rows, columns), 1.0)
    return band.reshape(radius + 1, -1)


def _blur(images, sigma, kernel):
    """Gaussian blur of float32 [N, H, W, 3] with one sigma [N] each, edges mirrored.

    Each axis is one product with a banded matrix: on a CPU several times faster than a depthwise
    convolution with a kernel for every image, and the same numbers.
    """
    _, height, width, channels = images.shape
    if height is None or width is None:
        raise ValueError("blur needs static height and width: crop or resize first")
    radius = kernel // 2
    taps = tf.exp(-0.5 * (tf.range(radius + 1, dtype=tf.float32) / sigma[:, None]) ** 2)
    taps /= 2 * tf.reduce_sum(taps, 1, keepdims=True) - 1  # the centre tap is 1 and counted once
    for length in (height, width):
        band = tf.reshape(tf.matmul(taps, _band(length, radius)), [-1, length, length])
        other = width if length is height else height
        images = tf.matmul(band, tf.reshape(images, [-1, length, other * channels]))
        images = tf.reshape(images, [-1, length, other, channels])
        images = tf.transpose(images, [0, 2, 1, 3])
    return tf.clip_by_value(images, 0.0, 1.0)


def gaussian_blur(images, seed, sigma=(0.1, 2.0), probability=0.5, kernel=None):
    """Blurred with probability `probability` by a Gaussian of standard deviation U(sigma) pixels.

    `kernel` is the odd number of taps; by default a tenth of the height, as SimCLR (23 at 224 px, 3
    at 32 px). Edges are mirrored. Height and width must be static.
    """
    images = to_float(images)
    folded, frames = fold(images)
    if kernel is None:
        kernel = default_kernel(folded.shape[1])
    u = uniform(seed, images, 2)
    sigmas = for_frames(sigma[0] + u[:, 0] * (sigma[1] - sigma[0]), frames)
    if probability == 1:
        return unfold(_blur(folded, sigmas, kernel), images)
    chosen = tf.where(for_frames(u[:, 1] < probability, frames))  # [M, 1]
    some = tf.gather_nd(folded, chosen)
    some.set_shape([None, *folded.shape[1:]])
    some = _blur(some, tf.gather_nd(sigmas, chosen), kernel)
    return unfold(tf.tensor_scatter_nd_update(folded, chosen, some), images)


def default_kernel(height):
    """SimCLR's number of taps: a tenth of the height, made odd, at least 3."""
    if height is None:
        raise ValueError("blur needs static height and width: crop or resize first")
    return 2 * max(1, height // 10 // 2) + 1


def solarise(images, seed, threshold=0.5, probability=0.2):
    """Values at or above `threshold` inverted, with `probability`."""
    images = to_float(images)
    inverted = tf.where(images >= threshold, 1 - images, images)
    return tf.where(_chosen(seed, images, probability), inverted, images)


def contrastive_view(
    images,
    size,
    seed,
    area=(0.08, 1.0),
    aspect=(3 / 4, 4 / 3),
    flip=0.5,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    jitter=0.8,
    grey=0.2,
    blur=0.5,
    sigma=(0.1, 2.0),
    solarisation=0.0,
):
    """One random view [B, size, size, 3]: crop, flip, colour jitter, grey, blur, solarisation.

    The pipeline that SimCLR set and its successors turn the knobs of: `jitter`, `grey`, `blur`,
    `flip` and `solarisation` are probabilities, the rest are the arguments of the functions above.
    Equal to those functions one after the other, save that grey comes before the clip of the
    jitter, as the same matrix product does both.
    """
    images = tf.convert_to_tensor(images)
    seeds = tf.random.split(seed, 5)
    boxes, mirrored = _draw_crop(images, seeds[0], area, aspect, flip)
    crops = _crop(images, boxes, size, mirrored)  # in the units of the input
    _, frames = fold(images)
    white = _white(images)
    mean = _mean_colour(unfold(crops, images)) / white
    matrix, offset = _jitter(mean, seeds[1], brightness, contrast, saturation, hue, jitter)
    matrix, offset = _grey_some(matrix, offset, seeds[2], grey)
    matrix, offset = for_frames(matrix / white, frames), for_frames(offset, frames)
    views = unfold(_recolour(crops, matrix, offset), images)
    if blur > 0:
        views = gaussian_blur(views, seeds[3], sigma, blur)
    if solarisation > 0:
        views = solarise(views, seeds[4], probability=solarisation)
    return views


def rgb_to_lab(images):
    """sRGB in [0, 1] to CIE Lab (D65, 2 degrees): L in [0, 100], a and b within about +-110."""
    images = to_float(images)
    return tensorflow_io().experimental.color.rgb_to_lab(images)


def lab_to_rgb(lab):
    """CIE Lab (D65, 2 degrees) to sRGB, clipped to [0, 1]."""
    rgb = tensorflow_io().experimental.color.lab_to_rgb(tf.convert_to_tensor(lab))
    return tf.clip_by_value(rgb, 0.0, 1.0)


def project_colour(images):
    """Colours with their green-magenta part taken out: p B, B = I - a^T a / (a a^T).

    Against chromatic aberration, which tells where in the image a patch was (Doersch et al., ICCV
    2015, section 3.1). Grey stays. Values lie in [-1/6, 7/6], for B is a projection, not a colour.
    """
    axis = np.array(CHROMATIC_AXIS)
    projection = np.eye(3) - np.outer(axis, axis) / (axis @ axis)
    return tf.tensordot(to_float(images), tf.constant(projection, tf.float32), 1)


def drop_colour(images, seed):
    """One channel kept, less its mean; the other two are noise U(-0.5, 0.5) / 255.

    The other guard against chromatic aberration (Doersch et al., ICCV 2015, section 3.1; levels of
    noise as in the released code). The result is signed; scale it as the method asks.
    """
    images = to_float(images)
    seeds = tf.random.split(seed, 2)
    kept = tf.random.stateless_uniform([tf.shape(images)[0]], seeds[0], 0, 3, tf.int32)
    kept = tf.reshape(tf.one_hot(kept, 3, True, False), [-1] + [1] * (images.shape.rank - 2) + [3])
    noise = tf.random.stateless_uniform(tf.shape(images), seeds[1], -0.5, 0.5) / 255
    centred = images - tf.reduce_mean(images, axis=[-3, -2], keepdims=True)
    return tf.where(kept, centred, noise)
