"""The published encoders are whole, small, ours to publish, and better than chance made them."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import tfssl
from tfssl import encoders, savedmodel, zoo

FOLDERS = sorted((pathlib.Path(__file__).resolve().parents[1] / "saved_models").glob("*/"))
every_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def test_there_is_one():
    assert FOLDERS


@every_folder
def test_its_name_says_what_it_is_and_its_files_are_small(folder):
    method, encoder, data = folder.name.split("-")
    assert method in zoo.names() and encoder in encoders.NAMES
    assert data in ("digits", "world"), "made of generated or freely licensed data"
    card = savedmodel.read_card(folder)
    assert f"pretrain {method}" in card["call"] and card["data"].startswith(data)
    assert max(file.stat().st_size for file in folder.rglob("*")) < 5_000_000


@every_folder
def test_it_is_whole_and_gives_its_golden_features(folder):
    encoder = tfssl.load(folder)
    golden = np.load(folder / "golden.npz")
    features = np.asarray(encoder(tf.constant(golden["inputs"])))
    np.testing.assert_allclose(features, golden["features"], atol=1e-4, rtol=1e-3)


@every_folder
def test_its_card_tells_by_how_much_it_beats_the_untrained_network(folder):
    results = savedmodel.read_card(folder)["results"]
    for protocol in ("knn", "linear"):
        ours, theirs = results["results"][protocol], results["random"][protocol]
        assert ours["top1_low"] > theirs["top1_high"]
