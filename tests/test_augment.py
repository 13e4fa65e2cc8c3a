"""Augmentation: each function against slow NumPy, laws of the draws, ranges, shapes and seeds."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfssl.pipelines.augment import audio, image, policies, text, video

SEED = tf.constant([3, 5])
GREY = np.array([0.299, 0.587, 0.114])


def pictures(batch=4, height=32, width=32, seed=0):
    """Smooth random uint8 images: noise alone would hide errors of half a pixel."""
    coarse = np.random.default_rng(seed).uniform(0, 255, [batch, 6, 6, 3])
    return (
        np.asarray(tf.cast(tf.image.resize(coarse, [height, width], "bicubic"), tf.float32))
        .clip(0, 255)
        .astype(np.uint8)
    )


def sample_bilinear(picture, rows, columns):
    """Slow bilinear look-up at real positions, clamped to the picture."""
    result = np.zeros([len(rows), len(columns), 3])
    height, width = picture.shape[:2]
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            r, c = min(int(y), height - 2), min(int(x), width - 2)
            a, b = y - r, x - c
            result[i, j] = (1 - a) * ((1 - b) * picture[r, c] + b * picture[r, c + 1]) + a * (
                (1 - b) * picture[r + 1, c] + b * picture[r + 1, c + 1]
            )
    return result


RANDOM = {
    "random_resized_crop": lambda x, s: image.random_resized_crop(x, 24, s),
    "random_crop_with_padding": lambda x, s: image.random_crop_with_padding(x, 32, s),
    "random_flip": image.random_flip,
    "colour_jitter": image.colour_jitter,
    "random_greyscale": lambda x, s: image.random_greyscale(x, s, 0.5),
    "gaussian_blur": image.gaussian_blur,
    "solarise": lambda x, s: image.solarise(x, s, probability=0.5),
    "contrastive_view": lambda x, s: image.contrastive_view(x, 24, s, solarisation=0.2),
    "rand_augment": lambda x, s: policies.rand_augment(
        x, s, operations=("Rotate", "Color", "ShearX", "TranslateY", "Cutout", "Sharpness")
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_the_same_seed_repeats_and_another_differs(name):
    x = pictures(16)
    first, again = RANDOM[name](x, [1, 2]), RANDOM[name](x, [1, 2])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, RANDOM[name](x, [1, 3]))
    in_graph = tf.data.Dataset.from_tensors(x).map(lambda x: RANDOM[name](x, tf.constant([1, 2])))
    np.testing.assert_allclose(first, next(iter(in_graph)), atol=1e-5)


@pytest.mark.parametrize("name", RANDOM)
def test_results_are_float32_in_unit_range_whatever_comes_in(name):
    x = pictures(16)
    x[:, 0, 0], x[:, 1, 1] = 0, 255
    for given in (x, x.astype(np.float32) / 255, (x / 255).astype(np.float64)):
        result = RANDOM[name](given, SEED)
        assert result.dtype == tf.float32
        assert float(tf.reduce_min(result)) >= 0 and float(tf.reduce_max(result)) <= 1 + 1e-6
        assert float(tf.reduce_mean(result)) > 0.05  # not scaled down twice


@pytest.mark.parametrize("name", RANDOM)
def test_all_frames_of_a_clip_get_the_same_draw(name):
    still = np.repeat(pictures(6)[:, None], 3, axis=1)
    result = np.asarray(RANDOM[name](still, SEED))
    assert result.shape[:2] == (6, 3) and result.ndim == 5
    np.testing.assert_allclose(result, np.repeat(result[:, :1], 3, axis=1), atol=1e-6)
    assert not np.allclose(result[0], result[1])


@pytest.mark.parametrize("height, width", [(1, 1), (1, 40), (20, 31), (300, 200)])
def test_a_batch_of_one_of_any_size_gives_the_static_shape(height, width):
    spec = [tf.TensorSpec([1, None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
    white = np.full([1, height, width, 3], 255, np.uint8)
    for crop in (
        lambda x, s: image.random_resized_crop(x, 16, s),
        lambda x, s: image.contrastive_view(x, 16, s, jitter=0.0),
        lambda x, s: image.centre_crop(x, 16),
        lambda x, s: image.resize(x, 16),
    ):
        crop = tf.function(crop, spec)
        assert crop.get_concrete_function().output_shapes == (1, 16, 16, 3)
        for k in range(5):  # a white image stays white: no black border creeps in
            np.testing.assert_allclose(crop(white, [k, k]), 1.0, atol=1e-5)


def test_a_crop_is_bilinear_at_pixel_centres_and_mirrors():
    x = pictures(2, 20, 26)
    boxes = np.array([[3.3, 5.1, 11.0, 14.5], [0.0, 0.0, 20.0, 26.0]], np.float32)
    cut = image.crop(x, boxes, 9)
    mirrored = image.crop(x, boxes, 9, tf.constant([True, True]))
    np.testing.assert_allclose(mirrored, cut[:, :, ::-1], atol=1e-4)
    for k, (top, left, height, width) in enumerate(boxes):
        rows = top + (np.arange(9) + 0.5) * height / 9 - 0.5
        columns = left + (np.arange(9) + 0.5) * width / 9 - 0.5
        np.testing.assert_allclose(cut[k], sample_bilinear(x[k] / 255, rows, columns), atol=1e-3)


def test_the_whole_image_at_its_own_size_is_itself():
    x = pictures(2)
    whole = tf.constant([[0.0, 0.0, 32.0, 32.0]] * 2)
    np.testing.assert_allclose(image.crop(x, whole, 32), x / 255, atol=1e-4)
    np.testing.assert_allclose(image.resize(x, 32), x / 255, atol=1e-6)
    np.testing.assert_allclose(image.centre_crop(x, 32), x / 255, atol=1e-6)


def test_a_large_photograph_does_not_alias():
    stripes = np.zeros([1, 320, 320, 3], np.uint8)
    stripes[:, :, ::2] = 255
    small = image.crop(stripes, tf.constant([[0.0, 0.0, 320.0, 320.0]]), 16)
    assert np.abs(np.asarray(small) - 0.5).max() < 0.1


def test_crops_follow_the_law_of_area_and_aspect():
    boxes = np.asarray(image.crop_boxes(200, 200, 20000, SEED, (0.08, 1.0)))
    top, left, height, width = boxes.T
    area, aspect = height * width / 200**2, width / height
    assert area.min() >= 0.08 - 1e-5 and area.max() <= 1 + 1e-5
    assert aspect.min() >= 0.75 - 1e-5 and aspect.max() <= 4 / 3 + 1e-5
    assert top.min() >= -1e-3 and (top + height).max() <= 200 + 1e-3
    assert left.min() >= -1e-3 and (left + width).max() <= 200 + 1e-3
    # Where every crop fits (area below 3/4) the law is undisturbed: uniform and log-uniform.
    boxes = np.asarray(image.crop_boxes(200, 200, 20000, SEED, (0.08, 0.7)))
    area = boxes[:, 2] * boxes[:, 3] / 200**2
    quantiles = np.quantile(area, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(quantiles, 0.08 + 0.62 * np.array([0.1, 0.5, 0.9]), atol=0.015)
    logs = np.log(boxes[:, 3] / boxes[:, 2]) / math.log(4 / 3)
    np.testing.assert_allclose(np.quantile(logs, [0.1, 0.5, 0.9]), [-0.8, 0, 0.8], atol=0.04)
    position = boxes[:, 0] / (200 - boxes[:, 2])
    np.testing.assert_allclose(np.quantile(position, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)


def test_a_panorama_falls_back_to_its_central_crop():
    box = np.asarray(image.crop_boxes(10, 1000, 50, SEED, (0.9, 1.0)))
    np.testing.assert_allclose(box[:, 2], 10, rtol=1e-5)
    np.testing.assert_allclose(box[:, 3], 10 * 4 / 3, rtol=1e-5)
    np.testing.assert_allclose(box[:, 1], (1000 - 40 / 3) / 2, rtol=1e-5)


def test_padded_crops_are_exact_windows_at_all_offsets():
    x = pictures(600, 8, 8)
    cut = np.asarray(image.random_crop_with_padding(x, 8, SEED, padding=2))
    framed = np.pad(x / 255, [[0, 0], [2, 2], [2, 2], [0, 0]])
    seen = set()
    for k in range(600):
        found = [
            (r, c)
            for r in range(5)
            for c in range(5)
            if np.allclose(cut[k], framed[k, r : r + 8, c : c + 8], atol=1e-6)
        ]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 25
    with pytest.raises(ValueError, match="does not fit"):
        image.random_crop_with_padding(x, 20, SEED, padding=2)


def test_quarter_turns_are_counter_clockwise_and_form_a_group():
    small = np.array([[1, 2], [3, 4]], np.uint8)[None, :, :, None]
    turned = [np.asarray(image.rotate90(small, k))[0, :, :, 0].tolist() for k in range(4)]
    assert turned == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    x = pictures(5)
    for a in range(4):
        for b in range(4):
            twice = image.rotate90(image.rotate90(x, a), b)
            np.testing.assert_array_equal(twice, image.rotate90(x, a + b))
    each = np.asarray(image.rotate90(x, [0, 1, 2, 3, 1]))
    for k, turns in enumerate([0, 1, 2, 3, 1]):
        np.testing.assert_array_equal(each[k], np.rot90(x[k], turns))
    clip = np.stack([x, x[::-1]], 1)
    np.testing.assert_array_equal(image.rotate90(clip, [0, 1, 2, 3, 1])[:, 0], each)
    with pytest.raises(ValueError, match="square"):
        image.rotate90(pictures(1, 8, 9), 1)


def test_flips_mirror_left_to_right_half_of_the_time():
    x = pictures(400, 4, 4)
    flipped = np.asarray(image.random_flip(x, SEED))
    mirrored = [np.allclose(f, p[:, ::-1] / 255, atol=1e-6) for f, p in zip(flipped, x)]
    same = [np.allclose(f, p / 255, atol=1e-6) for f, p in zip(flipped, x)]
    assert np.logical_xor(mirrored, same).all() and 150 < sum(mirrored) < 250


@pytest.mark.parametrize("strength", ["brightness", "contrast", "saturation"])
def test_each_jitter_is_the_blend_that_defines_it(strength):
    only = {**dict(brightness=0, contrast=0, saturation=0, hue=0), strength: 0.4}
    x = 0.3 + 0.4 * pictures(200) / 255  # far from the clip
    result = np.asarray(image.colour_jitter(x, SEED, **only, probability=1.0))
    grey = (x @ GREY)[..., None]
    partner = {
        "brightness": np.zeros_like(x),
        "contrast": np.broadcast_to(grey.mean((1, 2), keepdims=True), x.shape),
        "saturation": np.broadcast_to(grey, x.shape),
    }[strength]
    factors = []
    for k in range(200):
        a, b = (x[k] - partner[k]).ravel(), (result[k] - partner[k]).ravel()
        factor = (a @ b) / (a @ a)
        expected = np.clip(factor * x[k] + (1 - factor) * partner[k], 0, 1)
        np.testing.assert_allclose(result[k], expected, atol=1e-4)
        factors.append(factor)
    assert 0.6 <= min(factors) < 0.65 and 1.35 < max(factors) <= 1.4
    assert abs(np.mean(factors) - 1) < 0.05


def test_hue_turns_about_grey_and_a_third_permutes_the_channels():
    x = np.random.default_rng(0).uniform(0.35, 0.65, [1, 8, 8, 3]).astype(np.float32)
    third = np.asarray(image._hue_matrix(tf.constant([1 / 3])))[0]
    np.testing.assert_allclose(third @ [1, 0, 0], [0, 1, 0], atol=1e-6)  # red to green, as in HSV
    result = np.asarray(
        image.colour_jitter(np.repeat(x, 50, 0), SEED, 0, 0, 0, hue=0.1, probability=1.0)
    )
    np.testing.assert_allclose(result.mean(-1), np.repeat(x, 50, 0).mean(-1), atol=1e-5)
    chroma = lambda v: np.linalg.norm(v - v.mean(-1, keepdims=True), axis=-1)  # noqa: E731
    np.testing.assert_allclose(chroma(result), chroma(np.repeat(x, 50, 0)), atol=1e-5)
    centred, turned = x - x.mean(-1, keepdims=True), result - result.mean(-1, keepdims=True)
    cosine = (centred * turned).sum((1, 2, 3)) / (centred**2).sum()
    angle = np.arccos(cosine.clip(-1, 1)) / (2 * np.pi)
    assert angle.max() <= 0.1 + 1e-3 and angle.max() > 0.08 and angle.min() < 0.02


def test_jitter_composes_its_steps_in_an_order_drawn_for_each_image():
    x = (0.4 + 0.2 * pictures(40) / 255).astype(np.float32)
    strengths = dict(brightness=0.2, contrast=0.3, saturation=0.3, hue=0.1)
    result = np.asarray(image.colour_jitter(x, SEED, **strengths, probability=1.0))
    u = np.asarray(tf.random.stateless_uniform([40, 9], SEED))
    orders = np.argsort(u[:, 4:8], axis=1)
    assert len({tuple(o) for o in orders}) > 10
    for k in range(40):
        b, c, s = (1 - g + 2 * g * v for g, v in zip((0.2, 0.3, 0.3), u[k, :3]))
        hue = np.asarray(image._hue_matrix(tf.constant([(2 * u[k, 3] - 1) * 0.1])))[0]
        steps = [
            lambda p, b=b: b * p,
            lambda p, c=c: c * p + (1 - c) * (p @ GREY).mean(),
            lambda p, s=s: s * p + (1 - s) * (p @ GREY)[..., None],
            lambda p, hue=hue: p @ hue.T,
        ]
        expected = x[k].astype(np.float64)
        for step in orders[k]:
            expected = steps[step](expected)
        np.testing.assert_allclose(result[k], expected.clip(0, 1), atol=1e-4)


def test_jitter_greyscale_and_solarise_happen_as_often_as_asked():
    x = pictures(2000, 4, 4)
    for augment, probability in [
        (image.colour_jitter, 0.8),
        (image.random_greyscale, 0.2),
        (lambda v, s: image.solarise(v, s, probability=0.3), 0.3),
        (lambda v, s: image.gaussian_blur(v, s, sigma=(1.0, 2.0)), 0.5),
    ]:
        changed = np.abs(np.asarray(augment(x, SEED)) - x / 255).max((1, 2, 3)) > 1e-4
        assert abs(changed.mean() - probability) < 0.04
    grey = np.asarray(image.random_greyscale(x, SEED, 1.0))
    np.testing.assert_allclose(grey, np.repeat((x / 255 @ GREY)[..., None], 3, -1), atol=1e-5)
    inverted = np.asarray(image.solarise(x, SEED, probability=1.0))
    np.testing.assert_allclose(inverted, np.where(x / 255 >= 0.5, 1 - x / 255, x / 255), atol=1e-6)


@pytest.mark.parametrize("height, width, kernel", [(32, 32, 3), (20, 14, 7), (5, 3, 9), (1, 6, 3)])
def test_blur_is_the_separable_gaussian_with_mirrored_edges(height, width, kernel):
    x = np.random.default_rng(1).uniform(0, 1, [3, height, width, 3]).astype(np.float32)
    sigma = 1.3
    result = image.gaussian_blur(x, SEED, (sigma, sigma), probability=1.0, kernel=kernel)
    radius = kernel // 2
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    mode = "reflect"
    framed = np.pad(x, [[0, 0], [radius] * 2, [0, 0], [0, 0]], mode=mode if height > 1 else "edge")
    rows = sum(t * framed[:, k : k + height] for k, t in enumerate(taps))
    framed = np.pad(rows, [[0, 0], [0, 0], [radius] * 2, [0, 0]], mode=mode)
    expected = sum(t * framed[:, :, k : k + width] for k, t in enumerate(taps))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_the_default_kernel_is_a_tenth_made_odd():
    assert [image.default_kernel(s) for s in (224, 96, 64, 32, 16)] == [23, 9, 7, 3, 3]
    unknown = tf.TensorSpec([1, None, None, 3], tf.float32)
    with pytest.raises(ValueError, match="crop or resize first"):
        tf.function(lambda x: image.gaussian_blur(x, SEED), [unknown]).get_concrete_function()


def test_a_view_is_its_functions_one_after_the_other():
    x = pictures(32)
    seeds = tf.random.split(SEED, 5)
    view = image.contrastive_view(x, 24, SEED, grey=0.0, blur=0.5, solarisation=0.3)
    steps = image.random_resized_crop(x, 24, seeds[0])
    steps = image.colour_jitter(steps, seeds[1])
    steps = image.gaussian_blur(steps, seeds[3])
    steps = image.solarise(steps, seeds[4], probability=0.3)
    # Where solarisation inverts, a value within rounding of the threshold may go either way.
    different = np.abs(np.asarray(view) - np.asarray(steps)) > 1e-4
    assert different.mean() < 1e-3
    grey = np.asarray(image.contrastive_view(x, 24, SEED, grey=1.0))
    np.testing.assert_allclose(grey[..., 0], grey[..., 2], atol=1e-5)


def test_lab_has_the_values_of_the_standard():
    colours = tf.constant([[[[1.0, 0, 0], [0, 0, 1], [0.5, 0.5, 0.5]]]])
    lab = np.asarray(image.rgb_to_lab(colours))[0, 0]
    np.testing.assert_allclose(lab[0], [53.24, 80.09, 67.20], atol=0.05)
    np.testing.assert_allclose(lab[1], [32.30, 79.19, -107.86], atol=0.05)
    greys = np.repeat(np.linspace(0, 1, 256)[:, None], 3, 1)[None, None]
    assert np.abs(np.asarray(image.rgb_to_lab(greys))[..., 1:]).max() < 0.01
    x = pictures(2)
    np.testing.assert_allclose(image.lab_to_rgb(image.rgb_to_lab(x)), x / 255, atol=1e-3)


def test_projection_takes_out_green_against_magenta_and_nothing_else():
    basis = np.asarray(image.project_colour(np.eye(3)[None, None]))[0, 0]
    expected = [[0.8333, 0.3333, -0.1667], [0.3333, 0.3333, 0.3333], [-0.1667, 0.3333, 0.8333]]
    np.testing.assert_allclose(basis, expected, atol=1e-4)
    np.testing.assert_allclose(basis @ basis, basis, atol=1e-6)
    np.testing.assert_allclose(basis @ [1, 1, 1], 1, atol=1e-6)
    np.testing.assert_allclose(basis @ [-1, 2, -1], 0, atol=1e-6)


def test_dropped_colour_leaves_one_channel_without_its_mean():
    x = pictures(300)
    result = np.asarray(image.drop_colour(x, SEED))
    loud = np.abs(result).max((1, 2)) > 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(loud.sum(-1), 1)
    assert np.bincount(loud.argmax(-1)).min() > 70
    for k in range(300):
        channel = loud[k].argmax()
        expected = x[k, ..., channel] / 255 - (x[k, ..., channel] / 255).mean()
        np.testing.assert_allclose(result[k, ..., channel], expected, atol=1e-5)


def test_rand_augment_applies_what_it_names():
    x = pictures(8)
    inverted = policies.rand_augment(x, SEED, layers=1, operations=("Invert",))
    np.testing.assert_allclose(inverted, 1 - x / 255, atol=1e-6)
    holes = np.asarray(policies.rand_augment(x, SEED, layers=1, operations=("Cutout",)))
    changed = np.abs(holes - x / 255).max(-1) > 1e-6
    side = 2 * int(40 * 32 / 224)
    assert 0 < changed.sum((1, 2)).max() <= side**2
    tiny = policies.rand_augment(x[:, :2, :1], SEED, layers=1, operations=("Sharpness",))
    np.testing.assert_allclose(tiny, x[:, :2, :1] / 255, atol=1e-6)
    with pytest.raises(ValueError, match="no operation is called 'Blur'"):
        policies.rand_augment(x, SEED, operations=("Blur",))


@pytest.mark.slow
def test_auto_augment_repeats_under_its_seed_and_names_its_policies():
    x = pictures(16)
    augment = tf.function(policies.auto_augment)
    first = augment(x, SEED)
    assert first.dtype == tf.float32 and float(tf.reduce_max(first)) <= 1
    np.testing.assert_array_equal(first, augment(x, SEED))
    assert not np.array_equal(first, augment(x, tf.constant([3, 6])))
    with pytest.raises(ValueError, match="reduced_cifar10"):
        policies.auto_augment(x, SEED, policy="v9")


def test_each_frame_draws_for_every_frame():
    still = np.repeat(pictures(2)[:, None], 12, axis=1)
    result = np.asarray(video.each_frame(image.random_resized_crop, still, 16, seed=SEED))
    assert result.shape == (2, 12, 16, 16, 3)
    assert len(np.unique(result.reshape(24, -1), axis=0)) == 24


def test_differences_of_frames_are_signed_and_scaled():
    frames = np.stack([pictures(2, seed=k) for k in range(3)], 1)
    expected = np.diff(frames.astype(np.float64) / 255, axis=1)
    np.testing.assert_allclose(video.differences(frames), expected, atol=1e-6)


def waves(batch=4, samples=1600):
    time = np.arange(samples) / 16000
    pitch = 200 * (1 + np.arange(batch))[:, None]
    return (0.9 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


@pytest.mark.parametrize(
    "augment",
    [
        audio.gain,
        audio.noise,
        lambda x, s: audio.shift(x, s, 300),
        lambda x, s: audio.spec_augment(audio.spectrogram(x, 160, 80, 256), s, 20, 10),
    ],
)
def test_sound_augmentation_repeats_under_its_seed(augment):
    first = augment(waves(), [1, 2])
    np.testing.assert_array_equal(first, augment(waves(), [1, 2]))
    assert not np.array_equal(first, augment(waves(), [1, 3]))
    assert first.dtype == tf.float32


def test_gain_is_one_factor_a_sound_and_never_clips():
    x = waves(500)
    x[:250] *= 0.5
    factor = np.asarray(audio.gain(x, SEED))[:, 100] / x[:, 100]
    assert 0.9 <= factor[:250].min() < 0.91 and 1.09 < factor[:250].max() <= 1.1
    assert np.abs(audio.gain(x, SEED, 2.0, 3.0)).max() <= 1 + 1e-6
    np.testing.assert_array_equal(audio.gain(np.zeros([2, 9]), SEED), np.zeros([2, 9]))


def test_noise_keeps_the_asked_ratio_and_leaves_silence_alone():
    x = waves() * 0.5
    added = np.asarray(audio.noise(x, SEED, (20.0, 20.0))) - x
    ratio = 10 * np.log10((x**2).mean(1) / (added**2).mean(1))
    np.testing.assert_allclose(ratio, 20, atol=0.5)
    np.testing.assert_array_equal(audio.noise(np.zeros([2, 9]), SEED), np.zeros([2, 9]))


def test_a_shifted_sound_is_itself_moved_and_silence():
    x = np.arange(1.0, 21.0, dtype=np.float32)[None].repeat(300, 0) / 20
    moved = np.asarray(audio.shift(x, SEED, 4))
    seen = set()
    for row in moved:
        offset = next(d for d in range(-4, 5) if np.allclose(row, np.pad(x[0], 4)[4 - d : 24 - d]))
        seen.add(offset)
    assert seen == set(range(-4, 5))


def test_log_mel_peaks_where_the_tone_is():
    x = waves(3, 16000)
    result = audio.log_mel(x)
    assert result.shape == (3, 100, 64) and result.dtype == tf.float32
    peaks = np.asarray(result)[:, 20:80].mean(1).argmax(-1)
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    centres = np.linspace(mel(125), mel(7500), 66)[1:-1]
    expected = [np.abs(centres - mel(f)).argmin() for f in (200, 400, 600)]
    assert np.abs(peaks - expected).max() <= 1
    silent = audio.log_mel(np.zeros([1, 1600], np.float32))
    np.testing.assert_allclose(silent, np.log(1e-6), atol=1e-4)


def test_a_spectrogram_is_the_transform_of_hann_windows():
    x = waves(2, 800)
    result = np.asarray(audio.spectrogram(x, window=160, hop=80, fft=256))
    assert result.shape == (2, 10, 129)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(160) / 160)
    for t in range(9):
        expected = np.abs(np.fft.rfft(x[:, 80 * t : 80 * t + 160] * window, 256))
        np.testing.assert_allclose(result[:, t], expected, atol=1e-3)


def test_decibels_are_cut_below_each_examples_own_maximum():
    magnitudes = np.array([[[1.0, 10.0, 1e-9]], [[100.0, 1000.0, 1e-9]]], np.float32)
    expected = [[[0, 20, -60]], [[40, 60, -20]]]
    np.testing.assert_allclose(audio.decibels(magnitudes), expected, atol=1e-3)


def test_spec_augment_masks_bands_within_their_limits():
    x = np.random.default_rng(0).normal(size=[500, 30, 20]).astype(np.float32)
    result = np.asarray(audio.spec_augment(x, SEED, 6, 8, frequency_masks=1, time_masks=1))
    masked = result != x
    times, bins = masked.all(2), masked.all(1)
    np.testing.assert_array_equal(masked, times[:, :, None] | bins[:, None, :])
    assert times.sum(1).max() == 8 and times.sum(1).min() == 0
    assert bins.sum(1).max() == 6 and bins.sum(1).min() == 0
    assert (np.abs(np.diff(times.astype(int), axis=1)).sum(1) <= 2).all()  # one band
    assert times.any(0).all() and bins.any(0).all()  # anywhere
    mean = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(result[masked], mean[masked], atol=1e-5)
    everything = audio.spec_augment(x, SEED, 100, 100)  # wider than there is: allowed
    assert everything.shape == x.shape


def test_words_are_dropped_and_never_all_of_them():
    lines = tf.constant([" ".join(f"w{k}" for k in range(200)), "one", "two words"])
    result = [line.decode().split() for line in text.drop_words(lines, SEED, 0.3).numpy()]
    assert 100 < len(result[0]) < 180
    assert result[0] == sorted(result[0], key=lambda w: int(w[1:]))
    assert result[1] == ["one"] and 1 <= len(result[2]) <= 2
    again = text.drop_words(lines, SEED, 0.3)
    assert [line.decode().split() for line in again.numpy()] == result
