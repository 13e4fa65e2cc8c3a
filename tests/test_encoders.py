"""The contract of every encoder by name, and of anybody's Keras model in its place."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders import dense, vit
from tfssl.encoders.audio import LogMel
from tfssl.encoders.text import WordIds
from tfssl.errors import BadInput
from tfssl.layers.normalisation import BatchNormalization

MAPS = ("c1", "c2", "c3", "c4", "c5")
# name: (size, trainable parameters, width of the features)
CONTRACT = {
    "alexnet": (32, 3_720_928, 256),
    "conv4": (32, 388_896, 256),
    "resnet9": (32, 1_643_552, 256),
    "resnet18": (32, 11_168_832, 512),
    "resnet50": (32, 23_500_352, 2048),
    "vit_mini": (32, 799_744, 128),
    "vit_tiny": (32, 5_348_352, 192),
    "vit_small": (32, 21_313_536, 384),
    "cnn3d": (32, 1_607_392, 256),
    "r2plus1d18": (32, 33_165_639, 512),
    "audio_cnn": (32, 978_656, 256),
    "text_bag": (32, 2_560_000, 128),
    "flownet_c": (32, 24_549_536, 1024),
    "flownet_s": (32, 24_050_752, 1024),
}
QUICK = ("resnet9", "alexnet", "vit_mini", "cnn3d", "audio_cnn", "text_bag")


@pytest.fixture(autouse=True)
def float32():
    """Whatever precision a test chooses, the next one starts in float32."""
    yield
    keras.config.set_dtype_policy("float32")


def batch(encoder, side=32):
    random = np.random.default_rng(0)
    kind = encoder.input.dtype
    if kind == "string":
        return tf.constant(["a red ball", "two, cats"])
    if len(encoder.input_shape) == 2:
        return random.uniform(-1, 1, (2, 8000)).astype("float32")
    free = [4 if len(encoder.input_shape) == 5 else side, side, side]
    shape = [free[i] if n is None else n for i, n in enumerate(encoder.input_shape[1:-1])]
    return random.uniform(size=(2, *shape, 3)).astype("float32")


@pytest.mark.parametrize("name", encoders.NAMES)
def test_an_encoder_has_its_parameters_features_and_taps(name):
    size, parameters, width = CONTRACT[name]
    encoder = encoders.get(name, size=size)
    assert sum(int(np.prod(w.shape)) for w in encoder.trainable_weights) == parameters
    assert encoder.output_shape == (None, width) and encoder.layers[-1].name == "pool"
    blocks = tuple(f"block_{i}" for i in range(1, 1 + (4 if name == "vit_mini" else 12)))
    other = {"conv4": MAPS[:4], "text_bag": ("c1",)}
    other |= dict.fromkeys(("flownet_s", "flownet_c"), (*MAPS, "c6"))
    expected = other.get(name, blocks if name.startswith("vit") else MAPS)
    assert tuple(encoders.tap_names(encoder)) == expected


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", QUICK)
def test_an_encoder_runs_in_every_precision(name, policy):
    keras.config.set_dtype_policy(policy)
    encoder = encoders.get(name, size=32)
    x = batch(encoder)
    features = encoder(x, training=True)
    assert features.dtype == encoder.compute_dtype
    assert np.isfinite(tf.cast(features, tf.float32)).all()
    taps = encoders.representation(encoder)(x)
    assert list(taps) == encoders.tap_names(encoder)
    assert all(variable.dtype == "float32" for variable in encoder.trainable_variables)


def test_images_and_clips_of_any_size_go_in():
    for name in ("resnet9", "resnet18", "alexnet", "cnn3d"):
        encoder = encoders.get(name, size=32)
        width = encoder.output_shape[-1]
        for side in (24, 41):
            assert encoder(batch(encoder, side)).shape == (2, width)


def test_a_resnet_has_the_small_stem_up_to_64_pixels():
    def strides(size):
        stem = encoders.get("resnet18", size=size).get_layer("stem_conv")
        return stem.kernel_size[0], stem.strides[0]

    assert strides(32) == strides(64) == (3, 1)
    assert strides(65) == strides(224) == (7, 2)


def test_an_encoder_survives_a_keras_file(tmp_path):
    for name in QUICK:
        encoder = encoders.get(name, size=32)
        encoder.save(tmp_path / "encoder.keras")
        again = keras.models.load_model(tmp_path / "encoder.keras")
        np.testing.assert_array_equal(again(batch(encoder)), encoder(batch(encoder)))


def test_what_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match="Did you mean 'resnet18'"):
        encoders.get("resnet_18")
    with pytest.raises(BadInput, match="Did you mean 'patch'"):
        encoders.get("vit_mini", pach=4)
    with pytest.raises(BadInput, match="not a multiple"):
        encoders.get("vit_mini", size=33)


def test_images_are_normalised_inside_by_imagenets_constants():
    layer = encoders.get("resnet9").get_layer("normalise")
    grey = np.full((1, 2, 2, 3), 0.5, "float32")
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    np.testing.assert_allclose(layer(grey)[0, 0, 0], expected, rtol=1e-5)


def test_positions_hold_sine_and_cosine_of_column_and_row():
    table = vit.positions(3, 5, 8)
    assert table.shape == (15, 8)
    row, column = 2, 4
    token = table[row * 5 + column]
    for axis, values in ((column, token[:4]), (row, token[4:])):
        slow = axis * 10000 ** (-1 / 2)
        np.testing.assert_allclose(
            values, [np.sin(axis), np.sin(slow), np.cos(axis), np.cos(slow)], atol=1e-6
        )


def test_patches_begin_as_a_linear_layer_of_glorot_would_have_them():
    """Its convolution's own law counts outputs at every pixel: it starts four times as faint."""
    kernel = np.array(encoders.get("vit_mini", depth=1).get_layer("patch_embedding").project.kernel)
    assert kernel.shape == (4, 4, 3, 128)
    assert np.abs(kernel).max() == pytest.approx(np.sqrt(6 / (48 + 128)), rel=0.01)


def test_a_transformer_runs_on_some_of_its_tokens():
    encoder = encoders.get("vit_mini", depth=2)
    x = encoder.get_layer("normalise")(batch(encoder))
    tokens = encoder.get_layer("patch_embedding")(x)
    assert tokens.shape == (2, 64, 128)
    tokens = encoder.get_layer("class_token")(tokens)
    whole = encoder.get_layer("block_1")(tokens)
    assert encoder.get_layer("block_1")(tokens[:, :17]).shape == (2, 17, 128)
    order = np.random.default_rng(0).permutation(65)
    shuffled = encoder.get_layer("block_1")(tf.gather(tokens, order, axis=1))
    np.testing.assert_allclose(shuffled, tf.gather(whole, order, axis=1), atol=1e-5)


def test_features_of_a_transformer_are_the_mean_of_patches_without_the_class_token():
    encoder = encoders.get("vit_mini", depth=1)
    x = batch(encoder)
    last = encoder.get_layer("norm")(encoders.representation(encoder)(x)["block_1"])
    np.testing.assert_allclose(encoder(x), tf.reduce_mean(last[:, 1:], 1), atol=1e-6)


def test_a_tone_lights_its_own_mel_band():
    layer = LogMel(sample_rate=16000, mels=64)
    time = np.arange(16000) / 16000
    low, high = (np.sin(2 * np.pi * f * time).astype("float32") for f in (300, 3000))
    mel = np.asarray(layer(np.stack([low, high])))[..., 0].mean(1)  # [2, mels]
    edges = 1127 * np.log1p(np.array([60, 300, 3000, 8000]) / 700)
    expected = 65 * (edges[1:3] - edges[0]) / (edges[3] - edges[0]) - 1
    np.testing.assert_allclose(mel.argmax(1), expected, atol=1.0)


def test_silence_and_sounds_shorter_than_a_window_stay_finite():
    encoder = encoders.get("audio_cnn")
    for samples in (1, 399, 400, 16000):
        assert np.isfinite(encoder(np.zeros((2, samples), "float32"))).all()
    assert LogMel()(np.zeros((1, 16000), "float32")).shape == (1, 98, 64, 1)


def test_words_are_numbered_by_vocabulary_or_hash():
    text = tf.constant(["Red, BALL!", "", "ÄHRE red unknown more"])
    known = WordIds(["red", "ball", "ähre"], words=3)
    np.testing.assert_array_equal(known(text), [[2, 3, 0], [0, 0, 0], [4, 2, 1]])
    hashed = np.asarray(WordIds(buckets=50, words=3)(text))
    assert (hashed[0, :2] > 0).all() and hashed[0, 0] == hashed[2, 1] and hashed.max() < 50


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_bag_of_words_ignores_padding_and_order(pool):
    encoder = encoders.get("text_bag", vocabulary=["a", "b"], dim=3, pool=pool)
    table = np.asarray(encoder.get_layer("c1").embeddings)
    out = encoder(tf.constant(["a b", "b a", "a", ""]))
    reduce = {"mean": np.mean, "max": np.max}[pool]
    expected = reduce(table[2:4], axis=0)
    np.testing.assert_allclose(out, [expected, expected, table[2], [0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("name", ["flownet_s", "flownet_c"])
def test_a_pair_of_frames_matters_in_its_order(name):
    encoder = encoders.get(name, width=4)
    pair = np.random.default_rng(0).uniform(size=(2, 2, 64, 64, 3)).astype("float32")
    taps = encoders.representation(encoder)(pair)
    assert [tap.shape[1] for tap in taps.values()] == [32, 16, 8, 4, 2, 1]
    assert np.abs(encoder(pair) - encoder(pair[:, ::-1])).max() > 1e-4


def test_flownets_have_the_parameters_of_the_authors_code():
    """38,676,506 for FlowNetS where the flows' up-convolutions have no bias; ours have eight."""
    counts = {"flownet_s": 38_676_506 + 8, "flownet_c": 39_175_298}
    for name, count in counts.items():
        assert dense.expand(encoders.get(name)).count_params() == count


def test_models_of_keras_applications_are_encoders():
    x = np.random.default_rng(0).uniform(size=(2, 64, 64, 3)).astype("float32")
    plain = dict(weights=None, include_top=False, include_preprocessing=False)
    pooled = keras.applications.MobileNetV3Small(**plain, pooling="avg")
    assert encoders.get(pooled) is pooled
    as_map = keras.applications.MobileNetV3Small(**plain)
    wrapped = encoders.get(as_map)
    assert wrapped(x).shape == (2, 576) and wrapped.weights[0] is as_map.weights[0]
    np.testing.assert_allclose(wrapped(x), tf.reduce_mean(as_map(x), (1, 2)), atol=1e-5)
    sides = [tap.shape[1] for tap in encoders.representation(pooled)(x).values()]
    assert sides == [32, 16, 8, 4, 2]


def test_models_of_keras_applications_that_rescale_bytes_take_the_unit_range():
    x = np.random.default_rng(0).uniform(size=(2, 64, 64, 3)).astype("float32")
    theirs = keras.applications.MobileNetV3Small(weights=None, include_top=False, pooling="avg")
    encoder = encoders.get(theirs)
    np.testing.assert_allclose(encoder(x), theirs(255 * x), atol=1e-5)
    assert encoder.weights[0] is theirs.weights[0] and encoders.get(encoder) is encoder
    assert encoder.name == theirs.name and encoders.tap_names(encoder) == encoders.tap_names(theirs)
    for model in (encoder, theirs):
        taps = encoders.representation(model)(x)
        assert [tap.shape[1] for tap in taps.values()] == [32, 16, 8, 4, 2]
        np.testing.assert_allclose(
            tf.reduce_mean(taps[list(taps)[-1]], (1, 2)), encoder(x), atol=1e-5
        )


def behind(first):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, 2, name="c1")(first(image))
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def test_what_a_model_takes_shows_in_its_first_layer():
    imagenet = [123.7, 116.3, 103.5]
    adapted = keras.layers.Normalization()
    adapted.adapt(np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)))
    for first in (
        keras.layers.Rescaling(1 / 127.5, -1),
        keras.layers.Normalization(mean=imagenet, variance=[3400.0] * 3),
        keras.Sequential([keras.layers.Rescaling([1 / 255] * 3)]),
        adapted,
    ):
        model, x = behind(first), np.random.default_rng(0).random((1, 9, 9, 3), np.float32)
        encoder = encoders.get(model)
        np.testing.assert_allclose(encoder(x), model(255 * x), atol=1e-5)
        assert encoders.tap_names(encoder) == ["c1"]
    for first in (
        keras.layers.Rescaling(2, -1),
        keras.layers.Rescaling(255),
        keras.layers.Normalization(mean=[0.5] * 3, variance=[0.05] * 3),
        keras.layers.ZeroPadding2D(),
    ):
        model = behind(first)
        assert encoders.get(model) is model


def test_a_wrapper_has_the_layers_of_the_only_model_inside():
    inner = behind(keras.layers.ZeroPadding2D())
    image, x = keras.Input((16, 16, 3)), np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    tap = encoders.representation(inner)(x)["c1"]
    for outer in (
        keras.Model(image, inner(image)),
        keras.Model(image, keras.layers.Dense(2)(inner(keras.layers.ReLU()(image)))),
        keras.Sequential([keras.Input((16, 16, 3)), keras.Sequential([inner])]),
    ):
        assert encoders.tap_names(outer) == ["c1"]
        np.testing.assert_allclose(encoders.representation(outer)(x)["c1"], tap, atol=1e-6)
        encoder = encoders.get(outer)
        np.testing.assert_allclose(encoder(x), outer(x), atol=1e-6)
        both = keras.Model(encoder.input, [encoders.taps_of(encoder)["c1"], encoder.output])
        np.testing.assert_allclose(both(x)[0], tap, atol=1e-6)
    fixed = keras.Model(image, inner(image, training=False))  # a mode that must not be lost
    assert encoders.get(fixed) is fixed and encoders.tap_names(fixed) == []


def unpadded(kernel):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(2, 3, 2, padding="same", name="first")(image)
    x = keras.layers.Conv2D(2, kernel, name="second")(x)
    x = keras.layers.Conv2D(2, 3, padding="same", name="third")(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def test_networks_without_padding_are_tried_at_96_pixels_where_64_leave_nothing():
    assert encoders.side_for(unpadded(5)) == 64 and encoders.side_for(unpadded(37)) == 96
    assert encoders.tap_names(unpadded(37)) == ["first", "third"]
    assert encoders.tap_names(encoders.get(unpadded(99))) == []
    with pytest.raises(BadInput, match="build it with the input size"):
        encoders.side_for(unpadded(99))


def backbone():
    """What a keras-hub transformer looks like: dict in, dict out, blocks that are layers."""
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    x = keras.layers.Embedding(20, 8)(ids) * keras.ops.cast(mask, "float32")[..., None]
    for i in range(3):
        x = vit.Block(2, 16, name=f"transformer_layer_{i}")(x)
    outputs = {"sequence_output": x, "pooled_output": x[:, 0]}
    return keras.Model({"token_ids": ids, "padding_mask": mask}, outputs)


def test_backbones_with_dicts_and_sequences_are_encoders():
    x = {"token_ids": np.ones((2, 5), "int32"), "padding_mask": np.ones((2, 5), "int32")}
    encoder = encoders.get(backbone())
    assert encoder(x).shape == (2, 8)
    expected = [f"transformer_layer_{i}" for i in range(3)]
    assert encoders.tap_names(encoder) == expected
    assert list(encoders.representation(encoder)(x)) == expected


def test_real_keras_hub_backbones_are_encoders():
    keras_hub = pytest.importorskip("keras_hub")
    vision = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=64,
    )
    assert encoders.get(vision).output_shape == (None, 32)
    assert len(encoders.tap_names(encoders.get(vision))) == 2


def slow_batch_norm(x, gamma, beta, epsilon=1e-3):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta, mean, variance


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_batch_norm_is_the_formula_and_moves_its_statistics_as_keras_does(policy):
    keras.config.set_dtype_policy(policy)
    random = np.random.default_rng(0)
    x = random.normal(2, 3, (4, 5, 6, 7)).astype("float32")
    ours, theirs = BatchNormalization(), keras.layers.BatchNormalization(momentum=0.9)
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.gamma.assign(np.linspace(0.5, 2, 7))
        layer.beta.assign(np.linspace(-1, 1, 7))
    expected, mean, variance = slow_batch_norm(x, np.array(ours.gamma), np.array(ours.beta))
    tolerance = {"float32": 1e-5, "mixed_float16": 1e-2, "mixed_bfloat16": 4e-2}[policy]
    np.testing.assert_allclose(ours(x, training=True), expected, atol=tolerance)
    theirs(x, training=True)
    np.testing.assert_allclose(ours.moving_mean, 0.1 * mean, rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(ours.moving_variance, 0.9 + 0.1 * variance, rtol=1e-3)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-3)
    still = tf.cast(ours(x, training=False), "float32")
    np.testing.assert_allclose(still, tf.cast(theirs(x), "float32"), atol=20 * tolerance)


def test_batch_norms_gradients_are_keras_own():
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 4, 4, 5)).astype("float32"))
    weight = tf.constant(np.random.default_rng(1).normal(size=x.shape).astype("float32"))
    gradients = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = kind()
        layer.build(x.shape)
        layer.gamma.assign(np.linspace(0.5, 2, 5))
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(weight * tf.tanh(layer(x, training=True)))
        gradients.append(tape.gradient(loss, [x, *[v.value for v in layer.trainable_variables]]))
    for ours, theirs in zip(*gradients):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_frozen_batch_norm_does_not_move():
    layer = BatchNormalization(trainable=False)
    x = np.random.default_rng(0).normal(3, 2, (2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(layer(x, training=True), x / np.sqrt(1.001), rtol=1e-5)
    assert (np.array(layer.moving_mean) == 0).all()
