"""Clusters that grow by merging, over a graph of nearest neighbours."""

import numpy as np


def neighbour_graph(points, neighbours, scale=1.0):
    """W: exp(-d^2 / sigma^2) from each point to its nearest ones, a SciPy matrix [N, N] by rows.

    Args:
        points: [N, D].
        neighbours: K_s, N - 1 at most; each row holds as many numbers in (0, 1].
        scale: a; sigma^2 is a times the mean of all d^2 of the graph.

    Source: Yang et al. 2016 (JULE), section 3.2.
    """
    from scipy.sparse import csr_matrix
    from sklearn.neighbors import NearestNeighbors

    count = len(points)
    neighbours = max(1, min(neighbours, count - 1))
    search = NearestNeighbors(n_neighbors=neighbours).fit(points)
    distance, index = search.kneighbors()  # of the points themselves, each without itself
    squared = distance.astype(np.float64) ** 2
    sigma = max(scale * squared.mean(), np.finfo(np.float64).tiny)
    # A zero would not be there at all.
    weights = np.maximum(np.exp(-squared / sigma), np.finfo(np.float64).tiny)
    rows = np.arange(0, count * neighbours + 1, neighbours)
    return csr_matrix((weights.ravel(), index.ravel(), rows), shape=(count, count))


def chains(graph):
    """First clusters: whoever is linked by nearest neighbours belongs together. int32 [N]."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    count = graph.shape[0]
    nearest = np.asarray(graph.argmax(axis=1)).ravel()
    links = csr_matrix((np.ones(count), (np.arange(count), nearest)), shape=graph.shape)
    return connected_components(links, directed=False)[1].astype(np.int32)


def affinity(graph, labels):
    """A [n, n]: sums of the paths i -> j -> i of two steps, over |C_i|^2, and those j -> i -> j.

    1/|C_i|^2 1' W_ij W_ji 1 + 1/|C_j|^2 1' W_ji W_ij 1; the diagonal means nothing.
    Source: Zhang et al. 2012, in Yang et al. 2016, equation 1.
    """
    paths, sizes, _, _ = _paths(graph, labels)
    directed = paths / sizes[:, None] ** 2
    return directed + directed.T


def _paths(graph, labels):
    """1' W_ij W_ji 1 for all pairs; the clusters' sizes; steps from and to each, [n, N] each."""
    from scipy.sparse import csr_matrix

    count, points = labels.max() + 1, len(labels)
    members = csr_matrix((np.ones(points), (np.arange(points), labels)), shape=(points, count))
    out = (members.T @ graph).tocsr()
    back = (graph @ members).T.tocsr()
    paths = (out.multiply(back) @ members).toarray()
    return paths, np.bincount(labels, minlength=count).astype(np.float64), out, back


def merge(graph, labels, merges, contrast=5):
    """Labels [N] with `merges` fewer clusters, numbered anew from 0: int32.

    Each merge takes the cluster i whose best partner stands out most: greatest A_1 + the mean of
    A_1 - A_k over k = 2..`contrast`, A_1 >= A_2 >= ... the affinities of i with all others, which
    are exact after every merge. Where no two clusters have any affinity, those that nobody is a
    neighbour of are left: the smallest that has neighbours itself joins where most of them are.

    Source: Yang et al. 2016, equation 7 with the local contrast of section 3.3.
    """
    labels = np.array(labels, np.int64)
    paths, sizes, out, back = _paths(graph, labels)
    out, back = list(out), list(back)
    directed = paths / sizes[:, None] ** 2
    near = directed + directed.T
    np.fill_diagonal(near, -np.inf)
    score, partner = _standing_out(near, contrast)
    for _ in range(max(0, merges)):
        a = int(score.argmax())
        b = int(partner[a])
        if score[a] <= 0:
            a, b = _stranded(out, labels, sizes, np.flatnonzero(np.isfinite(score)))
        labels[labels == b] = a
        sizes[a] += sizes[b]
        out[a], back[a] = out[a] + out[b], back[a] + back[b]
        both = out[a].multiply(back[a]).tocoo()
        paths[a] = np.bincount(labels[both.col], weights=both.data, minlength=len(sizes))
        paths[:, a] += paths[:, b]
        touched = (near[a] > 0) | (near[b] > 0) | (paths[a] > 0) | (paths[:, a] > 0)
        near[a] = paths[a] / sizes[a] ** 2 + paths[:, a] / sizes**2
        near[a, ~np.isfinite(score)] = near[a, [a, b]] = -np.inf
        near[:, a] = near[a]
        near[b] = near[:, b] = -np.inf
        score[b] = -np.inf
        # Those whose best had been b, for want of a better, look again too.
        rows = np.flatnonzero((touched | (partner == b) | (partner == a)) & np.isfinite(score))
        rows = np.union1d(rows, [a])
        score[rows], partner[rows] = _standing_out(near[rows], contrast)
    return np.unique(labels, return_inverse=True)[1].astype(np.int32)


def _standing_out(near, contrast):
    """(A_1 + mean of A_1 - A_k, whose A_1 is) for rows of affinities; minus infinity is nobody."""
    partner = near.argmax(axis=1)
    most = min(contrast, near.shape[1])
    best = -np.sort(-np.partition(near, near.shape[1] - most, axis=1)[:, -most:], axis=1)
    there = np.isfinite(best)
    gaps = np.where(there, best[:, :1] - np.where(there, best, 0), 0)[:, 1:]
    others = np.maximum(there[:, 1:].sum(axis=1), 1)
    with np.errstate(invalid="ignore"):
        score = best[:, 0] + gaps.sum(axis=1) / others
    return np.where(there[:, 0], score, -np.inf), partner


def _stranded(out, labels, sizes, alive):
    """(a cluster, the one that joins it) where no paths lead there and back."""
    for b in alive[np.argsort(sizes[alive], kind="stable")]:
        steps = out[b].tocoo()
        weight = np.bincount(labels[steps.col], weights=steps.data, minlength=len(sizes))
        weight[b] = 0
        if weight.any():
            return int(weight.argmax()), int(b)
    return int(alive[0]), int(alive[1])
