"""Predict a balanced cluster assignment instead of a neighbour: codes and soft teachers."""

import tensorflow as tf

from tfssl.objectives import replicas
from tfssl.objectives.numerics import float32


def sinkhorn(scores, epsilon, iterations):
    """Soft assignments that give every prototype the same share of the batch.

    Args:
        scores: [B, K] similarities of samples and prototypes.
        epsilon: entropy of the assignment; small is hard (0.05 in SwAV).
        iterations: alternations of the two normalisations (3 in SwAV).

    Returns:
        [B, K] codes without gradient; every row sums to 1, the columns over the whole batch (all
        replicas) approach B/K.

    Worked in logarithms, so no score overflows and no row underflows to 0/0.
    Source: Caron et al. 2020 (SwAV), section 3.1 and appendix A.
    """
    mine = replicas.offset(scores)
    size = tf.shape(scores)[0]
    logs = tf.stop_gradient(replicas.gather(float32(scores))) / epsilon
    # The constants 1/K and 1/B of the paper cancel once the rows sum to 1.
    for _ in range(iterations):
        logs -= tf.reduce_logsumexp(logs, axis=0, keepdims=True)
        logs -= tf.reduce_logsumexp(logs, axis=1, keepdims=True)
    codes = tf.nn.softmax(logs, axis=1)
    return tf.stop_gradient(codes[mine : mine + size])


def swapped_prediction(scores, codes, temperature):
    """Predict one view's code from every other view.

    Args:
        scores: [B, V, K] similarities of all V views with the prototypes.
        codes: [B, G, K], the codes of views 0..G-1 (`sinkhorn`, view by view); no gradient.
        temperature: of the prediction's softmax (0.1 in SwAV).

    Cross-entropy, averaged over the V - 1 other views, then over the G assignment views.
    Source: Caron et al. 2020 (SwAV), equation 2, multi-crop in section 3.3.
    """
    return _other_views(tf.nn.log_softmax(float32(scores) / temperature), codes)


def self_distillation(student, teacher, centre, student_temperature, teacher_temperature):
    """The student's softmax must match the centred, sharpened teacher across views.

    Args:
        student: [B, V, K] logits of all views, the G global ones first.
        teacher: [B, G, K] logits of the global views; no gradient.
        centre: [K] running mean of the teacher's logits, subtracted before its softmax.

    Mean over the G (V - 1) pairs of different views. Source: Caron et al. 2021 (DINO), equations
    1 and 3.
    """
    targets = tf.nn.softmax((float32(teacher) - float32(centre)) / teacher_temperature)
    return _other_views(tf.nn.log_softmax(float32(student) / student_temperature), targets)


@tf.function(jit_compile=True, reduce_retracing=True)
def assign(similarity):
    """The one-to-one assignment with the largest total similarity, without gradient.

    Args:
        similarity: [B, B]; what is not finite counts as the worst.

    Returns:
        int32 [B], a permutation: row i gets column assign(similarity)[i].

    Exact, by shortest augmenting paths (the Hungarian method, O(B^3)), in TensorFlow so that a
    training step can be compiled around it; compiled always, since step by step it is several times
    slower. For targets of the whole batch over replicas, give it gathered rows.
    Source: Kuhn 1955; Jonker & Volgenant 1987. Used in Bojanowski & Joulin 2017, section 3.2.
    """
    similarity = tf.stop_gradient(float32(similarity))
    finite = tf.math.is_finite(similarity)
    similarity = tf.where(finite, similarity, tf.reduce_min(tf.where(finite, similarity, 0.0)) - 1)
    cost = tf.reduce_max(similarity) - similarity
    size = tf.shape(cost)[0]
    start = size  # an extra column, from which every path begins
    infinite = tf.constant(float("inf"))
    at = tf.gather  # XLA takes the bounds of a slice for constants: it would compile at each call

    def add_row(row, row_price, column_price, owner):
        owner = tf.tensor_scatter_nd_update(owner, [[start]], [row])

        def visit(column, row_price, column_price, shortest, previous, visited, visited_row):
            visited |= tf.range(size + 1) == column
            reduced = at(cost, visited_row) - at(row_price, visited_row) - column_price[:-1]
            reduced = tf.concat([reduced, [infinite]], axis=0)
            closer = ~visited & (reduced < shortest)
            shortest = tf.where(closer, reduced, shortest)
            previous = tf.where(closer, column, previous)
            reachable = tf.where(visited, infinite, shortest)
            nearest = tf.argmin(reachable, output_type=tf.int32)
            step = at(reachable, nearest)
            # The prices move so that edges of the path stay tight.
            paid = step * float32(visited)
            owners = tf.where(visited, owner, size)
            row_price += tf.math.unsorted_segment_sum(paid, owners, size + 1)
            column_price -= paid
            shortest = tf.where(visited, shortest, shortest - step)
            return (
                *(nearest, row_price, column_price, shortest, previous, visited),
                at(owner, nearest),
            )

        nothing = tf.zeros([size + 1], tf.bool), row
        shortest, previous = tf.fill([size + 1], infinite), tf.fill([size + 1], start)
        column, row_price, column_price, _, previous, _, _ = tf.while_loop(
            lambda *state: state[-1] >= 0,  # until a column is free
            visit,
            (start, row_price, column_price, shortest, previous, *nothing),
        )

        def shift(column, owner):
            before = at(previous, column)
            return before, tf.tensor_scatter_nd_update(owner, [[column]], [at(owner, before)])

        _, owner = tf.while_loop(lambda column, _: column != start, shift, (column, owner))
        return row + 1, row_price, column_price, owner

    prices = tf.zeros([size + 1])
    free = tf.fill([size + 1], -1)
    *_, owner = tf.while_loop(lambda row, *_: row < size, add_row, (0, prices, prices, free))
    return tf.scatter_nd(owner[:size, None], tf.range(size), [size])


def _other_views(log_probabilities, targets):
    """Mean cross-entropy of [B, V, K] with [B, G, K] over all pairs of different views."""
    targets = tf.stop_gradient(float32(targets))
    samples, targets_given, _ = tf.unstack(tf.shape(targets))
    views = tf.shape(log_probabilities)[1]  # which a step of relaxed shapes does not know
    pairs = -tf.einsum("bgk,bvk->gv", targets, log_probabilities)
    pairs *= 1 - tf.eye(targets_given, views)
    return tf.reduce_sum(pairs) / float32(samples * targets_given * (views - 1))
