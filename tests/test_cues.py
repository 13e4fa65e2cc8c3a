"""Cues: put in, a simple classifier reads them off content-free textures; taken out, it guesses."""

import numpy as np
import pytest
import tensorflow as tf

from tfssl.pipelines import datasets
from tfssl.pipelines.augment import cues
from tfssl.pipelines.sources import world

COUNT, SIDE, FRAMES = 160, 64, 6
SEEDS = tf.stack([tf.range(COUNT), tf.zeros(COUNT, tf.int32)], axis=1)


@pytest.fixture(scope="module")
def pictures():
    return cues.texture(SEEDS, SIDE, SIDE)


SEEN = [name for name, cue in cues.CUES.items() if cue.put and name != "sound_offset"]


@pytest.mark.parametrize("name", SEEN)
def test_the_smallest_pictures_have_cues_too(name):
    cue = cues.CUES[name]
    for height, width in ((1, 1), (1, 9), (9, 1)):
        values = tf.ones([2, *([] if "image" in cue.keys else [FRAMES]), height, width, 3])
        put = cue.put(values, SEEDS[:2], cue.strength)
        removed = cue.remove(put, SEEDS[:2], cue.strength)
        assert put.shape == values.shape == removed.shape and np.isfinite(removed).all()


@pytest.fixture(scope="module")
def clips():
    return cues.texture(SEEDS, SIDE, SIDE, [FRAMES])


def states(name, values):
    """What a cue makes of values: (put in, taken out again)."""
    cue = cues.CUES[name]
    put = cue.put(values, SEEDS, cue.strength)
    return put, cue.remove(put, SEEDS + 7, cue.strength)


def read_off(features, labels):
    """The share of right answers of a logistic regression on the half that it was not fitted to."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    order = np.random.default_rng(0).permutation(len(labels))
    fitted, asked = np.array_split(order, 2)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return model.fit(features[fitted], labels[fitted]).score(features[asked], labels[asked])


def told_with_and_not_without(name, values, task, chance):
    """`task(values)` gives features and labels: a cue must serve it, and not once it is removed."""
    put, removed = states(name, values)
    noise = 0.5 / np.sqrt(len(task(put)[1]) / 2)  # at most, of a share among that many
    assert read_off(*task(put)) > chance + 0.35, "present"
    assert read_off(*task(removed)) < chance + 3.5 * noise, "removed"
    assert read_off(*task(values)) < chance + 3.5 * noise, "never there"


def floats(values):
    return np.asarray(values, np.float32) / 255


def turned(values):
    """All four turns of pictures, and which."""
    turns = [np.rot90(floats(values), k, axes=(1, 2)) for k in range(4)]
    return np.concatenate(turns), np.repeat(np.arange(4), len(values))


def edges(x, width):
    sides = x[:, :width], x[:, -width:], x[:, :, :width], x[:, :, -width:]
    return np.stack([side.mean(axis=(1, 2, 3)) for side in sides], axis=1)


def test_a_lens_tells_where_a_patch_was_by_the_shift_of_its_colours(pictures):
    def which_quarter(values):
        features, labels = [], []
        for place, (top, left) in enumerate([(4, 4), (4, 44), (44, 4), (44, 44)]):
            patch = floats(values)[:, top : top + 16, left : left + 16]
            down, right = np.gradient(patch[..., 1], axis=(1, 2))
            shifted = patch[..., 0] - patch[..., 1]
            features.append(np.stack([(shifted * g).mean(axis=(1, 2)) for g in (down, right)], 1))
            labels.append(np.full(len(patch), place))
        return np.concatenate(features), np.concatenate(labels)

    told_with_and_not_without("aberration", pictures, which_quarter, 1 / 4)


def test_a_line_along_one_edge_tells_which_way_up(pictures):
    def turn(values):
        x, labels = turned(values)
        return edges(x, 2), labels

    told_with_and_not_without("border", pictures, turn, 1 / 4)


def test_a_mark_in_the_corner_tells_which_way_up(pictures):
    black = floats(cues.watermark(np.zeros([1, SIDE, SIDE, 3], np.uint8), 1.0))[0, -10:-1, -12:-1]
    template = (black - black.mean())[..., 0]

    def turn(values):
        x, labels = turned(values)
        back = [np.rot90(x, -k, axes=(1, 2))[:, -10:-1, -12:-1, 1] for k in range(4)]
        return np.stack([(corner * template).sum(axis=(1, 2)) for corner in back], 1), labels

    told_with_and_not_without("watermark", pictures, turn, 1 / 4)


@pytest.mark.parametrize("shape", [(16, 16), (32, 32), (48, 80), (96, 64), (128, 128), (224, 224)])
def test_the_mark_is_as_large_a_share_of_any_picture_and_goes_without_a_rest(shape):
    cue, grey = cues.CUES["watermark"], np.full([1, *shape, 3], 0.4, np.float32)
    put = cue.put(grey, None, 1.0)
    weight = (put.numpy() - grey)[0, ..., 0].sum() / min(shape) ** 2
    drawn = cues.watermark(np.full([1, 64, 64, 3], 0.4, "f"), 1.0).numpy()[0, ..., 0] - 0.4
    assert weight == pytest.approx(drawn.sum() / 64**2, rel=1e-3)
    assert np.abs(put.numpy() - grey).max() > 0.1
    np.testing.assert_allclose(cue.remove(put, None, 1.0), grey, atol=1e-6)


def test_jpeg_blocks_tell_where_a_patch_was_within_eight_pixels(pictures):
    def phase(values):
        grey = floats(values)[..., 1]
        steps = np.abs(np.diff(grey, axis=2)).mean(axis=1)  # [B, columns - 1]
        features = [steps[:, at : at + 48].reshape(-1, 6, 8).mean(axis=1) for at in (0, 4)]
        return np.concatenate(features), np.repeat([0, 1], len(grey))

    told_with_and_not_without("jpeg", pictures, phase, 1 / 2)


def test_rows_that_were_resized_tell_the_axis(pictures):
    def axis(values):
        x, labels = turned(values)
        rough = [np.abs(np.diff(x, axis=a)).mean(axis=(1, 2, 3)) for a in (1, 2)]
        return np.stack(rows_less_columns(*rough), axis=1), labels % 2

    def rows_less_columns(rows, columns):
        return rows - columns, rows + columns

    told_with_and_not_without("resize", pictures, axis, 1 / 2)


def test_black_bars_tell_the_axis(pictures):
    def axis(values):
        x, labels = turned(values)
        upright, lying = edges(x, 3)[:, :2].mean(1), edges(x, 3)[:, 2:].mean(1)
        return (upright - lying)[:, None], labels % 2

    told_with_and_not_without("black_frame", pictures, axis, 1 / 2)


def test_the_faint_noise_of_black_bars_tells_the_direction_of_time(clips):
    told_with_and_not_without("black_frame", clips, direction(lambda x: x[:, :, :6]), 1 / 2)


def direction(look):
    """Forwards or backwards, by how much noise the first and the last frame hold."""

    def task(values):
        x = floats(values)
        both = np.concatenate([x, x[:, ::-1]])
        seen = np.abs(np.diff(look(both), axis=3)).mean(axis=(2, 3, 4))
        # A texture's own roughness is in all frames alike, and leaves only what changes.
        return (seen[:, :1] - seen[:, -1:]), np.repeat([0, 1], len(x))

    return task


def moving(pull):
    """Forwards or backwards, by motion along `pull` [H, W, 2] that brightness shows."""

    def task(values):
        x = floats(values)[..., 1]
        both = np.concatenate([x, x[:, ::-1]])
        down, right = np.gradient(both[:, :-1], axis=(2, 3))
        along = down * pull[..., 0] + right * pull[..., 1]
        change = (np.diff(both, axis=1) * along).mean(axis=(1, 2, 3))
        return change[:, None], np.repeat([0, 1], len(x))

    return task


def test_a_camera_that_always_moves_in_tells_the_direction_of_time(clips):
    ramp = np.arange(SIDE) / SIDE - 0.5
    outwards = np.stack(np.meshgrid(ramp, ramp, indexing="ij"), axis=-1)
    told_with_and_not_without("zoom", clips, moving(outwards), 1 / 2)


def test_a_camera_that_always_tilts_down_tells_the_direction_of_time(clips):
    down = np.zeros([SIDE, SIDE, 2])
    down[..., 0] = 1
    told_with_and_not_without("tilt", clips, moving(down), 1 / 2)


def test_the_colour_of_the_light_tells_which_crops_are_of_one_picture(pictures):
    def same(values):
        x = floats(values)
        means = [part.mean(axis=(1, 2)) for part in (x[:, :32, :32], x[:, 32:, 32:])]
        pairs = [means[1], np.roll(means[1], 1, axis=0)]
        far = [np.abs(means[0] - other).sum(axis=1, keepdims=True) for other in pairs]
        return np.concatenate(far), np.repeat([0, 1], len(x))

    told_with_and_not_without("colour", pictures, same, 1 / 2)


def test_a_late_sound_is_told_by_where_it_begins_and_moved_back():
    cue, rate = cues.CUES["sound_offset"], tf.fill([COUNT], tf.constant(1000, tf.int64))
    sound = tf.random.stateless_normal([COUNT, 1000], [1, 2])
    put = cue.put((sound, rate), SEEDS, 0.25)
    removed = cue.remove((put, rate), SEEDS, 0.25)
    np.testing.assert_array_equal(put[:, :250], 0)
    np.testing.assert_array_equal(put[:, 250:], sound[:, :750])
    np.testing.assert_array_equal(removed[:, :750], sound[:, :750])

    def begins(x):
        return np.abs(x[:, :250]).mean(axis=1, keepdims=True)

    labels = np.repeat([0, 1], COUNT)
    assert read_off(np.concatenate([begins(sound), begins(put)]), labels) == 1
    assert read_off(np.concatenate([begins(sound), begins(removed)]), labels) < 0.7


def test_the_worlds_own_knobs_make_the_same_pictures():
    plain = world.render([0, 1, 2], ["image"], size=64)["image"]
    lens = world.render([0, 1, 2], ["image"], size=64, aberration=0.05)["image"]
    mark = world.render([0, 1, 2], ["image"], size=64, watermark=True)["image"]
    for ours, theirs in ((cues.aberration(plain, 0.05), lens), (cues.watermark(plain, 1.0), mark)):
        assert np.abs(np.asarray(ours, int) - theirs).max() <= 1


@pytest.mark.parametrize("name", [name for name, cue in cues.CUES.items() if "frames" in cue.keys])
def test_shape_and_type_stay_and_an_example_is_the_same_in_any_batch(name):
    cue = cues.CUES[name]
    for kind in ("image", "frames"):
        if kind not in cue.keys:
            continue
        shape = (4, 3, 40, 56, 3) if kind == "frames" else (4, 40, 56, 3)
        values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        examples = {kind: tf.constant(values), "index": tf.range(4, dtype=tf.int64)}
        later = {key: value[2:] for key, value in examples.items()}
        for function in (cue.put, cue.remove):
            change = cue.keys, function
            whole = cues.changed(examples, change, cue.strength)[kind]
            assert whole.shape == shape and whole.dtype == tf.uint8
            part = cues.changed(later, change, cue.strength)[kind]
            np.testing.assert_array_equal(whole[2:], part)
        real = cue.put(tf.constant(values / 255, tf.float32), SEEDS[:4], cue.strength)
        assert real.dtype == tf.float32 and 0 <= real.numpy().min() <= real.numpy().max() <= 1


def test_a_source_keeps_its_random_access_when_a_cue_is_laid_over_it():
    from tfssl.pipelines import load

    source = load("world:n=6,size=32", keys=("image", "index"))
    cue = cues.CUES["black_frame"]
    put = datasets.changed(source, lambda e: cues.changed(e, (cue.keys, cue.put), cue.strength))
    rows = np.stack([example["image"] for example in put])
    np.testing.assert_array_equal(put.gather(tf.constant([4, 1], tf.int64))["image"], rows[[4, 1]])
    assert int(put.cardinality()) == 6 and put.class_names == source.class_names
    assert (rows[:, :4] <= 6).all() and (rows[:, 8:-8] > 6).any()


def test_every_cue_names_what_it_applies_to():
    assert set(cues.applying("image")) == {
        *("aberration", "border", "gap", "jpeg", "resize", "watermark", "black_frame", "colour")
    }
    assert {"zoom", "tilt"} < set(cues.applying("video"))
    assert "sound_offset" in cues.applying("audio_visual") and not cues.applying("text")
    assert "gap" not in cues.applying("video")
