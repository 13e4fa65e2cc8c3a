"""`world`: the same example however it is asked for, and ground truth that agrees with itself."""

import importlib

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from tfssl.pipelines import BadInput
from tfssl.pipelines.sources import world
from tfssl.pipelines.sources.world import scene

SIZE = 64
COUNT = 12


@pytest.fixture(scope="module")
def clips():
    """Everything about a dozen clips; two of every action at least, seen by a check below."""
    return world.render(range(COUNT))


def sample(image, x, y):
    """Bilinear: image [H, W, C] at columns x and rows y."""
    channels = [
        map_coordinates(image[..., c].astype(float), [y, x], order=1, mode="nearest")
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, -1)


def grid():
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    return x, y


def lift(clips, i, t):
    """World points [H, W, 3] of every pixel by depth, intrinsics and pose."""
    x, y = grid()
    k, depth = clips["intrinsics"][i].astype(float), clips["depth"][i, t].astype(float)
    points = np.stack([(x - k[0, 2]) / k[0, 0] * depth, (y - k[1, 2]) / k[1, 1] * depth, depth], -1)
    pose = clips["pose"][i, t].astype(float)
    return points @ pose[:3, :3].T + pose[:3, 3]


def project(points, clips, i, t):
    """Columns, rows and depths of world points in frame t."""
    back = np.linalg.inv(clips["pose"][i, t].astype(float))
    local = points @ back[:3, :3].T + back[:3, 3]
    k = clips["intrinsics"][i]
    x = local[..., 0] / local[..., 2] * k[0, 0] + k[0, 2]
    return x, local[..., 1] / local[..., 2] * k[1, 1] + k[1, 2], local[..., 2]


def test_shapes_and_types_are_as_documented_and_static():
    for keys in (None, ("image", "label", "boxes", "masks", "depth", "pose", "image_right")):
        data = world.load(keys=keys, n=3, size=32, length=4)
        assert data.cardinality().numpy() == 3
        assert set(data.element_spec) == set(keys or world.KEYS)
        for example in data:
            for key, spec in data.element_spec.items():
                assert spec.shape.is_fully_defined()
                assert example[key].shape == spec.shape and example[key].dtype == spec.dtype
    assert data.element_spec["masks"].shape == (32, 32)
    assert data.element_spec["boxes"].shape == (world.OBJECTS, 4)


def test_an_example_does_not_depend_on_batch_order_or_keys(clips):
    single = world.render([5])
    backwards = world.render([7, 5, 2], ("image", "masks", "label"))
    many = world.render(range(40), ("image",))
    for key, value in single.items():
        np.testing.assert_array_equal(value[0], clips[key][5])
    np.testing.assert_array_equal(backwards["image"], clips["image"][[7, 5, 2]])
    np.testing.assert_array_equal(backwards["masks"], clips["masks"][[7, 5, 2], 0])
    np.testing.assert_array_equal(many["image"][:COUNT], clips["image"])
    np.testing.assert_array_equal(clips["image"], clips["frames"][:, 0])
    np.testing.assert_array_equal(clips["image_right"], clips["frames_right"][:, 0])


def test_the_dataset_gives_what_render_gives_in_order():
    twice = [list(world.load("test", ("image", "index"), n=70, size=32).as_numpy_iterator())] * 2
    indices = np.array([example["index"] for example in twice[0]])
    first = world.SPLITS["test"][0]
    np.testing.assert_array_equal(indices, np.arange(first, first + 70))
    expected = world.render(indices, ("image",), size=32)["image"]
    for pass_ in twice:
        np.testing.assert_array_equal(np.stack([e["image"] for e in pass_]), expected)


def test_pictures_are_rendered_once_whether_their_labels_are_asked_for_or_not(monkeypatch):
    rendered, original = [], world._render_checked

    def counted(indices, *rest):
        rendered.extend(indices)
        return original(indices, *rest)

    monkeypatch.setattr(world, "_render_checked", counted)
    knobs = dict(size=16, n=5, seed=71)
    alone = list(world.load(keys=("image",), **knobs))
    assert all(set(example) == {"image"} for example in alone), "a label has come along"
    labelled = list(world.load(keys=("label", "image"), **knobs))
    assert rendered == list(range(5))
    for a, b in zip(alone, labelled):
        np.testing.assert_array_equal(a["image"], b["image"])
    direct = world.render(range(5), ("label",), size=16, seed=71)["label"]
    assert [int(example["label"]) for example in labelled] == list(direct)


def test_splits_and_seeds_are_disjoint_and_indices_stable():
    images = [
        world.render(np.arange(8) + world.SPLITS[split][0], ("image",), size=32, seed=seed)
        for split, seed in (("train", 0), ("test", 0), ("val", 0), ("train", 1))
    ]
    pictures = {image.tobytes() for part in images for image in part["image"]}
    assert len(pictures) == 32
    assert world.load("train").cardinality() == 10_000
    assert world.load("test").cardinality() == 2_000


def test_every_class_material_and_action_occurs_about_equally_often():
    facts = world.render(range(1200), ("label", "action", "material", "colour"))
    for key, names in (
        ("label", world.CLASSES),
        ("material", world.MATERIALS),
        ("colour", world.COLOURS),
        ("action", world.ACTIONS),
    ):
        counts = np.bincount(facts[key], minlength=len(names))
        assert counts.min() > 0.6 * 1200 / len(names), (key, counts)
    # colour says nothing of class
    table = np.histogram2d(facts["label"], facts["colour"], bins=8)[0]
    assert np.abs(table / 1200 - 1 / 64).max() < 0.02


def test_warping_the_next_frame_by_the_flow_reproduces_this_one_where_visible(clips):
    x, y = grid()
    errors, still = [], []
    for i in range(COUNT):
        for t in range(clips["flow"].shape[1]):
            flow, visible = clips["flow"][i, t], clips["visible"][i, t]
            warped = sample(clips["frames"][i, t + 1], x + flow[..., 0], y + flow[..., 1])
            error = np.abs(warped - clips["frames"][i, t]).mean(-1)[visible]
            assert error.mean() < 4 and np.percentile(error, 95) < 12  # of 255
            errors.append(error.mean())
            change = clips["frames"][i, t + 1].astype(float) - clips["frames"][i, t]
            still.append(np.abs(change).mean(-1)[visible].mean())
    assert np.mean(errors) < 2.2
    assert np.mean(still) > 2 * np.mean(errors)
    assert clips["visible"].mean() > 0.85


def test_depth_and_pose_give_the_flow_of_everything_that_stands_still(clips):
    x, y = grid()
    for i in range(COUNT):
        for t in range(clips["flow"].shape[1]):
            u, v, _ = project(lift(clips, i, t), clips, i, t + 1)
            still = clips["masks"][i, t] == 0
            expected = np.stack([u - x, v - y], -1)[still]
            np.testing.assert_allclose(clips["flow"][i, t][still], expected, atol=1e-3)


def test_depth_of_objects_moves_with_the_flow(clips):
    """A point's depth in the next frame, by the next depth map, fits the rigid motion seen."""
    x, y = grid()
    for i in range(COUNT):
        flow, visible = clips["flow"][i, 3], clips["visible"][i, 3] & (clips["masks"][i, 3] > 0)
        landed = sample(clips["masks"][i, 4][..., None], x + flow[..., 0], y + flow[..., 1])[..., 0]
        np.testing.assert_allclose(landed[visible], clips["masks"][i, 3][visible])


def test_disparity_is_baseline_times_focal_over_depth_and_warps_the_right_view(clips):
    x, y = grid()
    for i in range(COUNT):
        focal, baseline = clips["intrinsics"][i, 0, 0], clips["baseline"][i]
        for t in (0, 9):
            disparity = clips["disparity"][i, t]
            np.testing.assert_allclose(
                disparity, baseline * focal / clips["depth"][i, t], rtol=1e-5
            )
            left, right = clips["frames"][i, t], clips["frames_right"][i, t]
            inside = x - disparity >= 0
            error = np.abs(sample(right, x - disparity, y) - left).mean(-1)[inside]
            unmoved = np.abs(right.astype(float) - left).mean(-1)[inside]
            assert np.median(error) < 1.5
            assert error.mean() < 0.65 * unmoved.mean()


def test_boxes_and_identities_are_those_of_the_masks(clips):
    for i, t in ((i, t) for i in range(COUNT) for t in (0, 7, 15)):
        masks = clips["masks"][i, t]
        for row, (box, identity) in enumerate(zip(clips["boxes"][i, t], clips["identity"][i, t])):
            rows, columns = np.nonzero(masks == row + 1)
            if not rows.size:
                assert identity == 0 and not box.any()
                continue
            assert identity == row + 1
            tight = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            np.testing.assert_allclose(box, np.array(tight) / SIZE, atol=1e-6)
    assert (clips["identity"][:, 0, 0] == 1).all()  # the labelled object is seen first


def test_what_is_painted_in_front_is_what_the_masks_name(monkeypatch):
    render = importlib.import_module("tfssl.pipelines.sources.world.render")
    cast = render._cast

    def in_one_colour(views, group, *rest):
        _, cover, far = cast(views, group, *rest)
        row = np.array([0.1 * (row + 1) for _, row, *_ in group], np.float32)
        # The square tells apart what is mixed at an edge, the 1 what is not wholly covered.
        return np.einsum("ci,ihw->ihwc", [row, row**2, row**0], cover), cover, far

    def black(views, size):
        depth = render.background_depth(views, size)
        return np.zeros([*depth.shape, 3], np.float32), depth

    monkeypatch.setattr(render, "_cast", in_one_colour)
    monkeypatch.setattr(render, "_background", black)
    lifted = [i for i in range(120) if scene.Scene(i, 0).action == scene.RISES]
    scenes = [scene.Scene(i, 0) for i in (*range(6), *lifted)]
    painted, masks, _ = render.render(render.gather(scenes, np.arange(0, 16, 5) / 16), SIZE)
    row = np.rint(painted[..., 0] / 25.5)
    alone = np.stack([0.1 * row, (0.1 * row) ** 2, row**0], -1)
    wholly = (np.abs(painted / 255 - alone) < 0.005).all(-1) & (masks > 0)
    wrong = (wholly & (row != masks)).sum(axis=(1, 2))
    assert wholly.sum() > 10_000 and wrong.max() <= 10, wrong


def test_poses_are_rigid_and_the_camera_looks_down_its_z_axis(clips):
    rotation = clips["pose"][..., :3, :3]
    np.testing.assert_allclose(
        rotation @ np.swapaxes(rotation, -1, -2),
        np.broadcast_to(np.eye(3), rotation.shape),
        atol=1e-5,
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-5)
    points = lift(clips, 0, 0)
    assert points[..., 1].min() > -1e-3  # nothing below the ground
    assert (rotation[..., 1, 1] < 0).all()  # the camera's y points down


def onsets(audio, rate):
    """Times at which short-time energy leaps up."""
    window = rate // 200
    energy = (
        np.square(audio[: len(audio) // window * window]).reshape(-1, window).mean(1) + 2e-5
    )  # above rumble and hum
    leap = np.log(energy[1:] / energy[:-1])
    return (np.nonzero(leap > 1.2)[0] + 1) * window / rate


def test_an_impact_sounds_within_a_frame_of_when_it_is_seen():
    data = world.render(range(60), ("audio", "impacts", "impact_frames", "pose"))
    checked = 0
    for audio, times, frames in zip(data["audio"], data["impacts"], data["impact_frames"]):
        times = times[times >= 0]
        np.testing.assert_array_equal(frames[: len(times)], np.floor(times * 16))
        heard = onsets(audio, world.SAMPLE_RATE)
        if len(times):
            assert np.abs(heard - times[0]).min() < 1 / 16
            # and nothing leaps before the first impact
            assert heard.min() > times[0] - 1 / 16
            checked += 1
        else:
            assert np.abs(audio).max() < 0.05
    assert checked > 25
    assert np.abs(data["audio"]).max() <= 1


def test_an_object_touches_the_ground_when_it_bounces():
    """The main object stops falling and rises again at the frame of its impact."""
    data = world.render(range(60), ("action", "impacts", "impact_frames", "impact_objects"))
    from tfssl.pipelines.sources.world.scene import Scene

    seen = 0
    for i in np.nonzero(data["action"] == world.ACTIONS.index("bounces"))[0]:
        mine = data["impact_objects"][i] == 1
        moment = float(data["impacts"][i][mine][0])
        times = moment + np.array([-0.05, 0.0, 0.05])
        thing = Scene(int(i), 0).things[0]
        heights = thing.pose(times)[0][:, 1]
        assert heights[1] < heights[0] and heights[1] < heights[2]
        # free fall before: y'' = -g
        y = thing.pose(np.array([0.0, 0.05, 0.1]))[0][:, 1]
        np.testing.assert_allclose(y[0] - 2 * y[1] + y[2], -9.81 * 0.05**2, rtol=1e-6)
        seen += 1
    assert seen > 3


def test_the_same_impact_is_louder_when_nearer_and_timbres_differ():
    from tfssl.pipelines.sources.world import sound
    from tfssl.pipelines.sources.world.scene import Scene, Thing

    assert sound.loudness(4.0, 2.0) == pytest.approx(2 * sound.loudness(4.0, 4.0))
    assert sound.loudness(4.0, 2.0) > sound.loudness(2.0, 2.0)
    spectra = []
    for kind in range(len(world.CLASSES)):
        for material in range(len(world.MATERIALS)):
            tone = sound.strike(Thing(kind, material, 0, (0.65,) * 3), 0.5)
            spectrum = np.abs(np.fft.rfft(tone))
            spectra.append(spectrum / np.linalg.norm(spectrum))
    likeness = np.stack(spectra) @ np.stack(spectra).T - np.eye(len(spectra))
    assert likeness.max() < 0.97
    near, far = Scene(0, 0), Scene(0, 0)
    far.eye = far.eye + np.array([0.0, 0.0, 6.0])
    assert np.square(sound.audio(near, 1.0)).sum() > 2 * np.square(sound.audio(far, 1.0)).sum()


def test_captions_name_class_colour_material_and_action_in_three_languages():
    data = world.render(range(200), ("text", "text_de", "text_es", "label", "action", "colour"))
    for i in range(200):
        english, german, spanish = (data[k][i].decode() for k in ("text", "text_de", "text_es"))
        assert world.CLASSES[data["label"][i]] in english
        assert world.COLOURS[data["colour"][i]] in english
        assert german[0].isupper() and german.endswith(".") and german.startswith("Ein")
        assert spanish.startswith(("Un ", "Una "))
        if world.ACTIONS[data["action"][i]] == "collides":
            assert "collides with a" in english
            assert "stößt mit eine" in german and " choca con un" in spanish
    from tfssl.pipelines.sources.world.captions import caption

    dumbbell, cross = (6, 7, 1), (7, 0, 0)
    assert caption("de", 4, cross, dumbbell) == (
        "Ein rotes Kreuz aus Holz stößt mit einer weißen Hantel aus Metall zusammen."
    )
    assert caption("es", 5, dumbbell, None) == (
        "Una mancuerna blanca de metal es elevada por una plataforma."
    )
    assert caption("en", 4, (1, 1, 0), cross) == (
        "An orange wooden cube collides with a red wooden cross."
    )


def test_knobs_off_change_nothing_and_zero_equals_absent():
    off = world.render(
        range(2), ("frames", "audio"), aberration=0, black_frame=False, zoom=0, tilt="0",
        watermark=False, sound_offset=0.0, size="64",
    )  # fmt: skip
    plain = world.render(range(2), ("frames", "audio"))
    for key in plain:
        np.testing.assert_array_equal(off[key], plain[key])


def test_an_action_chooses_examples_and_changes_none():
    keys = ("image", "action", "index")
    chosen = list(world.load("test", keys, action="collides", n=4, size=16))
    assert [int(one["action"]) for one in chosen] == [world.ACTIONS.index("collides")] * 4
    indices = np.array([int(one["index"]) for one in chosen])
    plain = world.render(indices, keys, size=16)
    np.testing.assert_array_equal([one["image"] for one in chosen], plain["image"])
    every = world.render(range(10_000_000, indices[-1] + 1), ("action",))["action"]
    assert (every == world.ACTIONS.index("collides")).sum() == 4, "none is left out"
    with pytest.raises(ValueError, match="did you mean 'collides'"):
        world.load("test", keys, action="colides")


def test_aberration_magnifies_red_and_blue_but_not_green(clips):
    seen = world.render(range(4), ("image",), aberration=0.06)["image"]
    x, y = grid()
    middle = (SIZE - 1) / 2
    for i in range(4):
        plain = clips["image"][i]
        np.testing.assert_array_equal(seen[i, ..., 1], plain[..., 1])
        expected = sample(plain, (x - middle) / 1.06 + middle, (y - middle) / 1.06 + middle)
        assert np.abs(seen[i].astype(float) - expected)[..., [0, 2]].max() <= 0.51
        assert np.abs(seen[i].astype(float) - plain)[..., [0, 2]].mean() > 1


def test_the_black_frame_is_nearly_black_noisy_and_leaves_the_middle_alone(clips):
    seen = world.render(range(2), ("frames",), black_frame=True)["frames"]
    border = np.ones((SIZE, SIZE), bool)
    border[8:-8, 8:-8] = False
    assert seen[:, :, border].max() <= 5 and seen[:, :, border].std() > 0.5
    assert not np.array_equal(seen[0, 0][border], seen[0, 1][border])
    np.testing.assert_array_equal(seen[:, :, ~border], clips["frames"][:2][:, :, ~border])


def test_the_watermark_is_the_same_in_every_picture(clips):
    seen = world.render(range(6), ("image",), watermark=True)["image"]
    changed = (seen != clips["image"][:6]).any((0, 3))
    assert 0.01 < changed.mean() < 0.1
    assert changed[SIZE // 2 :, SIZE // 2 :].sum() == changed.sum()
    bright = seen.min((0, 3)) > 150
    assert bright.sum() > 20


def test_zoom_always_moves_in_and_tilt_always_looks_down(clips):
    keys = ("pose", "depth", "frames")
    zoomed = world.render(range(6), keys, zoom=0.5)["pose"]
    tilted = world.render(range(6), keys, tilt=12)["pose"]
    plain = clips["pose"][:6]
    np.testing.assert_allclose(zoomed[:, 0], plain[:, 0], atol=1e-6)
    np.testing.assert_allclose(tilted[:, 0], plain[:, 0], atol=1e-6)
    forward = plain[:, -1, :3, 2]
    moved = ((zoomed[:, -1, :3, 3] - plain[:, -1, :3, 3]) * forward).sum(-1)
    assert (moved > 0.5).all()
    turned = np.arcsin(plain[:, -1, 1, 2]) - np.arcsin(tilted[:, -1, 1, 2])
    np.testing.assert_allclose(turned, np.radians(12 * 15 / 16), rtol=0.02)


def test_the_sound_offset_delays_the_sound_alone():
    late = world.render(range(8), ("audio", "impacts"), sound_offset=0.25)
    plain = world.render(range(8), ("audio", "impacts"))
    np.testing.assert_array_equal(late["impacts"], plain["impacts"])
    shift = world.SAMPLE_RATE // 4
    for i in range(8):
        if np.abs(plain["audio"][i]).max() > 0.1 and plain["impacts"][i][0] < 0.7:
            a, b = late["audio"][i][shift:], plain["audio"][i][:-shift]
            assert np.corrcoef(a, b)[0, 1] > 0.97


def test_odd_sizes_and_long_clips_stay_finite_and_in_the_room():
    for size, length, fps in ((16, 2, 8), (33, 5, 30), (24, 160, 16)):
        b = world.render([3, 8], size=size, length=length, fps=fps)
        assert b["depth"].min() > 0.05 and b["depth"].max() < 60
        assert all(np.isfinite(b[key]).all() for key in ("flow", "audio", "pose", "disparity"))
        assert b["audio"].shape[1] == round(length / fps * world.SAMPLE_RATE)
        assert b["frames"].std() > 10
    shaken = world.render([3], ("depth", "frames"), size=24, length=80, tilt=-60, zoom=2)
    assert shaken["depth"].min() > 0.05 and shaken["depth"].max() < 200


def test_what_is_wrong_is_said_in_a_sentence_with_the_nearest_name():
    for kwargs, words in (
        (dict(sise=32), "size"),
        (dict(zom=1), "zoom"),
        (dict(size="large"), "whole number"),
        (dict(size=8), "16 to 512"),
        (dict(watermark="perhaps"), "true or false"),
        (dict(aberration="nan"), "outside"),
        (dict(n=0), "outside"),
        (dict(keys=("imge",)), "image"),
        (dict(keys=()), "empty"),
        (dict(split="trian"), "train"),
    ):
        with pytest.raises(BadInput) as caught:
            world.load(**kwargs)
        assert words in str(caught.value) and len(str(caught.value)) <= 600


def test_a_colour_histogram_hardly_tells_the_class():
    first = world.SPLITS["test"][0]
    train = world.render(range(800), ("image", "label"), size=32)
    test = world.render(range(first, first + 300), ("image", "label"), size=32)

    def histogram(images):
        bins = (images // 64).astype(int) @ np.array([16, 4, 1])
        counts = np.stack([np.bincount(b.ravel(), minlength=64) for b in bins])
        return np.sqrt(counts / counts.sum(1, keepdims=True))

    likeness = histogram(test["image"]) @ histogram(train["image"]).T
    votes = train["label"][np.argsort(-likeness, 1)[:, :20]]
    guess = np.array([np.bincount(v, minlength=8).argmax() for v in votes])
    assert (guess == test["label"]).mean() < 0.25
