"""Skip-gram: windows, noise and subsampling as the paper draws them; words that find company."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import encoders, zoo
from tfssl.errors import BadInput
from tfssl.objectives.embedding import negative_sampling

skip_gram = zoo.get("text.skip_gram")
SEED = tf.constant([3, 4], tf.int32)


def sentences(*lines):
    return {"text": tf.constant(lines)}


def test_subsampling_keeps_what_the_card_says():
    for share, threshold, code in ((0.01, 1e-3, 0.416228), (0.05, 1e-5, 0.014342)):
        counts = np.array([share * 1e6, (1 - share) * 1e6])
        assert skip_gram.kept(counts, threshold)[0] == pytest.approx(code, abs=1e-6)
    assert skip_gram.kept(np.array([1, 999_999]), 1e-3)[0] == 1


def test_noise_is_the_unigram_to_the_three_quarters_and_never_padding():
    u = tf.constant([(i + 0.5) / 90_000 for i in range(90_000)], tf.float64)
    noise = skip_gram._noise(u, np.array([16, 1])).numpy()
    assert set(noise) == {2, 3}
    assert np.mean(noise == 2) == pytest.approx(0.888889, abs=1e-4)


def test_the_rarest_of_many_words_is_noise_too():
    counts = np.array([10**9] * 9 + [1] * 2000)
    share = counts**0.75 / (counts**0.75).sum()
    first = share[:-1].sum()  # from here on the last word is drawn, for 3e-9 of all draws
    u = tf.constant([first - share[-1] / 2, first + share[-1] / 2], tf.float64)
    assert skip_gram._noise(u, counts).numpy().tolist() == [2009, 2010]


def test_numbers_are_those_of_the_encoder_and_strangers_are_left_out():
    words = ("ball", "red", "fällt", "a")
    counts = (1, 1, 1, 1)
    text = sentences("A RED, unknown ball!", "Fällt fällt", "")
    x = skip_gram.views(text, SEED, vocabulary=words, counts=counts, words=6)
    encoder = encoders.get("text_bag", vocabulary=words, words=6, dim=3)
    theirs = encoder.get_layer("word_ids")(text["text"]).numpy()
    np.testing.assert_array_equal(x["centre"][0], [5, 3, 2, 0, 0, 0])
    np.testing.assert_array_equal(theirs[0], [5, 3, 1, 2, 0, 0])
    np.testing.assert_array_equal(x["centre"][1:], theirs[1:])


def test_contexts_lie_in_a_window_drawn_for_each_word():
    vocabulary = tuple("abcdefghij")
    text = sentences(*[" ".join(vocabulary)] * 400)
    x = skip_gram.views(text, SEED, vocabulary, (1,) * 10, words=12, window=3)
    centre, context = x["centre"].numpy(), x["context"].numpy()
    assert context.shape == (400, 12, 6) and x["negatives"].shape == (400, 12, 6, 5)
    offsets = np.array([-3, -2, -1, 1, 2, 3])
    for place in range(12):
        there = np.where(context[:, place] > 0)
        if place >= 10:
            assert not there[0].size  # padding has no company
            continue
        expected = centre[there[0], place] + offsets[there[1]]
        np.testing.assert_array_equal(context[:, place][there], expected)
    # A word in the middle: distance 1 always, 2 in two thirds, 3 in one third of the windows.
    share = (context[:, 4:6] > 0).mean(axis=(0, 1))
    np.testing.assert_allclose(share, [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3], atol=0.06)
    assert x["negatives"].numpy().min() >= 2


def test_windows_are_laid_after_frequent_words_are_gone():
    vocabulary, counts = ("the", "cat", "sat"), (10**9, 1, 1)
    text = sentences("cat the the the the the the sat")
    x = skip_gram.views(text, SEED, vocabulary, counts, words=8, window=1, threshold=1e-9)
    np.testing.assert_array_equal(x["centre"][0, :3], [3, 4, 0])
    assert x["context"].numpy()[0, 0].tolist() == [0, 4]


def tiny(rows=8, dim=2, negatives=5):
    vocabulary = tuple(f"w{i}" for i in range(rows - 2))
    return skip_gram.SkipGram(encoders.get("text_bag", vocabulary=vocabulary, dim=dim), negatives)


def test_a_fresh_model_costs_six_times_ln_2_and_padding_nothing():
    model = tiny()
    x = {
        "centre": tf.constant([[2, 3, 0]]),
        "context": tf.constant([[[0, 3], [2, 0], [0, 0]]]),
        "negatives": tf.fill([1, 3, 2, 5], 4),
    }
    assert float(model.objective(x, None, model(x))) == pytest.approx(4.158883, abs=1e-5)
    assert model.chance == pytest.approx(4.158883, abs=1e-5)
    table = model.encoder.get_layer("c1").embeddings.numpy()
    assert 0 < np.abs(table).max() <= 0.25


def test_the_cards_pair_and_the_house_objective_agree_with_it():
    model = tiny(negatives=1)
    v, u = np.zeros([2, 8, 2], "float32")
    v[2], u[3], u[4] = (0.5, -0.5), (1, 0), (0, 1)
    model.encoder.get_layer("c1").embeddings.assign(v)
    model.context.embeddings.assign(u)
    x = {
        "centre": tf.constant([[2, 0]]),
        "context": tf.constant([[[0, 3], [0, 0]]]),
        "negatives": tf.fill([1, 2, 2, 1], 4),
    }
    loss = float(model.objective(x, None, model(x)))
    assert loss == pytest.approx(0.948154, abs=1e-6)
    assert loss == pytest.approx(float(negative_sampling(v[2:3], u[3:4], u[None, 4:5])))


def test_the_gradient_of_a_word_that_is_met_often_is_one_sum():
    """Keras' Adam squares the parts of a sparse gradient: rows in two parts would step too far."""
    model = tiny(rows=6)
    for table in (model.table, model.context):
        table.embeddings.assign(np.random.default_rng(0).normal(size=[6, 2]))
    x = {
        "centre": tf.constant([[2, 3, 2]]),
        "context": tf.constant([[[0, 3], [2, 2], [3, 0]]]),
        "negatives": tf.constant([[[2, 2], [4, 2]], [[5, 5], [4, 2]], [[2, 4], [3, 3]]])[None],
    }
    with tf.GradientTape() as tape:
        loss = model.objective(x, None, model(x))
    slices = tape.gradient(loss, [model.table.embeddings.value, model.context.embeddings.value])
    v, u = (tf.Variable(table.embeddings) for table in (model.table, model.context))
    with tf.GradientTape() as tape:
        near = [(i, j) for i, j in np.ndindex(3, 2) if x["context"][0, i, j] > 0]
        costs = []
        for i, j in near:
            centre = v[int(x["centre"][0, i])]
            costs.append(
                -tf.math.log_sigmoid(tf.tensordot(centre, u[int(x["context"][0, i, j])], 1))
            )
            for noise in x["negatives"][0, i, j].numpy():
                costs.append(-tf.math.log_sigmoid(-tf.tensordot(centre, u[int(noise)], 1)))
        expected = tf.add_n(costs) / len(near)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for found, wanted in zip(slices, tape.gradient(expected, [v, u])):
        rows = found.indices.numpy().tolist()
        assert len(rows) == len(set(rows))
        np.testing.assert_allclose(
            tf.convert_to_tensor(found), tf.convert_to_tensor(wanted), atol=1e-6
        )


def grammar(count):
    """Sentences in which the members of each of five classes are used alike; 25 nouns in all."""
    random = np.random.default_rng(0)
    nouns = [[f"n{c}{i}" for i in range(5)] for c in range(5)]
    verbs = [[f"v{c}{i}" for i in range(4)] for c in range(5)]
    lines = []
    for c in random.integers(0, 5, count):
        first, second = random.choice(verbs[c], 2)
        lines.append(" ".join([first, random.choice(nouns[c]), second]))
    return lines, nouns


def alike_and_not(vectors):
    """Mean cosines of nouns [25, D] of one class, and of nouns of different ones."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    same = np.kron(np.eye(5), np.ones([5, 5])) > 0
    cosine = unit @ unit.T
    return cosine[same & ~np.eye(25, dtype=bool)].mean(), cosine[~same].mean()


def exact_vectors(lines, words, dim=32, k=5, window=5):
    """Input vectors [len(words), dim] where equation 4 itself leads: descent on its expectation."""
    place = {word: i for i, word in enumerate(words)}
    counts, joint = np.zeros(len(words)), np.zeros([len(words)] * 2)
    for line in lines:
        numbers = [place[word] for word in line.split()]
        for i, a in enumerate(numbers):
            counts[a] += 1
            for j, b in enumerate(numbers):
                joint[a, b] += (i != j) * (window + 1 - abs(i - j)) / window
    joint /= joint.sum()
    noise = k * joint.sum(axis=1, keepdims=True) * counts**0.75 / (counts**0.75).sum()
    random = np.random.default_rng(0)
    tables = [random.uniform(-0.5 / dim, 0.5 / dim, [len(words), dim]), np.zeros([len(words), dim])]
    tables = np.stack(tables)
    first, second = np.zeros_like(tables), np.zeros_like(tables)
    for step in range(1, 301):  # Adam, as the method has it
        likely = 1 / (1 + np.exp(-tables[0] @ tables[1].T))
        slope = (likely - 1) * joint + noise * likely
        gradient = np.stack([slope @ tables[1], slope.T @ tables[0]])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-7)
        tables = tables - 0.02 * (1 - step / 301) * move
    return tables[0]


def test_words_of_identical_contexts_become_alike_and_others_as_little_as_the_equation_has_it():
    lines, nouns = grammar(2000)
    keras.utils.set_random_seed(0)
    data = tf.data.Dataset.from_tensor_slices({"text": lines})
    run = skip_gram.recipe(**{**skip_gram.SMALL, "data": data, "words": 3, "threshold": 0.0})
    history = run.fit(verbose=0).history["loss"]
    assert history[-1] < 0.8 * run.model.chance
    vectors = run.model.encoder(tf.constant([noun for group in nouns for noun in group])).numpy()
    alike, others = alike_and_not(vectors)
    assert alike > 0.7
    # One might wish for less than 0.3; but all vectors share a direction, away from the noise, and
    # the exact expectation of the objective, without sampling or batches, ends at the same cosine.
    words = [f"n{c}{i}" for c in range(5) for i in range(5)]
    words += [f"v{c}{i}" for c in range(5) for i in range(4)]
    exact = alike_and_not(exact_vectors(lines, words)[:25])
    assert exact[0] > 0.9 and 0.3 < exact[1] < 0.5
    assert others == pytest.approx(exact[1], abs=0.12)
    # Beside that direction they have nothing in common.
    alike, others = alike_and_not(vectors - vectors.mean(axis=0))
    assert alike > 0.7 and others < 0.1


def test_the_optimum_is_the_pointwise_mutual_information_less_ln_k():
    """Full-batch descent on expected pairs of a V x V toy: equation 4's stationary point."""
    size, k = 6, 2
    random = np.random.default_rng(1)
    joint = random.uniform(0.2, 1.0, [size, size])
    joint = (joint + joint.T) / (joint + joint.T).sum()
    noise = joint.sum(0)  # unigram, not its power, as in the theorem
    model = tiny(rows=size + 2, dim=size, negatives=k)
    pairs = list(itertools.product(range(size), repeat=2))
    # Whole numbers of each pair, and noise in the exact shares for each of them.
    counts = np.array([round(2000 * joint[i, o]) for i, o in pairs])
    centre, context = np.repeat(np.array(pairs), counts, axis=0).T
    x = {
        "centre": tf.constant(centre[:, None] + 2, tf.int32),
        "context": tf.constant(context[:, None, None] + 2, tf.int32),
    }
    optimizer = keras.optimizers.Adam(0.03)
    random = np.random.default_rng(2)

    @tf.function
    def step(negatives):
        with tf.GradientTape() as tape:
            batch = {**x, "negatives": negatives}
            loss = model.objective(batch, None, model(batch))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    for i in range(400):
        if i == 250:
            optimizer.learning_rate = 0.005
        drawn = 2 + random.choice(size, [len(centre), 1, 1, k], p=noise)
        step(tf.constant(drawn, tf.int32))
    v = model.encoder.get_layer("c1").embeddings.numpy()[2:]
    u = model.context.embeddings.numpy()[2:]
    expected = np.log(joint / np.outer(noise, noise)) - np.log(k)
    assert np.corrcoef((v @ u.T).ravel(), expected.ravel())[0, 1] > 0.95
    assert np.abs(v @ u.T - expected).max() < 0.3


def test_the_recipe_counts_the_words_once_and_publishes_strings_in():
    data = tf.data.Dataset.from_tensor_slices({"text": ["a b b", "c b a", "b a d d"] * 5})
    run = skip_gram.recipe(**{**skip_gram.SMALL, "data": data, "batch_size": 4})
    encoder = run.model.published["encoder"]
    assert encoder.get_layer("word_ids").vocabulary == ("b", "a", "d", "c")
    table = encoder.get_layer("c1").embeddings.numpy()
    mean = (table[2] + table[3]) / 2
    np.testing.assert_allclose(encoder(tf.constant(["B a!"]))[0], mean, atol=1e-6)
    with pytest.raises(BadInput, match="least"):
        skip_gram.recipe(**{**skip_gram.SMALL, "data": data, "least": 1000})


def test_padding_brings_no_vectors():
    known = dict(vocabulary=("w0", "w1", "w2"), counts=(1, 1, 1))
    x = skip_gram.views(sentences("w0 w1 w2"), SEED, **known, words=1000)
    assert tiny()(x)["noise"].shape == (3, 10, 5)
