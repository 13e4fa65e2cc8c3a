"""The field's exact metrics as pure functions: arrays or tensors in, Python floats or arrays out.

Shares lie in [0, 1]. Nothing here runs an encoder.
"""

import numpy as np

from tfssl.errors import BadInput

# Similarities held at once by `weighted_knn`: 64 MB in float32.
_BLOCK = 1 << 24


def weighted_knn(train, train_labels, test, k=20, temperature=0.07, leave_out=False):
    """Labels that the k nearest training features vote for, each with exp(cosine / temperature).

    Args:
        train: [N, D] features. train_labels: int [N], any integers. test: [M, D] features.
        k: neighbours that vote; all N if k > N. Of equal similarities the earlier row is taken
            (copies of a row may differ in the last bit, as matrices are multiplied in blocks).
        temperature: small gives the nearest neighbour almost all of the vote.
        leave_out: `test` is `train`, and no row votes for itself.

    Returns:
        int [M]; of labels with equal votes the smallest.

    Raises:
        ValueError: k < 1, temperature <= 0, shapes that do not match, features not finite.

    Source: Wu et al. 2018 (instance discrimination), section 3.4.
    """
    return ranked_knn(train, train_labels, test, 1, k, temperature, leave_out)[0][:, 0]


def ranked_knn(train, train_labels, test, most, k=20, temperature=0.07, leave_out=False):
    """The `most` labels with most votes (all labels, if there are fewer), as `weighted_knn` votes.

    Returns:
        (labels [M, most], votes float [M, most]), most votes first, of equal ones the smaller label
        first. A vote of the nearest neighbour counts 1; labels that no neighbour has get 0.
    """
    train, test = unit(train), unit(test)
    labels, codes = np.unique(np.asarray(train_labels), return_inverse=True)
    _require(k >= 1, f"k is the number of neighbours, at least 1, not {k}.")
    _require(temperature > 0, f"temperature must be above 0, not {temperature}.")
    _require(
        train.ndim == 2 and test.ndim == 2 and train.shape[1] == test.shape[1] and len(train),
        f"weighted_knn needs features [N, D] and [M, D], not {train.shape} and {test.shape}.",
    )
    _require(
        codes.shape == train.shape[:1],
        f"{len(train)} training features need as many labels, not {codes.shape}.",
    )
    _require(
        not leave_out or len(train) == len(test) > 1,
        f"to leave each query out, train ({len(train)} rows) and test ({len(test)}) are one set.",
    )
    k = min(int(k), len(train) - bool(leave_out))
    rows = max(1, _BLOCK // len(train))
    most = min(most, len(labels))
    best, votes = [np.zeros([0, most], np.int64)], [np.zeros([0, most])]
    for start in range(0, len(test), rows):
        similarity = test[start : start + rows] @ train.T
        if leave_out:
            within = np.arange(len(similarity))
            similarity[within, start + within] = -np.inf
        found = _votes(similarity, codes, len(labels), k, temperature)
        best.append(np.argsort(-found, axis=1, kind="stable")[:, :most])
        votes.append(np.take_along_axis(found, best[-1], axis=1))
    return labels[np.concatenate(best)], np.concatenate(votes)


def _votes(similarity, codes, classes, k, temperature):
    bound = np.partition(similarity, -k, axis=1)[:, -k][:, None]  # the k-th best of each row
    chosen = similarity >= bound
    # Equal similarities at the border make more than k: there the earlier rows are taken.
    for row in np.flatnonzero(chosen.sum(1) > k):
        tied = np.flatnonzero(similarity[row] == bound[row])
        chosen[row, tied[k - np.count_nonzero(similarity[row] > bound[row]) :]] = False
    _require(
        np.all(chosen.sum(1) == k), "weighted_knn got features that are not finite (NaN or inf)."
    )
    queries, neighbours = np.nonzero(chosen)
    # Relative to the best neighbour, so that no temperature overflows; ratios stay.
    best = similarity.max(1)[queries].astype(np.float64)
    weights = np.exp((similarity[queries, neighbours] - best) / temperature)
    slots = queries * classes + codes[neighbours]
    votes = np.bincount(slots, weights, minlength=len(similarity) * classes)
    return votes.reshape(-1, classes)


def retrieval(similarity):
    """How early each query finds its true match.

    Args:
        similarity: [Q, N] with Q <= N; the match of row i is column i.

    Returns:
        dict of floats "R@1", "R@5", "R@10" (share of ranks <= k), "median_rank", "mean_rank". A
        rank is 1 + the columns more similar than the match + half of the others that equal it, so
        that a constant similarity is worth no more than chance.

    Raises:
        ValueError: Q > N or NaN in the similarities.
    """
    similarity = np.asarray(similarity)
    _require(
        similarity.ndim == 2 and 0 < similarity.shape[0] <= similarity.shape[1],
        f"retrieval needs similarities [Q, N] with 0 < Q <= N, not {similarity.shape}.",
    )
    _require(not np.isnan(similarity).any(), "retrieval got similarities that are NaN.")
    match = np.diagonal(similarity)[:, None]
    ties = (similarity == match).sum(1) - 1
    ranks = 1 + (similarity > match).sum(1) + ties / 2
    scores = {f"R@{k}": float(np.mean(ranks <= k)) for k in (1, 5, 10)}
    return scores | {
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(np.mean(ranks)),
    }


def ndcg(similarity, relevance, k=30, gain="exponential"):
    """Normalised discounted cumulative gain of the first k, mean over queries.

    Args:
        similarity, relevance: [Q, N], relevance >= 0.
        k: how many results count. gain: "exponential" (2^x - 1) or "linear" (x).

    Equal similarities keep their column order; a query with nothing relevant scores 0.

    Raises:
        ValueError: an unknown gain, shapes that differ, or a negative relevance.

    Source: Jarvelin & Kekalainen 2002; the exponential gain from Burges et al. 2005.
    """
    similarity, relevance = np.asarray(similarity), np.asarray(relevance, np.float64)
    _same_shape(similarity, relevance)
    gains = {"exponential": lambda x: np.exp2(x) - 1, "linear": lambda x: x}
    _require(gain in gains, f"gain is 'exponential' or 'linear', not {gain!r}.")
    _require(bool((relevance >= 0).all()), "ndcg needs relevances of 0 or more.")
    order = np.argsort(-similarity.astype(np.float64), axis=1, kind="stable")[:, :k]
    ideal = -np.sort(-relevance, axis=1)[:, :k]
    discount = 1 / np.log2(np.arange(2, order.shape[1] + 2))
    reached = gains[gain](np.take_along_axis(relevance, order, axis=1)) @ discount
    best = gains[gain](ideal) @ discount
    return float(np.mean(np.divide(reached, best, out=np.zeros_like(best), where=best > 0)))


def average_precision(scores, labels, interpolation="area", positives=None):
    """PASCAL VOC average precision of one class.

    Args:
        scores: [N]. labels: [N], 1 for a hit, 0 for a miss. Equal scores keep their order.
        interpolation: "area" under the precision made monotone from the right (VOC 2010 on), or
            "11point", the mean of the best precision at recall >= 0, 0.1, .., 1 (VOC 2007).
        positives: how many there are to find, if more than `labels` holds (missed objects).

    Returns:
        float; NaN if there is nothing to find.

    Raises:
        ValueError: an unknown interpolation, shapes that differ, or too few positives.

    Source: Everingham et al. 2010, section 4.2; 2015, section 2.2.1.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    _same_shape(scores, labels)
    _require(
        interpolation in ("area", "11point"),
        f"interpolation is 'area' or '11point', not {interpolation!r}.",
    )
    held = int(labels.sum())
    positives = held if positives is None else int(positives)
    _require(positives >= held, f"labels hold {held} positives, more than positives={positives}.")
    if positives == 0:
        return float("nan")
    hits = labels[np.argsort(-scores, kind="stable")]
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # best at this recall or higher
    if interpolation == "area":
        return float(precision[hits].sum() / positives)
    # In integers: 3/10 >= 0.3 is not to be left to rounding.
    reached = [precision[10 * found >= tenth * positives] for tenth in range(11)]
    return float(np.mean([best[0] if len(best) else 0.0 for best in reached]))


def mean_iou(prediction, truth, classes, ignore=255):
    """Mean intersection over union from one count over everything.

    Args:
        prediction, truth: int arrays of one shape. classes: how many, 0..classes-1.
        ignore: pixels whose truth has this value are left out.

    Mean over the classes that occur in truth or prediction; NaN if none does. A prediction that is
    no class at all is simply wrong.

    Raises:
        ValueError: shapes that differ.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    _same_shape(prediction, truth)
    kept = truth != ignore
    prediction, truth = prediction[kept].astype(np.int64), truth[kept].astype(np.int64)

    def count(values):
        return np.bincount(values[(values >= 0) & (values < classes)], minlength=classes)

    both = count(truth[prediction == truth])
    either = count(prediction) + count(truth) - both
    occurs = either > 0
    return float(np.mean(both[occurs] / either[occurs])) if occurs.any() else float("nan")


def region_similarity(prediction, truth):
    """DAVIS J: intersection over union of each frame, 1 where both masks are empty.

    prediction, truth: bool [T, H, W]. Returns float [T]. Source: Perazzi et al. 2016, section 5.1.
    """
    prediction, truth = np.asarray(prediction).astype(bool), np.asarray(truth).astype(bool)
    _same_shape(prediction, truth)
    both = (prediction & truth).sum((-2, -1))
    either = (prediction | truth).sum((-2, -1))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def contour_accuracy(prediction, truth, tolerance=0.008):
    """DAVIS F: harmonic mean of boundary precision and recall of each frame.

    Args:
        prediction, truth: bool [T, H, W].
        tolerance: share of the image diagonal; the matching disk's radius is rounded up.

    A boundary pixel differs from its right, lower or lower-right neighbour inside the image.
    Returns float [T]: 1 where neither mask has a boundary, 0 where only one has.
    Source: Perazzi et al. 2016, section 5.1, by dilation as the official code does it.
    """
    prediction, truth = np.asarray(prediction).astype(bool), np.asarray(truth).astype(bool)
    _same_shape(prediction, truth)
    radius = np.ceil(tolerance * np.hypot(*truth.shape[-2:]))
    return np.array([_contour(p, t, radius) for p, t in zip(prediction, truth)], np.float64)


def _contour(prediction, truth, radius):
    from scipy.ndimage import distance_transform_edt

    found, wanted = _boundary(prediction), _boundary(truth)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = np.mean(distance_transform_edt(~wanted)[found] <= radius)
    recall = np.mean(distance_transform_edt(~found)[wanted] <= radius)
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0


def _boundary(mask):
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def kendalls_tau(embeddings, stride=1):
    """Do nearest neighbours in another video come in the same order?

    Args:
        embeddings: list of [T_i, D], one a video, frames in order. stride: use every n-th frame.

    For each ordered pair of videos tau-b between 0, 1, .. and the index of each frame's Euclidean
    nearest neighbour (the first, if several); mean over the pairs where it is defined, NaN if none.
    Source: Dwibedi et al. 2019 (TCC), section 4.2.
    """
    from scipy.spatial.distance import cdist
    from scipy.stats import kendalltau

    videos = [np.asarray(video, np.float64)[::stride] for video in embeddings]
    taus = []
    for i, one in enumerate(videos):
        for j, other in enumerate(videos):
            if i != j:
                nearest = cdist(one, other, "sqeuclidean").argmin(1)
                # A constant order or a single frame has no tau; asking anyway warns.
                if len(np.unique(nearest)) > 1:
                    taus.append(kendalltau(np.arange(len(nearest)), nearest)[0])
    return float(np.mean(taus)) if taus else float("nan")


def pck(prediction, truth, scale, alpha, visible=None):
    """Percentage of correct keypoints, as a share: distance <= alpha * scale.

    Args:
        prediction, truth: [N, J, 2]. scale: [N], the normaliser of each example, in pixels.
        alpha: float. visible: bool [N, J]; all joints if left out. A NaN prediction is a miss.

    Per joint over its visible examples, then mean over the joints that are ever visible; NaN if
    none is.
    """
    prediction, truth = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    _same_shape(prediction, truth)
    distance = np.linalg.norm(prediction - truth, axis=-1)  # [N, J]
    right = distance <= alpha * np.asarray(scale, np.float64).reshape(-1, 1)
    visible = np.ones_like(right) if visible is None else np.asarray(visible).astype(bool)
    _same_shape(visible, right)
    seen = visible.sum(0)
    shares = (right & visible).sum(0)[seen > 0] / seen[seen > 0]
    return float(np.mean(shares)) if len(shares) else float("nan")


def si_sdr(estimate, reference):
    """Scale-invariant signal-to-distortion ratio in dB; the mean is not removed.

    estimate, reference: [..., T]. Returns float [...]: inf for a multiple of the reference, -inf
    for an estimate without any of it, NaN for a silent reference. Source: Le Roux et al. 2019,
    equation 4.
    """
    estimate, reference = np.asarray(estimate, np.float64), np.asarray(reference, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (estimate * reference).sum(-1) / np.square(reference).sum(-1)
        target = scale[..., None] * reference
        ratio = np.square(target).sum(-1) / np.square(estimate - target).sum(-1)
        return 10 * np.log10(np.where(scale == 0, 0.0, ratio))


def bss_eval(estimates, references):
    """BSS-Eval version 3: distortion, interference and artefacts of separated sources, in dB.

    estimates, references: [S, T], estimate i belongs to reference i (no permutation is sought).
    Allowed distortions are filters of 512 taps over the whole signal.

    Returns:
        dict "sdr", "sir", "sar", each float [S].

    Raises:
        ValueError: shapes that differ, or a source that is silent throughout.

    Source: Vincent et al. 2006.
    """
    import warnings

    from mir_eval.separation import bss_eval_sources

    estimates, references = np.asarray(estimates, np.float64), np.asarray(references, np.float64)
    _same_shape(estimates, references)
    _require(
        bool(estimates.any(-1).all() and references.any(-1).all()),
        "bss_eval is not defined for a source that is silent throughout; leave it out.",
    )
    with warnings.catch_warnings():
        # The module is kept until mir_eval 0.9; setup.cfg holds the version below.
        warnings.simplefilter("ignore", FutureWarning)
        sdr, sir, sar, _ = bss_eval_sources(references, estimates, compute_permutation=False)
    return {"sdr": sdr, "sir": sir, "sar": sar}


def end_point_error(flow, truth, valid=None):
    """Mean Euclidean distance of flow and true flow over all valid pixels of all images together.

    flow, truth: [B, H, W, 2] in pixels. valid: bool or 0/1 [B, H, W]; all pixels if left out.
    NaN without a valid pixel.
    """
    error, _ = _flow_errors(flow, truth, valid)
    return float(np.mean(error)) if len(error) else float("nan")


def fl_all(flow, truth, valid=None):
    """KITTI's share of outliers: valid pixels off by more than 3 px and more than 5 % of the truth.

    Arguments as in `end_point_error`. NaN without a valid pixel. Source: Menze & Geiger 2015,
    section 5.
    """
    error, length = _flow_errors(flow, truth, valid)
    wrong = (error > 3) & (error > 0.05 * length)
    return float(np.mean(wrong)) if len(wrong) else float("nan")


def _flow_errors(flow, truth, valid):
    """Errors and true lengths of the valid pixels, each [P]; invalid ones may hold anything."""
    flow, truth = np.asarray(flow, np.float64), np.asarray(truth, np.float64)
    _same_shape(flow, truth)
    valid = np.ones(truth.shape[:-1], bool) if valid is None else np.asarray(valid).astype(bool)
    _same_shape(valid, truth[..., 0])
    flow, truth = flow[valid], truth[valid]
    return np.linalg.norm(flow - truth, axis=-1), np.linalg.norm(truth, axis=-1)


def roc_auc(scores, labels):
    """Chance that a positive scores higher than a negative; ties count half.

    scores: [N]. labels: 0/1 [N]. NaN if only one of the two occurs. Raises ValueError for scores
    that are NaN. Source: Mann & Whitney's U over the number of pairs.
    """
    from scipy.stats import rankdata

    scores, labels = np.asarray(scores, np.float64).ravel(), np.asarray(labels).ravel().astype(bool)
    _same_shape(scores, labels)
    _require(not np.isnan(scores).any(), "roc_auc got scores that are NaN.")
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    # Ranks from 1, ties share their mean rank; the smallest possible sum is taken off.
    wins = rankdata(scores)[labels].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def unit(x):
    """Rows of unit length in at least float32; a zero row stays zero."""
    x = np.asarray(x)
    x = x.astype(np.result_type(x.dtype, np.float32), copy=False)
    # Brought near 1 first: squares of very long features overflow.
    largest = np.max(np.abs(x), axis=-1, keepdims=True, initial=0)
    x = x / np.where(largest > 0, largest, 1)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def _same_shape(a, b):
    _require(a.shape == b.shape, f"Shapes {a.shape} and {b.shape} differ; they must be equal.")


def _require(condition, message):
    if not condition:
        raise BadInput(message)
