"""The exact metrics: worked numbers, slow transcriptions, ties and empty corners."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from tfssl.evaluate import metrics


def test_the_knn_vote_of_one_near_neighbour_beats_two_farther_ones_at_a_low_temperature():
    angles = np.arccos([0.9, 0.8, 0.8])
    train = np.stack([np.cos(angles), np.sin(angles)], 1)
    labels, query = [70, -3, -3], [[2.0, 0.0]]
    assert metrics.weighted_knn(train, labels, query, k=3, temperature=0.07).tolist() == [70]
    assert metrics.weighted_knn(train, labels, query, k=3, temperature=1.0).tolist() == [-3]
    assert metrics.weighted_knn(train, labels, query, k=1, temperature=1.0).tolist() == [70]
    assert metrics.weighted_knn(train, labels, query, k=99, temperature=1.0).tolist() == [-3]


@pytest.mark.parametrize("block", [1 << 24, 100])
def test_knn_agrees_with_one_query_at_a_time(monkeypatch, block):
    monkeypatch.setattr(metrics, "_BLOCK", block)
    draw = np.random.default_rng(0)
    train, test = draw.normal(size=(60, 5)), draw.normal(size=(23, 5))
    labels = draw.integers(-4, 4, 60) * 1000
    for k, temperature in [(1, 0.07), (20, 0.07), (60, 0.5), (200, 0.001)]:
        expected = []
        for query in test:
            s = [query @ row / np.linalg.norm(query) / np.linalg.norm(row) for row in train]
            votes = {}
            for i in np.argsort(s)[::-1][:k]:
                votes[labels[i]] = votes.get(labels[i], 0) + np.exp((s[i] - max(s)) / temperature)
            expected.append(max(votes, key=votes.get))
        found = metrics.weighted_knn(train, labels, test, k, temperature)
        assert found.tolist() == expected


def test_knn_takes_tensors_and_refuses_features_that_are_not_numbers():
    import tensorflow as tf

    train = tf.constant([[1.0, 0], [0, 1]])
    found = metrics.weighted_knn(train, tf.constant([5, 6], tf.int64), train)
    assert found.tolist() == [5, 6]
    with pytest.raises(ValueError, match="not finite"):
        metrics.weighted_knn(train, [5, 6], [[np.nan, 1.0]])
    with pytest.raises(ValueError, match="as many labels"):
        metrics.weighted_knn(train, [5], train)
    with pytest.raises(ValueError, match="at least 1"):
        metrics.weighted_knn(train, [5, 6], train, k=0)


@pytest.mark.parametrize("length", [1e-30, 1e25])
def test_the_length_of_features_does_not_matter(length):
    train = np.array([[length, 0], [0, length]], np.float32)
    assert metrics.weighted_knn(train, [1, 2], train[1:], k=1).tolist() == [2]


def test_ties_make_k_neighbours_and_not_more():
    train = np.ones((6, 2))
    assert metrics.weighted_knn(train, [1, 2, 2, 0, 0, 0], [[1, 1]], k=3).tolist() == [2]


def test_retrieval_ranks():
    similarity = [[0.9, 0.1, 0.3], [0.8, 0.2, 0.7], [0.1, 0.4, 0.5]]
    scores = metrics.retrieval(similarity)
    assert scores["R@1"] == pytest.approx(2 / 3)
    assert (scores["median_rank"], scores["mean_rank"]) == (1.0, pytest.approx(5 / 3))
    assert all(type(score) is float for score in scores.values())


def test_a_constant_similarity_ranks_in_the_middle():
    scores = metrics.retrieval(np.zeros((4, 21)))
    expected = {"R@1": 0.0, "R@5": 0.0, "R@10": 0.0, "median_rank": 11.0, "mean_rank": 11.0}
    assert scores == expected
    assert metrics.retrieval([[1.0, 1.0]])["mean_rank"] == 1.5


def test_retrieval_refuses_nan_and_more_queries_than_columns():
    with pytest.raises(ValueError, match="NaN"):
        metrics.retrieval([[np.nan, 0.0]])
    with pytest.raises(ValueError, match="Q <= N"):
        metrics.retrieval(np.zeros((3, 2)))


@pytest.mark.parametrize(
    "relevance, linear, exponential",
    [([1, 3, 2], 0.817494, 0.736364), ([20, 18, 15, 20], 0.987344, 0.906547), ([3, 2, 1], 1, 1)],
)
def test_ndcg_of_worked_orders(relevance, linear, exponential):
    similarity = [list(range(len(relevance), 0, -1))]
    assert metrics.ndcg(similarity, [relevance], gain="linear") == pytest.approx(linear, abs=1e-6)
    assert metrics.ndcg(similarity, [relevance]) == pytest.approx(exponential, abs=1e-6)


def test_ndcg_agrees_with_its_definition():
    draw = np.random.default_rng(1)
    similarity, relevance = draw.normal(size=(7, 50)), draw.integers(0, 6, (7, 50))
    total = 0
    for s, r in zip(similarity, relevance):
        order = sorted(range(50), key=lambda i: -s[i])
        dcg = sum((2.0 ** r[i] - 1) / np.log2(1 + rank) for rank, i in enumerate(order[:30], 1))
        best = sorted(r, reverse=True)[:30]
        total += dcg / sum((2.0**x - 1) / np.log2(1 + rank) for rank, x in enumerate(best, 1))
    assert metrics.ndcg(similarity, relevance) == pytest.approx(total / 7)
    assert metrics.ndcg([[1.0, 2.0]], [[0, 0]]) == 0.0
    with pytest.raises(ValueError, match="gain"):
        metrics.ndcg([[1.0]], [[1]], gain="square")


def test_average_precision_by_area_and_at_eleven_points():
    scores, hits = [6, 5, 4, 3, 2, 1], [1, 0, 1, 0, 0, 1]
    area = metrics.average_precision(scores, hits, positives=4)
    eleven = metrics.average_precision(scores, hits, "11point", positives=4)
    assert (area, eleven) == (pytest.approx(0.541667, abs=1e-6), pytest.approx(0.545455, abs=1e-6))
    assert metrics.average_precision([0.1, 0.9], [1, 0]) == 0.5
    assert metrics.average_precision([0.9, 0.1], [1, 0]) == 1.0
    assert np.isnan(metrics.average_precision([0.9], [0]))
    with pytest.raises(ValueError, match="positives"):
        metrics.average_precision([1, 2], [1, 1], positives=1)
    with pytest.raises(ValueError, match="interpolation"):
        metrics.average_precision([1], [1], "voc")


def test_average_precision_agrees_with_its_definition():
    draw = np.random.default_rng(2)
    for positives in (None, 40):
        scores, labels = draw.normal(size=60), draw.integers(0, 2, 60)
        total = labels.sum() if positives is None else positives
        hits = labels[np.argsort(-scores)]
        points = [(hits[:n].sum(), hits[:n].sum() / n) for n in range(1, 61)]
        area = sum(
            max(p for f, p in points if f >= found) / total for found in range(1, hits.sum() + 1)
        )
        eleven = np.mean(
            [max([p for f, p in points if 10 * f >= t * total], default=0) for t in range(11)]
        )
        found = metrics.average_precision(scores, labels, positives=positives)
        assert found == pytest.approx(area)
        found = metrics.average_precision(scores, labels, "11point", positives)
        assert found == pytest.approx(eleven)


def test_mean_iou_of_the_worked_confusion():
    truth = [0] * 60 + [1] * 40 + [255] * 5
    prediction = [0] * 50 + [1] * 10 + [0] * 5 + [1] * 35 + [1] * 5
    assert metrics.mean_iou(prediction, truth, 2) == pytest.approx(0.734615, abs=1e-6)
    # Classes that never occur do not count; one that is only predicted counts as 0.
    assert metrics.mean_iou(prediction, truth, 21) == pytest.approx(0.734615, abs=1e-6)
    assert metrics.mean_iou([0, 2], [0, 0], 3) == pytest.approx(0.25)
    assert metrics.mean_iou([0, 255], [0, 0], 3) == pytest.approx(0.5)
    assert np.isnan(metrics.mean_iou([0], [255], 2))
    assert metrics.mean_iou([0, 1], [0, 9], 2, ignore=9) == 1.0


@pytest.mark.parametrize(
    "shift, region, contour", [(1, 0.6, 1.0), (2, 0.3333, 0.6250), (3, 0.1429, 0.5625)]
)
def test_davis_measures_of_a_shifted_square(shift, region, contour):
    truth = np.zeros((1, 10, 10), bool)
    truth[0, 3:7, 2:6] = True
    prediction = np.roll(truth, shift, axis=2)
    assert metrics.region_similarity(prediction, truth) == pytest.approx([region], abs=1e-4)
    assert metrics.contour_accuracy(prediction, truth) == pytest.approx([contour], abs=1e-4)


def test_davis_measures_of_empty_masks():
    empty, full = np.zeros((2, 8, 8), bool), np.ones((2, 8, 8), bool)
    square = empty.copy()
    square[:, 2:4, 2:4] = True
    assert metrics.region_similarity(empty, empty).tolist() == [1, 1]
    assert metrics.region_similarity(empty, square).tolist() == [0, 0]
    assert metrics.contour_accuracy(empty, full).tolist() == [1, 1]  # a full mask has no boundary
    assert metrics.contour_accuracy(full, square).tolist() == [0, 0]
    assert metrics.contour_accuracy(square, square).tolist() == [1, 1]


def test_contour_accuracy_agrees_with_its_definition():
    draw = np.random.default_rng(3)
    prediction, truth = draw.random((2, 3, 20, 24)) > 0.9
    radius = np.ceil(0.06 * np.hypot(20, 24))

    def boundary(mask):
        points = []
        for y in range(20):
            for x in range(24):
                around = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                if any(mask[y, x] != mask[q] for q in around if q[0] < 20 and q[1] < 24):
                    points.append((y, x))
        return points

    def near(points, others):
        hits = [min(np.hypot(y - v, x - u) for v, u in others) <= radius for y, x in points]
        return sum(hits) / len(points)

    expected = []
    for p, t in zip(prediction, truth):
        precision, recall = near(boundary(p), boundary(t)), near(boundary(t), boundary(p))
        expected.append(2 * precision * recall / (precision + recall))
    assert metrics.contour_accuracy(prediction, truth, 0.06) == pytest.approx(expected)


@pytest.mark.parametrize(
    "neighbours, tau",
    [([0, 1, 3, 2], 0.6667), ([0, 0, 1, 3], 0.9129), ([3, 2, 1, 0], -1), ([1, 1, 1, 1], None)],
)
def test_kendalls_tau_of_worked_neighbours(neighbours, tau):
    one = np.array(neighbours, float)[:, None]
    other = np.arange(4.0)[:, None]  # the frames of `one` find exactly `neighbours` here
    back = [abs(one[:, 0] - i).argmin() for i in range(4)]
    taus = [tau] if len(set(back)) == 1 else [tau, kendalltau(range(4), back)[0]]
    found = metrics.kendalls_tau([one, other])
    if tau is None:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(np.mean(taus), abs=1e-4)


def test_kendalls_tau_strides_and_takes_videos_of_any_length():
    line = np.linspace(0, 1, 31)[:, None]
    assert metrics.kendalls_tau([line, line[::-1]], stride=5) == pytest.approx(-1)
    assert metrics.kendalls_tau([line, line[:20]]) > 0.9
    # Of two equally near frames the first counts.
    back = kendalltau(range(62), [*range(31), *range(31)])[0]
    assert metrics.kendalls_tau([line, np.tile(line, (2, 1))]) == pytest.approx((1 + back) / 2)
    assert np.isnan(metrics.kendalls_tau([line]))
    assert np.isnan(metrics.kendalls_tau([line * 0, line * 0]))


def test_pck_of_the_worked_errors():
    truth = np.zeros((1, 5, 2))
    prediction = np.array([[[2, 0], [0, 4], [3, 4], [8, 0], [0, 20]]], float)
    shares = [metrics.pck(prediction, truth, [30], a) for a in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert shares == pytest.approx([0.2, 0.6, 0.8, 0.8, 0.8])


def test_pck_is_a_mean_over_joints_and_skips_what_is_never_visible():
    truth = np.zeros((3, 3, 2))
    prediction = truth.copy()
    prediction[0, 0] = 100, 0
    prediction[0, 1] = np.nan
    visible = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0]])
    expected = np.mean([2 / 3, 0])
    assert metrics.pck(prediction, truth, np.ones(3), 0.5, visible) == pytest.approx(expected)
    assert np.isnan(metrics.pck(prediction, truth, np.ones(3), 0.5, visible * 0))


def test_si_sdr_of_orthogonal_mixtures():
    s = np.sin(2 * np.pi * 5 * np.arange(1000) / 1000)
    n = np.cos(2 * np.pi * 5 * np.arange(1000) / 1000)
    estimates = np.stack([s + 0.1 * n, 3 * (s + 0.1 * n), s + 0.5 * n, s + n])
    found = metrics.si_sdr(estimates, np.stack([s] * 4))
    assert found == pytest.approx([20, 20, 6.0206, 0], abs=1e-4)
    assert metrics.si_sdr(np.zeros(4), np.ones(4)) == -np.inf
    assert metrics.si_sdr(2 * np.ones(4), np.ones(4)) == np.inf
    assert np.isnan(metrics.si_sdr(np.ones(4), np.zeros(4)))


def test_bss_eval_forgives_a_filter_but_not_an_intruder():
    draw = np.random.default_rng(4)
    sources = draw.normal(size=(2, 4000))
    echo = np.convolve(sources[0], [1, 0, 0, 0.5])[:4000]
    found = metrics.bss_eval(np.stack([echo, sources[1] + 0.1 * sources[0]]), sources)
    assert found["sdr"][0] > 40 and found["sdr"][1] == pytest.approx(20, abs=1)
    assert found["sir"][1] == pytest.approx(20, abs=1) and found["sar"][1] > 40
    swapped = metrics.bss_eval(sources[::-1], sources)  # no permutation is sought
    assert swapped["sdr"].max() < 0
    with pytest.raises(ValueError, match="silent"):
        metrics.bss_eval(sources * 0, sources)


def test_bss_eval_agrees_with_least_squares_on_shifted_sources():
    draw = np.random.default_rng(5)
    sources = draw.normal(size=(2, 1500))
    estimate = sources + 0.3 * sources[::-1] + 0.2 * draw.normal(size=(2, 1500))

    def shifted(rows):
        columns = []
        for row in rows:
            for lag in range(512):
                columns.append(np.concatenate([np.zeros(lag), row, np.zeros(511 - lag)]))
        return np.stack(columns, 1)

    def decibels(a, b):
        return 10 * np.log10(a @ a / (b @ b))

    found = metrics.bss_eval(estimate, sources)
    padded = np.concatenate([estimate[0], np.zeros(511)])
    own, both = shifted(sources[:1]), shifted(sources)
    target = own @ np.linalg.lstsq(own, padded, rcond=None)[0]
    spanned = both @ np.linalg.lstsq(both, padded, rcond=None)[0]
    assert found["sdr"][0] == pytest.approx(decibels(target, padded - target), abs=1e-4)
    assert found["sir"][0] == pytest.approx(decibels(target, spanned - target), abs=1e-4)
    assert found["sar"][0] == pytest.approx(decibels(spanned, padded - spanned), abs=1e-4)


def test_flow_errors_of_the_worked_lengths():
    truth = np.zeros((2, 1, 2, 2))
    truth[..., 0] = [[[50, 10]], [[100, 4]]]
    flow = truth.copy()
    flow[..., 1] = [[[4, 2]], [[4, 3.5]]]
    assert metrics.fl_all(flow, truth) == 0.5
    assert metrics.end_point_error(flow, truth) == pytest.approx(13.5 / 4)
    valid = np.array([[[1, 1]], [[1, 0]]])
    truth[1, 0, 1] = np.nan
    assert metrics.end_point_error(flow, truth, valid) == pytest.approx(10 / 3)
    assert metrics.fl_all(flow, truth, valid) == pytest.approx(1 / 3)
    assert np.isnan(metrics.end_point_error(flow, truth, valid * 0))


def test_roc_auc_counts_ties_half():
    assert metrics.roc_auc([0.9, 0.8, 0.4, 0.7], [1, 1, 1, 0]) == pytest.approx(2 / 3)
    assert metrics.roc_auc([1, 1, 1], [0, 1, 1]) == 0.5
    draw = np.random.default_rng(6)
    scores, labels = draw.integers(0, 5, 40), draw.integers(0, 2, 40)
    pairs = [(p > n) + (p == n) / 2 for p in scores[labels == 1] for n in scores[labels == 0]]
    assert metrics.roc_auc(scores, labels) == pytest.approx(np.mean(pairs))
    assert np.isnan(metrics.roc_auc([1, 2], [1, 1]))
