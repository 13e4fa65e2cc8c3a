"""Semantic segmentation: a fully convolutional head on an encoder's maps, measured by mean IoU."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.evaluate import features, inputs
from tfssl.evaluate.finetune import reproducible, trainable_copy
from tfssl.evaluate.layers import as_map, representation
from tfssl.evaluate.linear import batch_norm, refuse_diverged, settle

# What data sets call their map of classes; `segmentation` is ours.
KEYS = ("segmentation", "segmentation_mask", "segmentation_label", "annotation", "label_map")
# The side to which pictures of several sizes are brought where nothing else says one.
SIDE = 256
# How many of the deepest maps are scored: FCN-8s adds two finer ones to the coarsest.
MAPS = 3


def segmentation(
    encoder,
    train,
    test,
    taps=(),
    frozen=True,
    iterations=300,
    batch_size=8,
    learning_rate=5e-3,
    flip=True,
    size=0,
    ignore=255,
    classes=0,
    seed=0,
    key="image",
):
    """FCN-8s on taps, mean intersection over union (Long et al., CVPR 2015, section 4).

    Every tap is scored by a 1 x 1 convolution that begins at zero; from the coarsest on, scores
    are enlarged bilinearly and added to the next finer ones, and at last enlarged to the picture.
    Trained on all pixels by softmax cross-entropy. Departures: a batch norm without scale and
    shift before each score (taps differ in size by orders of magnitude), Adam with cosine decay
    instead of SGD at a fixed rate, the trunk frozen unless told otherwise.

    Args:
        encoder: a Keras model with tap layers, or a SavedModel with a `representation` signature.
        train, test: datasets of dicts, batched or not, with `image` and a map of classes int
            [H, W] or [H, W, 1] under one of `KEYS`, or `masks` [H, W] of objects beside
            `object_label` [n] as `world` has them (class 0 is then the background, an object's
            class its label + 1; a clip counts by its first frame); dicts of arrays; or tuples
            (images, maps) of arrays, or of lists where sizes differ. Grey pictures serve as ones
            in three equal colours.
        taps: names of the taps to score; () for the last three whose maps differ in size.
        frozen: False trains the encoder too, in a copy, and needs a Keras model.
        iterations, batch_size, learning_rate: of the fit.
        flip: half of the pictures are mirrored in training.
        size: side in pixels, or (height, width), to which pictures are brought for the network;
            0: as the encoder demands, else as they are where all have one size, else 256.
            Predictions are enlarged to the true map's own size before they are counted.
        ignore: pixels whose true class is this count neither in training nor in testing.
        classes: how many; 0: what the maps hold, of training and test: what only the test shows
            is always wrong.
        seed: of the order, the mirroring and the bootstrap.
        key: what the encoder reads.

    Returns:
        dict: `mean_iou` with `mean_iou_low` and `mean_iou_high` (95 %, bootstrap over test
        pictures), over the classes that occur in truth or prediction; `iou` (a list by class, None
        where it occurs in neither), `pixel_accuracy`, `majority_mean_iou` (of always predicting the
        training set's commonest class), `size` (a side, or [height, width]) and the settings.

    Raises:
        BadInput: data without a map of classes, an encoder of another kind than pictures or without
            maps, classes beyond `classes`, a loss that is not finite.
    """
    train, test = examples(train, key), examples(test, key)
    inputs.refuse_other_kinds(encoder, "segmentation")
    for part in (train, test):
        inputs.refuse_misfits(inputs.input_specs(encoder), part.element_spec[0], batched=False)
    shape = _asked_shape(encoder, size)
    histogram, sizes = _looked_at(train, ignore)
    held, others = _looked_at(test, ignore, "test")
    shape = shape or ((SIDE, SIDE) if len(sizes | others) > 1 else sizes.pop())
    most = max(len(histogram), len(held))
    count = classes or most
    if most > count:
        raise BadInput(f"the true maps hold class {most - 1}, but classes is {count}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(reproducible(seed))
        network = encoder if frozen else stack.enter_context(trainable_copy(encoder))
        model = FCN(network, taps, classes or len(histogram), shape, frozen)
        steps = keras.optimizers.schedules.CosineDecay(learning_rate, iterations)
        model.compile(
            keras.optimizers.Adam(steps),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignore),
            jit_compile=False,
        )
        data = _training(train, shape, batch_size, flip, ignore, seed)
        fitted = model.fit(data, epochs=1, steps_per_epoch=iterations, shuffle=False, verbose=0)
        refuse_diverged(fitted.history["loss"])
        for norm in model.norms:
            settle(norm, iterations)
        tables = _confusions(model, test, shape, count, ignore)
    guess = np.zeros([count, count], np.int64)
    guess[:, int(np.argmax(histogram))] = tables.sum((0, 2))
    whole = tables.sum(0)
    low, high = _interval(tables, seed)
    return {
        "mean_iou": mean(whole),
        "mean_iou_low": low,
        "mean_iou_high": high,
        "iou": [None if np.isnan(value) else float(value) for value in per_class(whole)],
        "pixel_accuracy": float(np.trace(whole) / max(1, whole.sum())),
        "majority_mean_iou": mean(guess),
        "taps": list(model.taps),
        "frozen": frozen,
        "size": shape[0] if shape[0] == shape[1] else list(shape),
        "height": shape[0],
        "width": shape[1],
        "iterations": iterations,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "flip": flip,
        "ignore": ignore,
        "train_examples": _count(train),
        "test_examples": len(tables),
        "classes": count,
    }


def per_class(table):
    """IoU of every class from a confusion table [truth, prediction]; NaN where it does not occur.

    n_cc / (row_c + column_c - n_cc) (Everingham et al. 2015, section 4.3).
    """
    both = np.diagonal(table).astype(np.float64)
    either = table.sum(0) + table.sum(1) - both
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)


def mean(table):
    """Mean IoU over the classes that occur in truth or prediction; NaN if none does."""
    found = per_class(table)
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def confusion(prediction, truth, classes, ignore=255):
    """[classes, classes] counts of (truth, prediction) over all pixels that are not ignored.

    Every true class is below `classes`; below zero are the unknown, left out like the ignored.
    """
    kept = (truth != ignore) & (truth >= 0)
    pairs = truth[kept].astype(np.int64) * classes + prediction[kept]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


class FCN(keras.Model):
    """Scores of an encoder's taps, from coarse to fine: images [B, H, W, 3] -> [B, H, W, K]."""

    def __init__(self, encoder, taps, classes, shape, frozen=True):
        super().__init__(dtype="float32")
        tapped, order = representation(encoder)
        if not frozen:
            from tfssl import encoders

            encoder = encoders.get(encoder)
            self.trunk = keras.Model(encoder.input, encoders.taps_of(encoder))
            tapped = self.trunk
        self.tapped = [tapped]  # In a list, or Keras would look for layers inside it.
        self.frozen = frozen
        found = {
            name: value.shape for name, value in self.maps(tf.zeros([1, *shape, 3]), order).items()
        }
        unknown = [name for name in taps if name not in found]
        if unknown or not found:
            raise BadInput(
                f"this encoder has no maps {', '.join(unknown) or 'at all'} to segment by; it has "
                f"{', '.join(found) or 'none'}"
            )
        self.taps = tuple(taps) or _last_of_each_size(found)
        self.norms = [batch_norm() for _ in self.taps]
        self.scores = [
            keras.layers.Conv2D(classes, 1, kernel_initializer="zeros") for _ in self.taps
        ]

    def maps(self, images, order=None, training=False):
        """{tap: [B, h, w, C] float32}, of those that are maps or a square of tokens."""
        outputs = self.tapped[0](images, **({} if self.frozen else {"training": training}))
        names = order(outputs) if order else self.taps
        found = {name: as_map(outputs[name], images) for name in names}
        return {
            name: tf.cast(value, tf.float32)
            for name, value in found.items()
            if value.shape.rank == 4
        }

    def call(self, images, training=False):
        maps = self.maps(images, training=training)
        total = None
        for name, norm, score in list(zip(self.taps, self.norms, self.scores))[::-1]:
            found = tf.stop_gradient(maps[name]) if self.frozen else maps[name]
            found = score(norm(found, training=training))
            total = found if total is None else found + _enlarged(total, tf.shape(found)[1:3])
        return _enlarged(total, tf.shape(images)[1:3])


def _enlarged(x, size):
    return tf.image.resize(x, size)


def _last_of_each_size(shapes):
    """Of the taps at each resolution the last, then the `MAPS` deepest, from fine to coarse."""
    last = {}
    for name, shape in shapes.items():
        last.pop(tuple(shape[1:3]), None)
        last[tuple(shape[1:3])] = name
    return tuple(last.values())[-MAPS:]


def examples(data, key="image"):
    """Any form of segmentation data -> unbatched (image, map of classes int32 [H, W])."""
    if isinstance(data, tuple):
        data = dict(zip((key, KEYS[0]), data))
    if isinstance(data, dict):
        data = features.in_rows(data)
    spec = data.element_spec if isinstance(data.element_spec, dict) else {}
    has = [name for name in KEYS if name in spec]
    by_object = "masks" in spec and "object_label" in spec
    if key not in spec or not (has or by_object):
        raise BadInput(
            f"segmentation needs {key!r} and a map of classes: one of {', '.join(KEYS)}, or masks "
            f"with object_label; the examples hold {', '.join(spec) or 'no names'}"
        )
    if spec[key].shape.rank == 4:
        data = data.unbatch()

    def pair(example):
        if has:
            truth = tf.cast(example[has[0]], tf.int32)
            truth = truth[..., 0] if truth.shape.rank == 3 else truth
        else:
            masks = example["masks"][0] if example["masks"].shape.rank == 3 else example["masks"]
            labels = tf.cast(example["object_label"], tf.int32) + 1
            truth = tf.gather(tf.concat([[0], labels], 0), tf.cast(masks, tf.int32))
        return features.scaled(features.coloured(example[key])), truth

    return data.map(pair, num_parallel_calls=tf.data.AUTOTUNE)


def _asked_shape(encoder, size):
    """(height, width) that the encoder demands or the caller asks for; None: the pictures' own."""
    asked = (size, size) if isinstance(size, int) else tuple(size)
    declared = inputs.input_specs(encoder)
    wanted = next(iter(declared.values()))[0] if declared else (None,) * 4
    if len(wanted) == 4 and wanted[1] and wanted[2]:
        if size and asked != wanted[1:3]:
            raise BadInput(
                f"the encoder takes pictures of {wanted[1]} x {wanted[2]} pixels only, not of "
                f"{asked[0]} x {asked[1]}: leave the size out"
            )
        return wanted[1:3]
    return asked if size else None


def _looked_at(data, ignore, part="training"):
    """(pixels of every class in the true maps, {(height, width) of a picture})."""
    total, sizes = np.zeros(0, np.int64), set()
    for image, truth in data:
        sizes.add(tuple(image.shape[:2]))
        truth = truth.numpy()
        found = np.bincount(truth[(truth != ignore) & (truth >= 0)].ravel())
        longest = max(len(total), len(found))
        total = np.pad(total, (0, longest - len(total))) + np.pad(found, (0, longest - len(found)))
    if not total.sum():
        raise BadInput(f"the {part} maps hold no pixel that counts: check `ignore`, or the split")
    return total, sizes


def _count(data):
    known = int(data.cardinality())
    return known if known >= 0 else sum(1 for _ in data)


def _training(data, shape, batch_size, flip, ignore, seed):
    """Endless batches (images, maps of classes) at the network's size."""

    def ready(image, truth):
        image = tf.ensure_shape(tf.image.resize(image, shape, antialias=True), [*shape, 3])
        truth = tf.image.resize(truth[..., None], shape, method="nearest")[..., 0]
        # Unknown classes below zero are left out like the ignored ones.
        return image, tf.where(truth < 0, ignore, truth)

    def mirrored(number, pair):
        image, truth = pair
        half = tf.random.stateless_uniform([], tf.stack([tf.cast(seed, tf.int64), number])) < 0.5
        return tf.cond(half, lambda: (image[:, ::-1], truth[:, ::-1]), lambda: (image, truth))

    count = _count(data)
    data = data.map(ready, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.cache() if 16 * shape[0] * shape[1] * count <= 2**30 else data
    data = data.shuffle(min(count, 1000), seed=seed).repeat()
    if flip:
        data = data.enumerate().map(mirrored)
    return data.batch(min(batch_size, count), drop_remainder=True).prefetch(2)


def _confusions(model, data, shape, classes, ignore):
    """[N, classes, classes]: a confusion table for every test picture, at its own size."""

    @tf.function(reduce_retracing=True)
    def predict(image, size):
        image = tf.ensure_shape(tf.image.resize(image, shape, antialias=True), [*shape, 3])
        return tf.argmax(_enlarged(model(image[None], training=False), size)[0], -1)

    tables = [
        confusion(predict(image, tf.shape(truth)).numpy(), truth.numpy(), classes, ignore)
        for image, truth in data
    ]
    if not tables:
        raise BadInput("the test set is empty: there is nothing to evaluate on")
    return np.stack(tables)


def _interval(tables, seed, samples=1000):
    """95 % percentile bootstrap over pictures."""
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(len(tables), np.full(len(tables), 1 / len(tables)), samples)
    found = [mean(np.tensordot(weight, tables, 1)) for weight in weights]
    return tuple(float(limit) for limit in np.nanquantile(found, [0.025, 0.975]))
