"""Agreement of two views without negatives: a statistic or a predictor prevents collapse."""

import tensorflow as tf

from tfssl.objectives import replicas
from tfssl.objectives.numerics import cosine, float32


def negative_cosine(prediction, target):
    """Minus the cosine of prediction and target, mean over the batch; no gradient to the target.

    Both [B, D]. Source: Chen & He 2021 (SimSiam), equations 1 and 3.
    """
    return -tf.reduce_mean(cosine(prediction, tf.stop_gradient(target)))


def normalised_mse(prediction, target):
    """Squared distance of the two unit vectors, 2 - 2 cosine, in [0, 4]; no gradient to the target.

    Both [B, D]. Source: Grill et al. 2020 (BYOL), equation 2; Bojanowski & Joulin 2017, equation 2.
    """
    return 2 + 2 * negative_cosine(prediction, target)


def barlow_twins(a, b, off_diagonal):
    """The cross-correlation of the two views' embeddings must be the identity.

    Args:
        a, b: [B, D]; each dimension is standardised over the batch of all replicas with the biased
            variance, each view by itself.
        off_diagonal: weight of the squared correlations between different dimensions (0.005).

    Sum over dimensions, not a mean. Source: Zbontar et al. 2021, equations 1 and 2.
    """
    a, b = _standardise(replicas.gather(float32(a))), _standardise(replicas.gather(float32(b)))
    correlation = tf.matmul(a, b, transpose_a=True) / float32(tf.shape(a)[0])  # [D, D]
    diagonal = tf.linalg.diag_part(correlation)
    redundant = tf.square(tf.linalg.set_diag(correlation, tf.zeros_like(diagonal)))
    return tf.reduce_sum(tf.square(1 - diagonal)) + off_diagonal * tf.reduce_sum(redundant)


def vicreg(a, b, invariance=25.0, variance=25.0, covariance=1.0):
    """Views agree, every dimension keeps a spread of 1, dimensions do not repeat each other.

    Args:
        a, b: [B, D], not normalised in any way; statistics are those of all replicas' batch.
        invariance, variance, covariance: weights of the three terms.

    As the authors' code has it: the invariance term is a mean over dimensions (the paper sums
    them), the variance term the mean of both branches, the covariance term their sum; the weights
    are those of the code. Source: Bardes et al. 2022, equations 1 to 6.
    """
    a, b = replicas.gather(float32(a)), replicas.gather(float32(b))
    agree = tf.reduce_mean(tf.math.squared_difference(a, b))
    spread_a, redundancy_a = _spread_and_redundancy(a)
    spread_b, redundancy_b = _spread_and_redundancy(b)
    return (
        invariance * agree
        + variance * (spread_a + spread_b) / 2
        + covariance * (redundancy_a + redundancy_b)
    )


def _standardise(z):
    z -= tf.reduce_mean(z, axis=0)
    # Again: the rounding of that mean would make a constant dimension one of perfect correlation.
    z -= tf.reduce_mean(z, axis=0)
    # A floor and no addend: scaling a dimension must not change the correlation.
    return z * tf.math.rsqrt(tf.maximum(tf.reduce_mean(tf.square(z), axis=0), 1e-12))


def _spread_and_redundancy(z):
    z -= tf.reduce_mean(z, axis=0)
    freedom = tf.maximum(float32(tf.shape(z)[0]) - 1, 1.0)
    covariance = tf.matmul(z, z, transpose_a=True) / freedom  # [D, D]
    deviation = tf.sqrt(tf.linalg.diag_part(covariance) + 1e-4)
    redundant = tf.linalg.set_diag(covariance, tf.zeros_like(deviation))
    dimensions = float32(tf.shape(z)[1])
    return (
        tf.reduce_mean(tf.nn.relu(1 - deviation)),
        tf.reduce_sum(tf.square(redundant)) / dimensions,
    )
