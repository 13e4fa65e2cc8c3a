"""Fake examples have the form of real ones, for every modality."""

import numpy as np
import pytest
import tensorflow as tf

from tfssl import pipelines
from tfssl.pipelines import BadInput, fake


@pytest.mark.parametrize("modality", fake.MODALITIES)
def test_fake_examples_have_the_form_of_the_world(modality):
    real = pipelines.load("world", keys=["image"] if modality in ("image", "text") else None)
    batch = fake.examples(modality, batch=3)
    for key, spec in real.element_spec.items():
        assert batch[key].dtype == spec.dtype, key
        assert batch[key].shape == (3, *spec.shape), key
    assert {"image", "frames", "audio", "text", "index", "label", "flow", "pose"} <= set(batch)


def test_values_stay_in_their_ranges():
    batch = {key: value.numpy() for key, value in fake.examples("video").items()}
    assert np.abs(batch["audio"]).max() <= 1 and batch["audio"].std() > 0.1
    assert (batch["boxes"][..., :2] <= batch["boxes"][..., 2:]).all()
    rotation = batch["pose"][..., :3, :3]
    np.testing.assert_allclose(rotation @ rotation.swapaxes(-1, -2), np.eye(3) + 0 * rotation,
                               atol=1e-6)  # fmt: skip
    assert (batch["depth"] > 0).all()
    assert batch["image"].std() > 30


def test_a_seed_gives_one_batch_and_another_seed_another():
    a, b, c = (fake.examples("audio", seed=seed) for seed in (1, 1, 2))
    assert all(tf.reduce_all(a[key] == b[key]) for key in a)
    assert not tf.reduce_all(a["image"] == c["image"])


def test_an_unknown_modality_is_refused():
    with pytest.raises(BadInput, match="audio_visual"):
        fake.examples("smell")
