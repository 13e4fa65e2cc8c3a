"""AVE-Net: what the distance alone decides, sounds that start by one law, and a shared space."""

import fractions
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import zoo
from tfssl.encoders.audio import LogSpectrogram
from tfssl.errors import BadInput
from tfssl.evaluate.metrics import retrieval
from tfssl.pipelines import batching, load

ave_net = zoo.get("audio_visual.ave_net")
SEED = tf.constant([7, 8], tf.int32)


def model(width=4, dims=8):
    return ave_net.AVENet(ave_net.vision(width), ave_net.hearing(width, 16000), dims)


def examples(batch=4, length=50, fps=25.0, rate=16000):
    """Clips whose frame t is of the grey t and whose sample n is n / 1e6: both tell their time."""
    grey = np.arange(length, dtype=np.uint8)[None, :, None, None, None]
    audio = np.arange(round(length / fps * rate), dtype=np.float32) / 1e6
    return {
        "frames": tf.constant(np.broadcast_to(grey, [batch, length, 16, 20, 3])),
        "fps": tf.fill([batch], fps),
        "audio": tf.constant(np.tile(audio, [batch, 1])),
    }


def test_the_frame_is_the_middle_of_its_sound_which_starts_on_the_grid():
    x = ave_net.views(examples(64), SEED, size=8, seconds=0.5, misalignment=0.0)
    assert x["image"].shape == (64, 8, 8, 3) and x["audio"].shape == (64, 8000)
    sound = x["audio"].numpy()
    loudness = (sound[:, -1] - sound[:, 0]) / (7999 / 1e6)
    assert (loudness > 0.9 - 1e-3).all() and (loudness < 1.1 + 1e-3).all()
    start = sound[:, 0] / loudness * 1e6 / 16000 / ave_net_grid()
    np.testing.assert_allclose(start, np.rint(start), atol=1e-2)
    assert len(set(np.rint(start))) > 20 and start.max() <= 1.5 / ave_net_grid() + 1e-2
    middle = np.rint((np.rint(start) * ave_net_grid() + 0.25) * 25)
    grey = x["image"].numpy().mean(axis=(1, 2, 3)) * 255
    seen = (grey > 0.5) & (grey < 254)
    # Up to the brightness' shift of 32 the picture is that of the frame.
    assert (np.abs(grey - middle)[seen] <= 32.1).all()


def ave_net_grid():
    from tfssl.pipelines.sample.pairs import GRID

    return GRID


def told_apart(right, wrong):
    """How often the energy at each phase of a frame's 40 ms tells held-out sounds apart."""
    period = round(ave_net_grid() * 16000)
    kinds = []
    for sound in (right, wrong):
        energy = np.reshape(sound[:, : 12 * period] ** 2, [len(sound), 12, 8, -1]).mean((1, 3))
        kinds.append(energy / energy.sum(axis=1, keepdims=True))
    half = len(right) // 2
    near, far = (kind[:half].mean(axis=0) for kind in kinds)

    def nearer(kind, mine, other):
        kind = kind[half:]
        return np.linalg.norm(kind - mine, axis=1) < np.linalg.norm(kind - other, axis=1)

    return (nearer(kinds[0], near, far).mean() + nearer(kinds[1], far, near).mean()) / 2


def test_a_click_with_every_frame_tells_nothing_unless_wrong_sounds_start_between_frames():
    """The trace that compression leaves at the frames' times. `views` has one law of starts; a
    leaky sampler takes wrong sounds from anywhere, here half a frame later."""
    random = np.random.default_rng(0)
    sound = random.normal(0, 0.05, [256, 32000]).astype("float32")
    half_frame = round(ave_net_grid() * 16000) // 2
    sound[:, :: 2 * half_frame] += 1.0
    clips = {**examples(256), "audio": tf.constant(sound)}
    late = {**clips, "audio": tf.constant(np.roll(sound, -half_frame, axis=1))}
    right = ave_net.views(clips, SEED, size=8, seconds=0.5)["audio"].numpy()
    later = ave_net.views(late, SEED, size=8, seconds=0.5)["audio"].numpy()
    # The objective takes another's right sound for the wrong one.
    assert abs(told_apart(right, np.roll(right, 1, axis=0)) - 0.5) < 0.1
    assert told_apart(right, np.roll(later, 1, axis=0)) > 0.95
    quiet = random.normal(0, 0.05, [2, 256, 8000])  # without clicks there is nothing to find
    assert abs(told_apart(*quiet) - 0.5) < 0.1


def at_distance(d):
    """Two unit vectors that lie `d` apart."""
    angle = 2 * np.arcsin(d / 2)
    return [[1.0, 0.0]], [[np.cos(angle), np.sin(angle)]]


@pytest.mark.parametrize(
    "d, probability",
    [(0.0, 0.982014), (1.0, 0.5), (2**0.5, 0.160185), (2.0, 0.017986), (0.282843, 0.946274)],
)
def test_the_probability_is_the_cards_function_of_the_distance(d, probability):
    a, b = at_distance(d)
    given = model().correspondence(tf.constant(a), tf.constant(b, tf.float32))
    assert float(given[0]) == pytest.approx(probability, abs=1e-4)


def test_the_loss_pairs_each_frame_with_its_own_and_with_anothers_sound():
    method, random = model(), np.random.default_rng(0)
    image, audio = random.normal(size=[2, 5, 8]).astype("float32")
    other = np.array([0.0, 0.26, 0.5, 0.76, 0.999], "float32")  # 1, 2, 3, 4, 4 places further
    expected = 0.0
    for i, ahead in enumerate((1, 2, 3, 4, 4)):
        for j, same in ((i, 1), ((i + ahead) % 5, 0)):
            v, a = image[i] / np.linalg.norm(image[i]), audio[j] / np.linalg.norm(audio[j])
            z = 4 - 4 * np.sqrt(((v - a) ** 2).sum() + 1e-8)
            expected += np.log1p(np.exp(-z if same else z)) / 10
    outputs = {"image": tf.constant(image), "audio": tf.constant(audio)}
    loss = method.objective({"other": tf.constant(other)}, None, outputs)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_a_common_turn_changes_nothing_and_a_turn_of_one_space_does():
    method, random = model(), np.random.default_rng(0)
    a, b = tf.constant(random.normal(size=[2, 6, 8]).astype("float32"))
    turn = tf.constant(np.linalg.qr(random.normal(size=[8, 8]))[0].astype("float32"))
    plain = method.correspondence(a, b)
    np.testing.assert_allclose(method.correspondence(3 * a @ turn, b @ turn), plain, atol=1e-5)
    assert np.abs(method.correspondence(a @ turn, b) - plain).max() > 0.01


def test_the_spectrogram_has_the_papers_shape_and_its_tone_in_the_right_bin():
    layer = LogSpectrogram(48000, window=0.01, hop=0.005)
    tone = np.sin(2 * np.pi * 9375 * np.arange(48000) / 48000).astype("float32")
    shown = layer(tf.constant(tone[None]))
    assert shown.shape == (1, 199, 257, 1)
    assert (np.argmax(shown[0, :, :, 0], axis=1) == 100).all()  # 48000 / 512 = 93.75 Hz a bin
    assert layer.compute_output_spec(keras.KerasTensor((2, 48000))).shape == (2, 199, 257, 1)
    again = LogSpectrogram.from_config(layer.get_config())
    np.testing.assert_allclose(again(tf.constant(tone[None])), shown)


def test_the_published_towers_give_unit_vectors_of_one_space():
    method = model()
    image, audio = method.published["encoder"], method.published["audio_encoder"]
    x = ave_net.views(examples(), SEED, size=16, seconds=0.5)
    v, a = image(x["image"]).numpy(), audio(x["audio"]).numpy()
    assert v.shape == a.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)


def test_the_towers_end_in_maps_of_the_papers_size():
    for tower, x, map_shape in (
        (ave_net.vision(1), tf.zeros([1, 224, 224, 3]), (1, 14, 14, 8)),
        (ave_net.hearing(1), tf.zeros([1, 48000]), (1, 12, 16, 8)),  # time first
        (ave_net.vision(1), tf.zeros([1, 8, 8, 3]), (1, 1, 1, 8)),
        (ave_net.hearing(1, 2000), tf.zeros([1, 200]), (1, 1, 1, 8)),  # the least that is taken
    ):
        assert keras.Model(tower.input, tower.get_layer("c4").output)(x).shape == map_shape


def test_all_kernels_decay():
    method = model()
    kernels = [v for v in method.trainable_variables if v.name in ("kernel", "scale")]
    assert len(kernels) == 2 * (8 + 2) + 1
    expected = 1e-5 * sum(np.square(v.numpy()).sum() for v in kernels)
    assert float(sum(method.losses)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size, sides", [(140, (160, 213)), (28, (32, 43))])
def test_videos_of_a_folder_are_an_eighth_larger_than_the_network_sees_them(tmp_path, size, sides):
    from test_sources import clip

    clip(tmp_path / "a.mp4", frames=310, fps=25, size=(320, 240))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    small = {**ave_net.SMALL, "data": f"{tmp_path}@all", "size": size, "width": 2}
    run = ave_net.recipe(**{**small, "batch_size": 2, "misalignment": 1.0})
    examples, x = run.dataset.preview(2)
    assert examples["frames"].shape == (2, 300, *sides, 3)
    assert x["image"].shape == (2, size, size, 3) and x["audio"].shape == (2, 16000)


def changing_rate(path):
    """5 s at 5 frames a second, then 5 s at 25, with a flash and a click at 5.00 s."""
    import av

    times = np.concatenate([np.arange(25) / 5, 5 + np.arange(125) / 25])
    sound = np.zeros([1, 160000], "<i2")
    sound[0, 80000:80400] = 30000
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("mpeg4", 25), out.add_stream("pcm_s16le", 16000)
        video.width, video.height, video.pix_fmt, audio.layout = 16, 16, "yuv420p", "mono"
        video.codec_context.time_base = fractions.Fraction(1, 100)
        for time in times:
            grey = np.full([16, 16, 3], 255 * (time == 5), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, "rgb24")
            frame.pts, frame.time_base = round(time * 100), fractions.Fraction(1, 100)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound, "s16", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))


def test_a_flash_and_its_click_stay_together_where_a_videos_rate_changes(tmp_path):
    changing_rate(tmp_path / "a.mkv")
    rate = 2000
    keys = ("frames", "fps", "audio", "sample_rate")
    clips = load(tmp_path, keys=keys, sample_rate=rate)
    (seen,) = batching.train(clips, lambda examples, seed: examples, 1)
    many = {key: tf.repeat(value, 1500, axis=0) for key, value in seen.items()}
    x = ave_net.views(many, SEED, size=8, sample_rate=rate, misalignment=0.0)
    flash = x["image"].numpy().mean(axis=(1, 2, 3)) > 0.5
    loud = np.abs(x["audio"].numpy()) > 0.3
    click = np.where(loud.any(axis=1), loud.argmax(axis=1) / rate, -1.0)
    # The flash is nearest to the middle from 0.1 s before it to 0.02 s after it.
    assert flash.sum() > 10
    np.testing.assert_array_equal(flash, (click > 0.49) & (click < 0.61))


def test_on_world_the_papers_rate_leaves_no_silence_behind():
    run = ave_net.recipe(data="world:n=8,size=32", size=32, batch_size=4, width=2)
    examples, x = run.dataset.preview(2)
    assert list(examples["sample_rate"]) == [48000, 48000]
    assert x["audio"].shape == (2, 48000)
    loud = np.abs(x["audio"].numpy()).reshape(2, 3, -1).max(axis=2)
    assert (loud > 1e-4).all()


@pytest.mark.parametrize("wrong", [{"seconds": 0.05}, {"sample_rate": 1000}])
def test_sounds_too_short_for_the_network_are_refused(wrong):
    with pytest.raises(BadInput, match="seconds must be"):
        ave_net.recipe(**{**ave_net.SMALL, **wrong})


def test_a_batch_of_one_is_refused():
    with pytest.raises(BadInput, match="batch_size"):
        ave_net.recipe(**{**ave_net.SMALL, "batch_size": 1})


def toy(count, random):
    """Coloured frames that hum the note of their colour: eight classes, pictures and pitch vary."""
    kind = random.integers(0, 8, count)
    hue = np.array([[(k >> bit) & 1 for bit in range(3)] for k in kind])
    frames = 60 + 120 * hue[:, None, None, None] + random.uniform(0, 40, [count, 8, 16, 16, 3])
    pitch = 300 * 1.35 ** kind[:, None] * random.uniform(0.98, 1.02, [count, 1])
    time = np.arange(4000) / 8000
    sound = np.sin(2 * np.pi * (pitch * time + random.random([count, 1])))
    sound = 0.5 * sound + random.normal(0, 0.05, sound.shape)
    clips = {
        "frames": frames.astype(np.uint8),
        "fps": np.full(count, 16.0, np.float32),
        "audio": np.clip(sound, -1, 1).astype(np.float32),
    }
    return kind, clips


def class_recall(method, kind, clips):
    """Share of frames whose nearest sound, and of sounds whose nearest frame, is of their class."""
    frames = tf.constant(clips["frames"][:, 4], tf.float32) / 255
    image = method.encoder(frames, training=False).numpy()
    audio = method.audio_encoder(tf.constant(clips["audio"]), training=False).numpy()
    near = image @ audio.T
    return np.mean(kind[near.argmax(1)] == kind), np.mean(kind[near.argmax(0)] == kind)


def trained(clips, change):
    """A method, changed by `change` before it begins, after some steps on toy clips; its logs."""
    keras.utils.set_random_seed(0)
    small = {**ave_net.SMALL, "data": tf.data.Dataset.from_tensor_slices(clips), "size": 16}
    small.update(sample_rate=8000, width=8, dims=32, batch_size=32, epochs=12)
    run = ave_net.recipe(**{**small, "seconds": 0.5})
    change(run.model)
    return run.model, run.fit(verbose=0).history


@pytest.mark.slow
def test_frames_find_sounds_of_their_class_and_upside_down_they_do_not():
    random = np.random.default_rng(0)
    _, clips = toy(256, random)
    kind, held_out = toy(64, random)

    def upside_down(method):
        for weight in (method.scale, method.shift):
            weight.assign(-weight.numpy())

    method, history = trained(clips, lambda method: None)
    to_sound, to_frame = class_recall(method, kind, held_out)
    print("recall", to_sound, to_frame, history["accuracy"][-1])
    assert to_sound > 0.6 and to_frame > 0.6  # chance is an eighth
    assert history["accuracy"][-1] > 0.75
    method, _ = trained(clips, upside_down)
    lost = class_recall(method, kind, held_out)
    print("upside down", lost)
    assert max(lost) < 0.3


@pytest.mark.slow
def test_a_classifier_of_both_embeddings_together_brings_them_into_no_one_space(monkeypatch):
    """L3-Net: the same towers, and in place of their distance two layers that see all of both."""
    random = np.random.default_rng(0)
    _, clips = toy(256, random)
    kind, held_out = toy(64, random)
    layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(1)]
    fused = keras.Sequential([keras.Input([2 * 32]), *layers])

    def pair(images, sounds, same, *_):
        logits = fused(tf.concat([images, sounds], axis=1))[:, 0]
        same = tf.cast(same, tf.float32)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(same, logits))

    monkeypatch.setattr(ave_net, "calibrated_pair", pair)
    method, history = trained(clips, lambda method: setattr(method, "fused", fused))
    recall = class_recall(method, kind, held_out)
    print("together", recall, history["loss"])
    assert history["loss"][-1] < 0.6, "it learns what belongs together"
    assert max(recall) < 0.35


@pytest.mark.slow
def test_on_world_a_frame_ranks_its_own_sound_above_chance():
    keras.utils.set_random_seed(0)
    data = "world:n=320,size=32"
    run = ave_net.recipe(**{**ave_net.SMALL, "data": data, "size": 32, "epochs": 6})
    run.fit(verbose=0)
    held_out = tfssl_world(96)
    x = ave_net.views(held_out, SEED, size=32, misalignment=0.0)
    image = run.model.encoder(x["image"], training=False).numpy()
    audio = run.model.audio_encoder(x["audio"], training=False).numpy()
    ranks = retrieval(image @ audio.T)
    print(ranks)
    assert ranks["mean_rank"] < 0.9 * (96 + 1) / 2


def tfssl_world(count):
    from tfssl.pipelines import load

    data = load(f"world:n={count},size=32", "test", keys=("frames", "fps", "audio"))
    return next(iter(data.batch(count)))
