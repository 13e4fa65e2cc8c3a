"""Batches depend on the seed and the step alone, hold no label, and lose no example."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tfssl.pipelines import batching, datasets, load
from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import records

COUNT, BATCH = 10, 3  # three batches a pass; one example waits for the next


def columns(count=COUNT):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    return {
        "image": images,
        "index": np.arange(count, dtype=np.int64),
        "label": np.arange(count, dtype=np.int64) % 3,
    }


def by_position(count=COUNT):
    return records.anywhere(columns(count))


def by_buffer(count=COUNT):
    return tf.data.Dataset.from_tensor_slices(columns(count))


def unequal(count=COUNT):
    """Images of several sizes."""

    def grown(example):
        size = 4 + example["index"] % 3
        image = tf.tile(example["image"][:1, :1], tf.stack([size, 4, 1]))
        return {**example, "image": tf.ensure_shape(image, [None, 4, 3])}

    return records.anywhere(columns(count), grown)


SOURCES = (by_position, by_buffer, unequal)


def views(examples, seed):
    """The indices, and a number that is random by seed."""
    noise = tf.random.stateless_uniform([tf.shape(examples["index"])[0]], seed)
    return examples["index"], noise


def seen(batches, count=None):
    """Indices [steps, B] and noise [steps, B]."""
    found = list(batches if count is None else batches.take(count))
    return np.array([x for x, _ in found]), np.array([y for _, y in found])


def equal(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("source", SOURCES)
def test_a_pass_holds_every_example_once_and_the_next_is_shuffled_anew(source):
    batches = batching.train(source(), views, BATCH)
    assert batches.steps == COUNT // BATCH == int(batches.cardinality())
    first, second = seen(batches), seen(batches)
    for indices, _ in (first, second):
        assert indices.shape == (3, BATCH) and len(set(indices.ravel())) == 9
    assert not np.array_equal(first[0], second[0]) and not np.array_equal(first[1], second[1])
    assert len(np.unique(first[1])) == 9


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_seed_gives_the_same_batches_and_another_seed_others(source):
    def stream(seed):
        return seen(batching.train(source(), views, BATCH, seed).endless(), 7)

    assert equal(stream(1), stream(1))
    assert not np.array_equal(stream(1)[0], stream(2)[0])
    assert not np.array_equal(stream(1)[1], stream(2)[1])


@pytest.mark.parametrize("source", SOURCES)
def test_the_order_does_not_hang_on_tensorflows_global_seed(source):
    tf.random.set_seed(1)
    one = seen(batching.train(source(), views, BATCH).endless(), 4)
    tf.random.set_seed(2)
    tf.random.uniform([])
    assert equal(one, seen(batching.train(source(), views, BATCH).endless(), 4))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 8])
def test_a_stream_can_be_continued_at_any_step(source, start):
    whole = seen(batching.train(source(), views, BATCH).endless(), 11)
    rest = [part[start:] for part in whole]
    assert equal(rest, seen(batching.train(source(), views, BATCH).endless(start), 11 - start))


@pytest.mark.parametrize("source", SOURCES)
def test_passes_repeats_and_endless_are_one_stream(source):
    whole = seen(batching.train(source(), views, BATCH).endless(), 9)
    assert equal(whole, seen(batching.train(source(), views, BATCH).repeat(), 9))
    passes = batching.train(source(), views, BATCH)
    parts = [seen(passes) for _ in range(3)]
    assert equal(whole, [np.concatenate(part) for part in zip(*parts)])


@pytest.mark.parametrize("start", [1, 3, 5])
def test_start_step_goes_on_in_the_middle_of_a_pass(start):
    whole = seen(batching.train(by_position(), views, BATCH).endless(), 9)
    continued = batching.train(by_position(), views, BATCH, start_step=start)
    parts = [seen(continued) for _ in range(2)]
    end = start // 3 * 3 + 6
    found = [np.concatenate(part) for part in zip(*parts)]
    assert equal([part[start:end] for part in whole], found)


def test_keras_fit_goes_through_as_many_passes_as_epochs():
    import keras

    batches = batching.train(by_position(), lambda e, seed: (e["image"] / 255, e["index"]), BATCH)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(batches, epochs=3, verbose=0)
    assert len(history.history["loss"]) == 3


def test_views_never_meet_a_label_and_only_the_annotation_they_name():
    met = []

    def blind(examples, seed):
        met.append(sorted(examples))
        return examples["index"]

    def honest(examples, seed, size=3):
        met.append(sorted(examples))
        return examples["index"]

    honest.uses = ("label",)
    for source in SOURCES:
        for function in (blind, honest, functools.partial(honest, size=1)):
            list(batching.train(source(), function, BATCH))
            expected = ["image", "index"] + ["label"] * (function is not blind)
            assert met and all(keys == expected for keys in met), (source, met)
            met.clear()


def test_annotation_that_is_needed_and_missing_is_named():
    def honest(examples, seed):
        return examples["index"]

    honest.uses = ("flow",)
    with pytest.raises(BadInput, match="flow"):
        batching.train(by_position(), honest, BATCH)


def test_too_few_examples_and_data_without_an_end_are_refused():
    with pytest.raises(BadInput, match=r"10 examples, fewer than one batch of 11.*at most 10"):
        batching.train(by_position(), views, 11)
    with pytest.raises(BadInput, match="1 example, fewer"):
        batching.train(by_position(1), views, 2)
    with pytest.raises(BadInput, match="never ends"):
        batching.train(by_position().repeat(), views, 2)
    with pytest.raises(BadInput, match="no example"):
        batching.train(by_position().take(0), views, 1)
    with pytest.raises(BadInput, match="batch"):
        batching.train(by_position(), views, 0)


def test_a_dataset_of_unknown_length_is_counted():
    data = by_buffer().filter(lambda example: example["index"] < 7)
    assert batching.train(data, views, BATCH).steps == 2


def test_examples_of_several_sizes_reach_the_views_one_by_one():
    sizes = []

    def middle(examples, seed):
        sizes.append(examples["image"].shape)
        return tf.image.resize(tf.cast(examples["image"], tf.float32), [2, 2]), examples["index"]

    x, index = next(iter(batching.train(unequal(), middle, BATCH)))
    assert x.shape == (BATCH, 2, 2, 3) and index.shape == (BATCH,)
    np.testing.assert_array_equal(x[:, 0, 0, 0], tf.cast(index, tf.float32))
    assert all(shape[0] in (1, None) for shape in sizes)


def test_seeds_of_views_are_int32_and_differ_from_batch_to_batch():
    def look(examples, seed):
        assert seed.dtype == tf.int32 and seed.shape == (2,)
        return seed

    found = [tuple(s.numpy()) for s in batching.train(by_position(), look, 1).endless().take(25)]
    assert len(set(found)) == 25


def test_views_of_ones_own_may_hold_pythons_if_over_tensors():
    def the_last_twice(examples, seed):
        index = examples["index"]
        if tf.reduce_max(index) > 8:
            index = 2 * index
        return index

    batches = batching.train(by_position(), the_last_twice, 1)
    assert set(np.ravel(list(batches.as_numpy_iterator()))) == {*range(9), 18}


def test_batches_have_static_shapes():
    batches = batching.train(by_position(), lambda e, seed: e["image"], BATCH)
    assert batches.element_spec.shape == (BATCH, 4, 4, 3)


def test_a_preview_shows_the_first_examples_beside_their_views():
    for source in SOURCES:
        examples, (index, noise) = batching.train(source(), views, BATCH).preview(4)
        assert list(index) == [0, 1, 2, 3] and len(noise) == 4
        assert sorted(examples) == ["image", "index"] and len(examples["image"]) == 4
    assert batching.train(unequal(), views, BATCH).preview(3)[0]["image"].shape == (3, 6, 4, 3)
    assert len(batching.train(by_position(), views, BATCH).preview(99)[0]["index"]) == COUNT


def test_evaluation_keeps_the_order_the_annotation_and_the_last_examples():
    batches = list(batching.evaluation(by_position(), 4))
    assert [len(batch["label"]) for batch in batches] == [4, 4, 2]
    index = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(index, np.arange(COUNT))
    image = batches[2]["image"]
    assert image.dtype == tf.float32
    np.testing.assert_allclose(image[:, 0, 0, 0], np.array([8, 9]) / 255, rtol=1e-6)


def test_evaluation_brings_images_of_several_sizes_to_one():
    (batch,) = batching.evaluation(unequal(), COUNT, size=5)
    assert batch["image"].shape == (COUNT, 5, 5, 3)
    assert np.all((batch["image"] >= 0) & (batch["image"] <= 1))


def test_evaluation_crops_the_centre_and_stretches_nothing():
    wide = np.zeros([1, 8, 24, 3], np.uint8)
    wide[:, :, 8:16] = 255  # the central square
    data = tf.data.Dataset.from_tensor_slices({"image": wide})
    data.gather = lambda at: {"image": tf.gather(wide, at)}
    batches = batching.evaluation(data, 1, size=4)
    for image in (next(iter(batches))["image"], batches.gather(tf.constant([0]))["image"]):
        np.testing.assert_allclose(image, np.ones([1, 4, 4, 3]), atol=1e-6)


def test_evaluation_takes_examples_of_several_shapes_one_by_one():
    batches = list(batching.evaluation(unequal(), 4))
    assert len(batches) == COUNT and {len(batch["image"]) for batch in batches} == {1}
    assert len({batch["image"].shape for batch in batches}) > 1


def test_evaluation_resizes_clips_frame_by_frame():
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    data = tf.data.Dataset.from_tensor_slices({"frames": frames})
    (batch,) = batching.evaluation(data, 2, size=4)
    (single,) = batching.evaluation(
        tf.data.Dataset.from_tensor_slices({"image": frames[:, 1]}), 2, size=4
    )
    assert batch["frames"].shape == (2, 3, 4, 4, 3)
    np.testing.assert_allclose(batch["frames"][:, 1], single["image"], atol=1e-6)


@pytest.mark.parametrize("source", SOURCES)
def test_some_are_drawn_evenly_and_stay_in_order(source):
    few = batching.some(source(90), 30)
    index = [int(example["index"]) for example in few]
    assert len(index) == int(few.cardinality()) == 30 and index == sorted(set(index))
    assert np.histogram(index, 3, (0, 90))[0].tolist() == [10, 10, 10]  # as of classes in folders
    assert len({i % 3 for i in index}) == 3  # nor does it go in step with anything
    assert index == [int(example["index"]) for example in batching.some(source(90), 30)]
    assert all(int(e["image"][0, 0, 0]) == int(e["index"]) for e in few)
    assert len(list(batching.some(source(), COUNT))) == COUNT
    assert batching.drawn(COUNT, 99).tolist() == list(range(COUNT))
    batches = batching.evaluation(source(90), 4, size=5).some(30)
    assert [int(i) for batch in batches for i in batch["index"]] == index


def test_what_is_drawn_is_all_that_is_read_where_a_source_can_gather():
    read = []

    def finish(row):
        index = tf.numpy_function(lambda i: read.append(int(i)) or i, [row["index"]], tf.int64)
        return {"index": tf.ensure_shape(index, [])}

    few = list(batching.some(records.anywhere({"index": np.arange(500)}, finish), 7))
    assert sorted(read) == [int(example["index"]) for example in few]


def test_examples_that_are_brought_to_one_shape_can_be_gathered_together():
    batches = batching.evaluation(unequal(), 4, size=5)
    batch = batches.gather(tf.constant([7, 0, 5]))
    assert batch["image"].shape == (3, 5, 5, 3) and batch["index"].numpy().tolist() == [7, 0, 5]


def test_tasks_are_joined_by_name():
    def plain(examples, seed):
        return examples["index"]

    tasks = {
        "noise": batching.train(by_position(), views, BATCH),
        "plain": batching.train(by_position(7), plain, BATCH, seed=1),
    }
    joined = batching.multitask(tasks)
    assert joined.steps == 2
    x, y = next(iter(joined))
    assert set(x) == set(y) == {"noise", "plain"}
    assert y["plain"].shape == (BATCH,) and not np.any(y["plain"])
    whole = [x["plain"].numpy() for x, _ in joined.endless().take(6)]
    rest = [x["plain"].numpy() for x, _ in joined.endless(4).take(2)]
    np.testing.assert_array_equal(whole[4:], rest)
    examples, (x, y) = joined.preview(2)
    assert list(x["noise"]) == [0, 1] and "label" not in examples


@pytest.mark.parametrize("spec", ["digits", "world:n=20,size=16"])
def test_nothing_is_tuned_by_a_thread_that_would_hold_up_the_end_of_a_pass(spec):
    ds = load(spec, keys=("image",))
    batches = batching.train(ds, lambda examples, seed: examples["image"], 8)
    given = tf.data.Dataset.from_tensor_slices(columns())
    for dataset in (ds, batches, batches.endless(), batching.evaluation(given, 8)):
        assert dataset.options().autotune.enabled is False


def test_digits_and_world_are_read_without_their_labels():
    keys = set()

    def look(examples, seed):
        keys.update(examples)
        return examples["index"]

    for spec in ("digits", "world:n=20,size=16"):
        next(iter(batching.train(load(spec, keys=("image", "index")), look, 8)))
    assert keys == {"image", "index"}


def test_examples_are_numbered_from_0_where_a_source_has_numbers_of_its_own():
    source = load("world:n=40,size=16@test", keys=("image", "index"))
    found = datasets.numbered(source)
    assert min(int(example["index"]) for example in source) > 40
    assert [int(example["index"]) for example in found] == list(range(len(found)))
    batch = found.gather(tf.constant([2, 0], tf.int64))
    assert batch["index"].numpy().tolist() == [2, 0]
    np.testing.assert_array_equal(batch["image"][1], next(iter(source))["image"])
    own = by_buffer()
    assert datasets.numbered(own) is own  # whose order may change with every pass


def test_endless_data_cannot_be_counted():
    with pytest.raises(BadInput, match="never ends"):
        batching.count_examples(tf.data.Dataset.range(3).repeat())
    assert batching.count_examples(tf.data.Dataset.range(9).filter(lambda i: i % 2 == 0)) == 5
