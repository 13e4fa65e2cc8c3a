"""Two replicas with half a batch each must do what one does with the whole batch.

A process may have one MirroredStrategy only, and logical devices must be set before TensorFlow
starts: the comparison runs this file as a program of its own.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

CASES = (
    "nt_xent",
    "info_nce",
    "mil_nce",
    "supervised_contrastive",
    "infomax_jsd",
    "infomax_nce",
    "infomax_dv",
    "barlow_twins",
    "vicreg",
    "sinkhorn",
    "swapped_prediction",
    "assign",
    "masked_mse",
    "masked_mean_without_any_on_one_replica",
)


@pytest.fixture(scope="module")
def measured():
    """{case: [largest difference in loss, in gradient, largest gradient]} of one against two."""
    root = pathlib.Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_two_replicas_equal_one(measured, case):
    loss, gradient, size = measured[case]
    assert size > 1e-3, "a gradient of nothing proves nothing"
    assert loss < 1e-5
    assert gradient < 1e-5 * max(1, size)


def objectives():
    import tensorflow as tf

    from tfssl.objectives import clustering, contrastive, decorrelation, reconstruction, replicas

    def codes(scores):
        return clustering.sinkhorn(scores, 0.2, 3)

    def swapped(a, b, extra):
        views = tf.stack([a, b, a - b], axis=1)
        given = tf.stack([codes(a), codes(b)], axis=1)
        return clustering.swapped_prediction(views, given, 0.3)

    def assigned(a, b, extra):
        targets = replicas.gather(tf.stop_gradient(b))
        columns = clustering.assign(tf.matmul(replicas.gather(a), targets, transpose_b=True))
        mine = tf.gather(columns, replicas.own_columns(a))
        return decorrelation.normalised_mse(a, tf.gather(targets, mine))

    def bags(x):
        return tf.stack([x, 0.5 * x[:, ::-1]], axis=1)

    return {
        "nt_xent": lambda a, b, e: contrastive.nt_xent(a, b, 0.3),
        "info_nce": lambda a, b, e: contrastive.info_nce(a, b, 0.3),
        "mil_nce": lambda a, b, e: contrastive.mil_nce(a, bags(b)),
        "supervised_contrastive": lambda a, b, e: contrastive.supervised_contrastive(a, e, 0.3),
        "infomax_jsd": lambda a, b, e: contrastive.infomax_jsd(a, bags(b)),
        "infomax_nce": lambda a, b, e: contrastive.infomax_nce(a, bags(b)),
        "infomax_dv": lambda a, b, e: contrastive.infomax_dv(a, bags(b)),
        "barlow_twins": lambda a, b, e: decorrelation.barlow_twins(a, b, 0.005),
        "vicreg": lambda a, b, e: decorrelation.vicreg(a, b),
        "sinkhorn": lambda a, b, e: tf.reduce_mean(codes(b) * a),
        "swapped_prediction": swapped,
        "assign": assigned,
        "masked_mse": lambda a, b, e: reconstruction.masked_mse(bags(a), bags(b), _hidden(e)),
        "masked_mean_without_any_on_one_replica": lambda a, b, e: reconstruction.masked_mean(
            a, _late(e)
        ),
    }


def _hidden(extra):
    """A mask [B, 2] that hides unequal numbers of patches in the two halves of the batch."""
    import tensorflow as tf

    extra = tf.cast(extra, tf.float32)
    return tf.stack([tf.ones_like(extra), tf.cast(extra > 1, tf.float32)], axis=1)


def _late(extra):
    import tensorflow as tf

    return tf.cast(extra > 2, tf.float32)[:, None]


def main():
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2, 8, 5)).astype(np.float32)
    extra = np.array([0, 1, 0, 1, 2, 1, 3, 3])  # classes, some on one replica only
    start = draw.normal(size=(5, 4)).astype(np.float32)
    with strategy.scope():
        weights = tf.Variable(start)

    def half(values, replica):
        return values[..., 4 * replica : 4 * replica + 4, :]

    def share(context):
        i = context.replica_id_in_sync_group
        return tf.constant(half(x, i)), tf.constant(extra[4 * i : 4 * i + 4])

    shares = strategy.experimental_distribute_values_from_function(lambda c: share(c)[0])
    extras = strategy.experimental_distribute_values_from_function(lambda c: share(c)[1])

    def step(objective, w, x, extra, replicas):
        with tf.GradientTape() as tape:
            tape.watch(w)
            a, b = tf.tanh(x[0] @ w), tf.tanh(x[1] @ w)
            loss = objective(a, b, extra) / replicas
        return loss, tape.gradient(loss, w)

    result = {}
    for name, objective in objectives().items():
        loss, slope = step(objective, tf.constant(start), tf.constant(x), tf.constant(extra), 1)

        @tf.function
        def two(shares, extras, objective=objective):
            def each(x, extra):
                loss, slope = step(objective, weights.read_value(), x, extra, 2)
                context = tf.distribute.get_replica_context()
                return context.all_reduce(tf.distribute.ReduceOp.SUM, [loss, slope])

            return strategy.run(each, (shares, extras))

        losses, slopes = (strategy.experimental_local_results(v) for v in two(shares, extras))
        result[name] = [
            max(abs(float(other) - float(loss)) for other in losses),
            max(float(tf.reduce_max(abs(other - slope))) for other in slopes),
            float(tf.reduce_max(abs(slope))),
        ]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
