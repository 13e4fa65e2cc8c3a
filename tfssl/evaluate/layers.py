"""Where in the network the useful features sit: a linear probe on every tap."""

import keras
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.evaluate import features
from tfssl.evaluate.knn import counts
from tfssl.evaluate.linear import PENALTIES, fit

# (side of the map, channels): (kernel, stride, padding) of the average pooling that brought it to
# about 9,000 values. The first four are AlexNet's, the next four AlexNet's with conv1 at stride 2,
# the last five ResNet-50's stem and stages (Goyal et al., ICCV 2019).
FAIR = {
    (55, 96): (19, 4, 0),
    (27, 256): (12, 3, 0),
    (13, 384): (9, 1, 0),
    (13, 256): (8, 1, 0),
    (109, 96): (28, 9, 0),
    (54, 256): (24, 6, 0),
    (26, 384): (14, 3, 0),
    (26, 256): (16, 2, 0),
    (112, 64): (10, 10, 4),
    (56, 256): (16, 8, 0),
    (28, 512): (13, 5, 0),
    (14, 1024): (8, 3, 0),
    (7, 2048): (6, 1, 0),
}
# Caron et al., ECCV 2018, for AlexNet at 224 px; padded zeros count in the average.
DEEPCLUSTER = {
    (55, 96): (6, 6, 3),
    (27, 256): (4, 4, 0),
    (13, 384): (3, 3, 1),
    (13, 256): (2, 2, 0),
}
POOLINGS = {"adaptive": {}, "fair": FAIR, "deepcluster": DEEPCLUSTER}


def layers(
    encoder,
    train,
    test,
    dimensions=1024,
    pooling="adaptive",
    penalties=PENALTIES,
    validation=0.2,
    iterations=200,
    seed=0,
    label="label",
    **reading,
):
    """One linear probe per tap, each as `linear` (Zhang et al., ECCV 2016, section 3.2).

    A map [H, W, C] is averaged over the finest square grid with at most `dimensions` values
    (`adaptive_average`); so are a vision transformer's patches [N, C], laid out as they lie in the
    picture, without the class token. Other tokens are averaged over N. 9,600 dimensions give the
    grids of the AlexNet tables: 10x10x96, 6x6x256, 5x5x384, 5x5x384, 6x6x256. The default is
    smaller so that L-BFGS stays quick; the number is in the result. More channels are all kept.
    `layers_sgd` trains the tables' own probes.

    Args:
        encoder: a Keras model with tap layers, or a SavedModel with a `representation` signature.
        train, test: labelled examples, in any form that `features.extract` reads.
        dimensions: most values per example and tap.
        pooling: see `pooled`.
        penalties, validation, iterations, seed: as in `linear`.
        label, **reading: as in `features.extract`.

    Returns:
        dict: for every tap, in the network's order, `<tap>_top1`, `<tap>_top1_low`,
        `<tap>_top1_high`, `<tap>_C` and `<tap>_dimensions`; then `taps` (how many), `dimensions`,
        `pooling`, `C_from`, `standardised`, `validation`, `iterations`, `train_examples`,
        `test_examples`, `classes`.

    Raises:
        BadInput: an encoder without taps, an unknown pooling, and all that `linear` raises.
    """
    reading.update(label=label, pooling=pooling)
    gallery, train_labels = tap_features(encoder, train, dimensions, **reading)
    queries, test_labels = tap_features(encoder, test, dimensions, **reading)
    y, truth, names = features.number(train_labels, test_labels)
    result, last = {}, {}
    for tap in gallery:
        features.refuse_other_widths(gallery[tap].shape[1:], queries[tap])
        last = fit(
            gallery[tap], y, queries[tap], truth, names, penalties, validation, iterations, seed
        )
        for metric in ("top1", "top1_low", "top1_high", "C"):
            result[f"{tap}_{metric}"] = last[metric]
        result[f"{tap}_dimensions"] = gallery[tap].shape[1]
    settings = ("C_from", "standardised", "validation", "iterations")
    return {
        **result,
        "taps": len(gallery),
        "dimensions": dimensions,
        "pooling": pooling,
        **{name: last[name] for name in settings},
        **counts(y, truth, names),
    }


def tap_features(
    encoder,
    examples,
    dimensions=1024,
    label="label",
    batch_size=256,
    key="",
    size=0,
    pooling="adaptive",
):
    """({tap: [N, d] float32} in the network's order, labels [N] or None), d <= `dimensions`."""
    run, order = pooled_taps(encoder, dimensions, pooling)
    results, columns = features.run(run, encoder, examples, batch_size, key, size, label, keep=())
    # A traced function sorts the keys of what it returns.
    return {tap: results[tap] for tap in order(results)}, columns.get("label")


def pooled_taps(encoder, dimensions, pooling):
    """(batch -> {tap: [B, d]}, function that puts tap names in the network's order)."""
    if pooling not in POOLINGS:
        raise BadInput(f"pooling is one of {', '.join(POOLINGS)}, not {pooling!r}")
    taps, order = representation(encoder)

    def run(x):
        found = {tap: as_map(value, x) for tap, value in taps(x).items()}
        return {tap: pooled(found[tap], dimensions, pooling) for tap in order(found)}

    return features.traced(run), order


def pooled(x, dimensions=9600, pooling="adaptive"):
    """[B, ..., C] -> [B, d] float32, by a table's own average pooling where its maps are met.

    `pooling`: "fair" and "deepcluster" take the kernel, stride and padding that were published for
    a map of this side and these channels; every other map, and "adaptive", is averaged by
    `adaptive_average` to at most `dimensions` values.
    """
    x = tf.cast(x, tf.float32)
    sides, channels = set(x.shape[1:-1]), x.shape[-1]
    side = sides.pop() if len(sides) == 1 else None
    if x.shape.rank != 4 or (side, channels) not in POOLINGS[pooling]:
        return adaptive_average(x, dimensions)
    kernel, stride, padding = POOLINGS[pooling][side, channels]
    around = [[0, 0], [padding] * 2, [padding] * 2, [0, 0]]
    x = tf.nn.avg_pool2d(tf.pad(x, around), kernel, stride, "VALID")
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2] * channels])


def as_map(x, images):
    """Tokens [B, N, C] of images' patches (and a class token) as a map; others as they are."""
    size = () if isinstance(images, dict) or images.shape.rank != 4 else images.shape[1:3]
    if x.shape.rank != 3 or None in (x.shape[1], *size) or not size:
        return x
    height, width = size
    for extra in (0, 1):  # the class token stands first
        count = x.shape[1] - extra
        rows = round((count * height / width) ** 0.5)
        if rows and count % rows == 0 and rows * width == height * (count // rows):
            return tf.reshape(x[:, extra:], [-1, rows, count // rows, x.shape[-1]])
    return x


def representation(encoder):
    """(batch -> {tap: tensor}, function that puts tap names in the network's order)."""
    from tfssl import encoders

    signatures = getattr(encoder, "signatures", None) or {}
    if isinstance(encoder, keras.Model) and getattr(encoder, "inputs", None):
        names = encoders.tap_names(encoder)
        if names:
            return encoders.representation(encoder), lambda found: [n for n in names if n in found]
    elif "representation" in signatures:
        call = signatures["representation"]
        inputs = list(call.structured_input_signature[1])

        def restored(x):
            return call(**(x if isinstance(x, dict) else {inputs[0]: x}))

        return restored, lambda found: sorted((n for n in found if n != "features"), key=_natural)
    elif callable(getattr(encoder, "representation", None)):
        return encoder.representation, lambda found: sorted(found, key=_natural)
    raise BadInput(
        "this encoder shows no inner layers: per-layer probes need a Keras model with layers named "
        "c1, c2, ... or block_1, block_2, ..., or a SavedModel with a 'representation' signature"
    )


def _natural(name):
    """block_2 before block_10."""
    digits = "".join(c for c in name if c.isdigit())
    return name.rstrip("0123456789"), int(digits or 0)


def adaptive_average(x, dimensions):
    """[B, ..., C] -> [B, d] float32: averaged over the finest grid with d <= `dimensions`.

    The grid has the same number of cells along every axis; cell i of g averages the positions
    floor(i n / g) to ceil((i + 1) n / g) of n. Tokens [B, N, C] are averaged over all N.
    """
    x = tf.cast(x, tf.float32)
    inner = x.shape.rank - 2
    if inner < 1:
        return x
    if inner == 1:
        return tf.reduce_mean(x, axis=1)
    channels = x.shape[-1]
    # The 1e-9 keeps an exact root (100 of 10 x 10) from falling below itself.
    side = max(1, int((dimensions / channels) ** (1 / inner) + 1e-9))
    cells = channels
    for axis in range(1, inner + 1):
        length = x.shape[axis]
        grid = side if length is None else min(side, length)
        cells *= grid
        if grid != length:
            weights = _cells(tf.shape(x)[axis], grid)
            x = tf.tensordot(x, weights, [[axis], [1]])
            x = tf.experimental.numpy.moveaxis(x, -1, axis)
    return tf.reshape(x, [-1, cells])


def _cells(length, grid):
    """[grid, length] weights whose rows average one cell each."""
    cell = tf.range(grid)[:, None]
    position = tf.range(length)[None]
    first = cell * length // grid
    last = -(-(cell + 1) * length // grid)
    inside = tf.cast((position >= first) & (position < last), tf.float32)
    return inside / tf.reduce_sum(inside, axis=1, keepdims=True)
