"""How many images a second SimCLR trains on, end to end, beside lightly's example in the same run.

Augmentation and step, two views an image, 32 px, batch 128, on two cores, from a folder of JPEGs.
The sides take turns, each in a process of its own that stays alive and sleeps while the other
works; medians, all rounds and ratios are written to simclr_speed.json:

    python benchmarks/simclr_speed.py --data FOLDER --peer peers/bin/python

Besides, in one process and on one fixed batch: the step of `Method` and a `train_step` written by
hand in plain Keras, for the cost of our abstraction.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = pathlib.Path(__file__).resolve().parent
WARM_UP, BATCH = 3, 128
OURS = {
    "tfssl resnet18 bfloat16": {"encoder": "resnet18", "precision": "mixed_bfloat16"},
    "tfssl resnet18 float32": {"encoder": "resnet18", "precision": "float32"},
    "tfssl resnet9 bfloat16": {"encoder": "resnet9", "precision": "mixed_bfloat16"},
}
PEERS = {
    "lightly resnet18 as written": {"tuned": False},
    "lightly resnet18 tuned by hand": {"tuned": True},
}


def run_of(folder, encoder, precision):
    import keras

    from tfssl import zoo

    keras.config.set_dtype_policy(precision)
    simclr = zoo.get("image.simclr")
    arguments = {**simclr.SMALL, "data": folder, "encoder": encoder, "batch_size": BATCH}
    return simclr.recipe(**arguments)


def ours(folder, encoder, precision):
    """Answers each line of stdin, a number of seconds, with images a second."""
    import keras

    run = run_of(folder, encoder, precision)
    batches, times = run.dataset.endless(), []

    def after(batch, logs):
        times.append(time.perf_counter())
        run.model.stop_training = len(times) > WARM_UP and times[-1] - times[WARM_UP - 1] > seconds

    stop = keras.callbacks.LambdaCallback(on_train_batch_end=after)
    for line in sys.stdin:
        seconds = float(line)
        times.clear()
        run.model.fit(batches, steps_per_epoch=10**9, callbacks=[stop], verbose=0, shuffle=False)
        rate = (len(times) - WARM_UP) * BATCH / (times[-1] - times[WARM_UP - 1])
        print(json.dumps(rate), flush=True)


def abstraction(folder, rounds, steps=8):
    """Seconds a step of Method and of a hand-written train_step, taking turns: (median, median)."""
    import keras
    import tensorflow as tf

    from tfssl.objectives.contrastive import nt_xent

    class ByHand(keras.Model):
        def __init__(self, encoder, projector, temperature):
            super().__init__(autocast=False)
            self.encoder, self.projector = encoder, projector
            self.temperature = temperature

        def call(self, x, training=False):
            flat = tf.reshape(x, [-1, *x.shape[2:]])
            return tf.reshape(self.projector(self.encoder(flat, training=training)), [-1, 2, 128])

        def train_step(self, x):
            with tf.GradientTape() as tape:
                z = tf.cast(self(x, training=True), tf.float32)
                loss = nt_xent(z[:, 0], z[:, 1], self.temperature)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
            self._loss_tracker.update_state(loss)
            return {"loss": self._loss_tracker.result()}

    runs = [run_of(folder, "resnet9", "mixed_bfloat16") for _ in range(2)]
    method, donor = (run.model for run in runs)
    by_hand = ByHand(donor.encoder, donor.projector, donor.temperature)
    by_hand.compile(donor.optimizer.__class__.from_config(donor.optimizer.get_config()))
    batch = next(iter(runs[0].dataset))
    fixed = tf.data.Dataset.from_tensors(batch).repeat()
    seconds = {"Method": [], "by hand": []}
    for turn in range(rounds + 1):
        for name, model in (("Method", method), ("by hand", by_hand)):
            start = time.perf_counter()
            model.fit(fixed, steps_per_epoch=steps, verbose=0, shuffle=False)
            if turn:  # the first round traces
                seconds[name].append((time.perf_counter() - start) / steps)
    return {name: statistics.median(values) for name, values in seconds.items()}


def alternate(folder, peer, rounds, seconds):
    """{side: [images a second of each round]}, the sides taking turns."""
    sides = {}
    for name, settings in OURS.items():
        command = [sys.executable, __file__, "--data", folder, "--side", json.dumps(settings)]
        sides[name] = (command, str(seconds))
    if peer:
        script = str(HERE / "peers" / "lightly_simclr.py")
        for name, settings in PEERS.items():
            request = {"folder": folder, "batch": BATCH, "seconds": seconds, **settings}
            sides[name] = ([peer, script], json.dumps(request))
    pipe = functools.partial(
        subprocess.Popen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    workers = {name: pipe(command) for name, (command, _) in sides.items()}
    found = {name: [] for name in sides}
    for turn in range(rounds):
        for name, (_, request) in sides.items():
            workers[name].stdin.write(request + "\n")
            workers[name].stdin.flush()
            found[name].append(json.loads(workers[name].stdout.readline()))
            print(f"round {turn + 1}: {name}: {found[name][-1]:.0f} images/s", flush=True)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of JPEGs of 32 px")
    parser.add_argument("--peer", help="python with lightly; without it ours alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--out", default=str(HERE / "simclr_speed.json"))
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        ours(options.data, **json.loads(options.side))
        return
    rounds = alternate(options.data, options.peer, options.rounds, options.seconds)
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    step = abstraction(options.data, options.rounds)
    result = {
        "what": "images a second, two views each, augmentation and step, 32 px, batch 128",
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "seconds_a_round": options.seconds,
        "rounds": rounds,
        "medians": medians,
        "ratios": {
            f"{name} / {peer}": medians[name] / medians[peer]
            for name in OURS
            for peer in PEERS
            if peer in medians
        },
        "seconds_a_step": step,
        "step_of_method_to_by_hand": step["Method"] / step["by hand"],
    }
    pathlib.Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "rounds"}, indent=1))


if __name__ == "__main__":
    main()
