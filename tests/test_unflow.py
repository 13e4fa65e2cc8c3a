"""UnFlow: the two ways, the scales, masking by the step, and flow that is found without labels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import encoders, zoo
from tfssl.errors import BadInput
from tfssl.evaluate.metrics import end_point_error
from tfssl.objectives import geometry

unflow = zoo.get("geometry.unflow")
SEED = tf.constant([9, 1], tf.int32)
FLOOR = 0.0019953  # (0 + 0.001^2)^0.45


def method(masking_from=10, width=4, **options):
    return unflow.UnFlow(encoders.get("flownet_s", width=width), masking_from, **options)


def texture(random, count, side):
    """Smooth random pictures [count, side, side, 3] in [0, 1]."""
    noise = tf.constant(random.normal(size=[count, side // 4, side // 4, 3]), tf.float32)
    picture = tf.image.resize(noise, [side, side], "bicubic").numpy()
    return np.clip(0.5 + 0.2 * picture, 0, 1)


def translations(random, count, side=64, most=5):
    """Pairs [count, 2, side, side, 3] and their flow [count, 2]: windows of larger pictures."""
    pictures = texture(random, count, side + 4 * most)
    flow = random.uniform(-most, most, [count, 2]).astype(np.float32)
    field = np.broadcast_to(-flow[:, None, None], [*pictures.shape[:3], 2])
    second = geometry.warp(pictures, field).numpy()
    inner = slice(2 * most, 2 * most + side)
    return np.stack([pictures[:, inner, inner], second[:, inner, inner]], axis=1), flow


def test_both_ways_and_every_scale_come_from_one_network():
    model, random = method(), np.random.default_rng(0)
    pair = tf.constant(random.random([2, 2, 64, 128, 3]), tf.float32)
    flows = model({"frames": pair})
    sides = [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]
    assert [tuple(f.shape) for f in flows] == [(2, 2, *side, 2) for side in sides]
    swapped = model({"frames": pair[:, ::-1]})
    for a, b in zip(flows, swapped):
        np.testing.assert_allclose(a[:, 0], b[:, 1], atol=1e-5)


def test_the_published_flow_is_the_finest_times_twenty_at_the_size_of_the_frames():
    model, random = method(), np.random.default_rng(0)
    pair = tf.constant(random.random([1, 2, 64, 64, 3]), tf.float32)
    finest = model({"frames": pair})[0][:, 0]
    flow = model.published["flow"](pair)
    expected = 20 * tf.image.resize(finest, [64, 64])
    np.testing.assert_allclose(flow, expected, atol=1e-4)
    assert list(model.published) == ["encoder", "flow"]


def test_a_new_network_finds_hardly_any_flow():
    """Were its last layers like others, flows of 16 px would point out of frames of 64."""
    model, random = method(width=16), np.random.default_rng(0)
    flow = model.flow(tf.constant(random.random([2, 2, 64, 64, 3]), tf.float32)).numpy()
    assert 0 < np.linalg.norm(flow, axis=-1).mean() < 2


def answers(model, pair, flow):
    """What the network would say of `flow` [2], in pixels of the frames, everywhere."""
    outputs = []
    for i in range(len(model.scales)):
        side = 16 // 2**i
        there = np.broadcast_to(np.float32(flow) / 20, [len(pair), side, side, 2])
        outputs.append(tf.constant(np.stack([there, -there], axis=1)))
    return outputs


def cost(model, pair, outputs):
    mask = geometry.interior(tf.constant(pair[:, 0]), 7)
    x = {"clean": tf.constant(pair), "mask": tf.tile(mask, [len(pair), 1, 1])}
    return model.objective(x, None, outputs)


def loss_of(model, pair, flow):
    return float(cost(model, pair, answers(model, pair, flow)))


def test_the_true_translation_costs_least():
    pair, flow = translations(np.random.default_rng(0), 1, most=8)
    model = method(masking_from=0, weights=unflow.WEIGHTS[:3], radii=(2, 1, 1))
    true = loss_of(model, pair, flow[0])
    for wrong in ([6, 0], [0, 6], [-6, 0], [0, -6]):
        assert loss_of(model, pair, flow[0] + wrong) > true + 0.5
    brighter = np.stack([0.8 * pair[:, 0], 0.8 * pair[:, 1] + 37 / 255], axis=1).astype("f4")
    dark = np.stack([0.8 * pair[:, 0], 0.8 * pair[:, 1]], axis=1).astype("f4")
    same = loss_of(model, dark, flow[0])
    assert loss_of(model, brighter, flow[0]) == pytest.approx(same, rel=1e-3)
    there = np.broadcast_to(flow[:, None, None], [1, 64, 64, 2])
    apart = [np.abs(p[:, 0] - geometry.warp(p[:, 1], there)).mean() for p in (dark, brighter)]
    assert apart[1] > 1.5 * apart[0], "the colours themselves tell the two apart"


def test_at_the_true_flow_nothing_pulls_and_beside_it_the_slope_leads_back():
    picture = texture(np.random.default_rng(0), 1, 96)
    # What moves by 4 px moves by a whole pixel of the finest scale: nothing is interpolated.
    pair = np.stack([picture[:, 16:80, 16:80], picture[:, 12:76, 12:76]], axis=1)
    model = method(masking_from=0, weights=(1.0,), radii=(1,))

    def pull(*flow):
        outputs = answers(model, pair, flow)
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = cost(model, pair, outputs)
        return tape.gradient(loss, outputs[0])[0, 0, 4:-4, 4:-4].numpy()

    beside = pull(6, 4), pull(2, 4), pull(4, 6), pull(4, 2)
    assert np.abs(pull(4, 4)).max() < 1e-3 * min(np.abs(slope).max() for slope in beside)
    right, left, below, above = (slope.sum(axis=(0, 1)) for slope in beside)
    assert right[0] > 0 > left[0] and below[1] > 0 > above[1]


def test_still_pictures_cost_the_floor_of_each_term():
    pair = np.repeat(texture(np.random.default_rng(0), 1, 64)[:, None], 2, axis=1)
    model = method(masking_from=0, weights=(1.0,), radii=(1,))
    inside = float(tf.reduce_mean(tf.nn.avg_pool2d(
        geometry.interior(tf.constant(pair[:, 0]), 7)[..., None], 4, 4, "VALID")))  # fmt: skip
    smooth = float(geometry.second_order_smoothness(tf.zeros([1, 16, 16, 2])))
    # The census' own border of one pixel lies inside the mask's.
    expected = 2 * FLOOR * (inside + 0.2 * 2 * inside + 12.4) + 2 * 3 * smooth
    assert loss_of(model, pair, [0, 0]) == pytest.approx(expected, rel=1e-3)


def test_masking_begins_at_its_step_and_the_step_is_kept():
    pair, _ = translations(np.random.default_rng(0), 1)
    model = method(masking_from=2, weights=(1.0,), radii=(1,))
    before = loss_of(model, pair, [0, 0])
    model.after_step()
    assert loss_of(model, pair, [0, 0]) == before
    model.after_step()
    assert int(model.step.numpy()) == 2 and any(v is model.step for v in model.variables)
    # Still pictures occlude nothing: the difference is the floor of two terms.
    after = loss_of(model, pair, [0, 0])
    assert after - before == pytest.approx(2 * FLOOR * (12.4 + 0.4 * 0.6), rel=0.05)


def test_occluded_pixels_cost_their_price():
    there, back = tf.fill([1, 16, 16, 2], 3.0), tf.zeros([1, 16, 16, 2])
    picture, mask = tf.zeros([1, 16, 16, 3]), tf.ones([1, 16, 16])
    free = unflow.one_way(picture, picture, there, back, mask, 1, 0.0)
    priced = unflow.one_way(picture, picture, there, back, mask, 1, 1.0)
    assert float(priced - free) == pytest.approx(12.4, abs=0.1)


def test_views_zoom_about_the_middle_and_leave_the_loss_its_true_colours():
    random = np.random.default_rng(0)
    frames = (255 * texture(random, 3, 64)).astype(np.uint8)
    frames = tf.constant(np.repeat(frames[:, None], 2, axis=1))
    x = unflow.views({"frames": frames}, SEED, size=(64, 64), zoom=(1.0, 1.0))
    mirrored = np.array([np.allclose(c[0], f[0, :, ::-1] / 255, atol=1e-3) for c, f in
                         zip(x["clean"].numpy(), frames.numpy())])  # fmt: skip
    expected = np.where(mirrored[:, None, None, None, None], frames[..., ::-1, :], frames) / 255
    np.testing.assert_allclose(x["clean"], expected, atol=1e-3)
    assert np.abs(x["frames"] - x["clean"]).mean() > 0.01
    np.testing.assert_array_equal(x["mask"][0], geometry.interior(tf.zeros([1, 64, 64]), 7)[0])
    field = unflow.magnification((65, 65), tf.constant([2.0]))[0]
    np.testing.assert_array_equal(field[32, 32], [0, 0])
    np.testing.assert_array_equal(field[0, 64], [32, -32])


def test_smaller_frames_are_enlarged_and_larger_ones_cut():
    frames = tf.constant(texture(np.random.default_rng(0), 2, 80)[:, None].repeat(3, axis=1))
    cut = unflow.crop(frames[:, :2], SEED, (64, 64)).numpy()
    assert cut.shape == (2, 2, 64, 64, 3)
    corners = [(y, x) for y in range(17) for x in range(17)]
    windows = frames.numpy()[0, 0]
    assert any(np.array_equal(cut[0, 0], windows[y : y + 64, x : x + 64]) for y, x in corners)
    assert unflow.crop(frames[:, :2], SEED, (64, 192)).shape == (2, 2, 64, 192, 3)


def test_frames_of_a_folder_are_as_large_as_their_crops_need_and_no_larger(tmp_path):
    from test_sources import clip

    clip(tmp_path / "a.mp4", frames=310, fps=25, size=(320, 240), sound=None)
    small = {**unflow.SMALL, "data": str(tmp_path), "batch_size": 1, "width": 4, "epochs": 2}
    for size, sides in (((64, 192), (192, 256)), (64, (64, 85)), ((192, 320), (240, 320))):
        run = unflow.recipe(**{**small, "size": size})
        assert run.dataset.preview(1)[0]["frames"].shape == (1, 300, *sides, 3)


def test_a_size_that_the_network_cannot_halve_six_times_is_refused():
    with pytest.raises(BadInput, match="multiples of 64"):
        unflow.recipe(**{**unflow.SMALL, "size": 100})


def test_the_rate_halves_within_a_stage_and_starts_the_second_at_a_tenth():
    small = {**unflow.SMALL, "data": "world:n=16", "epochs": 500, "learning_rate": 1e-3}
    run = unflow.recipe(**small)
    rate = run.model.optimizer._learning_rate
    given = [float(rate(step)) for step in (0, 199, 250, 450, 550, 650, 950)]
    np.testing.assert_allclose(given, 1e-3 * np.array([1, 1, 0.5, 0.125, 0.1, 0.1, 0.0125]), 1e-5)
    assert run.model.masking_from == 500


@pytest.mark.slow
def test_flow_of_textured_translations_is_found_without_labels():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    pairs, _ = translations(random, 512)
    data = tf.data.Dataset.from_tensor_slices({"frames": (255 * pairs).astype(np.uint8)})
    easy = {"zoom": (1.0, 1.0), "photometric": 0.2, "masking": 0.9}
    run = unflow.recipe(**{**unflow.SMALL, **easy, "data": data, "epochs": 24})
    held_out, flow = translations(random, 64)
    truth = np.broadcast_to(flow[:, None, None], [64, 64, 64, 2])
    inner = slice(8, -8)

    def error(found):
        return end_point_error(found[:, inner, inner], truth[:, inner, inner])

    run.fit(verbose=0)
    found = run.model.flow(tf.constant(held_out, tf.float32)).numpy()
    assert error(0 * truth) > 3
    assert error(found) < 0.5
