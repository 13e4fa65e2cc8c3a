"""Patches, tiles, clips and audio-visual pairs: geometry, label maps, laws of the draws."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from tfssl.pipelines.sample import clips, pairs, patches

SEED = tf.constant([7, 11])


def coordinates(batch, height, width):
    """Images whose pixels tell where they are: (row, column, example) / 255."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    one = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    images = np.tile(one[None], [batch, 1, 1, 1])
    images[..., 2] = np.arange(batch)[:, None, None] % 256
    return images


def corners(cut):
    """The (row, column) of each patch's first pixel, as integers."""
    return np.round(np.asarray(cut)[..., 0, 0, :2] * 255).astype(int)


def videos(batch=3, length=10):
    frames = np.zeros([batch, length, 2, 2, 3], np.uint8)
    frames[..., 0] = np.arange(length)[None, :, None, None]
    frames[..., 1] = np.arange(batch)[:, None, None, None]
    return frames


def test_labels_are_in_raster_order_without_the_centre():
    assert patches.neighbour_label(-1, -1) == 0  # (dx, dy) = (-1, -1)
    assert patches.neighbour_label(0, 1) == 4  # (1, 0)
    assert patches.neighbour_label(1, 0) == 6  # (0, 1)
    for down, right in patches.NEIGHBOURS:
        label = patches.neighbour_label(down, right)
        assert patches.neighbour_label(-down, -right) == 7 - label


@pytest.mark.parametrize("size, expected", [(64, (16, 6, 2)), (32, (8, 3, 1))])
def test_neighbours_lie_where_their_label_says_with_a_free_strip(size, expected):
    sizes = patches.lattice(size)
    assert tuple(sizes.values()) == expected
    pair, labels = patches.neighbour_patches(coordinates(400, size, size), SEED, **sizes)
    patch, gap, jitter = expected
    assert pair.shape == (400, 2, patch, patch, 3) and pair.dtype == tf.float32
    assert labels.shape == (400,) and labels.dtype == tf.int32
    at = corners(pair)
    difference = at[:, 1] - at[:, 0]
    offset = np.array(patches.NEIGHBOURS)[labels]
    assert np.abs(difference - offset * (patch + gap)).max() <= 2 * jitter
    apart = np.abs(difference)[offset != 0]
    assert apart.min() >= patch + gap - 2 * jitter  # 2 px at 64, 1 px at 32 stay free
    assert apart.min() - patch >= gap - 2 * jitter > 0
    assert len(np.unique(at[:, 0] // (patch + gap), axis=0)) > 4  # not always the centre cell
    counts = np.bincount(labels, minlength=8)
    assert counts.min() > 25 and counts.max() < 80


def test_a_patch_is_a_patch_of_its_own_image():
    pair, _ = patches.neighbour_patches(coordinates(5, 64, 80), SEED, **patches.lattice(64))
    at = corners(pair)
    images = coordinates(5, 64, 80) / 255
    for b in range(5):
        for k in range(2):
            r, c = at[b, k]
            np.testing.assert_allclose(pair[b, k], images[b, r : r + 16, c : c + 16], atol=1e-6)


def test_the_lattice_covers_its_cells_in_raster_order_at_random_origins():
    cut = patches.grid_patches(coordinates(64, 96, 64), SEED, grid=3, patch=16, gap=6, jitter=0)
    assert cut.shape == (64, 9, 16, 16, 3)
    at = corners(cut)
    cells = np.array([(r, c) for r in range(3) for c in range(3)]) * 22
    np.testing.assert_array_equal(at - at[:, :1], np.tile(cells[None], [64, 1, 1]))
    assert set(at[:, 0, 0]) <= set(range(96 - 60 + 1)) and len(set(at[:, 0, 0])) > 15
    assert set(at[:, 0, 1]) == set(range(5))


def test_a_lattice_that_does_not_fit_is_refused_with_advice():
    with pytest.raises(ValueError, match="smaller patches"):
        patches.grid_patches(coordinates(1, 32, 32), SEED, grid=3, patch=16, gap=6, jitter=2)
    with pytest.raises(ValueError, match="smaller tiles"):
        patches.tiles(coordinates(1, 32, 32), SEED, grid=3, tile=11)


def test_tiles_stay_in_their_cells_and_full_tiles_are_the_image():
    cut = patches.tiles(coordinates(50, 33, 36), SEED, grid=3, tile=8)
    at = corners(cut).reshape(50, 3, 3, 2)
    for r in range(3):
        for c in range(3):
            assert np.all((at[:, r, c, 0] >= 11 * r) & (at[:, r, c, 0] <= 11 * r + 3))
            assert np.all((at[:, r, c, 1] >= 12 * c) & (at[:, r, c, 1] <= 12 * c + 4))
    assert len(set(at[:, 1, 1, 0])) == 4
    images = coordinates(2, 12, 12)
    full = patches.tiles(images, SEED, grid=3, tile=4)
    whole = np.asarray(full).reshape(2, 3, 3, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    np.testing.assert_allclose(whole.reshape(2, 12, 12, 3), images / 255, atol=1e-6)


def test_patches_have_static_shapes_for_images_of_unknown_size():
    spec = [tf.TensorSpec([1, None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
    pair = tf.function(lambda x, s: patches.neighbour_patches(x, s, 16, 6, 2)[0], spec)
    assert pair.get_concrete_function().output_shapes == (1, 2, 16, 16, 3)
    cut = tf.function(lambda x, s: patches.tiles(x, s, 3, 8), spec)
    assert cut.get_concrete_function().output_shapes == (1, 9, 8, 8, 3)


@pytest.mark.parametrize(
    "sample",
    [
        lambda s: patches.neighbour_patches(coordinates(8, 64, 64), s, 16, 6, 2)[0],
        lambda s: patches.grid_patches(coordinates(8, 64, 64), s, 3, 16, 6, 2),
        lambda s: patches.tiles(coordinates(8, 64, 64), s, 3, 16),
        lambda s: clips.clip(videos(8, 30), s, 4, 2),
        lambda s: clips.ordered_frames(videos(8, 30), s, 5)[0],
        lambda s: clips.frame_pair(videos(8, 30), s, 1, 5),
        lambda s: pairs.half_mismatched(tf.range(8.0)[:, None], s)[0],
    ],
)
def test_the_same_seed_repeats_and_another_differs(sample):
    first, again, other = sample([1, 2]), sample([1, 2]), sample([1, 3])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_clips_are_consecutive_and_their_starts_uniform():
    cut = clips.clip(videos(2000, 10), SEED, length=3, stride=2)
    assert cut.shape == (2000, 3, 2, 2, 3) and cut.dtype == tf.uint8
    times = np.asarray(cut)[:, :, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(np.diff(times), 2)
    starts = collections.Counter(times[:, 0])
    assert set(starts) == set(range(6)) and min(starts.values()) > 250
    np.testing.assert_array_equal(np.asarray(cut)[:, 0, 0, 0, 1], np.arange(2000) % 256)


def test_several_clips_start_independently():
    cut = clips.clips(videos(300, 12), SEED, count=2, length=4)
    assert cut.shape == (300, 2, 4, 2, 2, 3)
    starts = np.asarray(cut)[:, :, 0, 0, 0, 0].astype(float)
    assert abs(np.corrcoef(starts.T)[0, 1]) < 0.2


def test_a_video_shorter_than_the_clip_is_looped():
    times = np.asarray(clips.clip(videos(2, 3), SEED, length=7))[:, :, 0, 0, 0]
    np.testing.assert_array_equal(times, [[0, 1, 2, 0, 1, 2, 0]] * 2)
    ordered, indices = clips.ordered_frames(videos(2, 3), SEED, 5)
    np.testing.assert_array_equal(np.asarray(ordered)[:, :, 0, 0, 0], [[0, 1, 2, 0, 1]] * 2)
    np.testing.assert_array_equal(indices, [[0, 1, 2, 3, 4]] * 2)
    one = np.asarray(clips.frame_pair(videos(2, 1), SEED))[:, :, 0, 0, 0]
    np.testing.assert_array_equal(one, np.zeros([2, 2]))


def test_ordered_frames_are_distinct_sorted_and_all_subsets_occur():
    frames, indices = clips.ordered_frames(videos(2000, 5), SEED, 2)
    times = np.asarray(frames)[:, :, 0, 0, 0]
    np.testing.assert_array_equal(times, indices)
    counts = collections.Counter(map(tuple, times))
    assert set(counts) == {(a, b) for a in range(5) for b in range(a + 1, 5)}
    assert min(counts.values()) > 140  # 200 expected each


def test_pairs_of_frames_keep_their_distance_and_order():
    times = np.asarray(clips.frame_pair(videos(900, 8), SEED))[:, :, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(np.diff(times), 1)
    assert set(times[:, 0]) == set(range(7))
    far = np.diff(
        np.asarray(clips.frame_pair(videos(900, 8), SEED, 2, 4))[:, :, 0, 0, 0].astype(int)
    )
    assert set(far[:, 0]) == {2, 3, 4}


def test_samplers_keep_static_shapes_for_videos_of_unknown_length():
    spec = [tf.TensorSpec([4, None, 8, 8, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
    for sample, shape in [
        (lambda x, s: clips.clip(x, s, 5), (4, 5, 8, 8, 3)),
        (lambda x, s: clips.clips(x, s, 2, 5), (4, 2, 5, 8, 8, 3)),
        (lambda x, s: clips.frame(x, s), (4, 8, 8, 3)),
        (lambda x, s: clips.frame_pair(x, s), (4, 2, 8, 8, 3)),
        (lambda x, s: clips.ordered_frames(x, s, 3)[0], (4, 3, 8, 8, 3)),
    ]:
        assert tf.function(sample, spec).get_concrete_function().output_shapes == shape


def sounds(batch, seconds, rate=1000):
    """Sounds whose every sample tells its own time in seconds."""
    return np.tile(np.arange(round(seconds * rate))[None] / rate / 10, [batch, 1]).astype(
        np.float32
    )


def test_the_sound_is_centred_on_the_frame_and_starts_on_the_grid():
    frames = np.zeros([500, 75, 1, 1, 3], np.uint8)
    frames[..., 0] = np.arange(75)[:, None, None]
    image, sound = pairs.frame_and_sound(frames, 25.0, sounds(500, 3), 1000, SEED)
    assert image.shape == (500, 1, 1, 3) and sound.shape == (500, 1000)
    start = np.asarray(sound)[:, 0] * 10
    steps = start / 0.04
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert set(np.round(steps).astype(int)) == set(range(51))
    time = np.asarray(image)[:, 0, 0, 0] / 25
    assert np.abs(time - (start + 0.5)).max() <= 0.02 + 1e-5  # half a frame
    np.testing.assert_allclose(np.diff(sound), 1e-4, atol=2e-5)


def drawn_frames(count, fps=25.0, length=75, **options):
    """Numbers of the frames, and the start of each one's sound in seconds, over many examples."""
    frames = np.zeros([count, length, 1, 1, 3], np.uint8)
    frames[..., 0] = np.arange(length)[:, None, None]
    sound = sounds(count, length / fps)
    image, sound = pairs.frame_and_sound(frames, fps, sound, 1000, SEED, **options)
    return np.asarray(image)[:, 0, 0, 0].astype(int), np.asarray(sound)[:, 0] * 10


def test_odd_frames_come_as_often_as_even_ones():
    """At 25 fps and 1 s every middle lies half-way between two frames."""
    number, start = drawn_frames(4000)
    assert abs(np.mean(number % 2) - 0.5) < 0.04
    np.testing.assert_array_equal(number, np.round(start / 0.04) + 13)
    number, start = drawn_frames(4000, fps=30.0, length=90)
    np.testing.assert_array_equal(number, np.floor((np.round(start / 0.04) * 12 + 155) / 10))


def test_frames_are_misaligned_by_up_to_a_second_as_far_as_the_video_goes():
    number, start = drawn_frames(3000, misalignment=1.0)
    off = number / 25 - (start + 0.5)
    assert off.min() < -0.95 and off.max() > 0.95 and np.abs(off).max() <= 1.02 + 1e-5
    inner = (start > 0.5) & (start < 1.4)  # here all of it is in the video
    assert abs(off[inner].mean()) < 0.08 and off[inner].std() == pytest.approx(1 / 3**0.5, abs=0.05)
    assert (off[start < 0.02] >= -0.52).all() and number.min() == 0 and number.max() == 74


@pytest.mark.parametrize("given", [True, False])
def test_frames_of_a_changing_rate_are_paired_by_when_they_were_taken(given):
    """5 s at 5 frames a second, then 5 s at 25; at 5.00 s a flash and a click."""
    times = np.concatenate([np.arange(25) / 5, 5 + np.arange(125) / 25]).astype(np.float32)
    count, rate = 2000, 1000
    frames = np.broadcast_to(np.arange(150, dtype=np.uint8)[:, None, None, None], [150, 1, 1, 3])
    frames = np.broadcast_to(frames, [count, *frames.shape])
    sound = np.broadcast_to(np.eye(1, 10 * rate, 5 * rate, dtype=np.float32), [count, 10 * rate])
    options = {"times": np.tile(times, [count, 1])} if given else {}
    image, heard = pairs.frame_and_sound(frames, 150 / 10, sound, rate, SEED, **options)
    number, heard = np.asarray(image)[:, 0, 0, 0].astype(int), np.asarray(heard)
    clicks = heard.any(axis=1)
    assert 0.05 < clicks.mean() < 0.2
    flashes = clicks[number == 25]
    if not given:  # by the rate alone the flash is at 1.67 s
        assert not flashes.any()
        return
    assert len(flashes) > 10 and flashes.all()
    start = 5 - heard[clicks].argmax(axis=1) / rate
    frame = times[number[clicks]]
    assert (np.abs(frame - (start + 0.5)) <= np.where(start + 0.5 < 5, 0.1, 0.02) + 1e-3).all()
    seconds = times[np.unique(number)]
    assert seconds.min() < 0.7 and seconds.max() > 9.4


@pytest.mark.parametrize("fps", [10.0, 25.0, 29.97])
def test_a_steady_rate_and_its_times_draw_the_same(fps):
    frames = np.broadcast_to(
        np.arange(90, dtype=np.uint8)[None, :, None, None, None], [999, 90, 1, 1, 3]
    )
    times = np.tile(np.arange(90, dtype=np.float32) / np.float32(fps), [999, 1])
    for misalignment in (0.0, 1.0):
        clip = (frames, fps, sounds(999, 90 / fps), 1000, SEED, 1.0, 0.04, misalignment)
        for a, b in zip(pairs.frame_and_sound(*clip), pairs.frame_and_sound(*clip, times)):
            np.testing.assert_array_equal(a, b)


def test_quarters_are_the_image_and_odd_sides_are_refused():
    image = coordinates(2, 8, 12)
    quarters = np.asarray(patches.quadrants(image))
    assert quarters.shape == (2, 4, 4, 6, 3)
    np.testing.assert_array_equal(quarters[:, 1], image[:, :4, 6:])
    np.testing.assert_array_equal(quarters[:, 2], image[:, 4:, :6])
    for sides in ((8, 11), (7, 12)):
        with pytest.raises(ValueError, match="even sides"):
            patches.quadrants(coordinates(2, *sides))


def test_wrong_sounds_start_as_right_ones_do():
    frames, audio = np.zeros([3000, 75, 1, 1, 3], np.uint8), sounds(3000, 3)
    _, sound = pairs.frame_and_sound(frames, np.full(3000, 25.0), audio, 1000, SEED)
    mixed, label = pairs.half_mismatched(sound, SEED)
    start, label = np.asarray(mixed)[:, 0] * 10, np.asarray(label)
    assert label.sum() == 1500
    right, wrong = np.sort(start[label == 1]), np.sort(start[label == 0])
    grid = np.arange(51) * 0.04 + 0.02
    gap = np.abs(np.searchsorted(right, grid) - np.searchsorted(wrong, grid)).max() / 1500
    assert gap < 1.63 * np.sqrt(2 / 1500)  # two-sample Kolmogorov-Smirnov, p > 0.01
    np.testing.assert_allclose(start / 0.04, np.round(start / 0.04), atol=1e-3)


def test_a_short_sound_ends_in_silence():
    frames = np.zeros([2, 10, 1, 1, 3], np.uint8)
    _, sound = pairs.frame_and_sound(frames, 25, sounds(2, 0.4) + 0.5, 1000, SEED)
    assert sound.shape == (2, 1000)
    assert np.all(np.asarray(sound)[:, :400] >= 0.5) and np.all(np.asarray(sound)[:, 400:] == 0)


def test_a_mismatched_sound_is_never_ones_own_and_anybody_elses():
    audio = tf.range(5.0)[:, None]
    seen = set()
    for k in range(40):
        other = np.asarray(pairs.mismatch(audio, [0, k]))[:, 0]
        assert not np.any(other == np.arange(5)) and set(other) == set(range(5))
        seen.add(other[0])
    assert seen == {1, 2, 3, 4}
    with pytest.raises(ValueError, match="batch of one"):
        pairs.mismatch(audio[:1], SEED)


def test_half_mismatched_labels_tell_the_truth():
    for batch in (2, 7, 8):
        sound, label = pairs.half_mismatched(tf.range(float(batch))[:, None], [3, batch])
        own = np.asarray(sound)[:, 0] == np.arange(batch)
        np.testing.assert_array_equal(label, own.astype(int))
        assert np.sum(label) == (batch + 1) // 2
