"""What the command line is given: options shared by commands, and their way into a recipe."""

import contextlib
import difflib
import inspect
import math
import os
import pathlib
from typing import Annotated

import typer

from tfssl.cli.console import progress
from tfssl.errors import BadInput

Data = Annotated[
    str,
    typer.Option(
        help="digits, world, tfds:NAME, a folder, shards, .csv, .jsonl, .txt or .npz; "
        "@train, @test, @val or @all."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
MaxBroken = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of broken files that is still accepted.")
]
Size = Annotated[int | None, typer.Option(min=8, max=4096, help="Side of the inputs in pixels.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of everything random.")]
# The least that makes sense of recipe keywords; the rest is only kept from changing its sign.
LEAST = {"size": 8, "batch_size": 1, "epochs": 1}
# Of how many there are, or how wide they are, there is one at least.
COUNTS = (
    *("apart", "batches", "block", "bottleneck", "channels", "clusters", "contrast", "counts"),
    *("crops", "depth", "dim", "dimensions", "dims", "every", "grid", "groups", "heads", "hidden"),
    *("kernel", "levels", "local_size", "negatives", "neighbours", "orders", "permute"),
    *("prototypes", "rotated", "seeds", "side", "stride", "tile", "tile_width", "transformations"),
    *("units", "width", "widths", "window", "words"),
)
LEAST |= dict.fromkeys(COUNTS, 1)
# At most 1, where the method's own are: the area of relative_position's pictures is no share.
SHARES = (
    *("area", "blur", "dropout", "extent", "falls", "fill", "flip", "grey", "jitter", "keep"),
    *("local_area", "momentum", "projection", "rate", "ratio", "share", "shrink", "solarisation"),
    "uniform",
)
BELOW = ("dropout", "ratio")  # of which all would leave nothing
RISING = ("area", "local_area", "extent", "falls", "scale", "zoom")
DIVISORS = ("temperature", "teacher_temperature", "sigma", "epsilon")  # 0 would divide by nothing


def arguments_of(module, method, small, given, pairs):
    """The recipe's keywords for a call: its SMALL, the options, and every --set."""

    from tfssl.pipelines import sources

    known = inspect.signature(module.recipe).parameters
    arguments = dict(module.SMALL) if small else {}
    for key, value in given.items():
        if value == "" and key == "data":
            raise BadInput("--data is empty: give a folder, digits, world or tfds:NAME.")
        if value in ("", None):
            continue
        if key not in known:
            if key == "seed":
                continue
            raise BadInput(f"--{key.replace('_', '-')}: {method} has no {key.replace('_', ' ')}.")
        arguments[key] = value
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise BadInput(f"--set {pair}: write it as key=value.")
        if key not in known:
            raise BadInput(f"--set {key}: {method} has no such key;{near(key, known)}")
        usual = known[key].default
        smaller = module.SMALL.get(key, usual)
        if isinstance(usual, tuple) and isinstance(smaller, (tuple, list)):
            usual = usual if len(smaller) == len(usual) else list(usual)  # of any length
        arguments[key] = _typed(key, text, usual)
        _in_range(key, text, arguments[key], known[key].default)
    if "data" in known and not (isinstance(arguments.get("data"), str) and arguments["data"]):
        default = known["data"].default
        if not given.get("data") and not small and str(default).startswith("tfds:"):
            raise BadInput(f"--data is missing: a folder, digits, world or tfds:NAME ({default}).")
        arguments["data"] = default
    for key in arguments:
        named = key.endswith("encoder") or key == "teacher"
        if named and isinstance(arguments[key], str):
            usual = [known[key].default, module.SMALL.get(key)]
            if arguments[key] not in usual:
                _fitting_encoder(method, key, arguments[key], [e for e in usual if e])
    if "data" in arguments:
        sources.parse(arguments["data"])
    return arguments


def _fitting_encoder(method, key, name, usual):
    """Refuses a name that is unknown, or of a network for another kind of input than the usual."""
    from tfssl import encoders

    if key == "teacher" and name not in encoders.NAMES:
        return  # the folder or URL of a published one
    option = f"--{key} {name}" if key == "encoder" else f"--set {key}={name}"
    # Where the method has a network of its own, it is one for pictures.
    kinds = {encoders.kind(other) for other in usual if other in encoders.NAMES} or {"image"}
    fitting = [other for other in encoders.NAMES if encoders.kind(other) in kinds]
    fitting = fitting or list(encoders.NAMES)
    if name not in encoders.NAMES:
        raise BadInput(f"{option}: there is no such one;{near(name, sorted({*fitting, *usual}))}")
    if name not in fitting:
        raise BadInput(
            f"{option}: this network is of no use to {method}; there are {', '.join(fitting)}."
        )


def _in_range(key, text, value, default):
    """Refuses numbers on the wrong side of zero, and seeds and sizes that nothing could use."""
    if key == "seed" and not 0 <= value < 2**31:
        raise BadInput(f"--set {key}={text}: seeds are whole numbers from 0 to {2**31 - 1}.")
    values = value if isinstance(value, list) else [value]
    usual = default if isinstance(default, (tuple, list)) else [default]
    if not all(isinstance(number, (int, float)) for number in (*values, *usual)):
        return
    least = LEAST.get(key, 0 if min(usual, default=-1) >= 0 else -math.inf)
    if key in DIVISORS and min(values) <= 0:
        raise BadInput(f"--set {key}={text}: {key} is above 0, for example {default}.")
    if min(values, default=least) < least:
        raise BadInput(f"--set {key}={text}: {key} is at least {least}, for example {default}.")
    if key in SHARES and max(usual, default=1) <= 1 < max(values, default=0):
        raise BadInput(f"--set {key}={text}: {key} is at most 1, for example {default}.")
    if key in BELOW and values == [1]:
        raise BadInput(f"--set {key}={text}: {key} is below 1, for example {default}.")
    if key in RISING and values != sorted(values):
        usual = ",".join(map(str, usual))
        raise BadInput(f"--set {key}={text}: {key} goes from low to high, for example {usual}.")


def _typed(key, text, default):
    """A --set value in the type of the recipe's default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            number = float(text)
            if not math.isfinite(number):
                raise ValueError
            return number
        if isinstance(default, (tuple, list)):
            parts = text.split(",") if text else []
            if isinstance(default, tuple) and len(parts) != len(default):
                raise ValueError
            return [_typed(key, part, default[0]) for part in parts]
    except (KeyError, ValueError):
        kind = KINDS[type(default)]
        if kind == "a list":
            default = ",".join(map(str, default))
        raise BadInput(f"--set {key}={text}: {key} is {kind}, for example {default}.") from None
    return text


KINDS = {
    **{bool: "true or false", int: "a whole number", float: "a number"},
    **{tuple: "a list", list: "a list"},
}


def near(name, known):

    near = difflib.get_close_matches(name, list(known), 1, 0.4)
    return f" did you mean {near[0]}?" if near else f" there are {', '.join(known)}."


def choice(option, value, known):
    if value not in known:
        raise BadInput(f"--{option} {value}: there is no such one;{near(value, known)}")
    return value


def policy(name):
    """A Keras dtype policy; "auto" is 16 bits where the hardware multiplies them natively."""
    choice("precision", name, ("auto", "float32", "mixed_bfloat16", "mixed_float16"))
    if name != "auto":
        return name
    import tensorflow as tf

    accelerators = tf.config.list_physical_devices("GPU")
    if accelerators:
        details = tf.config.experimental.get_device_details(accelerators[0])
        ampere = details.get("compute_capability", (0, 0)) >= (8, 0)
        return "mixed_bfloat16" if ampere else "mixed_float16"
    with contextlib.suppress(OSError):
        flags = pathlib.Path("/proc/cpuinfo").read_text()
        if "avx512_bf16" in flags or "amx_bf16" in flags:
            return "mixed_bfloat16"
    return "float32"


def strategy_of(name):
    import tensorflow as tf

    if name == "multiworker":  # first: it refuses a context that has listed its devices already
        if "cluster" not in os.environ.get("TF_CONFIG", ""):
            raise BadInput(
                "--strategy multiworker: the variable TF_CONFIG must name the cluster's workers "
                "and this one's task; on one machine take --strategy auto."
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    several = len(tf.config.list_logical_devices("GPU")) > 1
    if name == "mirrored" or (name == "auto" and several):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def load(spec, split, max_broken, quiet, keys=None, sample_rate=None, size=None):
    """`pipelines.load`, with a progress bar while files are looked at.

    Videos keep as many pixels as squares of `size` need.
    """
    from tfssl import pipelines
    from tfssl.pipelines import sources

    name, own = sources.parse(spec)
    with progress("looking at the files", quiet) as step:
        return pipelines.load(
            spec,
            split if name == spec else own,
            keys,
            max_broken=max_broken,
            progress=step,
            sample_rate=sample_rate,
            short_side=max(128, size or 0),
        )
