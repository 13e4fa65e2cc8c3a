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


def _other_views(log_probabilities, targets):
    """Mean cross-entropy of [B, V, K] with [B, G, K] over all pairs of different views."""
    targets = tf.stop_gradient(float32(targets))
    views, targets_given = log_probabilities.shape[1], targets.shape[1]
    pairs = -tf.einsum("bgk,bvk->gv", targets, log_probabilities)
    pairs *= 1 - tf.eye(targets_given, views)
    samples = float32(tf.shape(targets)[0])
    return tf.reduce_sum(pairs) / (samples * targets_given * (views - 1))
