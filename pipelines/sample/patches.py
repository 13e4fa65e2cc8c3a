"""Patches of images for the spatial pretexts: cut at whole pixels, never interpolated.

Images [B, H, W, 3], uint8 or float in [0, 1], square or not; patches come out float32 in [0, 1].
`seed` is int32 [2]; every example has its own draw.
"""

import functools
import itertools
import math

import numpy as np
import tensorflow as tf

from tfssl.pipelines.augment.image import to_float
from tfssl.pipelines.errors import BadInput

PLACES = 16  # where a seed patch may lie, before one is drawn by its gradients
# Where the second patch lies seen from the first, as (down, right), in the order of the labels:
# 0 up-left, 1 up, 2 up-right, 3 left, 4 right, 5 down-left, 6 down, 7 down-right.
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def neighbour_label(down, right):
    """The label 0..7 of an offset of -1, 0 or 1 cells, raster order without the centre."""
    return NEIGHBOURS.index((down, right))


def lattice(size):
    """Patch, gap and jitter in pixels for a 3x3 lattice on a square image of `size` pixels.

    16, 6, 2 at 64 px and 8, 3, 1 at 32 px: a strip of pixels always stays free between neighbours,
    so that no line can be followed from one into the next.
    """
    return {"patch": size // 4, "gap": 3 * size // 32, "jitter": size // 32}


def cut(images, corners, patch):
    """Patches [B, P, patch, patch, 3] whose upper left corners are `corners` int32 [B, P, 2]."""
    images = tf.convert_to_tensor(images)
    rows = corners[..., 0, None] + tf.range(patch)  # [B, P, patch]
    columns = corners[..., 1, None] + tf.range(patch)
    # Whole rows first, then columns: copying pixel by pixel is several times slower.
    strips = tf.gather(images, rows, axis=1, batch_dims=1)  # [B, P, patch, W, 3]
    patches = tf.gather(tf.transpose(strips, [0, 1, 3, 2, 4]), columns, axis=2, batch_dims=2)
    patches = tf.transpose(patches, [0, 1, 3, 2, 4])
    patches.set_shape([images.shape[0], corners.shape[1], patch, patch, images.shape[3]])
    return to_float(patches)


def _place(images, cells, seed, grid, patch, gap, jitter):
    """Corners [B, P, 2] of the lattice's `cells` int32 [B, P, 2], with origin and jitter drawn."""
    used = grid * patch + (grid - 1) * gap
    if any(side is not None and side < used for side in images.shape[1:3]):
        raise ValueError(
            f"a lattice of {grid}x{grid} patches of {patch} px with gaps of {gap} needs {used} px; "
            f"the images have {images.shape[1]}x{images.shape[2]}: choose smaller patches"
        )
    seeds = tf.random.split(seed, 2)
    extent = tf.shape(images)[1:3]
    batch = tf.shape(images)[0]
    room = tf.cast(extent - used, tf.float32)
    origin = tf.random.stateless_uniform([batch, 1, 2], seeds[0]) * (room + 1)
    origin = tf.minimum(tf.cast(origin, tf.int32), extent - used)
    moved = tf.random.stateless_uniform(
        tf.shape(cells), seeds[1], -jitter, jitter + 1, dtype=tf.int32
    )
    return tf.clip_by_value(origin + cells * (patch + gap) + moved, 0, extent - patch)


def grid_patches(images, seed, grid, patch, gap, jitter):
    """All patches of a grid x grid lattice, in raster order: [B, grid * grid, patch, patch, 3].

    The lattice's origin is uniform over where it fits; each patch then moves by an integer uniform
    in [-jitter, jitter] down and right, kept inside the image. Raises where it does not fit.
    """
    images = tf.convert_to_tensor(images)
    cells = tf.stack(tf.meshgrid(tf.range(grid), tf.range(grid), indexing="ij"), axis=-1)
    cells = tf.reshape(cells, [1, grid * grid, 2])
    cells = tf.tile(cells, tf.stack([tf.shape(images)[0], 1, 1]))
    return cut(images, _place(images, cells, seed, grid, patch, gap, jitter), patch)


def neighbour_patches(images, seed, patch, gap, jitter, grid=3):
    """Two neighbouring patches and where the second lies: [B, 2, patch, patch, 3], int32 [B].

    The label is uniform over the eight NEIGHBOURS and the first patch uniform over the cells of the
    lattice that have that neighbour (Doersch et al., ICCV 2015; `lattice` has the small sizes).
    """
    images = tf.convert_to_tensor(images)
    seeds = tf.random.split(seed, 3)
    batch = tf.shape(images)[0]
    labels = tf.random.stateless_uniform([batch], seeds[0], 0, len(NEIGHBOURS), tf.int32)
    offset = tf.gather(tf.constant(NEIGHBOURS), labels)  # [B, 2]
    u = tf.random.stateless_uniform([batch, 2], seeds[1])
    choices = grid - tf.abs(offset)
    first = tf.cast(u * tf.cast(choices, tf.float32), tf.int32)
    first = tf.minimum(first, choices - 1) + tf.maximum(-offset, 0)
    cells = tf.stack([first, first + offset], axis=1)
    corners = _place(images, cells, seeds[2], grid, patch, gap, jitter)
    return cut(images, tf.ensure_shape(corners, [None, 2, 2]), patch), labels


def tiles(images, seed, grid, tile, shift=0):
    """One tile from each cell of a grid over the whole image: [B, grid * grid, tile, tile, 3].

    Cells are as large as fit, the grid is centred, and each tile is placed uniformly in its cell,
    raster order (Noroozi & Favaro, ECCV 2016: 85 px cells, 64 px tiles). Each channel of a tile is
    moved on by up to `shift` pixels down and right, as far as the cell goes, which breaks the
    fringes that a lens draws. A tile as large as its cell leaves nothing to chance. Raises where a
    tile is larger than its cell.
    """
    images = tf.convert_to_tensor(images)
    if any(side is not None and side // grid < tile for side in images.shape[1:3]):
        raise ValueError(
            f"tiles of {tile} px do not fit the {grid}x{grid} cells of images of "
            f"{images.shape[1]}x{images.shape[2]}: choose smaller tiles"
        )
    batch = tf.shape(images)[0]
    extent = tf.shape(images)[1:3]
    side = extent // grid
    cells = tf.stack(tf.meshgrid(tf.range(grid), tf.range(grid), indexing="ij"), axis=-1)
    cells = tf.reshape(cells, [1, grid * grid, 2])
    u = tf.random.stateless_uniform([batch, grid * grid, 2], seed)
    inside = tf.cast(u * tf.cast(side - tile + 1, tf.float32), tf.int32)
    inside = tf.minimum(inside, side - tile)
    origin = (extent - grid * side) // 2 + cells * side
    if not shift:
        return cut(images, tf.ensure_shape(origin + inside, [None, grid * grid, 2]), tile)
    moves = _moves([batch, grid * grid], seed, shift)
    corners = [tf.minimum(inside + move, side - tile) + origin for move in moves]
    return _by_channel(images, [tf.ensure_shape(c, [None, grid * grid, 2]) for c in corners], tile)


def shifted_channels(images, seed, shift):
    """Each channel's own window, up to `shift` pixels down and right: [B, H - shift, W - shift, 3].

    For square images of a known size. Against chromatic aberration, as in `tiles`.
    """
    images = tf.convert_to_tensor(images)
    moves = _moves([tf.shape(images)[0], 1], seed, shift)
    moves = [tf.ensure_shape(move, [None, 1, 2]) for move in moves]
    return _by_channel(images, moves, images.shape[1] - shift)[:, 0]


def _moves(shape, seed, shift):
    """Three int32 [*shape, 2] uniform in 0..shift, one for each channel."""
    own = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int32), 3)
    drawn = tf.random.stateless_uniform([3, *shape, 2], own, 0, shift + 1, tf.int32)
    return tf.unstack(drawn)


def _by_channel(images, corners, patch):
    return tf.concat([cut(images[..., c : c + 1], corners[c], patch) for c in range(3)], axis=-1)


def seed_boxes(images, number, extent=(0.25, 0.5)):
    """Where seed patches lie: float32 [B, 4] of top, left, height, width, the same at every call.

    Squares of a share of the shorter side uniform in `extent`, at one of 16 random places, drawn in
    proportion to the mean squared gradient there (section 2.1). All draws follow from the seeds'
    numbers [B].
    """
    u = tf.map_fn(
        lambda n: tf.random.stateless_uniform([2 + 2 * PLACES], tf.stack([n, 0])),
        tf.cast(number, tf.int64),
        fn_output_signature=tf.TensorSpec([2 + 2 * PLACES], tf.float32),
    )
    sides = tf.shape(images)[1:3]
    shorter = tf.cast(tf.reduce_min(sides), tf.float32)
    side = tf.cast(tf.round(shorter * (extent[0] + (extent[1] - extent[0]) * u[:, :1])), tf.int32)
    side = tf.clip_by_value(side, 1, tf.reduce_min(sides))  # [B, 1]
    free = tf.cast(sides[None, None] - side[:, None], tf.float32)
    starts = tf.reshape(u[:, 2:], [-1, PLACES, 2]) * (free + 1)
    starts = tf.minimum(tf.cast(starts, tf.int32), tf.cast(free, tf.int32))
    # A flat image has no gradient anywhere: all its places are then equally good.
    energy = gradient_energy(images, starts, side[:, None]) + 1e-9
    share = tf.cumsum(energy, axis=1) / tf.reduce_sum(energy, axis=1, keepdims=True)
    best = tf.reduce_sum(tf.cast(share[:, :-1] < u[:, 1:2], tf.int32), axis=1)
    start = tf.cast(tf.gather(starts, best, axis=1, batch_dims=1), tf.float32)
    return tf.concat([start, tf.tile(tf.cast(side, tf.float32), [1, 2])], axis=1)


def gradient_energy(images, starts, side):
    """Mean squared gradient of the grey image in squares: [B, P] for corners [B, P, 2]."""
    grey = tf.reduce_mean(to_float(images), axis=-1)
    down = tf.square(tf.pad(grey[:, 1:] - grey[:, :-1], [[0, 0], [0, 1], [0, 0]]))
    right = tf.square(tf.pad(grey[:, :, 1:] - grey[:, :, :-1], [[0, 0], [0, 0], [0, 1]]))
    sums = tf.cumsum(tf.cumsum(down + right, axis=1), axis=2)
    sums = tf.pad(sums, [[0, 0], [1, 0], [1, 0]])  # of all above and left of a corner
    ends = starts + side

    def at(rows, columns):
        return tf.gather_nd(sums, tf.stack([rows, columns], axis=-1), batch_dims=1)

    (top, left), (bottom, far) = tf.unstack(starts, axis=-1), tf.unstack(ends, axis=-1)
    total = at(bottom, far) - at(top, far) - at(bottom, left) + at(top, left)
    return tf.maximum(total, 0.0) / tf.cast(side * side, tf.float32)[..., 0]


def quadrants(images):
    """The four quarters in raster order, every pixel in exactly one: [B, 4, H / 2, W / 2, 3].

    Both sides must be known. Raises ValueError where one of them is odd.
    """
    if any(side % 2 for side in images.shape[1:3]):
        raise ValueError(
            f"images of {images.shape[1]}x{images.shape[2]} have no four equal quarters: give even "
            "sides"
        )
    half = [side // 2 for side in images.shape[1:3]]
    parts = tf.reshape(images, [-1, 2, half[0], 2, half[1], images.shape[3]])
    parts = tf.transpose(parts, [0, 1, 3, 2, 4, 5])
    return tf.reshape(parts, [-1, 4, *half, images.shape[3]])


def standardise(patches, axes=(1, 2, 3)):
    """Patches [B, h, w, 3] with the mean of every channel taken out and a root mean square of 1.

    Over `axes`: (1, 2, 3) for all channels together, (1, 2) for each by itself. What is of one
    colour (less than a four-hundredth of a grey level from it) becomes 0.
    """
    centred = patches - tf.reduce_mean(patches, axis=[1, 2], keepdims=True)
    square = tf.reduce_mean(tf.square(centred), axis=axes, keepdims=True)
    return tf.where(square > 1e-10, centred * tf.math.rsqrt(tf.maximum(square, 1e-10)), 0.0)


@functools.cache
def permutations(count, items=9, candidates=20_000):
    """Orders of `items` tiles that lie far apart: int array [count, items], the same at every call.

    Greedy: from all orders (or, where there are more, from `candidates` random ones) the one whose
    nearest relative among those chosen differs in most places; of several the one farthest from
    all. The distance to the nearest counts and not the mean, whose greatest value (9 tiles: 8.08
    at 100 orders) allows pairs that differ in two places only. Noroozi & Favaro, ECCV 2016,
    algorithm 1. Raises where there are fewer orders than asked.
    """
    if math.factorial(items) <= candidates:
        pool = np.array(list(itertools.permutations(range(items))))
    else:
        # This generator's numbers are the same for ever, those of default_rng need not be.
        random = np.random.RandomState(0).rand(candidates, items)
        pool = np.unique(random.argsort(axis=1), axis=0)
    if count > len(pool):
        raise BadInput(f"orders={count}: {items} tiles have {len(pool)} orders to choose from")
    pool = pool.astype(np.int8)
    nearest, total, chosen = np.full(len(pool), items), np.zeros(len(pool), int), []
    for _ in range(count):
        # One place of the nearest outweighs all that the total can say.
        best = int(np.argmax(nearest * (items * count + 1) + total))
        chosen.append(best)
        distance = (pool != pool[best]).sum(axis=1)
        nearest, total = np.minimum(nearest, distance), total + distance
        nearest[best] = -1
    result = pool[chosen].astype(np.int32)
    result.setflags(write=False)
    return result
