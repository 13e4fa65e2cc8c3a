"""Watching objects move: masks out of motion alone, aligned with the still, and what they cost."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo
from tfssl.errors import BadInput
from tfssl.layers.motion import motion
from tfssl.objectives.classification import binary_cross_entropy

move = zoo.get("image.watching_move")
SEED = tf.constant([3, 4])


def sprites(count, seed=0, side=64, frames=2, still=False, camera=0):
    """Textured discs that move by a pixel or two before a textured background, and their masks."""
    random = np.random.default_rng(seed)
    clips = np.zeros([count, frames, side, side, 3], np.uint8)
    masks = np.zeros([count, side, side], bool)
    y, x = np.mgrid[:side, :side].astype(float)
    for i in range(count):
        waves = random.uniform(0.2, 0.7, [2, 3, 2])
        phase = random.uniform(0, 6, [2, 3])
        kind = random.uniform(60, 200, [2, 3])
        kind[1] = (kind[0] + random.uniform(60, 120, 3)) % 256
        centre = random.uniform(0.3, 0.7, 2) * side
        radius = random.uniform(0.15, 0.25) * side
        angle = random.uniform(0, 2 * np.pi)
        for t in range(frames):
            go = 0 if still else t
            at = centre + 2 * go * np.array([np.sin(angle), np.cos(angle)])
            shift = camera * go
            layers = []
            for k, (dy, dx) in enumerate([(0, shift), tuple(at)]):
                u, v = (y - dy)[..., None], (x - dx)[..., None]
                texture = np.sin(waves[k, :, 0] * u + phase[k]) * np.sin(waves[k, :, 1] * v)
                layers.append(kind[k] + 50 * texture)
            disc = np.hypot(y - at[0], x - at[1]) < radius
            clips[i, t] = np.clip(np.where(disc[..., None], layers[1], layers[0]), 0, 255)
            if t == 0:
                masks[i] = disc
    return clips, masks


def found(clips):
    return move.labels(motion(tf.constant(clips, tf.float32) / 255), 0.02).numpy()


def overlap(front, masks):
    return (front & masks).sum() / (front | masks).sum()


@pytest.mark.parametrize("camera", [0, 1])
def test_what_moves_is_found_whether_the_camera_stands_or_goes(camera):
    """By a pixel a frame: before this fine a grating, steps of two are taken for another wave's."""
    clips, masks = sprites(12, camera=camera)
    labels = found(clips)
    assert (labels[~masks] == 1).mean() < 0.15
    assert overlap(labels == 1, masks) > 0.5


def test_a_static_copy_of_a_clip_gives_no_label_at_all():
    clips, _ = sprites(6, still=True)
    assert np.abs(motion(tf.constant(clips, tf.float32) / 255)).max() == 0
    assert (found(clips) == move.IGNORED).all()
    x, y = move.views({"frames": tf.constant(clips)}, SEED, size=32, side=8)
    assert x.shape == (6, 32, 32, 3) and (y == move.IGNORED).numpy().all()


def test_frames_with_too_little_or_too_much_that_moves_are_pruned():
    moved = np.zeros([4, 20, 20], "float32")
    moved[0, :3, 5:8] = 2  # 2 % of the picture
    moved[1, 4:14, 4:14] = 2
    moved[2] = 2
    moved[3, :12] = 2  # most of the border
    labels = move.labels(tf.constant(moved), 0.1).numpy()
    assert [set(np.unique(one)) for one in labels] == [{-1.0}, {0.0, 1.0}, {-1.0}, {-1.0}]
    moved[1, 4:14, 4:14] = np.linspace(0.1, 2, 10)
    labels = move.labels(tf.constant(moved[1:2]), 0.1).numpy()
    assert {-1.0, 0.0, 1.0} == set(np.unique(labels)), "scores between the thresholds do not count"


def test_scores_are_shares_of_half_the_largest_motion():
    """0.36 of the peak scores 0.72 and moves, 0.30 scores 0.6 and is ignored, 0.19 stands still."""
    moved = np.full([1, 20, 20], 0.19 * 4, "float32")
    moved[0, 5:10, 5:10] = 0.36 * 4
    moved[0, 12:16, 5:10] = 0.30 * 4
    moved[0, 7, 7] = 4
    labels = move.labels(tf.constant(moved), 0.05).numpy()[0]
    assert (labels[5:10, 5:10] == 1).all() and (labels[12:16, 5:10] == move.IGNORED).all()
    assert (labels == 1).sum() == 25 and (labels == 0).sum() == 400 - 25 - 20


def test_frames_of_a_folder_are_as_large_as_the_stills(tmp_path):
    from test_sources import clip

    clip(tmp_path / "a.mp4", frames=310, fps=25, size=(320, 240), sound=None)
    small = {**move.SMALL, "encoder": zoo_runs.tiny_image_encoder(), "size": 160, "batch_size": 1}
    run = move.recipe(**{**small, "data": str(tmp_path)})
    examples, (still, _) = run.dataset.preview(1)
    assert examples["frames"].shape == (1, 300, 160, 213, 3) and still.shape == (1, 160, 160, 3)


def test_the_masked_cross_entropy_is_the_worked_one():
    p = tf.constant([0.9, 0.2, 0.5, 0.6])
    logits = tf.math.log(p / (1 - p))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        y = tf.constant([1.0, 0.0, move.IGNORED, 1.0])
        loss = move.WatchingMove.objective(None, None, y, logits)
    assert float(loss) == pytest.approx(0.279777, abs=1e-5)
    gradient = tape.gradient(loss, logits).numpy()
    assert gradient[2] == 0
    np.testing.assert_allclose(gradient, [-0.1 / 3, 0.2 / 3, 0, -0.4 / 3], atol=1e-6)


def test_zero_logits_cost_ln_2_and_the_mean_costs_its_entropy():
    y = tf.constant([1.0] * 2 + [0.0] * 8)
    assert float(binary_cross_entropy(tf.zeros([10]), y, 1.0)) == pytest.approx(0.693147)
    mean = tf.fill([10], tf.math.log(0.2 / 0.8))
    assert float(binary_cross_entropy(mean, y, 1.0)) == pytest.approx(0.500402, abs=1e-5)
    assert move.WatchingMove.chance == pytest.approx(0.693147)


def test_still_and_mask_are_cut_and_mirrored_alike():
    clips, _ = sprites(16)
    pair = tf.constant(clips, tf.float32) / 255
    # The picture shows its own mask, so that the two can be compared after the crop.
    mask = found(clips)
    marked = tf.stack([tf.constant(np.repeat(mask[..., None] == 1, 3, -1), tf.float32)] * 2, 1)
    boxes, flips = [], []
    plain = move.crop

    def spy(images, box, size, flip=None):
        boxes.append(box.numpy()), flips.append(flip.numpy())
        return plain(images, box, size, flip)

    move.crop = spy
    try:
        _, small = move.still_and_mask(pair, SEED, 32, 16, least=0.02, jitter=0.0)
    finally:
        move.crop = plain
    np.testing.assert_array_equal(boxes[0], boxes[1])
    np.testing.assert_array_equal(flips[0], flips[1])
    still = plain(marked[:, 0], boxes[0], 16, flips[0]).numpy()[..., 0]
    front = small.numpy() == 1
    assert (still[front] > 0.4).all() and front.any(axis=(1, 2)).mean() > 0.8


def test_pictures_without_clips_and_encoders_without_maps_are_refused():
    pictures = zoo_runs.examples("image.watching_move")
    with pytest.raises(BadInput, match="clips"):
        zoo_runs.tiny_run("image.watching_move", {"image": pictures["image"]})
    with pytest.raises(BadInput, match="maps"):
        image = keras.Input([None, None, 3])
        mean = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
        zoo_runs.tiny_run("image.watching_move", encoder=mean)


@pytest.mark.slow
def test_stills_of_unseen_clips_are_told_apart_better_than_by_the_mean_and_by_a_random_trunk():
    train, _ = sprites(800, seed=1)
    test, masks = sprites(100, seed=2)
    truth = tf.image.resize(masks[..., None].astype("float32"), [16, 16], antialias=True) > 0.5
    truth = truth.numpy()[..., 0]
    stills = tf.image.resize(test[:, 0] / 255.0, [32, 32], antialias=True)
    overlaps = {}
    for frozen in (False, True):
        keras.utils.set_random_seed(0)
        data = tf.data.Dataset.from_tensor_slices({"frames": train})
        small = {**move.SMALL, "data": data, "encoder": "conv4", "area": (0.7, 1.0)}
        run = move.recipe(**{**small, "epochs": 25})
        if frozen:
            run.model.encoder.trainable = False
            for layer in run.model.head.layers[:-2]:
                layer.trainable = False
        run.fit(verbose=0)
        logits = run.model.predict(stills, verbose=0)
        overlaps[frozen] = overlap(logits > 0, truth)
        labels = found(test)
        small_labels = tf.image.resize(labels[..., None], [16, 16], "nearest")[..., 0]
        loss = float(run.model.objective(None, small_labels, logits))
        share = (labels == 1).sum() / (labels >= 0).sum()
        entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
        moved = float(run.model.objective(None, tf.roll(small_labels, 3, axis=2), logits))
        print(frozen, overlaps[frozen], loss, entropy, moved)
        if not frozen:
            assert loss < entropy and loss < moved
    assert overlaps[False] > 0.5 and overlaps[True] < overlaps[False] - 0.1
