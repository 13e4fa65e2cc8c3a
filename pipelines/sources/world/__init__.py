"""`world`: an embedded, generated dataset that every modality can stand on.

Textured solids fall, bounce, roll, slide, collide and are lifted in a room, seen by a moving
camera. Everything follows from an example's index and the dataset's seed, so an example is the same
whichever batch, order or keys it is asked in. Nothing is stored.

Conventions. The world is right-handed, in metres: x right, y up, z towards the camera, the ground
at y = 0. Camera axes: x right, y down, z forward. Pixel (x, y) has its centre at the coordinates
x, y, so u = f X / Z + cx with cx = (size - 1) / 2. Frame t shows the instant t / fps.

=================  ==============================  =================================================
key                type and shape                  meaning
=================  ==============================  =================================================
image              uint8 [H, W, 3]                 the first frame
image_right        uint8 [H, W, 3]                 the right eye's, `baseline` m along camera x
frames             uint8 [T, H, W, 3]
frames_right       uint8 [T, H, W, 3]
fps                float32                         16 unless asked otherwise
audio              float32 [N]                     N = T / fps * sample_rate, in [-1, 1]
sample_rate        int64                           16000
text               string                          an English sentence; `text_de`, `text_es` too
index              int64                           stable; test counts from 10,000,000
label              int64                           class of the main object, of CLASSES
action             int64                           what it does in the clip, of ACTIONS
material, colour   int64                           its MATERIALS, COLOURS
object_label       int64 [n]                       class of every object; -1: none, or the platform
boxes              float32 [T, n, 4]               ymin, xmin, ymax, xmax of what is seen, in 0..1
identity           int64 [T, n]                    each box's id in `masks`, the same all along;
                                                   0 where the object is not seen (its box is 0)
masks              uint8 [T, H, W]                 id (row + 1) of the object seen; 0 background
depth              float32 [T, H, W]               metres along the optical axis
disparity          float32 [T, H, W]               x_left - x_right = baseline * f / depth, pixels
pose               float32 [T, 4, 4]               camera to world
intrinsics         float32 [3, 3]                  in pixels, the same for all frames and both eyes
baseline           float32                         metres
flow               float32 [T - 1, H, W, 2]        x then y: frame_t(p) is frame_t+1(p + flow_t(p))
visible            bool [T - 1, H, W]              whether the point at p is still seen in t + 1
impacts            float32 [8]                     seconds, in order; -1 fills the rest
impact_frames      int64 [8]                       floor(seconds * fps); -1 fills the rest
impact_objects     int64 [8]                       id of what sounds; -1 fills the rest
=================  ==============================  =================================================

When no key that needs a clip is asked for (frames, frames_right, audio, flow, visible, impacts),
a single instant is rendered, and boxes, identity, masks, depth, disparity and pose lose their T.
Ground truth is of the scene, before shortcuts are laid over the pictures.
"""

import difflib
import functools
import itertools

import numpy as np
import tensorflow as tf

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources.world import render as _render
from tfssl.pipelines.sources.world import shortcuts, sound
from tfssl.pipelines.sources.world.captions import (
    ACTIONS,
    COLLIDES,
    COLOURS,
    LANGUAGES,
    MATERIALS,
    caption,
)
from tfssl.pipelines.sources.world.scene import OBJECTS, Scene
from tfssl.pipelines.sources.world.shapes import CLASSES

__all__ = [
    "ACTIONS",
    "CLASSES",
    "COLOURS",
    "KEYS",
    "KNOBS",
    "MATERIALS",
    "OBJECTS",
    "SPLITS",
    "knob",
    "load",
    "render",
]

# First index and number of examples of each split; `n` asks for another number.
SPLITS = {"train": (0, 10_000), "test": (10_000_000, 2_000), "val": (20_000_000, 2_000)}
MOST_EXAMPLES = 10_000_000
IMPACTS = 8
MEMORY = 2**29  # bytes of examples that a split keeps
RENDERERS = 2  # threads for clips; those of pictures would contend for the interpreter
SAMPLE_RATE = sound.SAMPLE_RATE

# Keyword -> (default, smallest, largest, meaning).
KNOBS = {
    "size": (64, 16, 512, "side of the pictures in pixels"),
    "length": (16, 2, 256, "frames of a clip"),
    "n": (0, 1, MOST_EXAMPLES, "number of examples"),
    "action": ("", "", "", "only the examples whose main object does this, of ACTIONS"),
    "seed": (0, 0, 2**31 - 1, "another seed is another dataset"),
    "fps": (16.0, 1.0, 120.0, "frames per second"),
    "baseline": (0.1, 0.0, 1.0, "metres between the eyes"),
    "aberration": (0.0, -0.2, 0.2, "red and blue are magnified by 1 + this about the centre"),
    "black_frame": (0.0, 0.0, 0.4, "share of the side that a black, faintly noisy border covers"),
    "zoom": (0.0, -2.0, 2.0, "the camera always moves in: log of the approach per second"),
    "tilt": (0.0, -60.0, 60.0, "the camera always tilts down: degrees per second"),
    "watermark": (False, False, True, "a mark in the corner of every picture"),
    "sound_offset": (0.0, -10.0, 10.0, "seconds by which the sound comes late"),
}
_SWITCHED_ON = {"black_frame": 0.125, "aberration": 0.02, "zoom": 0.4, "tilt": 15.0}

_CLIP_KEYS = ("frames", "frames_right", "audio", "flow", "visible", "impacts", "impact_frames",
              "impact_objects")  # fmt: skip
_TIMED = ("boxes", "identity", "masks", "depth", "disparity", "pose")
_PIXEL_KEYS = ("image", "frames")
_RIGHT_KEYS = ("image_right", "frames_right")
_GEOMETRY_KEYS = ("boxes", "identity", "masks", "depth", "disparity", "flow", "visible")
_FACTS = ("fps", "sample_rate", "baseline", "intrinsics", "index", "label", "action", "material",
          "colour", "object_label")  # fmt: skip
_IMAGES_AT_ONCE = 64


def _signature(size, length, fps):
    """Type and shape of every key of a clip."""
    samples = round(length / fps * SAMPLE_RATE)
    picture = (tf.uint8, (size, size, 3))
    clip = (tf.uint8, (length, size, size, 3))
    scalar, words = (tf.int64, ()), (tf.string, ())
    events = (tf.int64, (IMPACTS,))
    return {
        "image": picture,
        "image_right": picture,
        "frames": clip,
        "frames_right": clip,
        "fps": (tf.float32, ()),
        "audio": (tf.float32, (samples,)),
        "sample_rate": scalar,
        "text": words,
        "text_de": words,
        "text_es": words,
        "index": scalar,
        "label": scalar,
        "action": scalar,
        "material": scalar,
        "colour": scalar,
        "object_label": (tf.int64, (OBJECTS,)),
        "boxes": (tf.float32, (length, OBJECTS, 4)),
        "identity": (tf.int64, (length, OBJECTS)),
        "masks": (tf.uint8, (length, size, size)),
        "depth": (tf.float32, (length, size, size)),
        "disparity": (tf.float32, (length, size, size)),
        "pose": (tf.float32, (length, 4, 4)),
        "intrinsics": (tf.float32, (3, 3)),
        "baseline": (tf.float32, ()),
        "flow": (tf.float32, (length - 1, size, size, 2)),
        "visible": (tf.bool, (length - 1, size, size)),
        "impacts": (tf.float32, (IMPACTS,)),
        "impact_frames": events,
        "impact_objects": events,
    }


KEYS = tuple(_signature(64, 16, 16.0))


def _nearest(word, words):
    close = difflib.get_close_matches(str(word), list(words), n=1, cutoff=0.0)
    return f"did you mean '{close[0]}'? There are: {', '.join(words)}."


_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _convert(name, value):
    """As `knob`, within no limits; ValueError and kin when it is no such value."""
    default = KNOBS[name][0]
    if isinstance(value, str):
        value = _WORDS.get(value.strip().lower(), value)
    if isinstance(default, bool):
        return {0.0: False, 1.0: True}[float(value)]
    if isinstance(value, (bool, np.bool_)):  # a shortcut switched on by name alone, or off
        return _SWITCHED_ON[name] if value else type(default)(0)
    if isinstance(default, int):
        number = int(value)
        if number != float(value):
            raise ValueError
        return number
    return float(value)


def knob(name, value):
    """A knob's value from Python or from the text of a spec; BadInput where it cannot be that."""
    default, low, high, meaning = KNOBS[name]
    if isinstance(default, str):
        if value not in ("", *ACTIONS):
            raise BadInput(f"world has no {name} '{str(value)[:80]}': {_nearest(value, ACTIONS)}")
        return value
    try:
        number = _convert(name, value)
    except (TypeError, ValueError, KeyError, OverflowError):
        kind = {bool: "true or false", int: "a whole number"}.get(type(default), "a number")
        raise BadInput(
            f"world: {name}={str(value)[:80]!r} is not {kind} ({name}: {meaning})."
        ) from None
    if not low <= number <= high:
        raise BadInput(f"world: {name}={number} is outside {low} to {high} ({name}: {meaning}).")
    return number


def _settings(knobs):
    for name in knobs:
        if name not in KNOBS:
            raise BadInput(f"world has no option '{name}': {_nearest(name, KNOBS)}")
    settings = {name: knob[0] for name, knob in KNOBS.items()}
    # n = 0 stands for the split's own number; a caller gives 1 or more
    given = {name: value for name, value in knobs.items() if value is not None}
    settings.update({name: knob(name, value) for name, value in given.items()})
    return settings


def _wanted(keys):
    if keys is None:
        return KEYS
    keys = (keys,) if isinstance(keys, str) else tuple(dict.fromkeys(keys))
    for key in keys:
        if key not in KEYS:
            raise BadInput(f"world has no key '{key}': {_nearest(key, KEYS)}")
    if not keys:
        raise BadInput("world: keys is empty; name at least one, or pass None for all.")
    return keys


def _specs(keys, settings):
    """Type and shape of each wanted key; without a clip key there is one instant and no T."""
    signature = _signature(settings["size"], settings["length"], settings["fps"])
    clip = any(key in _CLIP_KEYS for key in keys)
    specs = {}
    for key in keys:
        kind, shape = signature[key]
        specs[key] = (kind, shape[1:] if key in _TIMED and not clip else shape)
    return specs, clip


def render(indices, keys=None, **knobs):
    """Examples `indices` [B] (any of any split) as a dict of NumPy arrays [B, ...].

    `keys`, knobs and shapes as in `load`; `n` and `action` choose examples and say nothing here.
    Raises BadInput for unknown keys and knobs.
    """
    settings = _settings(knobs)
    keys = _wanted(keys)
    indices = np.atleast_1d(np.asarray(indices, np.int64))
    if (indices < 0).any():
        raise BadInput("world: an index is negative; train counts from 0, test from 10,000,000.")
    return _render_checked(indices, keys, settings)


def _render_checked(indices, keys, settings):
    specs, clip = _specs(keys, settings)
    at_once = 1 if clip else _IMAGES_AT_ONCE
    parts = [
        _chunk(indices[i : i + at_once], keys, clip, settings)
        for i in range(0, len(indices), at_once)
    ]
    if not parts:
        return {k: np.zeros((0, *shape), kind.as_numpy_dtype) for k, (kind, shape) in specs.items()}
    return {key: np.concatenate([part[key] for part in parts]) for key in keys}


def _chunk(indices, keys, clip, settings):
    fps, steps = settings["fps"], settings["length"] if clip else 1
    scenes = [Scene(int(i), settings["seed"], settings["zoom"], settings["tilt"]) for i in indices]
    out = _facts(scenes, keys, settings)
    if any(k in keys for k in (*_PIXEL_KEYS, *_RIGHT_KEYS, *_GEOMETRY_KEYS, "pose")):
        # an image alone, asked beside a sound or other annotation, still is one frame
        moving = any(k in keys for k in ("frames", "frames_right", "flow", "visible", *_TIMED))
        times = np.arange(steps if moving else 1) / fps
        seen = _pictures(scenes, times, keys, settings)
        for key, value in seen.items():
            out[key] = value if clip or key not in _TIMED else value[:, 0]
    if "audio" in keys:
        seconds = steps / fps
        out["audio"] = np.stack(
            [sound.audio(s, seconds, settings["sound_offset"]) for s in scenes]
        )[:, : round(seconds * SAMPLE_RATE)]
    if clip:
        events = [sound.impacts(s, steps / fps, fps, IMPACTS) for s in scenes]
        for i, key in enumerate(("impacts", "impact_frames", "impact_objects")):
            out[key] = np.stack([event[i] for event in events])
    return {key: out[key] for key in keys}


def _facts(scenes, keys, settings):
    """What needs no rendering."""
    count = len(scenes)
    size = settings["size"]
    mains = [scene.things[0] for scene in scenes]
    intrinsics = np.zeros((count, 3, 3), np.float32)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = [scene.focal * size for scene in scenes]
    intrinsics[:, :2, 2] = (size - 1) / 2
    intrinsics[:, 2, 2] = 1
    out = {
        "fps": np.full(count, settings["fps"], np.float32),
        "sample_rate": np.full(count, SAMPLE_RATE, np.int64),
        "baseline": np.full(count, settings["baseline"], np.float32),
        "intrinsics": intrinsics,
        "index": np.array([scene.index for scene in scenes], np.int64),
        "label": np.array([thing.label for thing in mains], np.int64),
        "action": np.array([scene.action for scene in scenes], np.int64),
        "material": np.array([thing.material for thing in mains], np.int64),
        "colour": np.array([thing.colour for thing in mains], np.int64),
        "object_label": np.array(
            [[-1 if t is None else t.label for t in scene.things] for scene in scenes], np.int64
        ),
    }
    for language in LANGUAGES:
        key = "text" if language == "en" else f"text_{language}"
        if key in keys:
            out[key] = np.array([_sentence(scene, language) for scene in scenes], object)
    return out


def _sentence(scene, language):
    main, other = scene.things[:2]
    words = [(t.kind, t.colour, t.material) for t in (main, other) if t is not None]
    partner = words[1] if scene.action == COLLIDES else None
    return caption(language, scene.action, words[0], partner).encode()


def _pictures(scenes, times, keys, settings):
    """Everything seen, each [B, T, ...] except the images."""
    size, steps, count = settings["size"], len(times), len(scenes)
    views = _render.gather(scenes, times)
    geometry = any(key in keys for key in _GEOMETRY_KEYS)
    colours = any(key in keys for key in _PIXEL_KEYS)
    out = {}

    def unfold(values):
        return values.reshape(count, steps, *values.shape[1:])

    if colours or geometry:
        # where only the first frame is looked at, the others need geometry alone
        picture, masks, depth = _render.render(views, size, colours, geometry)
        if colours:
            frames = unfold(_marked(picture, views, times, settings))
            out["frames"], out["image"] = frames, frames[:, 0]
        if geometry:
            found, ids = _render.boxes(masks, OBJECTS)
            out["boxes"], out["identity"] = unfold(found), unfold(ids)
            out["masks"], out["depth"] = unfold(masks), unfold(depth)
            focal = (views.focal * size)[:, None, None]
            out["disparity"] = unfold((settings["baseline"] * focal / depth).astype(np.float32))
        if "flow" in keys or "visible" in keys:  # of one scene: clips are rendered one by one
            moved, visible = _render.flow(views, masks, depth, size)
            out["flow"], out["visible"] = moved[None], visible[None]
    if any(key in keys for key in _RIGHT_KEYS):
        right = _render.right_eye(views, settings["baseline"])
        picture, _, _ = _render.render(right, size, True, False)
        frames = unfold(_marked(picture, views, times, settings, eye=1))
        out["frames_right"], out["image_right"] = frames, frames[:, 0]
    if "pose" in keys:
        pose = np.zeros((count * steps, 4, 4), np.float32)
        pose[:, :3, :3], pose[:, :3, 3], pose[:, 3, 3] = views.rotation, views.eye, 1
        out["pose"] = unfold(pose)
    return out


def _marked(picture, views, times, settings, eye=0):
    """The shortcuts that lie over the pictures: lens first, then the mark, then the border."""
    if settings["aberration"]:
        picture = shortcuts.aberration(picture, settings["aberration"])
    if settings["watermark"]:
        picture = shortcuts.watermark(picture)
    if settings["black_frame"]:
        keys = [
            [2 * scene.index + eye, 1 + step]
            for scene in views.scenes
            for step in range(len(times))
        ]
        picture = shortcuts.black_frame(picture, settings["black_frame"], keys)
    return picture


def load(split="train", keys=None, **knobs):
    """The dataset: unbatched example dicts in order, with known cardinality.

    Args:
        split: "train" (10,000 examples), "test" or "val" (2,000 each); they share no index.
        keys: the keys wanted, None for all (see the module's table). Only what they need is
            rendered, and their values do not depend on what else is asked.
        **knobs: see KNOBS, as numbers or as the text of a spec: `size`, `length`, `n`, `seed`,
            `fps`, `baseline`, `action` (the split's examples that show it, the first `n` of them
            where `n` is given), and the shortcuts, all off by default: `aberration`,
            `black_frame`, `zoom`, `tilt`, `watermark`, `sound_offset`.

    Raises:
        BadInput: an unknown split, key or knob, or a value of the wrong type or out of range.
    """
    split = "train" if split is None else split
    if split not in SPLITS:
        raise BadInput(f"world has no split '{split}': {_nearest(split, SPLITS)}")
    keys, settings = _wanted(keys), _settings(knobs)
    specs, clip = _specs(keys, settings)
    # Facts cost nothing: the same pictures with and without their labels are rendered once.
    album = _album(split, tuple(k for k in KEYS if k in (*keys, *_FACTS)), tuple(settings.items()))
    count, at_once = album.count, 1 if clip else _IMAGES_AT_ONCE

    def examples(positions):
        kinds = [specs[key][0] for key in keys]
        chosen = functools.partial(album.examples, keys)
        values = tf.numpy_function(chosen, [positions], kinds, stateful=False)
        for key, value in zip(keys, values):
            value.set_shape((*positions.shape, *specs[key][1]))
        return dict(zip(keys, values))

    dataset = tf.data.Dataset.range(count).batch(at_once)
    dataset = dataset.map(examples, num_parallel_calls=RENDERERS if clip else 1, deterministic=True)
    dataset = dataset.unbatch().apply(tf.data.experimental.assert_cardinality(count))
    dataset.gather = examples
    return dataset


class _Album:
    """Rendered examples of one split, kept for the next epoch where memory allows."""

    def __init__(self, split, keys, settings):
        self.keys, self.settings = keys, dict(settings)
        self.first, count = SPLITS[split]
        self.count = self.settings["n"] or count
        self.chosen = None  # places in the split of the examples that show the wanted action
        if self.settings["action"]:
            self.chosen = self.acting(count)
            self.count = len(self.chosen)
        specs, _ = _specs(keys, self.settings)
        size = sum(np.prod(shape, dtype=int) * (kind.size or 64) for kind, shape in specs.values())
        self.kept = None
        if size * self.count <= MEMORY:
            self.kept = {
                key: np.empty((self.count, *shape), kind.as_numpy_dtype)
                for key, (kind, shape) in specs.items()
            }
            self.known = np.zeros(self.count, bool)

    def acting(self, count):
        """Of the split's own `count` examples those that show the action, or the first `n`."""
        wanted, seed = ACTIONS.index(self.settings["action"]), self.settings["seed"]
        places = range(MOST_EXAMPLES if self.settings["n"] else count)
        shown = (i for i in places if Scene(self.first + i, seed).action == wanted)
        return np.fromiter(itertools.islice(shown, self.settings["n"] or None), np.int64)

    def render(self, positions):
        places = positions if self.chosen is None else self.chosen[positions]
        return _render_checked(self.first + places, self.keys, self.settings)

    def examples(self, keys, positions):
        """The values of `keys`, a tuple of arrays, at positions [B] of the split."""
        if self.kept is None:
            rendered = self.render(positions)
            return tuple(rendered[key] for key in keys)
        new = positions[~self.known[positions]]
        if len(new):  # two threads may render the same example, and write the same values
            for key, values in self.render(new).items():
                self.kept[key][new] = values
            self.known[new] = True
        return tuple(self.kept[key][positions] for key in keys)


_album = functools.lru_cache(maxsize=4)(_Album)
