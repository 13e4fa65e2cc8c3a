"""Losses of players that train against each other; scores are logits, or a critic's free numbers.

`real` and `fake` are the critic's scores of any shape, the mean is over all of them.
"""

import tensorflow as tf

from tfssl.objectives.numerics import float32, norm


def discriminator(real, fake):
    """-mean log D(real) - mean log(1 - D(fake)): the discriminator's side.

    Source: Goodfellow et al. 2014, equation 1.
    """
    return generator(real) + tf.reduce_mean(tf.nn.softplus(float32(fake)))


def generator(fake):
    """-mean log D(fake), which does not saturate. Source: Goodfellow et al. 2014, section 3."""
    return tf.reduce_mean(tf.nn.softplus(-float32(fake)))


def encoder_generator(real, fake):
    """BiGAN's E and G against the pair discriminator: its loss with the labels swapped.

    Args:
        real: scores of (x, E(x)); this term alone trains E.
        fake: scores of (G(z), z); this term alone trains G.

    The sum of both terms; the released code gives each the weight 1/2.
    Source: Donahue et al. 2017, section 3.4.
    """
    return discriminator(fake, real)


def wasserstein_critic(real, fake):
    """mean f(fake) - mean f(real), to be minimised. Source: Arjovsky et al. 2017, equation 2."""
    return tf.reduce_mean(float32(fake)) - tf.reduce_mean(float32(real))


def wasserstein_generator(fake):
    """-mean f(fake). Source: Arjovsky et al. 2017, algorithm 1."""
    return -tf.reduce_mean(float32(fake))


def gradient_penalty(critic, real, fake, mix):
    """How far the critic's slope between real and fake samples is from 1.

    Args:
        critic: callable, batch -> scores, without batch normalisation.
        real, fake: [B, ...] samples.
        mix: [B] in [0, 1), one number a sample (drawn by the caller), the place between the two.

    Mean of (|grad f(x)| - 1)^2, unweighted (the paper's weight is 10). Call it inside the tape of
    the training step. Source: Gulrajani et al. 2017, equation 3.
    """
    real, fake = float32(real), float32(fake)
    mix = tf.reshape(float32(mix), tf.concat([[-1], tf.ones([tf.rank(real) - 1], tf.int32)], 0))
    between = real + mix * (fake - real)
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = critic(between)
    slope = tf.reshape(tape.gradient(scores, between), [tf.shape(real)[0], -1])
    return tf.reduce_mean(tf.square(norm(slope) - 1))
