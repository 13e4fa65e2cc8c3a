"""Losses with negatives against slow transcriptions of their equations, and the cards' numbers."""

import numpy as np
import pytest
import tensorflow as tf
from objective_checks import draw, gradients, holds

from tfssl.objectives import contrastive, infomax

AXES = np.eye(2)
TURNED = np.array([[0.6, 0.8], [-0.8, 0.6]])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax_cost(positive, others):
    """-log of the positive's share among itself and the others."""
    return -np.log(np.exp(positive) / (np.exp(positive) + sum(np.exp(o) for o in others)))


def nt_xent(a, b, temperature):
    z, total = unit(np.concatenate([a, b])), 0.0
    n = len(a)
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [z[i] @ z[k] / temperature for k in range(2 * n) if k not in (i, partner)]
        total += softmax_cost(z[i] @ z[partner] / temperature, others)
    return total / (2 * n)


def test_nt_xent_is_its_equation():
    holds(
        lambda a, b: contrastive.nt_xent(a, b, 0.3),
        lambda a, b: nt_xent(a, b, 0.3),
        draw(4, 3),
        draw(4, 3, seed=1),
    )


@pytest.mark.parametrize(
    "a, b, temperature, expected",
    [
        (AXES, AXES, 0.5, 0.239545),
        (AXES, TURNED, 0.5, 0.668040),
        (AXES, TURNED, 0.1, 1.064850),
        (np.ones((2, 2)), np.ones((2, 2)), 0.5, np.log(3)),
        (np.ones((4096, 1)), np.ones((4096, 1)), 0.1, 9.010791),
    ],
)
def test_nt_xent_has_the_worked_values(a, b, temperature, expected):
    assert float(contrastive.nt_xent(a, b, temperature)) == pytest.approx(expected, abs=1e-5)


def test_nt_xent_ignores_length_rotation_order_and_which_view_is_first():
    a, b = draw(6, 4), draw(6, 4, seed=1)
    value = float(contrastive.nt_xent(a, b, 0.2))
    turn = np.linalg.qr(draw(4, 4, seed=2))[0]
    order = np.random.default_rng(3).permutation(6)
    for x, y in [(a * 7, b * 0.01), (a @ turn, b @ turn), (a[order], b[order]), (b, a)]:
        assert float(contrastive.nt_xent(x, y, 0.2)) == pytest.approx(value, abs=1e-5)
    assert abs(float(contrastive.nt_xent(a[order], b, 0.2)) - value) > 0.1


def test_a_low_temperature_neither_overflows_nor_loses_its_gradient():
    a, b = draw(8, 4), draw(8, 4, seed=1)
    value = contrastive.nt_xent(a, b, 1e-3)
    assert np.isfinite(value) and float(value) > 1
    assert all(
        np.isfinite(g).all() for g in gradients(lambda a: contrastive.nt_xent(a, b, 1e-3), a)
    )


def info_nce(queries, keys, temperature):
    q, k = unit(queries), unit(keys)
    costs = [
        softmax_cost(
            q[i] @ k[i] / temperature,
            [q[i] @ k[j] / temperature for j in range(len(k)) if j != i],
        )
        for i in range(len(q))
    ]
    return np.mean(costs)


def test_info_nce_is_its_equation():
    holds(
        lambda q, k: contrastive.info_nce(q, k, 0.3),
        lambda q, k: info_nce(q, k, 0.3),
        draw(4, 3),
        draw(4, 3, seed=1),
    )


def test_info_nce_queue_is_its_equation_and_trains_the_query_only():
    def reference(queries, keys, negatives):
        q, k, n = unit(queries), unit(keys), unit(negatives)
        return np.mean(
            [softmax_cost(x @ y / 0.2, [x @ other / 0.2 for other in n]) for x, y in zip(q, k)]
        )

    holds(
        lambda q, k, n: contrastive.info_nce_queue(q, k, n, 0.2),
        reference,
        draw(3, 4),
        draw(3, 4, seed=1),
        draw(6, 4, seed=2),
        frozen=(1, 2),
    )


@pytest.mark.parametrize("temperature, expected", [(0.2, 0.026595), (0.07, 2.4995e-6)])
def test_info_nce_queue_has_the_worked_values(temperature, expected):
    query, queue = [[2.0, 0, 0]], np.array([[0.0, 3, 0]] * 4)
    found = float(contrastive.info_nce_queue(query, query, queue, temperature))
    assert found == pytest.approx(expected, abs=1e-6)
    same = np.ones((4, 3))
    assert float(contrastive.info_nce_queue(same, same, same, 0.07)) == pytest.approx(np.log(5))


def test_margin_pair_is_its_equation():
    same = np.array([1.0, 0, 1, 0, 0])

    def reference(a, b):
        total = 0
        for x, y, s in zip(a, b, same):
            d = np.sqrt(sum((x - y) ** 2))
            total += s * d**2 + (1 - s) * max(1.5 - d, 0) ** 2
        return total / 5

    a, b = draw(5, 3), draw(5, 3, seed=1)
    b[4] = a[4] + 0.1
    holds(lambda a, b: contrastive.margin_pair(a, b, same, 1.5), reference, a, b)


def test_margin_pair_is_exact_and_smooth_where_the_two_agree():
    a = draw(2, 3)
    assert float(contrastive.margin_pair(a, a, [1, 1], 1.0)) == 0
    assert float(contrastive.margin_pair(a, a, [0, 0], 2.0)) == 4
    (slope,) = gradients(lambda x: contrastive.margin_pair(x, a, [0, 1], 1.0), a)
    assert np.isfinite(slope).all()


def test_triplet_is_its_equation():
    def reference(anchor, positive, negative):
        a, p, n = unit(anchor), unit(positive), unit(negative)
        return np.mean([max((1 - x @ y) - (1 - x @ z) + 0.5, 0) for x, y, z in zip(a, p, n)])

    holds(
        lambda a, p, n: contrastive.triplet(a, p, n, 0.5),
        reference,
        *[draw(6, 3, seed=seed) for seed in range(3)],
    )


def test_triplet_has_the_worked_values():
    anchor, near, far = [[1.0, 0]], [[1.0, 1.0]], [[0.0, 1.0]]
    assert float(contrastive.triplet(anchor, near, far, 0.5)) == 0
    assert float(contrastive.triplet(anchor, far, near, 0.5)) == pytest.approx(1.20711, abs=1e-5)
    assert float(contrastive.triplet(near, near, near, 0.5)) == pytest.approx(0.5)


def test_calibrated_pair_is_its_equation():
    same = np.array([1, 0, 0, 1])

    def reference(a, b, weight, bias):
        total = 0
        for x, y, s in zip(unit(a), unit(b), same):
            z = weight * np.sqrt(sum((x - y) ** 2) + 1e-8) + bias
            total -= np.log(np.exp(z[0 if s else 1]) / np.exp(z).sum())
        return total / 4

    a, b, weight, bias = draw(4, 3), draw(4, 3, seed=1), np.array([-2.0, 2]), np.array([2.0, -2])
    value = contrastive.calibrated_pair(a, b, same, weight, bias)
    assert float(value) == pytest.approx(reference(a, b, weight, bias), abs=1e-5)
    holds(
        lambda a, b: contrastive.calibrated_pair(a, b, same, weight, bias),
        lambda a, b: reference(a, b, weight, bias),
        a,
        b,
    )


@pytest.mark.parametrize(
    "angle, positive, negative",
    [
        (0, 0.018150, 4.018150),
        (60, np.log(2), np.log(2)),
        (90, 1.831428, 0.174573),
        (180, -np.log(0.017986), -np.log(1 - 0.017986)),
    ],
)
def test_calibrated_pair_has_the_worked_values(angle, positive, negative):
    a, b = [[5.0, 0]], [[np.cos(np.radians(angle)), np.sin(np.radians(angle))]]
    for same, expected in [(1, positive), (0, negative)]:
        found = contrastive.calibrated_pair(a, b, [same], [-2, 2], [2, -2])
        assert float(found) == pytest.approx(expected, abs=5e-4 if angle == 0 else 5e-5)


def test_unit_distance_ignores_length_and_has_a_finite_slope_at_zero():
    found = contrastive.unit_distance([[3.0, 4]], [[40.0, 30]])
    assert float(found[0]) == pytest.approx(0.282843, abs=1e-5)
    x = draw(2, 3)
    (slope,) = gradients(lambda y: tf.reduce_sum(contrastive.unit_distance(y, x)), x)
    assert np.isfinite(slope).all()


def mil_nce(video, text, temperature):
    total, b = 0.0, len(video)
    for i in range(b):
        own = sum(np.exp(video[i] @ t / temperature) for t in text[i])
        others = 0.0
        for j in range(b):
            if j != i:
                others += sum(np.exp(video[i] @ t / temperature) for t in text[j])
                others += sum(np.exp(video[j] @ t / temperature) for t in text[i])
        total -= np.log(own / (own + others))
    return total / b


def test_mil_nce_is_its_equation():
    holds(
        lambda v, t: contrastive.mil_nce(v, t, 0.7),
        lambda v, t: mil_nce(v, t, 0.7),
        draw(4, 3),
        draw(4, 2, 3, seed=1),
    )


def test_mil_nce_has_the_worked_values():
    bags = np.array([[[1.0, 0], [0, 0]], [[0, 1], [0, 0]]])
    assert float(contrastive.mil_nce(AXES, bags)) == pytest.approx(0.730330, abs=1e-5)
    for k in (1, 4):
        found = contrastive.mil_nce(np.zeros((8, 3)), np.zeros((8, k, 3)))
        assert float(found) == pytest.approx(2.708050, abs=1e-5)


def test_a_padding_caption_far_below_all_others_does_not_count():
    video = np.abs(draw(3, 2)) + 0.5
    text = draw(3, 2, 2, seed=1)
    padded = np.concatenate([text, np.full((3, 1, 2), -1e9)], axis=1)
    expected = float(contrastive.mil_nce(video, text))
    assert float(contrastive.mil_nce(video, padded)) == pytest.approx(expected, abs=1e-5)


def supervised(z, labels, temperature):
    z, total = unit(z), 0.0
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        below = sum(np.exp(z[i] @ z[a] / temperature) for a in others)
        terms = [np.log(np.exp(z[i] @ z[p] / temperature) / below) for p in positives]
        total -= np.mean(terms) if terms else 0
    return total / len(z)


def test_supervised_contrastive_is_its_equation():
    labels = np.array([3, 0, 3, 3, -1, 0, 7])  # 7 and -1 have no positive
    holds(
        lambda z: contrastive.supervised_contrastive(z, labels, 0.4),
        lambda z: supervised(z, labels, 0.4),
        draw(7, 3),
    )


@pytest.mark.parametrize(
    "z, labels, temperature, expected",
    [
        ([[1, 0], [1, 0], [0, 1], [0, 1]], [0, 0, 1, 1], 0.1, 9.0796e-5),
        (np.ones((4, 2)), [0, 0, 1, 1], 0.1, np.log(3)),
        (np.repeat(AXES, 3, 0), [0, 0, 0, 1, 1, 1], 0.5, 0.877968),
        ([[1, 0], [0.6, 0.8], [-0.8, 0.6], [0, -1]], [0, 0, 1, 1], 0.5, 0.958240),
    ],
)
def test_supervised_contrastive_has_the_worked_values(z, labels, temperature, expected):
    found = float(contrastive.supervised_contrastive(z, labels, temperature))
    assert found == pytest.approx(expected, abs=1e-5)


def test_supervised_contrastive_with_every_image_its_own_class_is_nt_xent():
    a, b = draw(5, 3), draw(5, 3, seed=1)
    labels = np.tile(np.arange(5), 2)
    found = contrastive.supervised_contrastive(np.concatenate([a, b]), labels, 0.2)
    assert float(found) == pytest.approx(float(contrastive.nt_xent(a, b, 0.2)), abs=1e-5)


def softplus(x):
    return np.log1p(np.exp(x))


def test_infomax_jsd_is_its_equation():
    def reference(y, local):
        n = len(y)
        good, bad = [], []
        for i in range(n):
            for m in range(n):
                for place in local[m]:
                    u = y[i] @ place
                    if i == m:
                        good.append(np.log(2) - softplus(-u))
                    else:
                        bad.append(softplus(-u) + u - np.log(2))
        return np.mean(bad) - np.mean(good)

    holds(contrastive.infomax_jsd, reference, draw(3, 4), draw(3, 2, 4, seed=1))


def test_infomax_nce_is_its_equation():
    def reference(y, local):
        n, costs = len(y), []
        for i in range(n):
            others = [y[i] @ q for m in range(n) if m != i for q in local[m]]
            costs += [softmax_cost(y[i] @ p, others) for p in local[i]]
        return np.mean(costs)

    holds(contrastive.infomax_nce, reference, draw(3, 4), draw(3, 2, 4, seed=1))


def test_infomax_has_the_worked_values():
    scores = np.array([[2.0, -1], [0, 1]])  # of summary n (identity) with location m
    found = contrastive.infomax_jsd(AXES, scores.T[:, None])
    assert float(found) == pytest.approx(-0.662995, abs=1e-5)
    zero = np.zeros((4, 3)), np.zeros((4, 16, 3))
    assert float(contrastive.infomax_jsd(*zero)) == pytest.approx(0, abs=1e-6)
    assert float(contrastive.infomax_nce(*zero)) == pytest.approx(3.891820, abs=1e-5)
    apart = 50 * np.eye(3) - 25
    found = contrastive.infomax_jsd(np.eye(3), apart[:, None])
    assert float(found) == pytest.approx(-2 * np.log(2), abs=1e-4)


def test_zero_vectors_have_finite_gradients():
    z, x = np.zeros((3, 4)), draw(3, 4)
    losses = [
        lambda a: contrastive.nt_xent(a, x, 0.5),
        lambda a: contrastive.info_nce(a, x, 0.5),
        lambda a: contrastive.triplet(a, x, -x, 0.5),
        lambda a: contrastive.margin_pair(a, z, [0, 1, 0], 1.0),
        lambda a: contrastive.supervised_contrastive(a, [0, 0, 1], 0.5),
        lambda a: contrastive.calibrated_pair(a, z, [0, 1, 0], [-2, 2], [2, -2]),
    ]
    for loss in losses:
        (slope,) = gradients(loss, z)
        assert np.isfinite(slope).all()


@pytest.mark.parametrize("length", [1e-10, 1.0, 1e15, 1e25])
def test_cosines_do_not_hang_on_the_length_of_the_embeddings(length):
    a, b, labels = draw(4, 3), draw(4, 3, seed=1), [0, 1, 0, 0]
    long_a, long_b = tf.constant(length * a, tf.float32), tf.constant(length * b, tf.float32)
    assert float(contrastive.nt_xent(long_a, long_b, 0.3)) == pytest.approx(
        nt_xent(a, b, 0.3), rel=1e-5
    )
    for objective in (
        lambda a, b: contrastive.info_nce(a, b, 0.3),
        lambda a, b: contrastive.info_nce_queue(a, b, b, 0.3),
        lambda a, b: contrastive.triplet(a, b, -b, 0.5),
        lambda a, b: contrastive.supervised_contrastive(a, labels, 0.3),
    ):
        assert float(objective(long_a, long_b)) == pytest.approx(float(objective(a, b)), rel=1e-5)
        slopes, expected = gradients(objective, long_a, long_b), gradients(objective, a, b)
        for slope, usual in zip(slopes, expected):
            np.testing.assert_allclose(slope * length, usual, rtol=1e-3, atol=1e-5)


def test_scores_of_long_embeddings_do_not_sink_below_the_mask():
    # Dot products of some -10^10: what is masked out must not weigh more than what is not.
    video, text = np.array([[1e5], [2e5]]), np.array([[[-1e5]], [[-2e5]]])
    # -1e10 against max(-1e10, -2e10, -2e10) and -4e10 against the same
    assert float(contrastive.mil_nce(video, text)) == pytest.approx(1e10, rel=1e-6)
    own = np.eye(2)[..., None]
    scores = -1e10 * np.array([[[1.0], [2]], [[3], [4]]])
    assert float(infomax.nce(tf.constant(scores, tf.float32), own)) == pytest.approx(5e9, rel=1e-6)


def test_infomax_of_a_single_image_has_no_negatives():
    summary, local = draw(1, 3), draw(1, 2, 3)
    own = np.mean(local[0] @ summary[0])
    assert float(contrastive.infomax_dv(summary, local)) == pytest.approx(-own, rel=1e-5)
    assert float(contrastive.infomax_nce(summary, local)) == pytest.approx(0, abs=1e-6)
