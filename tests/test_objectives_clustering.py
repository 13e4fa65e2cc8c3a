"""Codes and soft teachers against slow transcriptions of the equations, and the cards' numbers."""

import numpy as np
import pytest
import tensorflow as tf
from objective_checks import draw, gradients, holds
from scipy.optimize import linear_sum_assignment

from tfssl.objectives import clustering


def sinkhorn(scores, epsilon, iterations):
    q = np.exp((scores - scores.max()) / epsilon).T  # prototypes by samples, as in the paper
    q /= q.sum()
    prototypes, samples = q.shape
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * prototypes
        q /= q.sum(0, keepdims=True) * samples
    return (q * samples).T


def test_sinkhorn_is_its_algorithm():
    scores = draw(7, 4) / 5
    for iterations in (1, 3, 10):
        found = clustering.sinkhorn(scores, 0.05, iterations)
        np.testing.assert_allclose(found, sinkhorn(scores, 0.05, iterations), atol=1e-5)
        np.testing.assert_allclose(np.sum(found, 1), 1, atol=1e-6)
    compiled = tf.function(
        lambda s: clustering.sinkhorn(s, 0.05, 3),
        input_signature=[tf.TensorSpec([None, 4])],
        jit_compile=True,
    )
    found = compiled(tf.constant(scores, tf.float32))
    np.testing.assert_allclose(found, sinkhorn(scores, 0.05, 3), atol=1e-5)


def test_sinkhorn_has_the_worked_values():
    scores = [[0.1, 0], [0.1, 0], [0.1, 0], [0.1, 0.05]]
    expected = [[0.560338, 0.439662]] * 3 + [[0.319197, 0.680803]]
    np.testing.assert_allclose(clustering.sinkhorn(scores, 0.05, 3), expected, atol=1e-5)
    converged = clustering.sinkhorn(scores, 0.05, 200)
    expected = [[0.560284, 0.439716]] * 3 + [[0.319149, 0.680851]]
    np.testing.assert_allclose(converged, expected, atol=1e-5)
    np.testing.assert_allclose(np.sum(converged, 0), [2, 2], atol=1e-5)


def test_sinkhorn_gives_equal_shares_whatever_is_added_to_a_prototype():
    scores = draw(12, 3) / 5
    codes = clustering.sinkhorn(scores, 0.1, 300)
    np.testing.assert_allclose(np.sum(codes, 0), 4, atol=1e-3)
    moved = clustering.sinkhorn(scores + np.array([0.5, 0, -0.2]), 0.1, 300)
    np.testing.assert_allclose(moved, codes, atol=1e-3)
    np.testing.assert_allclose(clustering.sinkhorn(np.ones((5, 4)), 0.05, 3), 0.25, atol=1e-6)


def test_sinkhorn_survives_large_scores_and_rows_far_below_the_others():
    scores = np.array([[900.0, 0, 1], [-900, -901, -899], [0, 0, 900]])
    codes = clustering.sinkhorn(scores, 0.05, 3)
    assert np.isfinite(codes).all()
    np.testing.assert_allclose(np.sum(codes, 1), 1, atol=1e-5)


def test_no_gradient_flows_through_codes():
    def through(scores):
        return tf.reduce_sum(clustering.sinkhorn(scores, 0.05, 3) * draw(4, 3).astype("float32"))

    assert not np.any(gradients(through, draw(4, 3))[0])


def log_softmax(x):
    return x - np.log(np.exp(x).sum())


def swapped(scores, codes, temperature):
    batch, views = scores.shape[:2]
    total = 0.0
    for i in range(codes.shape[1]):
        for v in range(views):
            if v != i:
                costs = [
                    -codes[b, i] @ log_softmax(scores[b, v] / temperature) for b in range(batch)
                ]
                total += np.mean(costs) / (views - 1)
    return total / codes.shape[1]


def test_swapped_prediction_is_its_equation():
    codes = np.abs(draw(3, 2, 4, seed=1))
    holds(
        lambda s, q: clustering.swapped_prediction(s, q, 0.5),
        lambda s, q: swapped(s, q, 0.5),
        draw(3, 5, 4),
        codes / codes.sum(-1, keepdims=True),
        frozen=(1,),
    )


def test_equal_scores_cost_the_logarithm_of_the_prototypes():
    scores = np.zeros((2, 2, 3000))
    codes = np.full((2, 2, 3000), 1 / 3000)
    found = clustering.swapped_prediction(scores, codes, 0.1)
    assert float(found) == pytest.approx(8.006368, abs=1e-4)


def test_a_view_does_not_predict_its_own_code():
    scores, codes = draw(2, 3, 4), np.full((2, 1, 4), 0.25)
    (slope,) = gradients(lambda s: clustering.swapped_prediction(s, codes, 0.1), scores)
    assert not np.any(slope[:, 0]) and np.any(slope[:, 1]) and np.any(slope[:, 2])


def distillation(student, teacher, centre, student_temperature, teacher_temperature):
    terms = []
    for i in range(teacher.shape[1]):
        for v in range(student.shape[1]):
            if v != i:
                costs = []
                for s, t in zip(student[:, v], teacher[:, i]):
                    target = np.exp(log_softmax((t - centre) / teacher_temperature))
                    costs.append(-target @ log_softmax(s / student_temperature))
                terms.append(np.mean(costs))
    assert len(terms) == teacher.shape[1] * (student.shape[1] - 1)
    return np.mean(terms)


def test_self_distillation_is_its_equation():
    holds(
        lambda s, t, c: clustering.self_distillation(s, t, c[0], 0.4, 0.3),
        lambda s, t, c: distillation(s, t, c[0], 0.4, 0.3),
        draw(2, 4, 3),
        draw(2, 2, 3, seed=1),
        draw(1, 3, seed=2),
        frozen=(1, 2),
    )


def test_a_graph_may_learn_the_number_of_views_at_its_step():
    student, teacher = draw(2, 4, 3), draw(2, 2, 3, seed=1)
    codes = np.exp(teacher) / np.exp(teacher).sum(-1, keepdims=True)
    some = tf.TensorSpec([None, None, 3])
    for loss, targets, expected in (
        (
            lambda s, q: clustering.swapped_prediction(s, q, 0.5),
            codes,
            swapped(student, codes, 0.5),
        ),
        (
            lambda s, t: clustering.self_distillation(s, t, tf.zeros(3), 0.4, 0.3),
            teacher,
            distillation(student, teacher, np.zeros(3), 0.4, 0.3),
        ),
    ):
        loss = tf.function(loss, input_signature=[some, some])
        found = loss(tf.constant(student, tf.float32), tf.constant(targets, tf.float32))
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_self_distillation_has_the_worked_values():
    logits = np.array([[[0.1, 0, 0]]])
    student = np.concatenate([logits * 9, logits], 1)  # its own view is skipped
    found = clustering.self_distillation(student, logits, np.zeros(3), 0.1, 0.04)
    assert float(found) == pytest.approx(0.692464, abs=1e-5)
    centred = clustering.self_distillation(student, logits, logits[0, 0], 0.1, 0.04)
    uniform = -np.mean(log_softmax(np.array([1.0, 0, 0])))
    assert float(centred) == pytest.approx(uniform, abs=1e-5)
    for classes, expected in [(256, 5.545177), (4096, 8.317766), (65536, 11.090355)]:
        flat = np.zeros((1, 2, classes))
        found = clustering.self_distillation(flat, flat, np.zeros(classes), 0.1, 0.04)
        assert float(found) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_the_assignment_is_the_best_of_all(size):
    similarity = draw(size, size, seed=size)
    columns = clustering.assign(similarity).numpy()
    assert sorted(columns) == list(range(size))
    best = similarity[linear_sum_assignment(similarity, maximize=True)].sum()
    assert similarity[np.arange(size), columns].sum() == pytest.approx(best, abs=1e-4)


def test_the_assignment_of_swapped_rows_swaps_them_back():
    z, targets = np.eye(2), np.eye(2)[::-1]
    columns = clustering.assign(z @ targets.T).numpy()
    assert np.sum((z - targets) ** 2) == 4 and np.sum((z - targets[columns]) ** 2) == 0


def test_the_assignment_survives_ties_and_what_is_not_a_number():
    assert sorted(clustering.assign(np.zeros((5, 5))).numpy()) == list(range(5))
    assert sorted(clustering.assign(np.full((5, 5), np.nan)).numpy()) == list(range(5))
    similarity = np.array([[np.nan, 1.0], [2.0, 1.0]])
    assert clustering.assign(similarity).numpy().tolist() == [1, 0]


def test_the_assignment_is_compiled_for_a_shape_and_not_for_each_similarity():
    similarity = tf.constant(draw(4, 4, seed=0), tf.float32)
    program = clustering.assign.experimental_get_compiler_ir(similarity)("hlo").splitlines()[0]
    assert "(f32[4,4]" in program, "the similarity was compiled in as a constant"


def test_the_assignment_works_inside_compiled_and_plain_steps_of_unknown_batch():
    similarity = draw(6, 6)
    expected = linear_sum_assignment(similarity, maximize=True)[1]
    for compiled in (True, False):
        step = tf.function(
            lambda s: clustering.assign(s) + 0,
            input_signature=[tf.TensorSpec([None, None])],
            jit_compile=compiled,
        )
        assert step(tf.constant(similarity, tf.float32)).numpy().tolist() == expected.tolist()
