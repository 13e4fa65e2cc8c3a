"""Name the right class: cross-entropies of pretext labels, soft targets and pixels."""

import tensorflow as tf

from tfssl.objectives.numerics import float32
from tfssl.objectives.reconstruction import masked_mean


def cross_entropy(logits, labels):
    """Mean cross-entropy of logits [..., C] with integer labels [...]."""
    labels = tf.cast(labels, tf.int32)
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=float32(logits))
    )


def weighted_cross_entropy(logits, labels, weights):
    """Mean of weight times cross-entropy; the mean is over all labels, not over the weights' sum.

    Args:
        logits: [..., C].
        labels: int [...].
        weights: [...], 0 for what must not count; no gradient.
    """
    costs = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.cast(labels, tf.int32), logits=float32(logits)
    )
    return tf.reduce_mean(costs * tf.stop_gradient(float32(weights)))


def soft_cross_entropy(logits, targets, weights=1.0):
    """Cross-entropy with a distribution as target, -sum_q target_q log softmax(logits)_q.

    Args:
        logits: [..., Q].
        targets: [..., Q], rows sum to 1; no gradient.
        weights: [...] or a number, multiplies each position's cost; no gradient.

    Mean over all positions. Colourisation's class rebalancing (Zhang et al. 2016, equation 2) is
    `weights` = the weight of the target's strongest bin (`rebalancing`).
    """
    costs = -tf.reduce_sum(
        tf.stop_gradient(float32(targets)) * tf.nn.log_softmax(float32(logits)), axis=-1
    )
    return tf.reduce_mean(costs * tf.stop_gradient(float32(weights)))


def binary_cross_entropy(logits, targets, mask):
    """Logistic loss of pixels that have a label, mean over them.

    Args:
        logits, targets: of one shape; targets in [0, 1].
        mask: the same shape, 1 where the label counts; elsewhere the gradient is 0.

    Source: Pathak et al. 2017 (learning features by watching objects move), section 4.
    """
    targets = tf.stop_gradient(float32(targets))
    costs = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=float32(logits))
    return masked_mean(costs, mask)


def soft_encoding(colours, centres, neighbours, sigma):
    """A colour as a distribution over bins: a Gaussian of its nearest centres.

    Args:
        colours: [..., 2], ab of CIE Lab.
        centres: [Q, 2], the bins' ab.
        neighbours: how many of the nearest centres share the mass (5 in the paper, 10 in its code);
            all of them where there are fewer.
        sigma: of the Gaussian, in units of ab (5).

    Returns:
        [..., Q], rows sum to 1. Source: Zhang et al. 2016 (colourisation), section 2.1.
    """
    centres = float32(centres)
    difference = float32(colours)[..., None, :] - centres
    squared = tf.reduce_sum(tf.square(difference), axis=-1)  # [..., Q]
    neighbours = tf.minimum(neighbours, tf.shape(centres)[0])
    nearest, bins = tf.math.top_k(-squared, neighbours)
    shares = tf.nn.softmax(nearest / (2 * sigma**2))  # [..., neighbours]
    return tf.reduce_sum(shares[..., None] * tf.one_hot(bins, tf.shape(centres)[0]), axis=-2)


def rebalancing(frequencies, uniform):
    """Weights that lift rare bins: 1 / ((1 - uniform) p + uniform / Q), scaled to mean 1 under p.

    Args:
        frequencies: [Q], how often each bin occurs; sums to 1.
        uniform: share of the uniform distribution mixed in (0.5); 1 turns rebalancing off.

    Source: Zhang et al. 2016, equations 3 and 4.
    """
    p = float32(frequencies)
    weights = 1 / ((1 - uniform) * p + uniform / float32(tf.size(p)))
    return weights / tf.reduce_sum(p * weights)


def annealed_mean(logits, centres, temperature):
    """One colour from a distribution over bins, between its mean (1) and its mode (0).

    Args:
        logits: [..., Q]. centres: [Q, C]. temperature: 0.38 in the paper.

    Returns:
        [..., C]. Source: Zhang et al. 2016, equation 5.
    """
    return tf.tensordot(tf.nn.softmax(float32(logits) / temperature), float32(centres), axes=1)
