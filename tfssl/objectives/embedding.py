"""Word-vector objectives: score true neighbours above sampled noise."""

import tensorflow as tf

from tfssl.objectives.numerics import float32


def negative_sampling(centre, context, negatives):
    """Logistic score of a true pair of words against k noise words.

    Args:
        centre: [B, D], rows of the input table.
        context: [B, D], rows of the output table.
        negatives: [B, k, D], rows of the output table for the noise words.

    -log sigma(u_o . v) - sum_j log sigma(-u_j . v), mean over pairs.
    Source: Mikolov et al. 2013 (distributed representations), equation 4.
    """
    centre, context, negatives = float32(centre), float32(context), float32(negatives)
    true = tf.reduce_sum(centre * context, axis=-1)
    noise = tf.einsum("bd,bkd->bk", centre, negatives)
    return tf.reduce_mean(negative_sampling_costs(true, noise))


def negative_sampling_costs(true, noise):
    """What each pair of words costs, before the mean over pairs: the shape of `true`.

    Args:
        true: [...], dot products of true pairs.
        noise: [..., k], those of each pair's centre with its noise words.
    """
    cost = tf.nn.softplus(-float32(true))
    return cost + tf.reduce_sum(tf.nn.softplus(float32(noise)), axis=-1)
