"""Estimates of mutual information from scores: a pair that belongs together against all others.

Scores are float32 [B, G, M]: of each image's summary with M places of each of all G images (of all
replicas); `own` [B, G, 1] is 1 where both are of one image. Own places are never negatives.
Source: Hjelm et al., Learning Deep Representations by Mutual Information Estimation and
Maximization, ICLR 2019, section 3.
"""

import tensorflow as tf

from tfssl.objectives import replicas
from tfssl.objectives.numerics import MASKED, float32


def dot_scores(summary, local):
    """(scores, own) of summaries [B, D] with places [B, M, D]: their dot products."""
    summary, local = float32(summary), float32(local)
    scores = tf.einsum("nd,mpd->nmp", summary, replicas.gather(local))
    return scores, own_of(summary)


def own_of(x):
    """1 where a row of the local `x` and one of all replicas' are the same: float32 [B, G, 1]."""
    columns = tf.shape(replicas.gather(x))[0]
    return tf.one_hot(replicas.own_columns(x), columns)[..., None]


def jsd(scores, own):
    """Jensen-Shannon estimate, E- minus E+: 0 at zero scores, never below -2 ln 2.

    E+ is the mean of ln 2 - softplus(-u) over own places, E- that of softplus(-u) + u - ln 2 over
    all others'. Equation 4, negatives as in the released code.
    """
    good = tf.math.log(2.0) - tf.nn.softplus(-scores)
    bad = tf.nn.softplus(scores) - tf.math.log(2.0)
    good = tf.reduce_sum(good * own, axis=1)  # [B, M]
    bad = tf.math.divide_no_nan(tf.reduce_sum(bad * (1 - own), axis=1), _others(own))
    return tf.reduce_mean(bad) - tf.reduce_mean(good)


def nce(scores, own):
    """infoNCE, equation 5: each own place against all places of all other images.

    An image's other places are masked out of its negatives (the released code gives them the score
    -10, which leaves some of their mass). ln(1 + (G - 1) M) at zero scores.
    """
    positive = tf.reduce_sum(scores * own, axis=1)  # [B, M]
    negatives = tf.reduce_logsumexp(tf.where(own > 0, MASKED, scores), axis=[1, 2])[:, None]
    return tf.reduce_mean(tf.nn.softplus(negatives - positive))


def dv(scores, own):
    """Donsker-Varadhan, equation 3: log of the mean of exp u over others, minus the mean over own.

    The mean inside the logarithm is one over all pairs of all replicas; an image without others
    has no such term, as in `jsd`.
    """
    positive = tf.reduce_mean(tf.reduce_sum(scores * own, axis=1))
    mass = tf.reduce_logsumexp(tf.where(own > 0, MASKED, scores), axis=[1, 2])  # [B]
    mass = tf.reduce_logsumexp(replicas.gather(mass))
    places = float32(tf.shape(scores)[2])
    pairs = float32(tf.shape(own)[1]) * tf.maximum(1.0, _others(own)) * places
    return tf.where(_others(own) > 0, mass - tf.math.log(pairs), 0.0) - positive


def _others(own):
    return float32(tf.shape(own)[1] - 1)
