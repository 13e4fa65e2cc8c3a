"""What an encoder makes of some examples, kept for the report: features, thumbnails, neighbours."""

import pathlib

import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.evaluate.features import scaled, vectors
from tfssl.files import written_whole
from tfssl.layers.kmeans import unit_rows
from tfssl.report.draw import as_array, bytes_of, log_mel, picture_bytes, words

KEYS = ("image", "frames", "audio", "text")
FILE = "features.npz"


def gather(encoder, batches, run_dir, key=None, limit=1000, queries=6, k=5, side=64, classes=()):
    """Writes `features.npz` into a run directory, for the feature map and the nearest neighbours.

    Args:
      encoder: any callable on a batch that returns features [B, D] (or [B, ..., D], which are
        averaged, or a dict with "features"): a Keras model, a loaded SavedModel, a function.
      batches: iterable of dicts with `image` [B, H, W, 3], `frames` [B, T, H, W, 3] (uint8, or
        floats in [0, 1]), `audio` [B, N] or `text` [B], and optionally `label` [B], which only
        colours the pictures.
      run_dir: the run directory.
      key: which of these the encoder takes; None: the first of them that is there.
      limit: the number of examples kept, at most: drawn evenly over all batches that can be asked
        for `some(limit)`, as those of `tfssl.pipelines.batching.evaluation` can; else the first.
      queries, k: that many examples, evenly taken, are shown with their k nearest by cosine.
      side: width and height of a thumbnail in pixels.
      classes: names of the labels 0, 1, ..., for the legend.

    Returns:
      The path of the file. It holds `features` float32 [N, D]; `thumbnails` uint8
      [N, side, side, 3] (a clip's middle frame, a sound's log-mel) or `texts` [N]; `queries`
      int [Q]; `neighbours` int [Q, k] and their `similarities`, nearest first, the query left
      out; `label` int [N] and `classes` where known; `parameters`, where the encoder can count.

    Raises:
      BadInput: there are fewer than two examples, or `key` is not in them.
    """
    if hasattr(batches, "some"):
        batches = batches.some(limit)
    features, thumbnails, texts, labels, count = [], [], [], [], 0
    for batch in batches:
        key = key or next((name for name in KEYS if name in batch), None)
        if key not in batch:
            raise BadInput(
                f"the examples have no {key or ' or '.join(KEYS)!r}, only {', '.join(batch)}: "
                "name the key that the encoder takes"
            )
        inputs = batch[key]
        array = as_array(inputs)[: limit - count]
        outputs = encoder(scaled(tf.convert_to_tensor(inputs)))
        features.append(vectors(outputs).numpy()[: limit - count])
        if "label" in batch and np.ndim(batch["label"]) == 1:
            labels.append(as_array(batch["label"])[: limit - count])
        if array.dtype.kind in "OSU" or (array.dtype.kind in "iu" and array.ndim <= 2):
            texts += [words(item) for item in array]
        else:
            rate = float(np.ravel(as_array(batch.get("sample_rate", 16000)))[0])
            thumbnails += [_thumbnail(item, rate, side) for item in array]
        count += len(array)
        if count >= limit:
            break
    if count < 2:
        raise BadInput(f"neighbours need at least two examples, and the dataset has {count}")
    features = np.concatenate(features).astype(np.float32)
    kept = {"features": features, **_neighbours(features, min(queries, count), min(k, count - 1))}
    if texts:
        kept["texts"] = np.array(texts)
    else:
        kept["thumbnails"] = np.stack(thumbnails)
    if sum(map(len, labels)) == count:
        kept["label"] = np.concatenate(labels)
        if len(classes):
            kept["classes"] = np.array([str(name) for name in classes])
    parameters = _parameters(encoder)
    if parameters:
        kept["parameters"] = np.array(parameters)
    path = pathlib.Path(run_dir) / FILE
    with written_whole(path) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, **kept)
    return path


def _thumbnail(item, rate, side):
    if item.ndim <= 2:
        return picture_bytes(log_mel(item, rate) if item.ndim == 1 else item, side)
    if item.ndim == 4:
        item = item[len(item) // 2]
    return picture_bytes(bytes_of(item), side)


def _neighbours(features, count, k):
    unit = unit_rows(features)
    queries = np.unique(np.linspace(0, len(features) - 1, count).round().astype(int))
    similarity = np.nan_to_num(unit[queries] @ unit.T, nan=-2.0)
    similarity[np.arange(len(queries)), queries] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    nearest = np.take_along_axis(similarity, order, 1)
    return {"queries": queries, "neighbours": order, "similarities": nearest.astype(np.float32)}


def _parameters(encoder):
    if hasattr(encoder, "count_params"):
        return int(encoder.count_params())
    try:
        return sum(int(np.prod(variable.shape)) for variable in encoder.variables)
    except (AttributeError, TypeError):
        return 0
