"""Boosting: strange tiles, clusters made once, a student that owes its teacher nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

import tfssl
from tfssl import zoo
from tfssl.errors import BadInput
from tfssl.evaluate.features import extract
from tfssl.objectives.classification import cross_entropy
from tfssl.pipelines import batching

boosting = zoo.get("image.boosting")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])


def run(batch=None, **options):
    options = {
        "teacher": zoo_runs.tiny_image_encoder(),
        "tap": "c2",
        "epochs": 1,
        "pretext_epochs": 0,
        **options,
    }
    return zoo_runs.tiny_run("image.boosting", batch, **options)


def test_zero_to_two_tiles_come_from_another_image_and_stay_in_their_place():
    batch = 600
    own = tf.range(batch)[:, None] * 10 + tf.range(9)
    pieces = tf.cast(own, tf.float32)[:, :, None, None, None] * tf.ones([1, 1, 2, 2, 3])
    seen = boosting.occlude(pieces, SEED).numpy()[:, :, 0, 0, 0].astype(int)
    strange = seen != own.numpy()
    count = strange.sum(axis=1)
    assert set(count) == {0, 1, 2}
    assert min(np.bincount(count)) > batch / 3 - 60
    assert (np.abs(strange.mean(axis=0) - 1 / 9) < 0.05).all()
    other = seen // 10
    assert (other[strange] != np.repeat(np.arange(batch), count)).all()
    assert (seen % 10 == np.arange(9)).all()


def test_occlusion_changes_tiles_and_never_the_label_of_images_that_differ_in_size():
    sides = [4, 5, 6, 7, 8, 9]
    examples = tf.data.Dataset.from_generator(
        lambda: ({"image": np.full([side, 4, 3], side, np.uint8)} for side in sides),
        output_signature={"image": tf.TensorSpec([None, None, 3], tf.uint8)},
    )

    def puzzles(examples, seed):
        side = tf.shape(examples["image"])[1:2]  # in place of tiles and of an order
        return tf.cast(side, tf.float32) * tf.ones([1, 9, 1, 1, 1]), side

    pretext = boosting.jigsaw_plus_plus(batching.train(examples, puzzles, 6), seed=5)
    assert pretext.steps == 1
    counts = []
    for tiles, y in pretext.endless().take(8):
        assert sorted(y.numpy()) == sides
        strange = tiles.numpy()[..., 0, 0, 0] != y.numpy()[:, None]
        counts.append(strange.sum(axis=1).tolist())
    assert {n for row in counts for n in row} == {0, 1, 2}
    assert len(set(map(tuple, counts))) > 4, "each batch has its own draw"
    again = next(iter(pretext.endless(3)))[0]
    tiles = list(pretext.endless().take(4))[3][0]
    np.testing.assert_array_equal(again, tiles)


@pytest.mark.parametrize("classes, chance", [(701, 6.5525), (2000, 7.6009), (100, 4.6052)])
def test_knowing_nothing_costs_the_logarithm_of_the_classes(classes, chance):
    loss = cross_entropy(tf.zeros([4, classes]), tf.range(4))
    assert float(loss) == pytest.approx(chance, abs=1e-4)


def test_the_student_learns_from_scratch_and_leaves_the_teacher_as_it_was():
    made = run(pretext_epochs=1)
    model = made.model
    teacher = model.teacher.encoder
    shared = {id(w) for w in teacher.weights} & {id(w) for w in model.encoder.weights}
    trainable = {id(w) for w in model.trainable_variables}
    assert not shared and not trainable & {id(w) for w in model.teacher.weights}
    after_first = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: after_first.append(model.teacher.get_weights())
    )
    start = model.teacher.get_weights()
    student = model.encoder.get_weights()
    made.fit(verbose=0, callbacks=[note])
    assert not zoo_runs.same(start, after_first[0]), "the pretext was trained first"
    assert zoo_runs.same(after_first[0], model.teacher.get_weights())
    assert not zoo_runs.same(student, model.encoder.get_weights())
    assert int(model.ready) == 1


def test_teacher_and_student_may_be_of_different_plans_and_layers_are_named():
    model = run(encoder="conv4").model
    assert model.encoder.name == "conv4" and len(model.teacher.encoder.layers) < 10
    with pytest.raises(BadInput, match=r"'c7'.*c1, c2"):
        run(tap="c7")


def test_any_published_encoder_can_teach(tmp_path):
    tfssl.export(zoo_runs.tiny_image_encoder(), tmp_path / "teacher")
    made = run(teacher=str(tmp_path / "teacher"))
    before = [np.array(w) for w in made.model.teacher.weights]
    made.fit(verbose=0)
    assert zoo_runs.same(before, [np.array(w) for w in made.model.teacher.weights])
    assert len(np.unique(made.model.assignment)) == zoo_runs.EXAMPLES


def test_pseudo_labels_hang_on_the_index_are_made_once_and_fill_the_clusters():
    batch = zoo_runs.examples("image.boosting")
    made = run(batch, clusters=5, epochs=3)
    made.fit(verbose=0)
    labels = made.model.assignment.numpy()
    assert len(np.unique(labels)) >= 0.9 * 5
    images = tf.constant(batch["image"])
    features = extract(made.model.describe, zoo_runs.dataset(batch), key="image", size=32).features
    expected = boosting.kmeans(features, 5, seed=0)[1]
    np.testing.assert_array_equal(labels, expected)
    # Two views of an image have one index, and so one label.
    one = boosting.views({k: images if k == "image" else v for k, v in batch.items()}, SEED, 32)
    two = boosting.views({k: images if k == "image" else v for k, v in batch.items()}, SEED + 1, 32)
    np.testing.assert_array_equal(one["index"], two["index"])
    assert np.abs(one["image"] - two["image"]).max() > 0


def shuffled(model):
    """The model's `reassign`, after which each example has the cluster of another."""
    plain = model.reassign

    def reassign(features):
        plain(features)
        order = np.random.default_rng(0).permutation(len(features))
        model.assignment.assign(model.assignment.numpy()[order])

    return reassign


@pytest.mark.slow
def test_the_student_beats_an_untrained_one_and_one_that_was_taught_shuffled_clusters(shared):
    from tfssl import encoders, evaluate, pipelines

    folder = str(shared / "data" / "cifar10")
    data = [pipelines.load(folder, s, keys=("image", "label", "index")) for s in ("train", "test")]
    data = [data[0].take(10_000).shard(4, 0).enumerate(), data[1].shard(2, 0)]
    numbered = data[0].map(lambda i, example: {**example, "index": i})
    numbered = numbered.apply(tf.data.experimental.assert_cardinality(2500))
    sets = [batching.evaluation(d, 200, size=32) for d in (numbered, data[1])]
    probes = {}
    for kind in ("clusters", "shuffled"):
        keras.utils.set_random_seed(0)
        small = {**boosting.SMALL, "data": numbered, "encoder": "conv4", "teacher": "conv4"}
        made = boosting.recipe(**{**small, "epochs": 12, "pretext_epochs": 4, "clusters": 50})
        if kind == "shuffled":
            made.model.reassign = shuffled(made.model)
        made.fit(verbose=0)
        probes[kind] = evaluate.linear(made.model.encoder, *sets)["top1"]
    keras.utils.set_random_seed(0)
    probes["untrained"] = evaluate.linear(encoders.get("conv4"), *sets)["top1"]
    print(probes)
    assert probes["clusters"] >= max(probes["untrained"], probes["shuffled"])
