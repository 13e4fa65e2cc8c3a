"""What `tfssl audit` trains, and what it makes of the results: cues of the data joined to a method.

A cue is measured twice. On the data, as it is, with the cue put in, and with the cue put in and
taken out again; and alone, on textures that hold nothing else, where a pretext that is solved is
solved by the cue. A method's own safeguards are compared where its module names them:
`GUARDS = {cue: (keywords that let the cue in, {fix: keywords})}`.
"""

import functools
import inspect
import io
import math
from typing import NamedTuple

from tfssl.cli.console import clock
from tfssl.cli.options import near
from tfssl.cli.training import build
from tfssl.errors import BadInput

NEEDED = {
    "image": ("image",),
    "video": ("frames", "fps"),
    "geometry": ("frames", "fps"),
    "audio_visual": ("frames", "fps", "audio", "sample_rate"),
    "video_text": ("frames", "fps", "text"),
}
BYTES = 2**28  # of examples that are held
HELD_OUT = 512
PROBED = 1500  # examples that the downstream probe is trained on
PENALTY = 0.01  # of the probe: fixed, so that all arms are measured alike
HELD_OUT_SEED = 10_007  # of held-out views: the same in every arm
MOST_FRAMES, MOST_SECONDS = 48, 3  # of clips of several lengths
AT_ONCE = 100
KINDS = ("data", "texture")
ASKED = {"test": "held out", "train": "on the training examples drawn anew"}
MOVED = ("zoom", "tilt")  # `world` has them a second, the cues a clip


class Arm(NamedTuple):
    """One kind of training; what two cues need alike is trained once."""

    content: str  # of KINDS
    cue: str = ""
    stage: str = ""  # "put" or "removed"
    guards: tuple = ()  # (keyword, value) that differ from the call's own


def chosen(method, room, module, words):
    """{cue: strength} of `--cue NAME[=STRENGTH]`, or of all that apply to the method."""
    from tfssl.pipelines.augment import cues

    guards = getattr(module, "GUARDS", {})
    apply = [n for n in cues.applying(room) if cues.CUES[n].put or n in guards]
    if not apply:
        raise BadInput(f"No known cue is for {room} methods such as {method}: nothing to audit.")
    found = {}
    for word in words or apply:
        name, equals, text = word.partition("=")
        if name not in cues.CUES:
            raise BadInput(f"--cue {name}: there is no such cue;{near(name, apply)}")
        if name not in apply:
            raise BadInput(
                f"--cue {name}: not for {method}, for which there are {', '.join(apply)}."
            )
        cue = cues.CUES[name]
        strength = cue.strength
        if equals:
            try:
                strength = float(text)
            except ValueError:
                strength = math.nan
            if not cue.put or not cue.least <= strength <= cue.most:
                limits = f"from {cue.least:g} to {cue.most:g}" if cue.put else "none"
                raise BadInput(f"--cue {word}: the strength of {name} is {limits} ({cue.meaning}).")
        found[name] = strength
    return found


def clean(data, cues, words):
    """(`data` without the knobs of `world` that are among the cues, the cues at their strengths).

    `world:aberration=0.05` asks what that lens is worth; pictures that have it already would be
    compared with pictures that have it twice. A strength that `--cue` gives goes before; where the
    knob has another unit (a camera's speed), the cue keeps its own.
    """
    from tfssl.pipelines import sources
    from tfssl.pipelines.augment.cues import CUES
    from tfssl.pipelines.sources import world

    if not data.startswith("world:"):
        return data, cues
    knobs, cues = sources.knobs(data), dict(cues)
    given = {word.partition("=")[0] for word in words if "=" in word}
    for name in [name for name in cues if name in knobs]:
        strength, cue = float(world.knob(name, knobs.pop(name))), CUES[name]
        if not strength or name in given or name in MOVED:
            continue
        if not cue.least <= strength <= cue.most:
            raise BadInput(
                f"--data {data}: an audit takes {name} from {cue.least:g} to {cue.most:g} "
                f"({cue.meaning})."
            )
        cues[name] = strength
    rest = ",".join(f"{name}={value}" for name, value in knobs.items())
    return f"world:{rest}" if rest else "world", cues


class Bench:
    """The data, held in memory in one shape, and the method's recipe over any form of it.

    `load(split, keys)` gives a source, all of its keys where `keys` is None.

    Pictures of several sizes are cropped to the recipe's `size`; clips of several lengths are cut,
    or their last frame and silence repeated, to 48 frames and 3 seconds.

    Pretexts are asked about examples held out (`asked`: "test"), except those that give every
    training example a target of its own (clusters, exemplars): to them others mean nothing, and
    they are asked about the training examples in views drawn anew ("train").

    `labelled` says whether there are labels to probe by: in both parts, of two classes at least.
    """

    def __init__(self, module, room, arguments, load, examples, cues, progress):
        import numpy as np

        from tfssl.pipelines import sources

        self.module, self.arguments, self.cues = module, dict(arguments), cues
        views = module.views
        uses = tuple(getattr(getattr(views, "func", views), "uses", ()))
        self.keys = tuple(dict.fromkeys((*NEEDED[room], *uses)))
        self.source, held = load("train", None), load("test", None)
        for key in self.keys:
            sources.require(self.source, key, str(arguments["data"]))
        if "frames" in self.keys and "frame_times" in self.source.element_spec:
            self.keys += ("frame_times",)
        self.labelled = all("label" in part.element_spec for part in (self.source, held))
        keys = tuple(dict.fromkeys((*self.keys, "index", *(["label"] if self.labelled else []))))
        source = self.source
        if set(source.element_spec) - set(keys):  # what is not asked for need not be made
            source, held = load("train", keys), load("test", keys)
        size = arguments.get("size") or 64
        each = sum(_bytes(source.element_spec[key], size) for key in keys)
        most = max(8, min(examples, BYTES // each))
        wanted = (source, most), (held, min(HELD_OUT, most))
        self.parts = {}
        for (dataset, count), part in zip(wanted, ("train", "test")):
            shaped = functools.partial(_shaped, size=size, rate=arguments.get("sample_rate"))
            self.parts[part] = _collected(dataset, keys, count, shaped, progress)
        if self.labelled:
            self.labelled = len(np.unique(self.parts["train"]["label"])) > 1
        few = {key: self.parts["train"][key][:2] for key in (*self.keys, "index")}
        self.asked = "train" if _by_number(views, few) else "test"
        self.count = len(self.parts["train"]["index"])
        self.held_out_count = len(self.parts["test"]["index"])
        known = inspect.signature(module.recipe).parameters
        if "batch_size" in known:
            default = self.arguments.get("batch_size") or known["batch_size"].default
            self.arguments["batch_size"] = min(default, self.count, self.held_out_count)
        self.defaults = {name: known[name].default for name in known}
        self._made = {}

    def guards(self, keywords):
        """Keywords as an arm keeps them: only what differs from the call's own."""
        own = {**self.defaults, **self.arguments}
        return tuple(sorted((k, v) for k, v in keywords.items() if own.get(k) != v))

    def dataset(self, arm, part):
        """The examples of an arm, with whatever is put in or taken out, readable anywhere."""
        import tensorflow as tf

        kept = self._made.setdefault(arm[:3], {})
        if len(self._made) > 2:  # arms come in order: older ones are done
            del self._made[next(iter(self._made))]
        if part not in kept:
            kept[part] = self._examples(arm, part)
        examples = kept[part]
        dataset = tf.data.Dataset.from_tensor_slices(examples)
        dataset.gather = lambda at: {key: tf.gather(value, at) for key, value in examples.items()}
        return dataset

    def _examples(self, arm, part):
        from tfssl.pipelines.augment import cues

        own = (*self.keys, "index")
        examples = {k: v for k, v in self.parts[part].items() if k in own}
        if arm.content == "texture":
            examples = {**examples, **self._textures(part, examples)}
        if not arm.cue:
            return examples
        cue, strength = cues.CUES[arm.cue], self.cues[arm.cue]

        def change(batch):
            batch = cues.changed(batch, (cue.keys, cue.put), strength, seed=1)
            if arm.stage == "removed":
                batch = cues.changed(batch, (cue.keys, cue.remove), strength, seed=2)
            return batch

        return _in_chunks(change, examples)

    def _textures(self, part, examples):
        """Pictures without content in the shape of the examples' own."""
        import tensorflow as tf

        from tfssl.pipelines.augment import cues

        pictures = {k: v for k, v in examples.items() if k in cues.PICTURES}

        def draw(batch):
            index = tf.cast(batch["index"], tf.int32)
            seeds = tf.stack([index, tf.fill(tf.shape(index), int(part == "test"))], axis=1)
            made = {}
            for key, value in pictures.items():
                *frames, height, width, _ = value.shape[1:]
                made[key] = cues.texture(seeds, height, width, frames)
            return made

        return _in_chunks(draw, {"index": examples["index"]})

    def trial(self, arm, steps):
        """f(seed) -> (run, held-out views) of an arm, for `tfssl.audit.audit`."""

        held_out = []

        def made(seed):
            if not held_out:
                held_out.append(self.run(arm, self.asked, HELD_OUT_SEED).dataset)
            return self.run(arm, "train", seed, steps), held_out[0]

        return made

    def run(self, arm, part, seed, steps=None):
        arguments = {**self.arguments, **dict(arm.guards), "data": self.dataset(arm, part)}
        if "seed" in self.defaults:
            arguments["seed"] = seed
        passes = None
        if steps:
            passes = steps / max(1, self.count // self.arguments.get("batch_size", 1))
        run = build(self.module, arguments, epochs=passes)
        if getattr(run.model, "optimizer", None) is None:
            raise BadInput("This method trains by no gradient, so it has no pretext to audit.")
        return run

    def probe(self):
        """f(encoder) -> (top-1, low, high) of a linear layer on features of the data as they are.

        None where the data have no labels to probe by.
        """
        import tensorflow as tf

        from tfssl import evaluate
        from tfssl.pipelines import batching

        if not self.labelled:
            return None
        seen = [k for k in ("image", "frames", "audio", "label") if k in self.parts["train"]]

        def batches(part):
            at = batching.drawn(len(self.parts[part]["index"]), PROBED)
            held = {key: self.parts[part][key][at] for key in seen}
            if "frames" in held and "image" not in held:  # an encoder of pictures sees the middle
                held["image"] = held["frames"][:, held["frames"].shape[1] // 2]
            return batching.evaluation(tf.data.Dataset.from_tensor_slices(held), 100)

        train, test = batches("train"), batches("test")

        def probe(encoder):
            result = evaluate.linear(encoder, train, test, penalties=[PENALTY])
            return [result[key] for key in ("top1", "top1_low", "top1_high")]

        return probe

    def untrained(self):
        """What the probe finds in the encoder before any training, and its settings; or None."""
        probe = self.probe()
        if probe is None:
            return None
        model = self.run(Arm("data"), "train", 0).model
        top1, low, high = probe(next(iter(model.published.values())))
        settings = {"protocol": "linear", "C": PENALTY, "train_examples": min(PROBED, self.count)}
        return {**settings, "untrained": {"value": top1, "low": low, "high": high}}


def arms(bench, cues):
    """All trainings that the cues need: a list of `Arm` without repetition, in the cues' order."""
    found = {}
    for name in cues:
        for content in KINDS:
            for arm in _arms_of(bench, name, content).values():
                found[arm] = None
    return list(found)


def _arms_of(bench, name, content):
    """{role: `Arm`} of one cue: without, with, removed, and for each fix FIX and without FIX."""
    from tfssl.pipelines.augment import cues

    if content == "texture" and "audio" in cues.CUES[name].keys:
        return {}  # a texture makes no sound
    off, fixes = getattr(bench.module, "GUARDS", {}).get(name, ({}, {}))
    let_in = bench.guards(off)
    if cues.CUES[name].put is None:
        return {"without": Arm(content), "with": Arm(content, guards=let_in)}
    roles = {
        "without": Arm(content, guards=let_in),
        "with": Arm(content, name, "put", let_in),
        "removed": Arm(content, name, "removed", let_in),
    }
    for fix, keywords in fixes.items():
        roles[f"without, {fix}"] = Arm(content, guards=bench.guards(keywords))
        roles[f"with, {fix}"] = Arm(content, name, "put", bench.guards(keywords))
    return roles


def measured(bench, arms, steps, seeds, progress):
    """{arm: what `tfssl.audit.audit` found}; textures are trained on from the first seed alone."""
    from tfssl import audit

    probe = bench.probe()
    of = {kind: [arm for arm in arms if arm.content == kind] for kind in KINDS}
    total = len(of["data"]) * len(seeds) + len(of["texture"])
    found, before = {}, 0
    for kind, drawn, look in (("data", seeds, probe), ("texture", seeds[:1], None)):
        trials = {arm: bench.trial(arm, steps) for arm in of[kind]}
        found |= audit.audit(
            trials,
            steps,
            drawn,
            probe=look,
            progress=lambda done, _, b=before: progress(b + done, total),
        )
        before += len(trials) * len(drawn)
    return found


def steps_within(minutes, bench, arms, seeds):
    """Steps of each training such that all of them take about `minutes`: a few are timed."""
    start = clock()
    run = bench.run(arms[0], "train", 0, 8)
    data = run.dataset.endless()
    run.model.fit(data, steps_per_epoch=2, epochs=1, verbose=0, shuffle=False)
    traced = clock()
    run.model.fit(data, steps_per_epoch=6, epochs=1, verbose=0, shuffle=False)
    each, overhead = (clock() - traced) / 6, 2 * (traced - start)
    trainings = sum(seeds if arm.content == "data" else 1 for arm in arms)
    return max(5, int((60 * minutes / trainings - overhead) / each))


def findings(bench, cues, measured):
    """{metric, probe, cues: a row a cue}: everything that the table and the picture show."""
    from tfssl.pipelines.augment.cues import CUES

    metric = next(iter(measured.values()))["metric"]
    rows = []
    for name, strength in cues.items():
        row = {"cue": name, "meaning": CUES[name].meaning, "strength": strength}
        row["remedy"] = CUES[name].remedy
        for content, key in zip(KINDS, ("pretext", "alone")):
            roles = _arms_of(bench, name, content)
            row[key] = _compared({role: measured[arm] for role, arm in roles.items()}, metric)
        row["probe"] = _probes({r: measured[a] for r, a in _arms_of(bench, name, "data").items()})
        row["verdict"] = verdict(row, metric)
        rows.append(row)
    return {"metric": metric, "probe": bench.untrained(), "cues": rows}


def _compared(roles, metric):
    """Each role's mean, and its difference to the same training without the cue."""
    from tfssl.audit import difference, gained, summary

    found = {}
    for role, result in roles.items():
        found[role] = summary(result["scores"])
        base = "without" + role.removeprefix("with") if role.startswith("with, ") else "without"
        if role != "without" and not role.startswith("without, "):
            change = difference(result["scores"], roles[base]["scores"])
            won = gained(change, metric, found[base]["value"])
            found[role] |= {"difference": change, "gained": bool(won)}
    return found


def _probes(roles):
    """Each role's share of right answers, a mean over seeds, and their intervals' mean ends."""
    found = {}
    for role, result in roles.items():
        if result["probe"] is not None:
            mean = dict(zip(("value", "low", "high"), result["probe"].mean(axis=0).tolist()))
            found[role] = {**mean, "seeds": result["probe"][:, 0].tolist()}
    return found


def verdict(row, metric):
    """What was seen, in a few words."""
    alone, helped = row["alone"].get("with", {}).get("gained"), row["pretext"]["with"]["gained"]
    if alone and helped:
        return "a shortcut, and taken"
    if alone:
        return "solves it alone; no gain on this data"
    return "helps on this data" if helped else "no help seen"


def fixed(alone, role):
    """What a fix does to a cue, in a few words; "" where textures did not show the cue at all."""
    if not alone.get("with", {}).get("gained") or role not in alone:
        return ""
    return "the cue still shows" if alone[role]["gained"] else "takes it out"


def table(found):
    """The results as a table of text, a line a cue and one more for each fix."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    percent = found["metric"] == "accuracy"
    head = "accuracy %" if percent else "loss"

    def number(value, signed=False):
        if value is None:
            return "-"
        value = 100 * value if percent else value
        return f"{value:{'+' if signed else ''}.{1 if percent else 3}f}"

    def change(entry):
        d = entry["difference"]
        return f"{number(d['value'], True)} [{number(d['low'], True)}, {number(d['high'], True)}]"

    def value(part, role):
        return number(part[role]["value"]) if role in part else "-"

    def downstream(part, role):
        return f"{100 * part[role]['value']:.1f}" if role in part else "-"

    columns = ("cue", "without", "with", "gain [95 %]", "alone: without", "with", "probe %", "with")
    grid = Table(*columns, "what was seen", box=box.SIMPLE_HEAD)
    for row in found["cues"]:
        pretext, alone, probe = row["pretext"], row["alone"], row["probe"]
        grid.add_row(
            row["cue"], value(pretext, "without"), value(pretext, "with"), change(pretext["with"]),
            value(alone, "without"), value(alone, "with"),
            downstream(probe, "without"), downstream(probe, "with"), row["verdict"],
        )  # fmt: skip
        for role in pretext:
            if role == "removed" or role.startswith("with, "):
                name = row["remedy"] if role == "removed" else role.removeprefix("with, ")
                base = "without" if role == "removed" else f"without, {name}"
                said = fixed(alone, role)
                grid.add_row(
                    f"  fix: {name}", value(pretext, base), value(pretext, role),
                    change(pretext[role]), value(alone, base), value(alone, role),
                    downstream(probe, base), downstream(probe, role), said,
                )  # fmt: skip
    text = io.StringIO()
    console = Console(file=text, width=150)
    print(
        f"{found['method']} on {found['data']}: {head} of the pretext, {ASKED[found['asked']]}; "
        f"{found['seeds']} seeds of {found['steps']} steps. alone: on textures without content.",
        file=text,
    )
    if found["probe"]:
        share = 100 * found["probe"]["untrained"]["value"]
        print(f"probe: linear, on the data as they are; untrained {share:.1f} %.", file=text)
    console.print(grid)
    return text.getvalue().rstrip()


def _by_number(views, examples):
    """Whether what a method is given changes with the number of an example."""
    import numpy as np
    import tensorflow as tf

    examples = {key: tf.constant(value, _kind(value)) for key, value in examples.items()}
    other = {**examples, "index": examples["index"] + 1}
    given = [tf.nest.flatten(views(batch, tf.constant([0, 0]))) for batch in (examples, other)]
    return not all(np.array_equal(a, b) for a, b in zip(*given))


def _collected(dataset, keys, most, shaped, progress):
    """At most `most` examples of all of a source as a dict of arrays of one shape."""
    import numpy as np

    from tfssl.pipelines import batching

    dataset = batching.some(dataset, most)
    ready = dataset.map(lambda example: shaped({key: example[key] for key in keys}))
    count = batching.count_examples(dataset)
    rows = []
    for batch in ready.batch(AT_ONCE).as_numpy_iterator():
        rows.append(batch)
        progress(len(rows) * AT_ONCE, count)
    if not rows:
        raise BadInput("The data holds no example in one of its splits, train or test.")
    found = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    return {**found, "index": np.arange(len(found["index"]))}


def _shaped(example, size, rate=None):
    """An example whose shape is known: pictures, clips and sounds of any size are cut to one."""
    import tensorflow as tf

    from tfssl.pipelines.augment.image import centre_crop
    from tfssl.pipelines.sources import DEFAULT_RATE

    def pictures(x):
        return tf.cast(tf.round(255 * centre_crop(x, size)), tf.uint8)

    for key, x in example.items():
        if x.shape.is_fully_defined():
            continue
        if key in ("image", "image_right"):
            example[key] = pictures(x[None])[0]
        elif key in ("frames", "frames_right", "frame_times"):
            frames, final = tf.range(MOST_FRAMES), tf.shape(x)[0] - 1
            kept = tf.gather(x, tf.minimum(frames, final))
            if key == "frame_times":
                after = tf.cast(tf.maximum(0, frames - final), tf.float32)
                example[key] = kept + after / example["fps"]
            else:
                example[key] = pictures(kept[None])[0]
        elif key == "audio":
            samples = MOST_SECONDS * (rate or DEFAULT_RATE)
            padded = tf.pad(x[:samples], [[0, tf.maximum(0, samples - tf.shape(x)[0])]])
            example[key] = tf.ensure_shape(padded, [samples])
    return example


def _bytes(spec, size):
    """Of one value; what has no shape yet will be a picture or a clip of `size`."""
    if spec.shape.is_fully_defined():
        return spec.shape.num_elements() * (spec.dtype.size or 64)
    return MOST_FRAMES * size * size * 3 if spec.shape.rank == 4 else max(size * size * 3, 2**17)


def _in_chunks(function, examples):
    """`function` of a dict of arrays as one graph, some examples at a time."""
    import numpy as np
    import tensorflow as tf

    count = len(examples["index"])
    specs = {k: tf.TensorSpec([None, *v.shape[1:]], _kind(v)) for k, v in examples.items()}
    function = tf.function(function, autograph=False).get_concrete_function(specs)
    parts = [
        function({k: tf.constant(v[i : i + AT_ONCE], _kind(v)) for k, v in examples.items()})
        for i in range(0, count, AT_ONCE)
    ]
    return {key: np.concatenate([np.asarray(part[key]) for part in parts]) for key in parts[0]}


def _kind(values):
    import tensorflow as tf

    return tf.string if values.dtype == object else tf.as_dtype(values.dtype)
