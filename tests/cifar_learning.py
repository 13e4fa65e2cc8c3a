"""Top-1 on CIFAR-10's held-out images before and after minutes of a method's SMALL recipe."""

import time

import keras
import tensorflow as tf

from tfssl import evaluate, pipelines, zoo
from tfssl.cli.options import policy
from tfssl.pipelines import batching


def before_and_after(name, shared, epochs, protocol=evaluate.knn, tap=None, **overrides):
    """(top-1 of the untrained network, of the trained one), and prints what it cost.

    The features are the encoder's, or those of its layer `tap`. The source shows no label unless
    the method's views ask for one.
    """
    module, folder = zoo.get(name), str(shared / "data" / "cifar10")
    keras.config.set_dtype_policy(policy("auto"))
    keras.utils.set_random_seed(0)
    run = module.recipe(
        **{**module.SMALL, "data": f"{folder}@train", "epochs": epochs, **overrides}
    )
    sets = [
        list(batching.evaluation(pipelines.load(f"{folder}@{split}", keys=("image", "label")), 256))
        for split in ("train", "test")
    ]
    train, test = (joined(batches) for batches in sets)

    def top1():
        encoder = next(iter(run.model.published.values()))
        if tap:
            encoder = keras.Model(encoder.input, encoder.get_layer(tap).output)
        return protocol(encoder, train, test)["top1"]

    untrained, start, used = top1(), time.time(), time.process_time()
    steps = round(run.dataset.steps * epochs)
    run._replace(dataset=run.dataset.endless()).fit(epochs=1, steps_per_epoch=steps, verbose=0)
    cost = f"{time.process_time() - used:.0f} s of processor, {time.time() - start:.0f} s of clock"
    logs = {key: round(float(value), 4) for key, value in run.model.get_metrics_result().items()}
    trained = top1()
    print(f"\n{name} {overrides}: {untrained:.3f} -> {trained:.3f}, {steps} steps, {cost}; {logs}")
    return untrained, trained


def joined(batches):
    """(images, labels) of all batches."""
    return tuple(tf.concat([b[key] for b in batches], 0).numpy() for key in ("image", "label"))
