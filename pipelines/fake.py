"""Random examples of every modality, for tests that need data of the right form and no meaning."""

import numpy as np
import tensorflow as tf

from tfssl.pipelines.errors import BadInput

MODALITIES = ("image", "video", "geometry", "audio", "text", "audio_visual", "video_text")
SIDE, LENGTH, FPS, RATE = 64, 16, 16.0, 16000
OBJECTS, CLASSES, EVENTS = 3, 8, 8
WORDS = {
    "text": "a red ball falls onto the wooden floor and bounces behind two small stone cubes",
    "text_de": "ein roter Ball fällt auf den Boden und springt hinter zwei kleine Würfel",
    "text_es": "una pelota roja cae sobre el suelo y rebota detrás de dos cubos pequeños",
}


def examples(modality, batch=2, seed=0):
    """A batch of random examples with every agreed key, in the shapes that `world` gives them.

    Unlabelled: `image`, `image_right` uint8 [B, 64, 64, 3]; `frames`, `frames_right` uint8
    [B, 16, 64, 64, 3] with `fps` float32 [B] and `frame_times` float32 [B, 16], which only files
    have; `audio` float32 [B, 16000] in [-1, 1], one second, with `sample_rate` int64 [B];
    `text`, `text_de`, `text_es` string [B]; `index` int64 [B].

    Annotation, [B, ...]: `label`, `action`, `material`, `colour` int64; `object_label` int64
    [3]; `boxes` float32 [T, 3, 4] (ymin, xmin, ymax, xmax in 0..1); `identity` int64 [T, 3];
    `masks` uint8, `depth` (metres), `disparity` (pixels) float32 [T, 64, 64]; `pose` float32
    [T, 4, 4]; `intrinsics` float32 [3, 3]; `baseline` float32; `flow` float32 [T-1, 64, 64, 2]
    in pixels; `visible` bool [T-1, 64, 64]; `impacts` float32 [8], `impact_frames`,
    `impact_objects` int64 [8]. For the modalities `image` and `text`, whose sources show a
    single instant, boxes, identity, masks, depth, disparity and pose have no T.

    Args:
        modality: one of MODALITIES.
        batch: the number of examples B.
        seed: the same seed gives the same batch.

    Raises:
        BadInput: for an unknown modality.
    """
    if modality not in MODALITIES:
        raise BadInput(f"there is no modality {modality!r}: use one of {', '.join(MODALITIES)}.")
    random = np.random.default_rng(seed)
    frames = pictures(random, (batch, LENGTH))
    boxes = np.sort(random.random((batch, LENGTH, OBJECTS, 2, 2)), axis=3)
    depth = random.uniform(1, 20, (batch, LENGTH, SIDE, SIDE))
    intrinsics = np.array([[SIDE, 0, SIDE / 2 - 0.5], [0, SIDE, SIDE / 2 - 0.5], [0, 0, 1]])
    baseline = 0.1
    impacts = np.sort(random.uniform(0, LENGTH / FPS, (batch, EVENTS)), axis=1)

    def classes(*shape, low=0, count=CLASSES):
        return random.integers(low, count, (batch, *shape))

    found = {
        "image": frames[:, 0],
        "image_right": pictures(random, (batch,)),
        "frames": frames,
        "frames_right": pictures(random, (batch, LENGTH)),
        "fps": np.full([batch], FPS, np.float32),
        "frame_times": np.tile(np.arange(LENGTH, dtype=np.float32) / FPS, [batch, 1]),
        "audio": sounds(random, batch),
        "sample_rate": np.full([batch], RATE, np.int64),
        **{key: sentences(random, batch, words) for key, words in WORDS.items()},
        "index": np.arange(batch, dtype=np.int64),
        **{key: classes() for key in ("label", "action", "material", "colour")},
        "object_label": classes(OBJECTS, low=-1),
        "boxes": boxes.reshape(batch, LENGTH, OBJECTS, 4).astype(np.float32),
        "identity": np.broadcast_to(np.arange(1, OBJECTS + 1), (batch, LENGTH, OBJECTS)),
        "masks": classes(LENGTH, SIDE, SIDE, count=OBJECTS + 1).astype(np.uint8),
        "depth": depth.astype(np.float32),
        "disparity": (baseline * SIDE / depth).astype(np.float32),
        "pose": poses(random, batch),
        "intrinsics": np.tile(intrinsics.astype(np.float32), [batch, 1, 1]),
        "baseline": np.full([batch], baseline, np.float32),
        "flow": random.normal(0, 2, (batch, LENGTH - 1, SIDE, SIDE, 2)).astype(np.float32),
        "visible": random.random((batch, LENGTH - 1, SIDE, SIDE)) < 0.8,
        "impacts": impacts.astype(np.float32),
        "impact_frames": np.floor(impacts * FPS).astype(np.int64),
        "impact_objects": classes(EVENTS, low=1, count=OBJECTS + 1),
    }
    if modality in ("image", "text"):
        for key in ("boxes", "identity", "masks", "depth", "disparity", "pose"):
            found[key] = found[key][:, 0]
    return {key: tf.constant(value) for key, value in found.items()}


def pictures(random, shape):
    """Blotches with a little grain, uint8 [*shape, 64, 64, 3]: neither flat nor pure noise."""
    coarse = random.integers(0, 256, (*shape, SIDE // 8, SIDE // 8, 3))
    fine = coarse.repeat(8, axis=-3).repeat(8, axis=-2)
    grain = random.integers(-16, 17, fine.shape)
    return np.clip(fine + grain, 0, 255).astype(np.uint8)


def sounds(random, batch):
    """A tone of random pitch in noise, float32 [B, 16000]."""
    time = np.arange(round(LENGTH / FPS * RATE)) / RATE
    pitch = random.uniform(100, 2000, (batch, 1))
    tone = 0.5 * np.sin(2 * np.pi * pitch * time) + random.normal(0, 0.05, (batch, len(time)))
    return np.clip(tone, -1, 1).astype(np.float32)


def sentences(random, batch, words):
    """Four to nine words in any order, bytes [B]."""
    words = words.split()
    lengths = random.integers(4, 10, batch)
    return np.array([" ".join(random.choice(words, n)).encode() for n in lengths], object)


def poses(random, batch):
    """Cameras that turn and move a little, float32 [B, T, 4, 4], camera to world."""
    turn = random.normal(0, 0.02, (batch, LENGTH)).cumsum(axis=1)
    pose = np.tile(np.eye(4, dtype=np.float32), [batch, LENGTH, 1, 1])
    pose[..., 0, 0] = pose[..., 2, 2] = np.cos(turn)
    pose[..., 0, 2], pose[..., 2, 0] = np.sin(turn), -np.sin(turn)
    pose[..., :3, 3] = random.normal(0, 0.05, (batch, LENGTH, 3)).cumsum(axis=1)
    return pose
