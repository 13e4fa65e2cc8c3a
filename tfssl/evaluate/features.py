"""Turns any encoder and any data set into arrays: features, labels, positions."""

import inspect
import weakref
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders, savedmodel
from tfssl.errors import BadInput
from tfssl.evaluate.finite import check_finite, check_weights
from tfssl.evaluate.inputs import RANKS, input_specs, kind, refuse_misfits

# From this many shapes on, one trace serves all further ones: a folder may hold any size.
_SHAPES = 4

_compiled = weakref.WeakKeyDictionary()


class Features(NamedTuple):
    """What `extract` gives; every array has one row per example, in the data set's order."""

    features: np.ndarray  # [N, D] float32
    labels: np.ndarray | None  # [N], integers or strings as they came
    index: np.ndarray | None  # [N] int64
    columns: dict  # whatever else was asked for with `keep`


def extract(encoder, examples, batch_size=256, key="", size=0, label="label", keep=()):
    """Features of every example, computed in inference mode.

    Args:
        encoder: anything callable on a batch: a Keras model or layer, what `tf.saved_model.load`,
            `hub.load` or `tfssl.load` returned, a `tf.function`, a plain function. Outputs with
            axes between batch and channels ([B, H, W, C], [B, N, C]) are averaged over them.
        examples: a `tf.data.Dataset` of example dicts or of (input, label), batched or not; a
            tuple (inputs, labels) of arrays (a list of inputs may hold several sizes); an array of
            inputs; a dict of arrays. uint8 becomes float32 in [0, 1]; floats are taken as they are
            (of pictures in [0, 1], also by Keras models that rescale 0..255: see `encoders.get`).
            `Features` are given back as they are, so that several protocols can share one pass.
        batch_size: for data sets that are not batched yet.
        key: which key of an example the encoder reads; "" chooses by the encoder's input shape.
        size: side in pixels to which pictures are brought (shorter side resized, centre cropped).
            0: as they are, or as the encoder's fixed input shape demands.
        label: the annotation key that holds the class.
        keep: further keys to carry along, into `columns`.

    Returns:
        `Features`.

    Raises:
        BadInput: no examples, no fitting input, inputs of other channels or (of fixed-length
            sounds) another length, or weights or features that are not finite numbers.
    """
    if isinstance(examples, Features):
        check_finite(examples.features)
        return examples
    results, columns = run(
        inference(encoder), encoder, examples, batch_size, key, size, label, keep
    )
    features = results["features"]
    return Features(features, columns.pop("label", None), columns.pop("index", None), columns)


def labelled(encoder, train, test, **settings):
    """Features of both sets, and their labels as class numbers.

    Returns:
        (train features [N, D], train classes int [N], test features [M, D], test classes int [M],
        names): class numbers index `names`, which lists the training set's classes first, sorted,
        then those that only the test set has.

    Raises:
        BadInput: a set without labels, or a training set with a single class.
    """
    gallery = extract(encoder, train, **settings)
    queries = extract(encoder, test, **settings)
    train_classes, test_classes, names = number(gallery.labels, queries.labels)
    return gallery.features, train_classes, queries.features, test_classes, names


def read_labels(examples, label="label", batch_size=1024):
    """Labels [N] as they came, without running any encoder; None where there are none."""
    if isinstance(examples, Features):
        return examples.labels
    if isinstance(examples, tuple) and len(examples) == 2:
        return _flat(examples[1])
    if label == "label" and hasattr(examples, "labels"):  # of a source that knows them unread
        return np.array(examples.labels)
    data = _as_dataset(examples, label)
    if label not in data.element_spec:
        return None
    rank = data.element_spec[label].shape.rank
    only = data.map(lambda example: example[label])
    parts = [_column(part) for part in (only.batch(batch_size) if rank == 0 else only)]
    if not parts:
        raise BadInput("the data set is empty: there is nothing to evaluate on")
    return _flat(np.stack(parts) if parts[0].ndim == 0 else np.concatenate(parts))


def number(train_labels, test_labels):
    """Labels of any kind -> (int [N], int [M], names); the training set's classes come first."""
    for labels, what in ((train_labels, "training"), (test_labels, "test")):
        if labels is None:
            raise BadInput(
                f"the {what} set has no labels, and this protocol needs them: give a folder with "
                "one sub-folder per class, or a data set whose examples have the key 'label'"
            )
        if not len(labels):
            raise BadInput(f"the {what} set is empty: there is nothing to evaluate on")
    train_labels, test_labels = _flat(train_labels), _flat(test_labels)
    kinds = [np.asarray(labels).dtype.kind in "USO" for labels in (train_labels, test_labels)]
    if kinds[0] != kinds[1]:
        raise BadInput(
            "the labels of one set are strings and those of the other numbers "
            f"({train_labels[0]!s} in training, {test_labels[0]!s} in testing): give both alike"
        )
    known = np.unique(train_labels)
    if len(known) < 2:
        raise BadInput(
            f"all training examples have the same label ({known[0]!s}): a probe needs at least "
            "two classes; check the split, or that the data set is really labelled"
        )
    names = np.concatenate([known, np.setdiff1d(test_labels, known)])
    return numbered(train_labels, names), numbered(test_labels, names), names


def numbered(labels, names):
    """Labels of any kind -> their positions in `names`, int [N], as `number` gives these."""
    lookup = {name: number for number, name in enumerate(names.tolist())}
    labels = _flat(labels).tolist()
    unknown = [label for label in labels if label not in lookup]
    if unknown:
        raise BadInput(
            f"the label {unknown[0]!s} was not there when the labels were read before: a data set "
            "must hold the same examples on every pass, in whatever order"
        )
    return np.array([lookup[label] for label in labels], np.int64)


def inference(encoder):
    """The encoder as a function batch -> {"features": [B, D] float32}, never in training mode.

    Keras models are compiled once and the compiled function is kept as long as the model lives, so
    a probe after every epoch traces nothing again.
    """
    if isinstance(encoder, keras.layers.Layer):
        if encoder not in _compiled:
            # A strong reference in the closure would keep the model alive for ever.
            reference = weakref.ref(encoder)
            mode = {"training": False} if _takes_training(encoder.call) else {}
            scale = encoders.BYTES if encoders.takes_bytes(encoder) else None
            _compiled[encoder] = traced(
                lambda x: {"features": vectors(reference()(scale * x if scale else x, **mode))},
            )
        return _compiled[encoder]
    if inspect.isfunction(encoder) or inspect.ismethod(encoder):
        call = _with_mode(encoder, _takes_training(encoder))
    else:
        call = restored(encoder)
    return lambda x: {"features": vectors(call(x))}


def traced(function):
    """`function` of a batch, compiled once per shape of an example, whatever the batch's size."""
    compiled = tf.function(function, autograph=False)
    known = {}

    def call(x):
        specs = tf.nest.map_structure(_free_batch, x)
        if str(specs) not in known and len(known) >= _SHAPES:
            specs = tf.nest.map_structure(_free_shape, x)
        if str(specs) not in known:
            known[str(specs)] = compiled.get_concrete_function(specs)
        return known[str(specs)](x)

    return call


def _free_batch(x):
    return tf.TensorSpec([None, *x.shape[1:]], x.dtype)


def _free_shape(x):
    channels = x.shape[-1:] if x.shape.rank > 2 else []
    return tf.TensorSpec([None] * (x.shape.rank - len(channels)) + [*channels], x.dtype)


def restored(encoder):
    """What was loaded of a SavedModel as a function of (batch, training=False).

    A restored function tells the arguments, shapes and types that it was traced for only by
    refusing others. So its ways of being called are tried in turn, on every batch anew.
    """
    ways = []
    if callable(encoder):
        ways += [lambda x, mode: encoder(x, training=mode), lambda x, mode: encoder(x)]
    if hasattr(encoder, "serve"):
        ways.append(lambda x, mode: encoder.serve(x))
    signatures = getattr(encoder, "signatures", None) or {}
    if "serving_default" in signatures:
        ways.append(lambda x, mode: savedmodel.served(signatures["serving_default"], x))
    if not ways:
        raise BadInput(
            f"an encoder is anything that can be called on a batch; {type(encoder).__name__} "
            "cannot: give a Keras model, a loaded SavedModel or a function"
        )

    def call(x, training=False):
        refusals = []
        for way in ways:
            try:
                return way(x, training)
            except (TypeError, ValueError) as refusal:
                refusals.append(refusal)
        raise refusals[0]

    return call


def _takes_training(function):
    try:
        return "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _with_mode(function, takes_training):
    if takes_training:
        return lambda x: function(x, training=False)
    return function


def vectors(output):
    """Whatever an encoder returns -> [B, D] float32."""
    if isinstance(output, dict):
        known = [name for name in ("features", "default", "pooled_output") if name in output]
        output = output[known[0] if known else next(iter(output))]
    elif isinstance(output, (list, tuple)):
        output = output[0]
    output = tf.cast(tf.convert_to_tensor(output), tf.float32)
    rank = output.shape.rank
    if rank is not None and rank < 2:
        raise BadInput(
            f"an encoder gives features [batch, dimensions]; this one gave the shape {output.shape}"
        )
    if rank is not None and rank > 2:
        output = tf.reduce_mean(output, axis=list(range(1, rank - 1)))
    return output


def run(function, encoder, examples, batch_size, key, size, label, keep):
    """Runs `function` (batch -> dict of [B, ...]) over all examples, in order."""
    check_weights(encoder)
    outputs, positions, columns = [], [], {}
    for x, extra, where in batches(encoder, examples, batch_size, key, size, label, keep):
        outputs.append({name: np.asarray(value) for name, value in function(x).items()})
        positions.append(where)
        for name, value in extra.items():
            columns.setdefault(name, []).append(value)
    if not outputs:
        raise BadInput("the data set is empty: there is nothing to evaluate on")
    positions = np.concatenate(positions)
    order = np.argsort(positions, kind="stable")
    sorted_already = np.array_equal(order, np.arange(len(order)))
    arrange = (lambda a: a) if sorted_already else (lambda a: a[order])
    results = {}
    for name in list(outputs[0]):
        parts = [output.pop(name) for output in outputs]
        refuse_other_widths(parts[0].shape[1:], *parts)
        results[name] = arrange(np.concatenate(parts))
        check_finite(results[name])
    return results, {name: arrange(np.concatenate(parts)) for name, parts in columns.items()}


def refuse_other_widths(width, *parts):
    """Raises BadInput for features [B, ...] whose axes behind the first are not `width`."""
    widths = {tuple(width), *(tuple(part.shape[1:]) for part in parts)}
    if len(widths) > 1:
        raise BadInput(
            "the encoder gives feature vectors of several lengths, as for pictures of several "
            "sizes: state size= (pixels)"
        )


def batches(encoder, examples, batch_size=256, key="", size=0, label="label", keep=()):
    """Yields (input batch as the encoder takes it, {column: array}, positions int [B])."""
    data, batched, ragged = dataset(encoder, examples, key, size, label, keep)
    declared = input_specs(encoder)
    for x, extra, positions in _batches(data, batched, ragged, batch_size):
        refuse_misfits(declared, x)
        yield x, extra, positions


def _batches(data, batched, ragged, batch_size):
    if batched or not ragged:
        start = 0
        for x, extra in data if batched else data.batch(batch_size):
            count = _length(x)
            extra = {name: _column(value) for name, value in extra.items()}
            yield scaled(x), extra, np.arange(start, start + count)
            start += count
        return
    yield from _by_shape(data, batch_size)


def _by_shape(data, batch_size):
    """Pictures or sounds of several sizes: batches of one size each, with bounded waiting."""
    waiting, pending = {}, 0

    def flush(shape):
        rows = waiting.pop(shape)
        x = tf.nest.map_structure(lambda *parts: tf.stack(parts), *[row[0] for row in rows])
        extra = {name: np.stack([row[1][name] for row in rows]) for name in rows[0][1]}
        return scaled(x), extra, np.array([row[2] for row in rows])

    for position, (x, extra) in enumerate(data):
        shape = tuple(tuple(part.shape) for part in tf.nest.flatten(x))
        extra = {name: _column(value) for name, value in extra.items()}
        waiting.setdefault(shape, []).append((x, extra, position))
        pending += 1
        fullest = max(waiting, key=lambda shape: len(waiting[shape]))
        # A folder in which every picture has its own size must not be held in memory whole.
        if len(waiting[fullest]) == batch_size or pending >= 4 * batch_size:
            pending -= len(waiting[fullest])
            yield flush(fullest)
    for shape in list(waiting):
        yield flush(shape)


def dataset(encoder, examples, key="", size=0, label="label", keep=()):
    """Any form of examples -> (Dataset of (input, {column: value}), batched?, several sizes?)."""
    data = _as_dataset(examples, label)
    spec = data.element_spec
    names = _names(encoder, spec, key)
    batched = _is_batched(data, encoder, names[0], label)
    targets = {name: _target(encoder, spec, name, size, batched) for name in names}
    kept = [name for name in dict.fromkeys(("label", "index", *keep)) if name in spec]
    if label != "label" and label in spec:
        kept = [name for name in kept if name != "label"]

    def select(example):
        inputs = {name: _shaped(example[name], name, **targets[name]) for name in names}
        extra = {name: example[name] for name in kept}
        if label != "label" and label in spec:
            extra["label"] = example[label]
        return (inputs if len(names) > 1 else inputs[names[0]]), extra

    select = tf.autograph.experimental.do_not_convert(select)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread would hold up the end of each pass
    data = data.map(select, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2).with_options(options)
    refuse_misfits(input_specs(encoder), data.element_spec[0], batched)
    shapes = [part.shape for part in tf.nest.flatten(data.element_spec[0])]
    ragged = any(not shape.is_fully_defined() for shape in shapes)
    return data, batched, ragged


def _as_dataset(examples, label):
    if isinstance(examples, tf.data.Dataset):
        if isinstance(examples.element_spec, dict):
            return examples
        if isinstance(examples.element_spec, tuple) and len(examples.element_spec) == 2:
            return examples.map(lambda x, y: _merged(x, y, label))
        return examples.map(lambda x: {"inputs": x})
    if isinstance(examples, dict):
        return tf.data.Dataset.from_tensor_slices(examples)
    if isinstance(examples, tuple) and len(examples) == 2:
        inputs, labels = examples
        if len(inputs) != len(labels):
            raise BadInput(
                f"{len(inputs)} inputs but {len(labels)} labels: give one label per input"
            )
        columns = {label: _flat(labels)}
    else:
        inputs, columns = examples, {}
    if len(inputs) == 0:
        raise BadInput("the data set is empty: there is nothing to evaluate on")
    return in_rows({"inputs": inputs, **columns})


def in_rows(columns):
    """{name: an array, or a list that may hold several sizes} -> Dataset of dicts."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadInput(f"every example needs one of each, but there are {lengths}")
    return tf.data.Dataset.zip({name: _rows(values) for name, values in columns.items()})


def _rows(values):
    objects = getattr(values, "dtype", None) == np.dtype(object)
    if isinstance(values, list) or (objects and not isinstance(values[0], (str, bytes))):
        values = [np.asarray(x) for x in values]
        sizes = [set(lengths) for lengths in zip(*(x.shape for x in values))]
        if any(len(lengths) > 1 for lengths in sizes):
            shape = [lengths.pop() if len(lengths) == 1 else None for lengths in sizes]
            spec = tf.TensorSpec(shape, tf.as_dtype(values[0].dtype))
            return tf.data.Dataset.from_generator(lambda: iter(values), output_signature=spec)
        values = np.stack(values)
    return tf.data.Dataset.from_tensor_slices(values)


def _merged(x, y, label):
    return {**(x if isinstance(x, dict) else {"inputs": x}), label: y}


def _names(encoder, spec, key):
    """Which keys of an example the encoder reads."""
    if key:
        if key not in spec:
            raise BadInput(f"the examples have no key {key!r}; they have: {', '.join(spec)}")
        return [key]
    if "inputs" in spec:
        return ["inputs"]
    declared = input_specs(encoder)
    if len(declared) > 1 and all(name in spec for name in declared):
        return list(declared)
    present = [name for name in RANKS if name in spec]
    if declared:
        shape, dtype = next(iter(declared.values()))
        wanted = kind(shape, dtype)
        if wanted in present:
            return [wanted]
        if wanted:
            raise BadInput(
                f"the encoder takes {wanted} (input shape {shape}), but the examples have only: "
                f"{', '.join(spec)}; give data with {wanted}, or the key to read"
            )
    if not present:
        raise BadInput(
            f"the examples hold nothing that an encoder reads ({', '.join(RANKS)}), only: "
            f"{', '.join(spec)}; name the key to read"
        )
    return present[:1]


def _is_batched(data, encoder, name, label):
    spec = data.element_spec

    def rank(key):
        if key not in spec:
            return None
        found = spec[key].shape.rank
        if found is None:
            found = np.ndim(next(iter(data))[key])
        return found

    if rank("index") is not None:
        return rank("index") == 1
    if name in RANKS:
        return rank(name) == RANKS[name] + 1
    declared = input_specs(encoder)
    if declared:
        return rank(name) == len(next(iter(declared.values()))[0])
    if rank(label) is not None:
        return rank(label) > 0
    # Arrays are sliced above; a data set of bare tensors with a free first axis is a batched one.
    shape = spec[name].shape
    return shape.rank is None or (shape.rank > 0 and shape[0] is None)


def _target(encoder, spec, name, size, batched):
    """What must be done to an input of this name so that the encoder takes it."""
    shape = spec[name].shape
    nothing = dict(height=0, width=0, channels=0, frames=0)
    is_text = spec[name].dtype == tf.string
    rank = None if shape.rank is None else shape.rank + (0 if batched else 1)
    if is_text or rank not in (4, 5):
        return nothing
    declared = input_specs(encoder)
    wanted = declared.get(name, next(iter(declared.values()))) if declared else None
    wanted = wanted[0] if wanted and len(wanted[0]) == rank else (None,) * rank
    height, width = (size, size) if size else (wanted[-3] or 0, wanted[-2] or 0)
    if tuple(shape[-3:-1]) == (height, width):
        height = width = 0
    frames = wanted[1] if rank == 5 and wanted[1] else 0
    channels = 3 if wanted[-1] == 3 and shape[-1] in (None, 1) else 0
    return dict(height=height, width=width, channels=channels, frames=frames)


def _shaped(x, name, height, width, channels, frames):
    if isinstance(x, tf.RaggedTensor) and height and width:
        x = tf.map_fn(
            lambda row: centred(row.to_tensor(), height, width),
            x,
            fn_output_signature=tf.TensorSpec([height, width, x.shape[-1]], tf.float32),
        )
        height = width = 0
    elif isinstance(x, tf.RaggedTensor):
        raise BadInput(
            f"{name!r} is ragged: state size= so that all are brought to one size, or give an "
            "unbatched data set"
        )
    if frames:
        start = (tf.shape(x)[-4] - frames) // 2
        x = tf.ensure_shape(
            x[..., start : start + frames, :, :, :], [*x.shape[:-4], frames, *x.shape[-3:]]
        )
    if channels:
        x = coloured(x)
    if height and width:
        x = centred(x, height, width)
    return x


def coloured(images):
    """Grey pictures [..., 1] as [..., 3]; others stay. Which they are may show at run time only."""
    channels = images.shape[-1]
    if channels not in (None, 1):
        return images
    times = 3 if channels else tf.where(tf.shape(images)[-1] == 1, 3, 1)
    return tf.tile(images, [1] * (images.shape.rank - 1) + [times])


def centred(images, height, width):
    """Images [..., H, W, C] -> float32 [..., height, width, C]: resized to cover, centre cropped.

    uint8 becomes [0, 1]. Antialiased bilinear, as a crop of a photograph is resized in training.
    """
    images = scaled(images)
    leading = tf.shape(images)[:-3]
    static = images.shape
    flat = tf.reshape(images, tf.concat([[-1], tf.shape(images)[-3:]], 0))
    size = tf.shape(images)[-3:-1]
    target = tf.constant([height, width], tf.float32)
    scale = tf.reduce_max(target / tf.cast(size, tf.float32))
    covering = tf.cast(tf.math.round(tf.cast(size, tf.float32) * scale), tf.int32)
    covering = tf.maximum(covering, [height, width])
    flat = tf.image.resize(flat, covering, antialias=True)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    flat = flat[:, top : top + height, left : left + width]
    result = tf.reshape(flat, tf.concat([leading, [height, width, tf.shape(images)[-1]]], 0))
    result = tf.ensure_shape(result, [*static[:-3], height, width, static[-1]])
    return tf.clip_by_value(result, 0.0, 1.0)


def scaled(x: Any):
    """uint8 (and uint16) -> float32 in [0, 1]; everything else stays."""
    if isinstance(x, dict):
        return {name: scaled(value) for name, value in x.items()}
    if x.dtype in (tf.uint8, tf.uint16):
        return tf.cast(x, tf.float32) / float(x.dtype.max)
    if x.dtype in (tf.float64, tf.float16, tf.bfloat16):
        return tf.cast(x, tf.float32)
    return x


def _length(x):
    return int(tf.nest.flatten(x)[0].shape[0])


def _column(value):
    value = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
    if value.dtype == object and value.ndim:
        return np.array([v.decode() if isinstance(v, bytes) else v for v in value])
    return np.array(value.decode()) if isinstance(value, bytes) else value


def _flat(labels):
    """Labels -> [N]; one-hot rows become class numbers."""
    labels = labels.numpy() if hasattr(labels, "numpy") else np.asarray(labels)
    if labels.dtype.kind in "OS" and labels.ndim:
        labels = np.array([v.decode() if isinstance(v, bytes) else v for v in labels])
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise BadInput(
            f"the label of example number {np.argwhere(np.isnan(labels))[0][0]} is NaN: leave out "
            "examples without a class, or give them one of their own"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and (np.count_nonzero(labels, axis=1) == 1).all():
        labels = labels.argmax(axis=1)
    if labels.ndim != 1:
        raise BadInput(
            f"this protocol needs one class per example, but the labels have the shape "
            f"{labels.shape}: name the key that holds the class"
        )
    return labels
