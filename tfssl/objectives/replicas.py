"""What an objective needs to see the whole batch when each replica holds only a part of it.

The scale that makes two replicas equal one: every replica returns the mean over its *own* anchors
against everybody's keys (or, where the batch enters through statistics, the loss of the whole
batch). `Method.compute_loss` divides by the number of replicas R and gradients are summed, so what
is minimised is (1/R) sum_r loss_r. The gradient of `gather` sums over the replicas what each of
them sends back, which is exactly the derivative of that sum with respect to the local part.
"""

import tensorflow as tf

UNEQUAL = (
    "The replicas do not share this batch equally: make batches of a multiple of their number, and "
    "leave out a smaller last one (drop_remainder=True)."
)


def _context():
    """The replica context when there are several replicas, else None."""
    if tf.distribute.in_cross_replica_context():
        return None
    context = tf.distribute.get_replica_context()
    return context if context.num_replicas_in_sync > 1 else None


def count():
    """How many replicas train together."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def share(x):
    """How many examples the batch `x`, a nest of tensors, has on this replica."""
    return tf.shape(tf.nest.flatten(x)[0])[0]


def refuse_unequal(x, training=True):
    """Lets a step fail whose batch `x` is not shared equally: every replica's loss weighs 1 / R.

    In evaluation, where losses are weighted by their examples, no replica may be without any.
    """
    context = _context()
    if context is not None:
        shares = context.all_gather(share(x)[None], axis=0)
        least = tf.reduce_max(shares) if training else 1
        tf.debugging.assert_greater_equal(tf.reduce_min(shares), least, UNEQUAL)


def everywhere(condition):
    """Whether a bool scalar holds on every replica."""
    context = _context()
    if context is None:
        return condition
    holding = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(condition, tf.float32))
    return tf.equal(holding, float(count()))


def reducible(logs):
    """Logs as Keras can join those of several workers: along axis 0, which scalars do not have."""
    if tf.distribute.get_strategy().extended._in_multi_worker_mode():
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}
    return logs


def gather(x):
    """Rows of all replicas, concatenated along axis 0 in replica order; `x` itself if there is one.

    Differentiable. Outside a replica context (eager code, export) it is the identity.
    """
    context = _context()
    return x if context is None else context.all_gather(x, axis=0)


def offset(x):
    """int32 scalar: where this replica's rows of `x` begin in `gather(x)`."""
    context = _context()
    if context is None:
        return tf.constant(0, tf.int32)
    sizes = context.all_gather(tf.shape(x)[:1], axis=0)
    before = tf.range(tf.size(sizes)) < tf.cast(context.replica_id_in_sync_group, tf.int32)
    return tf.reduce_sum(tf.where(before, sizes, 0))


def average(x):
    """Mean of `x` over the replicas, without gradient: for counts that a masked mean divides by."""
    context = _context()
    x = tf.stop_gradient(x)
    return x if context is None else context.all_reduce(tf.distribute.ReduceOp.MEAN, x)


def own_columns(x):
    """Column of `gather(x)` that each local row is: int32 [B], for targets and self masks."""
    return offset(x) + tf.range(tf.shape(x)[0])
