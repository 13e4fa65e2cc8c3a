"""TCC: sampling, the cycle's numbers, all ordered pairs, and videos that align after training."""

import itertools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import zoo
from tfssl.errors import BadInput
from tfssl.evaluate.metrics import kendalls_tau
from tfssl.objectives import temporal

tcc = zoo.get("video.tcc")
SEED = tf.constant([5, 6], tf.int32)


def backbone(width=8):
    x = image = keras.Input((None, None, 3))
    for i in (1, 2):
        x = keras.layers.Conv2D(width * i, 3, 2, "same", activation="relu", name=f"c{i}")(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def model(**options):
    return tcc.TCC(tcc.embedder(backbone(), "c2", width=32, dims=16), **options)


def numbered(length, batch=2, side=8):
    """Videos whose frame t is of the constant grey t."""
    grey = np.arange(length, dtype=np.uint8)[None, :, None, None, None]
    return np.broadcast_to(grey, [batch, length, side, side, 3])


def test_frames_come_in_order_with_their_past_and_their_time():
    frames = tf.constant(numbered(40, 64))
    x = tcc.views({"frames": frames}, SEED, size=8, count=10, contrast=(1, 1), width=4)
    assert x["frames"].shape == (64, 10, 2, 8, 8, 3)
    assert x["keep"].shape == (64, 10, 2, 4)
    steps = np.rint(x["time"].numpy() * 40).astype(np.int32)
    assert (np.diff(steps) > 0).all() and steps.min() == 1 and steps.max() == 39
    shown = tcc.with_context(frames, tf.constant(steps), 2, 15).numpy()[..., 0, 0, 0]
    np.testing.assert_array_equal(shown[..., 1], steps)
    np.testing.assert_array_equal(shown[..., 0], np.maximum(steps - 15, 0))
    # Brightness is one shift a video: differences of frames survive it.
    grey = x["frames"].numpy()[..., 1, 0, 0, 0] * 255
    free = (grey > 0.5).all(axis=1)
    assert free.any()
    np.testing.assert_allclose(np.diff(grey[free]), np.diff(steps[free]), atol=1e-2)


def test_a_short_video_repeats_its_last_frame_and_never_runs_back():
    x = tcc.views({"frames": tf.constant(numbered(4))}, SEED, size=8, count=6)
    steps = np.rint(x["time"].numpy() * 4)
    np.testing.assert_array_equal(steps, [[1, 2, 3, 3, 3, 3]] * 2)
    single = tcc.views({"frames": tf.constant(numbered(1))}, SEED, size=8, count=3)
    np.testing.assert_array_equal(single["time"], np.zeros([2, 3]))


def loss_of(embeddings, **options):
    embeddings = tf.constant(embeddings, tf.float32)
    count, frames = embeddings.shape[:2]
    time = tf.tile(tf.range(frames, dtype=tf.float32)[None] / frames, [count, 1])
    return float(model(**options).objective({"time": time}, None, embeddings))


def test_the_cards_three_frames_cost_what_it_says():
    line = [[[0.0], [1.0], [2.0]]] * 2
    assert loss_of(line, temperature=1.0) == pytest.approx(0.427991, abs=1e-5)


def test_the_way_back_of_the_cards_three_frames_is_the_one_it_says():
    line = tf.constant([[[0.0], [1.0], [2.0]]])
    nearest = tf.nn.softmax(temporal.similarity(line, line, 1.0)) @ line
    np.testing.assert_allclose(nearest[0, :, 0], [0.291814, 1, 1.708186], atol=1e-6)
    back = tf.nn.softmax(temporal.similarity(nearest, line, 1.0))[0].numpy()
    first = [0.581975, 0.383775, 0.034250]
    expected = [first, [0.211942, 0.576117, 0.211942], first[::-1]]
    np.testing.assert_allclose(back, expected, atol=1e-6)
    landed, variance = temporal.landing(line, line, [[0.0, 1 / 3, 2 / 3]], 1.0)
    off = np.square(landed[0].numpy() - [0, 1 / 3, 2 / 3])
    assert off.mean() == pytest.approx(0.0151520, abs=1e-6)
    variance = variance[0].numpy()
    cost = off / variance + 0.001 * np.log(variance)
    assert cost.mean() == pytest.approx(0.427991, abs=1e-5)


def test_collapsed_embeddings_are_no_minimum():
    flat = np.zeros([2, 4, 3])
    assert loss_of(flat) == pytest.approx(0.997451, abs=1e-5)
    spread = np.arange(4)[None, :, None] * np.ones([2, 1, 3])
    assert loss_of(3 * spread) < 0.01


def test_all_ordered_pairs_count_and_none_with_itself():
    u = np.random.default_rng(0).normal(size=[3, 5, 4]).astype("float32")
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    rows, columns = (u[list(side)] for side in zip(*pairs))
    slow = float(temporal.cycle_back_regression(rows, columns, 0.1, 0.001))
    assert loss_of(u) == pytest.approx(slow, rel=1e-4)
    assert loss_of(u + 7) == pytest.approx(slow, rel=1e-3)


def test_time_is_the_frames_index_over_the_length_of_the_video():
    u = np.random.default_rng(0).normal(size=[2, 4, 3]).astype("float32")
    time = np.array([[0.1, 0.2, 0.6, 0.9], [0.0, 0.5, 0.6, 0.7]], "float32")
    expected = 0.0
    for a, b in ((0, 1), (1, 0)):
        for i in range(4):
            alpha = np.exp(-((u[a][i] - u[b]) ** 2).sum(1) / 3 / 0.1)
            nearest = (alpha / alpha.sum()) @ u[b]
            beta = np.exp(-((nearest - u[a]) ** 2).sum(1) / 3 / 0.1)
            beta /= beta.sum()
            mean = beta @ time[a]
            variance = beta @ (time[a] - mean) ** 2 + 1e-8
            expected += ((time[a][i] - mean) ** 2 / variance + 0.001 * np.log(variance)) / 8
    given = model().objective({"time": tf.constant(time)}, None, tf.constant(u))
    assert float(given) == pytest.approx(expected, rel=1e-4)


def test_dropout_follows_the_views_noise_and_training_alone():
    method = model()
    x = tcc.views({"frames": tf.constant(numbered(9))}, SEED, size=8, count=4, width=32)
    plain = method(x)
    np.testing.assert_array_equal(method(x), plain)
    other = {**x, "keep": tf.zeros_like(x["keep"])}
    np.testing.assert_array_equal(method(other), plain)
    # The published encoder embeds one frame with its context just so.
    np.testing.assert_allclose(method.encoder(x["frames"][:, 2]), plain[:, 2], atol=1e-5)
    dropped = method(other, training=True)
    np.testing.assert_allclose(dropped, np.broadcast_to(dropped[0, 0], dropped.shape), atol=1e-6)
    assert np.abs(method(x, training=True) - dropped).max() > 1e-5


def test_of_the_imagenet_network_only_batch_norm_trains():
    network = tcc.imagenet(weights=None)
    assert network.get_layer("conv4_block3_out").output.shape == (None, 14, 14, 1024)
    assert all("bn" in v.path for v in network.trainable_variables) and network.trainable_variables
    smaller = tcc.imagenet(64, weights=None).get_layer("conv4_block3_out")
    assert smaller.output.shape == (None, 4, 4, 1024)


def test_videos_of_a_folder_are_taken_whole_and_as_large_as_the_network_sees_them(tmp_path):
    from test_sources import clip

    clip(tmp_path / "a.mp4", frames=310, fps=25, size=(320, 240), sound=None)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    small = {**tcc.SMALL, "encoder": backbone(), "data": f"{tmp_path}@all", "size": 160}
    run = tcc.recipe(**{**small, "batch_size": 2, "count": 40})
    examples, x = run.dataset.preview(2)
    assert examples["frames"].shape == (2, 310, 160, 213, 3)
    assert x["frames"].shape == (2, 40, 2, 160, 160, 3)
    steps = x["time"].numpy() * 310
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert steps.max() > 270


def test_the_small_run_is_given_videos_of_one_action():
    """Frames of different actions have no match: the class is all the supervision there is."""
    from tfssl import pipelines

    data = pipelines.load(f"{tcc.SMALL['data']},length=2", "test", keys=("action",))
    assert len({int(example["action"]) for example in data.take(12)}) == 1


def test_one_video_alone_is_refused():
    with pytest.raises(BadInput, match="batch_size"):
        tcc.recipe(**{**tcc.SMALL, "batch_size": 1})


def reach(speed, random, length=24, side=16):
    """A red disk crosses a scene, at place speed(t) of its way, t in 0..1.

    The light flickers: most of what changes tells no time.
    """
    y, x = np.mgrid[:side, :side]

    def disk(across, down):
        return np.exp(-((x - across) ** 2 + (y - down) ** 2) / 6)

    background = random.uniform(0, 60, [side, side, 3])
    frames = []
    for t in speed(np.linspace(0, 1, length)):
        picture = background.copy()
        picture[..., 0] += 190 * disk(2 + 12 * t, 12 - 8 * t * t)
        frames.append(np.clip(picture * random.uniform(0.3, 1), 0, 255))
    return np.array(frames, np.uint8)


@pytest.mark.slow
def test_time_warped_videos_align_after_training_and_not_before_and_reversed_ones_backwards():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    powers = np.exp(random.uniform(-0.7, 0.7, 20))
    videos = [reach(lambda t, p=p: t**p, random) for p in powers]
    data = tf.data.Dataset.from_tensor_slices({"frames": np.array(videos[:16])})
    data = data.repeat(10).apply(tf.data.experimental.assert_cardinality(160))
    run = tcc.recipe(
        **{**tcc.SMALL, "encoder": backbone(16), "data": data, "epochs": 6, "size": 16}
    )

    def embedded(step):
        for video in videos[16:]:
            frames = tf.constant(video[None, ::step], tf.float32) / 255
            shown = tcc.with_context(frames, tf.range(24)[None], 2, 1)[0]
            yield run.model.encoder(shown, training=False).numpy()

    before = kendalls_tau(embedded(1))
    run.fit(verbose=0)
    forwards, backwards = list(embedded(1)), list(embedded(-1))
    after = kendalls_tau(forwards)
    others = itertools.permutations(range(4), 2)
    against = [kendalls_tau([forwards[i], backwards[j]]) for i, j in others]
    print("tau", before, after, np.mean(against))
    assert after > 0.9
    assert before < 0.7
    assert np.mean(against) < -0.9
