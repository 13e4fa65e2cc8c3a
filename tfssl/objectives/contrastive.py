"""Tell the matching pair from all others: losses over embeddings with negatives.

Every function that draws negatives from the batch draws them from all replicas (`replicas.gather`).
Embeddings come in as the network gives them; where the paper wants unit vectors they are made here.
"""

import tensorflow as tf

from tfssl.objectives import infomax, replicas
from tfssl.objectives.numerics import MASKED, cosine, float32, norm, normalise


def nt_xent(a, b, temperature):
    """NT-Xent: each of the 2N views must find its partner among the other 2N - 1.

    Args:
        a, b: [N, D] embeddings of the two views, row i of both from image i.
        temperature: divides the cosine similarities.

    Mean over all 2N views, as the paper defines it; the released code returns twice this number.
    Source: Chen et al. 2020 (SimCLR), equation 1 and algorithm 1.
    """
    a, b = normalise(a), normalise(b)
    all_a, all_b = replicas.gather(a), replicas.gather(b)
    own = tf.one_hot(replicas.own_columns(a), tf.shape(all_a)[0])  # [N, G]

    def half(anchor, same, other):
        to_same = tf.matmul(anchor, same, transpose_b=True) / temperature
        to_other = tf.matmul(anchor, other, transpose_b=True) / temperature
        to_same = tf.where(own > 0, MASKED, to_same)
        logits = tf.concat([to_other, to_same], axis=1)  # [N, 2G]
        return tf.reduce_logsumexp(logits, axis=1) - tf.reduce_sum(own * to_other, axis=1)

    return 0.5 * tf.reduce_mean(half(a, all_a, all_b) + half(b, all_b, all_a))


def info_nce(queries, keys, temperature):
    """InfoNCE in one direction: key i is query i's positive, all other keys are its negatives.

    Args:
        queries, keys: [N, D]; both receive gradient.
        temperature: divides the cosine similarities.

    Source: van den Oord et al. 2018 (CPC), equation 4, with cosine scores.
    """
    queries, keys = normalise(queries), normalise(keys)
    logits = tf.matmul(queries, replicas.gather(keys), transpose_b=True) / temperature
    labels = replicas.own_columns(keys)
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )


def info_nce_queue(queries, keys, negatives, temperature):
    """(K+1)-way InfoNCE: key i against a queue of old keys; other rows of the batch do not enter.

    Args:
        queries: [N, D]; the only input with gradient.
        keys: [N, D], one positive a query, from the momentum encoder.
        negatives: [K, D], the queue as it was before this batch; normalised here.
        temperature: divides the cosine similarities.

    Source: He et al. 2020 (MoCo), equation 1 and algorithm 1.
    """
    queries = normalise(queries)
    keys, negatives = tf.stop_gradient(normalise(keys)), tf.stop_gradient(normalise(negatives))
    positive = tf.reduce_sum(queries * keys, axis=1) / temperature
    others = tf.matmul(queries, negatives, transpose_b=True) / temperature
    # -log(e^p / (e^p + sum e^n)), in the form that keeps its digits where the loss is tiny
    return tf.reduce_mean(tf.math.softplus(tf.reduce_logsumexp(others, axis=1) - positive))


def margin_pair(a, b, same, margin):
    """Pull pairs that belong together, push others until they are `margin` apart.

    Args:
        a, b: [N, D], not normalised; d is their Euclidean distance.
        same: [N], 1 where the pair belongs together, 0 where not.
        margin: distance beyond which a negative pair costs nothing.

    Mean of same d^2 + (1 - same) max(margin - d, 0)^2.
    Source: Hadsell et al. 2006, equation 4 (there with a factor 1/2).
    """
    same, difference = float32(same), float32(a) - float32(b)
    pull = tf.reduce_sum(tf.square(difference), axis=-1)
    push = tf.square(tf.nn.relu(margin - norm(difference)))
    return tf.reduce_mean(same * pull + (1 - same) * push)


def triplet(anchor, positive, negative, margin):
    """The positive must be nearer (cosine distance) to the anchor than the negative by `margin`.

    Args:
        anchor, positive, negative: [N, D].

    Mean of max(D(anchor, positive) - D(anchor, negative) + margin, 0), D = 1 - cosine.
    Source: Wang & Gupta 2015, equation 2; Doersch & Zisserman 2017, section 3.3.
    """
    nearer = cosine(anchor, positive) - cosine(anchor, negative)
    return tf.reduce_mean(tf.nn.relu(margin - nearer))


def unit_distance(a, b):
    """Euclidean distance of the normalised rows, [N] in [0, 2]; its gradient is finite at 0."""
    return tf.sqrt(tf.reduce_sum(tf.square(normalise(a) - normalise(b)), axis=-1) + 1e-8)


def calibrated_pair(a, b, same, weight, bias):
    """Do the two belong together, judged by their distance alone?

    Args:
        a, b: [N, D] embeddings of the two modalities.
        same: [N], 1 where they correspond.
        weight, bias: [2] each, trained by the method; logits = weight d + bias, the first one means
            "corresponds". Start from weight (-2, 2), bias (2, -2): the threshold is d = 1, and the
            other sign would align the two spaces upside down.

    Mean two-way cross-entropy. Source: Arandjelovic & Zisserman 2018 (AVE-Net), section 3.1.
    """
    logits = unit_distance(a, b)[:, None] * float32(weight) + float32(bias)  # [N, 2]
    labels = 1 - tf.cast(same, tf.int32)
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )


def mil_nce(video, text, temperature=1.0):
    """A clip against a bag of K candidate captions: the bag's sum must beat all other pairings.

    Args:
        video: [B, D].
        text: [B, K, D]; bag i belongs to clip i.
        temperature: divides the dot products (nothing is normalised; the paper has none).

    The denominator holds the positives once, clip i with other bags, and other clips with bag i.
    The released code counts the positives twice; the paper's equation is meant here.
    Source: Miech et al. 2020, equation 1.
    """
    video, text = float32(video), float32(text)
    all_video, all_text = replicas.gather(video), replicas.gather(text)
    rows = tf.einsum("id,jkd->ijk", video, all_text) / temperature  # clip i with every bag
    columns = tf.einsum("jd,ikd->ijk", all_video, text) / temperature  # bag i with every clip
    own = tf.one_hot(replicas.own_columns(video), tf.shape(all_video)[0]) > 0  # [B, G]
    positives = tf.reduce_logsumexp(tf.where(own[..., None], rows, MASKED), axis=[1, 2])
    columns = tf.where(own[..., None], MASKED, columns)
    everything = tf.concat([rows, columns], axis=1)
    return tf.reduce_mean(tf.reduce_logsumexp(everything, axis=[1, 2]) - positives)


def supervised_contrastive(z, labels, temperature):
    """Every other view of the same class is a positive: the labelled upper bound of the family.

    Args:
        z: [N, D], all views of the batch in any order.
        labels: int [N].
        temperature: divides the cosine similarities.

    Mean over all N anchors of the mean over positives outside the logarithm ("out" form); an anchor
    without a positive costs 0. The released code's factor temperature / 0.07 is left out.
    Source: Khosla et al. 2020, equation 2.
    """
    z, labels = normalise(z), tf.reshape(tf.convert_to_tensor(labels), [-1])
    all_z, all_labels = replicas.gather(z), replicas.gather(labels)
    logits = tf.matmul(z, all_z, transpose_b=True) / temperature  # [N, G]
    own = tf.one_hot(replicas.own_columns(z), tf.shape(all_z)[0])
    denominator = tf.reduce_logsumexp(tf.where(own > 0, MASKED, logits), axis=1, keepdims=True)
    positive = float32(labels[:, None] == all_labels[None, :]) * (1 - own)
    cost = tf.reduce_sum(positive * (denominator - logits), axis=1)
    return tf.reduce_mean(tf.math.divide_no_nan(cost, tf.reduce_sum(positive, axis=1)))


def infomax_jsd(summary, local):
    """Deep InfoMax with the Jensen-Shannon estimate: own locations score high, others' low.

    Args:
        summary: [B, D], one vector an image, after its score network.
        local: [B, M, D], M locations, after theirs; the score is the dot product.

    E- minus E+, shifted so that zero scores cost 0; bounded below by -2 ln 2.
    Source: Hjelm et al. 2019, equation 4, negatives as in the released code.
    """
    return infomax.jsd(*infomax.dot_scores(summary, local))


def infomax_nce(summary, local):
    """Deep InfoMax with infoNCE: each own location against all locations of all other images.

    Args and shapes as in `infomax_jsd`. Source: Hjelm et al. 2019, equation 5.
    """
    return infomax.nce(*infomax.dot_scores(summary, local))


def infomax_dv(summary, local):
    """Deep InfoMax with the Donsker-Varadhan estimate, which knows no bound.

    Args and shapes as in `infomax_jsd`. Source: Hjelm et al. 2019, equation 3.
    """
    return infomax.dv(*infomax.dot_scores(summary, local))
