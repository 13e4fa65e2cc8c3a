"""Every image method of the zoo, trained on one folder for an equal budget of processor time.

Each method trains with its SMALL recipe and the network `conv4`, where it takes any network, on
FOLDER/train, labels unseen, until its steps have cost the given processor minutes; tracing and what
precedes the first step are not counted. Its encoder is then read by kNN, by a linear probe and by a
probe a layer on FOLDER/train and FOLDER/test (a folder a class), beside the same network untrained
and one trained with labels for about the same time. Every method runs in a process of its own, on a
core of its own; one that fails is written down with its cause.

    python benchmarks/image_zoo.py --data FOLDER

writes image_zoo.json, image_zoo.md and pictures/image_zoo.png. `--methods` measures some again and
keeps the other rows; `--page` only makes page and picture anew.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = pathlib.Path(__file__).resolve().parent
NETWORK = "conv4"
# They need a network of a kind, a transformer and a chain without batch norm, and have SMALL's.
OWN = ("image.mae", "image.data_dependent_init")
# What a deeper trunk is worth.
ALSO = (("image.simclr", "resnet9"), ("image.rotation", "resnet9"))
BASELINES = ("random", "supervised")
TRIAL = 15  # processor seconds in which steps are timed, though no more than ten
TOLERANCE = 1.3  # a run whose passes between epochs cost more than planned is cut off here


def rows_wanted():
    """Every (method, encoder) that has a row; an empty encoder is the one that all share."""
    from tfssl import zoo

    names = [name for name in zoo.names() if name.startswith("image.")]
    return [*((name, "") for name in names), *ALSO]


def spent():
    """Processor seconds of this process on all cores."""
    return time.process_time()


def budgeted(module, arguments, seconds):
    """(the run, its callbacks, epochs, steps an epoch) that fill `seconds` of processor time."""
    import keras

    def built(**changed):
        keras.utils.set_random_seed(0)
        return module.recipe(**{**arguments, **changed})

    def after(step, logs):
        marks.append(spent())
        if len(marks) > 10 or (len(marks) > 4 and marks[-1] - marks[2] > TRIAL):
            trial.model.stop_training = True

    marks, trial = [], built(epochs=1)
    if trial.model.optimizer is None:
        return trial, [], trial.epochs, None
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=after)
    trial.model.fit(
        trial.dataset.endless(), epochs=1, steps_per_epoch=10**6, callbacks=[stop], verbose=0
    )
    each = (marks[-1] - marks[2]) / (len(marks) - 3)
    total, steps = max(1, round(seconds / each)), trial.dataset.steps
    epochs = max(1, round(total / steps))
    per_epoch = max(1, total // epochs)
    run = built(epochs=epochs * per_epoch / steps)
    begun = []

    def in_time(step, logs):
        begun.append(spent())
        if begun[-1] - begun[0] > TOLERANCE * seconds:
            run.model.stop_training = True

    deadline = keras.callbacks.LambdaCallback(on_train_batch_end=in_time)
    return run, [deadline], epochs, per_epoch


def trained(name, encoder, data, minutes):
    """One row: what was trained, what it cost, what its encoder is worth."""
    import keras

    from tfssl import zoo
    from tfssl.cli.options import policy

    keras.config.set_dtype_policy(policy("auto"))
    module = zoo.get(name)
    arguments = {**module.SMALL, "data": f"{data}@train"}
    if name not in OWN:
        arguments["encoder"] = encoder or NETWORK
    if "teacher" in arguments:  # what is solved first is read on the same network
        arguments["teacher"] = arguments["encoder"]
    run, callbacks, epochs, steps = budgeted(module, arguments, 60 * minutes)
    published = next(iter(run.model.published.values()))
    # What is another network than the one named, as behind a Sobel layer, has no row untrained.
    named = published.name == arguments.get("encoder")
    untrained = {} if named else {"untrained": measured(published, data)}
    processor, clock = spent(), time.perf_counter()
    if steps is None:
        history, count = run.fit(verbose=0).history, run.dataset.steps
    else:
        counter = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda step, logs: seen.append(1)
        )
        seen = []
        history = run._replace(dataset=run.dataset.endless()).fit(
            callbacks=[*callbacks, counter], epochs=epochs, steps_per_epoch=steps, verbose=0
        ).history  # fmt: skip
        count = len(seen)
    processor, clock = spent() - processor, time.perf_counter() - clock
    images = count * arguments["batch_size"]
    row = {
        "method": name,
        "encoder": arguments.get("encoder", "its own"),
        **untrained,
        "processor_seconds": processor,
        "seconds": clock,
        "steps": count,
        "images": images,
        "images_per_processor_second": images / processor,
        "first_loss": history["loss"][0] if "loss" in history else None,
        "last_loss": history["loss"][-1] if "loss" in history else None,
        "precision": keras.config.dtype_policy().name,
    }
    return {**row, "parameters": published.count_params(), "results": measured(published, data)}


def measured(encoder, data):
    """kNN, linear and per-layer results; every setting stands beside its numbers."""
    from tfssl import evaluate, pipelines

    def split(name):
        return pipelines.load(f"{data}@{name}")

    return {
        "knn": evaluate.knn(encoder, split("train"), split("test")),
        "linear": evaluate.linear(
            encoder, split("train"), split("test"), penalties=(1e-3, 1e-2, 1e-1), iterations=200
        ),
        "layers": layers_of(encoder, split),
    }


def layers_of(encoder, split):
    from tfssl import evaluate
    from tfssl.errors import BadInput

    try:
        return evaluate.layers(
            encoder, split("train"), split("test"), penalties=(1e-3, 1e-2), iterations=60
        )
    except BadInput:  # an encoder without taps
        return {}


def baseline(kind, encoder, data, minutes):
    """The network `encoder` untrained, or trained with labels for about the same time."""
    import keras

    from tfssl import encoders, evaluate, pipelines

    keras.utils.set_random_seed(0)
    network = encoders.get(encoder, size=32)
    row = {"method": kind, "encoder": encoder, "parameters": network.count_params()}
    if kind == "random":
        return {**row, "results": measured(network, data)}
    train, test = (pipelines.load(f"{data}@{name}") for name in ("train", "test"))
    start, trial = spent(), 1
    evaluate.supervised(network, train, test, epochs=trial)
    start, first = spent(), spent() - start
    epochs = max(1, round(60 * minutes / first))
    found = evaluate.supervised(network, train, test, epochs=epochs)
    return {**row, "processor_seconds": spent() - start, "results": {"linear": found}}


def one(options):
    """The child's work: one row as JSON into --one's file."""
    name, encoder, dest = options.one
    work = baseline if name in BASELINES else trained
    row = work(name, encoder, str(options.data), options.minutes)
    pathlib.Path(dest).write_text(json.dumps(row, default=float))


def in_a_process(name, encoder, options):
    threads = str(max(1, os.cpu_count() // options.jobs))
    environment = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), threads)
    with tempfile.TemporaryDirectory() as folder:
        dest = pathlib.Path(folder) / "row.json"
        call = [sys.executable, __file__, "--data", str(options.data), "--minutes",
                str(options.minutes), "--one", name, encoder, str(dest)]  # fmt: skip
        done = subprocess.run(call, capture_output=True, text=True, env=os.environ | environment)
        if not done.returncode:
            return json.loads(dest.read_text())
    last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    last = last.rpartition("BadInput: ")[2].replace(str(options.data), options.data.name)
    return {"method": name, "encoder": encoder, "failure": last[:300]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=2, help="of processor time a method")
    parser.add_argument("--methods", nargs="+", help="measure these again, keep the other rows")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="rows at the same time")
    parser.add_argument("--page", action="store_true", help="make page and picture anew")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "image_zoo.json")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(options)
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.page:
        if options.data is None:
            parser.error("--data names the folder with train/ and test/")
        wanted = [row for row in rows_wanted() if not options.methods or row[0] in options.methods]
        if not options.methods:
            found = {}
        measure(wanted, found, options)
    import image_zoo_page

    image_zoo_page.write(found, options.out.parent)


def measure(wanted, found, options):
    """Fills `found` row by row, and writes it after each."""
    found.update(
        data=options.data.name,
        processor_minutes=options.minutes,
        cores=os.cpu_count(),
        python=platform.python_version(),
    )
    rows = {(row["method"], row["asked"]): row for row in found.get("rows", ())}

    def keep(asked):
        row = {**in_a_process(*asked, options), "asked": asked[1]}
        with lock:
            rows[asked] = row
            found["rows"] = list(rows.values())
            options.out.write_text(json.dumps(found, indent=1) + "\n")
        linear = row.get("results", {}).get("linear", {}).get("top1")
        print(*asked, row.get("failure") or f"linear {linear:.3f}", flush=True)

    lock = threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(keep, wanted))
        good = (row for row in rows.values() if "failure" not in row and "untrained" not in row)
        networks = {row["encoder"] for row in good}
        baselines = [
            *(("random", network) for network in sorted(networks)),
            ("supervised", NETWORK),
        ]
        list(pool.map(keep, (asked for asked in baselines if asked not in rows)))


if __name__ == "__main__":
    main()
