"""The sound of a scene: each impact strikes a few damped modes, the class giving their pitches, the
material how they ring; rolling rumbles and the platform's motor hums, far more quietly.

Sound is taken to arrive at once: at these distances it is at most a quarter of a frame late.
"""

import numpy as np

from tfssl.pipelines.sources.world.scene import PLATFORM

SAMPLE_RATE = 16_000
#           ball  cube  cylinder cone octahedron ring dumbbell cross: pitch in Hz at 0.65 m
_PITCH = (220, 310, 430, 570, 760, 980, 1250, 1600)
_RATIOS = (
    (1.0, 1.59, 2.14, 2.65),
    (1.0, 1.41, 1.73, 2.45),
    (1.0, 2.0, 3.0, 4.0),
    (1.0, 2.3, 3.6, 4.2),
    (1.0, 1.25, 2.5, 3.1),
    (1.0, 2.76, 3.9, 5.4),
    (1.0, 1.1, 2.2, 3.3),
    (1.0, 1.87, 2.6, 4.7),
)
#          wood  metal rubber stone plastic
_DAMPING = (28.0, 6.0, 40.0, 55.0, 20.0)  # of the lowest mode, 1/s
_SLOPE = (0.5, 0.9, 0.15, 0.8, 0.4)  # amplitude of each mode over that of the mode below
_CLICK = (0.25, 0.2, 0.05, 0.9, 0.1)  # noise of the contact itself
_CLICK_SECONDS = 0.004
_TUNING = (1.0, 1.12, 0.7, 0.9, 1.3)  # soft rubber sounds lower
REFERENCE_METRES, REFERENCE_SPEED, LOUDNESS = 3.0, 5.0, 0.55
RUMBLE, HUM, ROOM = 0.002, 0.003, 0.0002
LOUDEST = 0.98


def strike(thing, seconds):
    """One impact of unit strength: float64 [seconds * SAMPLE_RATE]."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    kind, material = thing.kind, thing.material
    pitch = _PITCH[kind] * _TUNING[material] * (0.65 / max(thing.scale)) ** 0.5
    tone = 0
    for mode, ratio in enumerate(_RATIOS[kind]):
        strength = _SLOPE[material] ** mode
        damping = _DAMPING[material] * (1 + 0.6 * mode)
        # a sine starts at zero and at full slope: an attack without a click
        tone = tone + strength * np.exp(-damping * t) * np.sin(2 * np.pi * pitch * ratio * t)
    noise = np.random.Generator(np.random.Philox(key=[kind, material])).standard_normal(len(t))
    return tone / 2 + _CLICK[material] * noise * np.exp(-t / _CLICK_SECONDS) / 2


def loudness(speed, distance):
    """Amplitude of an impact: in proportion to its speed and to one over the distance."""
    return LOUDNESS * speed / REFERENCE_SPEED * REFERENCE_METRES / max(distance, 0.5)


def audio(scene, seconds, offset=0.0):
    """The clip's sound float32 [seconds * SAMPLE_RATE] in [-1, 1], `offset` seconds late."""
    samples = round(seconds * SAMPLE_RATE)
    random = np.random.Generator(np.random.Philox(key=[scene.index, 1]))
    hiss = np.roll(random.standard_normal(samples), round(offset * SAMPLE_RATE))
    out = ROOM * hiss
    # movement, sampled coarsely: loudness follows speed and distance
    steps = np.linspace(0, seconds, 33)
    _, eye = scene.camera(steps)
    t = np.arange(samples) / SAMPLE_RATE
    dull = np.convolve(hiss, np.ones(24) / np.sqrt(24), "same")
    for thing in scene.things:
        if thing is None:
            continue
        centre, _ = thing.pose(steps - offset)
        gain = REFERENCE_METRES / np.maximum(np.sqrt(((centre - eye) ** 2).sum(1)), 0.5)
        if thing.label == PLATFORM:
            out = out + HUM * np.interp(t, steps, gain) * np.sin(2 * np.pi * 90 * (t - offset))
            continue
        speed = np.gradient(centre, steps[1], axis=0)
        grounded = np.abs(speed[:, 1]) < 0.02
        level = RUMBLE * gain * grounded * np.minimum(np.hypot(speed[:, 0], speed[:, 2]), 3)
        if level.any():
            out = out + np.interp(t, steps, level) * dull
    for impact in scene.impacts:
        first = round((impact.seconds + offset) * SAMPLE_RATE)
        if first >= samples or first <= -samples:
            continue
        thing = scene.things[impact.thing]
        at = np.array([impact.seconds])
        distance = float(np.sqrt(((thing.pose(at)[0] - scene.camera(at)[1]) ** 2).sum()))
        rings = strike(thing, (samples - first) / SAMPLE_RATE) * loudness(impact.speed, distance)
        out[max(first, 0) :] += rings[max(-first, 0) :][: samples - max(first, 0)]
    # quiet sounds pass unchanged, loud ones are held below one
    return (LOUDEST * np.tanh(out / LOUDEST)).astype(np.float32)


def impacts(scene, seconds, fps, most):
    """Times float32 [most], frames int64 [most] and object ids int64 [most]; -1 fills the rest."""
    times = np.full(most, -1, np.float32)
    frames, ids = np.full(most, -1, np.int64), np.full(most, -1, np.int64)
    heard = [impact for impact in scene.impacts if impact.seconds < seconds][:most]
    for i, impact in enumerate(heard):
        times[i], ids[i] = impact.seconds, impact.thing + 1
        frames[i] = int(impact.seconds * fps)
    return times, frames, ids


__all__ = ["SAMPLE_RATE", "audio", "impacts", "loudness", "strike"]
