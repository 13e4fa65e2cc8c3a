"""Spotting artifacts: damage where the mask says, repair nowhere else, and a frozen autoencoder."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo
from tfssl.callbacks.first import TrainFirst
from tfssl.errors import BadInput
from tfssl.layers.repair import Repair, damaged, enlarged

spot = zoo.get("image.spot_artifacts")
RANDOM = np.random.default_rng(0)


def model():
    autoencoder = spot.Autoencoder(16, (4, 8, 16))
    return spot.SpotArtifacts(zoo_runs.tiny_image_encoder(), autoencoder, hidden=8, dropout=0)


def batch(count=6, keep=0.5):
    examples = {"image": tf.constant(RANDOM.integers(0, 256, [count, 20, 20, 3]), tf.uint8)}
    return spot.views(examples, tf.constant([1, 2]), size=16, cells=4, keep=keep)


def values(model):
    return [w.numpy() for w in model.weights]


def test_the_mask_keeps_the_stated_share_of_places():
    for keep in (0.3, 0.5):
        kept = batch(2000, keep)["kept"].numpy()
        assert kept.shape == (2000, 4, 4, 1) and set(np.unique(kept)) == {0, 1}
        assert kept.mean() == pytest.approx(keep, abs=0.01)


def test_damage_replaces_a_place_by_the_mean_of_its_neighbourhood():
    code = RANDOM.normal(size=[2, 5, 5, 3]).astype("float32")
    kept = (RANDOM.random([2, 5, 5, 1]) < 0.5).astype("float32")
    found = damaged(tf.constant(code), tf.constant(kept)).numpy()
    for b, i, j in np.ndindex(2, 5, 5):
        around = code[b, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
        if kept[b, i, j]:
            np.testing.assert_array_equal(found[b, i, j], code[b, i, j])
        else:
            np.testing.assert_allclose(found[b, i, j], around.mean(axis=(0, 1)), atol=1e-6)


def test_repair_is_the_identity_wherever_nothing_is_damaged_whatever_its_weights():
    layer = Repair(3)
    for weight in layer.weights:
        weight.assign(10 * RANDOM.normal(size=weight.shape))
    u = tf.constant(RANDOM.normal(size=[2, 8, 8, 3]), tf.float32)
    kept = tf.constant(RANDOM.random([2, 4, 4, 1]) < 0.5, tf.float32)
    whole = np.repeat(np.repeat(kept, 2, axis=1), 2, axis=2)[..., 0] == 1
    np.testing.assert_array_equal(enlarged(kept, 8)[..., 0], whole)
    found = layer(u, kept).numpy()
    np.testing.assert_array_equal(found[whole], u.numpy()[whole])
    assert (found[~whole] != u.numpy()[~whole]).all()


def test_undamaged_the_fake_is_the_plain_autoencoded_picture_to_the_bit():
    method, x = model(), batch()
    plain = method.autoencoder(x, training=False)
    whole = method({"image": x["image"], "kept": tf.ones([6, 4, 4, 1])})
    np.testing.assert_array_equal(whole["repaired"], plain)
    real, fake = np.split(whole["kinds"], 2)
    np.testing.assert_allclose(real, fake, atol=1e-6)
    assert (method(x)["repaired"].numpy() != plain.numpy()).any()
    assert np.abs(plain).max() <= 1 and plain.shape == [6, 16, 16, 3]


def test_undecided_it_costs_what_the_card_says():
    outputs = {
        "kinds": tf.zeros([12, 2]),
        "places": tf.zeros([12, 4, 4, 1]),
        "repaired": 2 * batch()["image"] - 1,
    }
    x = batch()
    assert float(model().critique(x, None, outputs)) == pytest.approx(0.76246, abs=1e-5)
    outputs["repaired"] = 2 * x["image"] - 1
    assert float(model().objective(x, None, outputs)) == pytest.approx(np.log(2), abs=1e-6)


def test_both_losses_are_their_equations_in_value_and_gradient():
    x, method = batch(), model()
    outputs = {
        "kinds": tf.Variable(RANDOM.normal(size=[12, 2]), dtype=tf.float32),
        "places": tf.Variable(RANDOM.normal(size=[12, 4, 4, 1]), dtype=tf.float32),
        "repaired": tf.Variable(RANDOM.uniform(-1, 1, [6, 16, 16, 3]), dtype=tf.float32),
    }
    kinds, places, repaired = (v.numpy() for v in outputs.values())
    kept = x["kept"].numpy()
    with tf.GradientTape(persistent=True) as tape:
        critic = method.critique(x, None, keras.tree.map_structure(tf.identity, outputs))
        player = method.objective(x, None, keras.tree.map_structure(tf.identity, outputs))
    logs = kinds - np.log(np.exp(kinds).sum(axis=1, keepdims=True))
    labels = np.concatenate([np.ones_like(kept), kept])
    bce = np.log1p(np.exp(places)) - labels * places
    expected = -(logs[:6, 1].sum() + logs[6:, 0].sum()) / 12 + 0.1 * bce.mean()
    assert float(critic) == pytest.approx(expected, rel=1e-5)
    seen = np.repeat(np.repeat(kept, 4, axis=1), 4, axis=2)
    difference = repaired - (2 * x["image"].numpy() - 1)
    expected = -logs[6:, 1].mean() + 30 * (seen * difference**2).mean()
    assert float(player) == pytest.approx(expected, rel=1e-5)
    slope = tape.gradient(player, outputs["repaired"])
    np.testing.assert_allclose(slope, 60 * seen * difference / difference.size, atol=1e-6)
    slope = tape.gradient(critic, outputs["places"])
    share = 1 / (1 + np.exp(-places)) - labels
    np.testing.assert_allclose(slope, 0.1 * share / places.size, atol=1e-6)
    # The plain pictures are no business of the repair layers.
    assert not np.any(tape.gradient(player, outputs["kinds"])[:6])


def test_a_step_of_either_player_leaves_the_other_and_the_autoencoder_alone():
    for rates, moved in (((0.1, 0.0), "repair"), ((0.0, 0.1), "critic")):
        method, x = model(), batch()
        method.compile(*(keras.optimizers.SGD(rate) for rate in rates), run_eagerly=True)
        frozen = values(method.autoencoder)
        parts = {
            "repair": method.player_variables,
            "critic": method.critic.trainable_variables,
        }
        before = {name: [w.numpy() for w in part] for name, part in parts.items()}
        method.train_on_batch(x)
        assert zoo_runs.same(values(method.autoencoder), frozen)  # batch norm's statistics too
        for name, old in before.items():
            changed = [(w.numpy() != o).any() for w, o in zip(parts[name], old)]
            assert any(changed) == (name == moved)


def test_the_autoencoder_trains_before_the_first_epoch_and_once():
    examples = {"image": RANDOM.integers(0, 256, [8, 16, 16, 3]).astype("uint8")}
    data = {"data": zoo_runs.dataset(examples), "batch_size": 4, "epochs": 1, "size": 16}
    small = {"channels": (4, 8), "hidden": 8, "encoder": zoo_runs.tiny_image_encoder()}
    run = spot.recipe(**{**spot.SMALL, **data, **small})
    method = run.model
    (first,) = run.callbacks
    assert isinstance(first, TrainFirst) and first.steps == 2
    before = values(method.autoencoder.encoder)
    method.autoencoder.run_eagerly = True
    first.set_model(method)
    first.on_epoch_begin(0)
    after = values(method.autoencoder.encoder)
    assert int(method.ready) == 1 and not zoo_runs.same(before, after)
    first.on_epoch_begin(0)
    assert zoo_runs.same(values(method.autoencoder.encoder), after)


def test_an_encoder_without_maps_is_refused_in_words():
    image = keras.Input([16, 16, 3])
    flat = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image)))
    with pytest.raises(BadInput, match="needs an encoder of maps"):
        spot.SpotArtifacts(flat, spot.Autoencoder(16, (4, 8)), hidden=8)


def area_under_curve(scores, labels):
    order = np.argsort(np.argsort(scores))
    positive = labels == 1
    ranks = order[positive].sum() - positive.sum() * (positive.sum() - 1) / 2
    return ranks / positive.sum() / (~positive).sum()


@pytest.mark.slow
def test_damage_is_localised_on_held_out_pictures():
    from tfssl import encoders, pipelines

    keras.utils.set_random_seed(0)
    whole = encoders.get("conv4")
    trunk = keras.Model(whole.input, whole.get_layer("c3").output)  # 4 x 4 places, as the code
    run = spot.recipe(**{**spot.SMALL, "encoder": trunk, "epochs": 20})
    method = run.model
    images = np.stack([e["image"] for e in pipelines.load("digits@test").as_numpy_iterator()])
    x = spot.views({"image": tf.constant(images)}, tf.constant([5, 6]), 32, 4, 0.5, flip=0.0)
    kept = x["kept"].numpy()
    run.fit(verbose=0)
    outputs = method(x)
    error = float(tf.reduce_mean((method.autoencoder(x) - 2 * x["image"] + 1) ** 2))
    places = outputs["places"].numpy()[len(images) :]
    found = area_under_curve(places.ravel(), kept.ravel())
    elsewhere = area_under_curve(places.ravel(), np.roll(kept, 1, axis=0).ravel())
    print(error, found, elsewhere)
    assert found > elsewhere + 0.1  # twelve standard errors of 4,800 places
    assert elsewhere == pytest.approx(0.5, abs=0.03)
