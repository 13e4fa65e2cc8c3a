"""Groups of features, found by Lloyd's iterations that never leave a group empty."""

import math

import numpy as np

_TOGETHER = 10_000  # examples


def whiten(features, dimensions):
    """Features [N, D] in their first principal directions, each of variance 1: float32 [N, d].

    d is the smallest of `dimensions`, D, N - 1 and the features' rank; features that are all the
    same give a single 0 each.
    """
    features = np.asarray(features)
    if (features == features[0]).all():
        return np.zeros((len(features), 1), np.float32)
    # Block by block, as what is to be clustered may fill half of the memory.
    count = math.ceil(len(features) / _TOGETHER)
    blocks = np.array_split(features, count)
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = sum((block - mean).T @ (block - mean) for block in blocks)
    variance, directions = np.linalg.eigh(covariance / max(1, len(features) - 1))  # rising
    most = max(1, min(dimensions, features.shape[1], len(features) - 1))
    variance, directions = variance[: -most - 1 : -1], directions[:, : -most - 1 : -1]
    kept = variance > 1e-10 * max(variance[0], np.finfo(np.float64).tiny)
    axes = directions[:, kept] / np.sqrt(variance[kept])
    return np.concatenate([((block - mean) @ axes).astype(np.float32) for block in blocks])


def unit_rows(features):
    """Features [N, D] with every row of length 1; a row of zeros stays."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def kmeans(points, clusters, iterations=20, seed=0):
    """Lloyd's algorithm from centres far apart; the same seed, the same result.

    It begins with k-means++ among 10 K points, 10,000 at least, drawn at random. The released codes
    of deep clustering begin with any K points, by which groups however far apart are as a rule cut
    in two or joined (five of them are all met in 4 % of draws). A cluster that loses all its points
    gets the centre of another, drawn in proportion to its size, both moved apart by a thousandth,
    as faiss does. Should some be empty in the end still, each takes the worst placed point of the
    largest.

    Args:
        points: [N, D].
        clusters: their number K; N at most.

    Returns:
        (centres float32 [K, D], assignment int32 [N]); each of the K occurs.
    """
    from sklearn.cluster import kmeans_plusplus
    from sklearn.metrics import pairwise_distances_argmin_min

    points = np.ascontiguousarray(points, np.float32)
    random = np.random.default_rng(seed)
    clusters = min(clusters, len(points))
    some = random.permutation(len(points))[: max(10 * clusters, 10_000)]
    centres, _ = kmeans_plusplus(
        points[some], clusters, random_state=int(random.integers(2**31 - 1))
    )
    for _ in range(iterations):
        assigned, _ = pairwise_distances_argmin_min(points, centres)
        centres = _centres(points, assigned, centres, random)
    assigned, distance = pairwise_distances_argmin_min(points, centres)
    sizes = np.bincount(assigned, minlength=clusters)
    for empty in np.flatnonzero(sizes == 0):
        largest = np.flatnonzero(assigned == sizes.argmax())
        taken = largest[distance[largest].argmax()]
        sizes[assigned[taken]] -= 1
        assigned[taken], sizes[empty], centres[empty] = empty, 1, points[taken]
    return centres, assigned.astype(np.int32)


def _centres(points, assigned, centres, random):
    """The mean of every cluster's points; empty clusters split another in two."""
    sizes = np.bincount(assigned, minlength=len(centres)).astype(np.float64)
    order = np.argsort(assigned, kind="stable")
    filled = np.flatnonzero(sizes)
    first = np.concatenate([[0], np.cumsum(sizes[filled]).astype(np.int64)[:-1]])
    # A few columns at a time: float64 of everything is more than many machines hold.
    columns = np.array_split(points[order], -(-points.shape[1] // 16), axis=1)
    sums = [np.add.reduceat(part.astype(np.float64), first, axis=0) for part in columns]
    centres = centres.astype(np.float64)
    centres[filled] = np.concatenate(sums, axis=1) / sizes[filled, None]
    apart = np.where(np.arange(points.shape[1]) % 2, 1 - 1 / 1024, 1 + 1 / 1024)
    for empty in np.flatnonzero(sizes == 0):
        chance = np.maximum(sizes - 1, 0)
        donor = random.choice(len(sizes), p=chance / chance.sum())
        centres[empty], centres[donor] = centres[donor] * apart, centres[donor] * (2 - apart)
        sizes[empty] = sizes[donor] = sizes[donor] / 2
    return centres.astype(np.float32)
