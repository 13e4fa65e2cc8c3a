"""Deep InfoMax: three estimates of information, whose places are compared, and the prior."""

import cifar_learning
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs
from objective_checks import draw, holds

from tfssl import evaluate, pipelines, zoo
from tfssl.errors import BadInput
from tfssl.objectives import adversarial, contrastive, infomax

deep_infomax = zoo.get("image.deep_infomax")
RANDOM = np.random.default_rng(0)
SCORES = np.array([[2.0, -1.0], [0.0, 1.0]])


def softplus(x):
    return np.log1p(np.exp(x))


def parted(scores):
    """Own scores and others', each a flat list, of scores [N, N, M]."""
    own = np.eye(len(scores), dtype=bool)
    return scores[own].ravel(), scores[~own].ravel()


def jsd(scores):
    good, bad = parted(scores)
    return np.mean(softplus(-bad) + bad - np.log(2)) - np.mean(np.log(2) - softplus(-good))


def nce(scores):
    costs = []
    for n, row in enumerate(scores):
        others = np.exp(np.delete(row, n, axis=0)).sum()
        costs += [np.log(np.exp(u) + others) - u for u in row[n]]
    return np.mean(costs)


def dv(scores):
    good, bad = parted(scores)
    return np.log(np.exp(bad).mean()) - good.mean()


EQUATIONS = {"jsd": jsd, "infonce": nce, "dv": dv}


def estimate(name, scores):
    own = np.eye(len(scores), dtype="float32")[..., None]
    return deep_infomax.ESTIMATORS[name](tf.cast(scores, tf.float32), own)


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_estimates_are_their_equations_in_value_and_gradient(name):
    of_scores = deep_infomax.ESTIMATORS[name]

    def of_vectors(summary, local):
        return of_scores(*infomax.dot_scores(summary, local))

    def reference(summary, local):
        return EQUATIONS[name](np.einsum("nd,mpd->nmp", summary, local))

    holds(of_vectors, reference, draw(3, 4), draw(3, 2, 4, seed=1))


def test_the_names_in_contrastive_are_the_same_estimates():
    summary, local = tf.constant(draw(3, 4)), tf.constant(draw(3, 2, 4, seed=1))
    scores = np.einsum("nd,mpd->nmp", summary, local)
    for name, found in (
        ("jsd", contrastive.infomax_jsd),
        ("infonce", contrastive.infomax_nce),
        ("dv", contrastive.infomax_dv),
    ):
        assert float(found(summary, local)) == pytest.approx(EQUATIONS[name](scores), rel=1e-4)


def test_the_worked_numbers_of_jsd():
    own = np.eye(2)  # a score of 0 costs nothing: so the parts of the sum show by themselves
    positive, negative = (SCORES * part for part in (own, 1 - own))
    assert float(estimate("jsd", positive[..., None])) == pytest.approx(-0.473052, abs=1e-5)
    assert float(estimate("jsd", negative[..., None])) == pytest.approx(-0.189943, abs=1e-5)
    assert float(estimate("jsd", SCORES[..., None])) == pytest.approx(-0.662995, abs=1e-5)
    assert float(estimate("jsd", np.zeros([4, 4, 3]))) == pytest.approx(0, abs=1e-6)


def test_jsd_is_ln_4_below_the_loss_of_a_discriminator_of_pairs():
    for scores in (np.zeros([4, 4, 3]), draw(4, 4, 3)):
        unshifted = float(adversarial.discriminator(*parted(scores)))
        assert float(estimate("jsd", scores)) == pytest.approx(unshifted - 1.386294, abs=1e-5)


def test_the_worked_number_of_infonce_counts_the_places_of_the_others():
    assert float(estimate("infonce", np.zeros([4, 4, 16]))) == pytest.approx(3.891820, abs=1e-5)
    assert float(estimate("dv", np.zeros([4, 4, 16]))) == pytest.approx(0, abs=1e-5)


def test_jsd_is_bounded_by_minus_ln_4_where_all_pairs_are_told_apart():
    perfect = np.where(np.eye(3)[..., None], 60.0, -60.0) * np.ones([3, 3, 5])
    assert float(estimate("jsd", perfect)) == pytest.approx(-1.386294, abs=1e-5)
    for scale in (0.1, 1.0, 10.0):
        assert float(estimate("jsd", scale * draw(3, 3, 5))) >= -1.386295


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_order_of_places_inside_an_image_does_not_matter_but_whose_they_are_does(name):
    scores = draw(4, 4, 6) + 3 * np.eye(4)[..., None]
    shuffled = scores.copy()
    shuffled[:, 2] = scores[:, 2, RANDOM.permutation(6)]
    here = float(estimate(name, scores))
    assert float(estimate(name, shuffled)) == pytest.approx(here, abs=1e-5)
    assert float(estimate(name, np.roll(scores, 1, axis=1))) > here + 1


@pytest.mark.parametrize("name", ["jsd", "infonce", "dv"])
def test_information_between_two_variables_is_found_where_there_is_some(name):
    noise = draw(256, 8, seed=2)

    def learnt(local):
        """The loss of fresh pairs under the linear score that was fitted to others."""
        y, local = draw(256, 8), local.astype("float32")[:, None]
        weight = tf.Variable(0.01 * tf.eye(8))
        optimizer = keras.optimizers.Adam(0.02)
        for _ in range(60):
            with tf.GradientTape() as tape:
                pairs = infomax.dot_scores(y[:128] @ weight, local[:128])
                loss = deep_infomax.ESTIMATORS[name](*pairs)
            optimizer.apply(tape.gradient(loss, [weight]), [weight])
        pairs = infomax.dot_scores(y[128:] @ weight, local[128:])
        return float(deep_infomax.ESTIMATORS[name](*pairs))

    blind = np.log(1 + 127) if name == "infonce" else 0
    independent = learnt(noise)
    assert learnt(draw(256, 8) + 0.3 * noise) < independent - 0.3
    assert blind - 0.1 < independent < blind + 0.5  # fitted to chance, it does worse than blind


def model(**options):
    encoder = deep_infomax.convolutional(16, (8, 8, 16), hidden=16)
    return deep_infomax.DeepInfoMax(encoder, width=4, units=16, **options)


def batch(count=6):
    examples = {"image": tf.constant(RANDOM.integers(0, 256, [count, 16, 16, 3]), tf.uint8)}
    return deep_infomax.views(examples, tf.constant([1, 2]), size=16, width=4)


def test_the_encoder_is_the_papers_and_its_second_map_is_compared():
    encoder = deep_infomax.convolutional()
    assert encoder.get_layer("c2").output.shape == (None, 8, 8, 128)
    assert encoder.output_shape == (None, 1024)
    method = model()
    outputs = method(batch())
    assert outputs["local"].shape == [6, 16, 16] and outputs["summary"].shape == [6, 16]
    # Ten pixels are what a place of c2 sees: not the whole image.
    image = tf.Variable(RANDOM.random([1, 32, 32, 3]), dtype=tf.float32)
    maps = keras.Model(encoder.input, encoder.get_layer("c2").output)
    with tf.GradientTape() as tape:
        place = tf.reduce_sum(maps(image)[0, 4, 4])
    seen = np.abs(tape.gradient(place, image).numpy()).max(axis=(0, 3)) > 0
    assert seen.any(axis=0).sum() <= 10 and seen.any(axis=1).sum() <= 10


def test_the_shortcut_of_a_score_is_nearly_the_identity():
    weights = deep_infomax.nearly_identity([5, 8], "float32").numpy()
    np.testing.assert_allclose(weights, np.eye(5, 8), atol=0.01)
    assert (weights != np.eye(5, 8)).any()


def test_the_terms_are_weighted_and_the_prior_is_a_game_of_its_own():
    outputs = {
        "summary": tf.constant(draw(3, 4), tf.float32),
        "local": tf.constant(draw(3, 2, 4, seed=1), tf.float32),
        "fake": tf.constant(draw(3, 1, seed=2), tf.float32),
        "real": tf.constant(draw(3, 1, seed=3), tf.float32),
        "pairs": tf.constant(draw(3, 3, 1, seed=4), tf.float32),
    }
    scores = np.einsum("nd,mpd->nmp", outputs["summary"], outputs["local"])
    fake, real = outputs["fake"].numpy(), outputs["real"].numpy()
    method = model(alpha=0.5, beta=2.0, gamma=0.3)
    expected = 2 * jsd(scores) + 0.5 * jsd(outputs["pairs"].numpy())
    expected += 0.3 * softplus(-fake).mean()
    assert float(method.objective(None, None, outputs)) == pytest.approx(expected, rel=1e-4)
    expected = softplus(-real).mean() + softplus(fake).mean()
    assert float(method.critique(None, None, outputs)) == pytest.approx(expected, rel=1e-4)
    noise = batch(500)["noise"].numpy()
    assert 0 <= noise.min() < 0.01 and 0.99 < noise.max() < 1


def test_the_global_score_compares_every_summary_with_every_whole_map():
    method, x = model(alpha=1.0, beta=0.0), batch()
    pairs = method(x)["pairs"].numpy()
    assert pairs.shape == (6, 6, 1)
    places, y = (part.numpy() for part in method.trunk(x["image"]))
    hidden = method.of_y(y[2:3]) + method.of_map(places[4:5].reshape(1, -1))
    np.testing.assert_allclose(pairs[2, 4], method.of_pair(tf.nn.relu(hidden))[0], atol=1e-5)


def test_a_step_moves_encoder_scores_and_critic():
    method, x = model(alpha=1.0), batch()
    method.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1), run_eagerly=True)
    parts = (method.encoder, method.of_places, method.of_summary, method.of_pair, method.critic)
    before = [[w.numpy() for w in part.trainable_weights] for part in parts]
    method.train_on_batch(x)
    for part, old in zip(parts, before):
        moved = [(w.numpy() != o).any() for w, o in zip(part.trainable_weights, old)]
        assert np.mean(moved) > 0.8
    assert list(method.published) == ["encoder"]


def test_any_encoder_with_a_map_serves_and_what_is_wrong_is_said():
    encoder = zoo_runs.tiny_image_encoder()
    assert deep_infomax.DeepInfoMax(encoder, "c1", units=8)(
        {"image": batch()["image"], "noise": tf.zeros([6, 64])}
    )["local"].shape == [6, 64, 8]
    with pytest.raises(BadInput, match="c1, c2"):
        deep_infomax.DeepInfoMax(encoder, "c9")
    with pytest.raises(BadInput, match="jsd, infonce, dv"):
        deep_infomax.DeepInfoMax(encoder, "c1", "mine")


@pytest.mark.slow
def test_after_training_foreign_places_cost_more():
    keras.utils.set_random_seed(0)
    run = deep_infomax.recipe(**deep_infomax.SMALL)
    run.fit(verbose=0)
    images = [e["image"] for e in pipelines.load("digits", "test").take(128).as_numpy_iterator()]
    x = deep_infomax.views({"image": tf.constant(np.stack(images))}, tf.constant([1, 2]))
    outputs = run.model(x)
    matched = float(contrastive.infomax_jsd(outputs["summary"], outputs["local"]))
    foreign = float(contrastive.infomax_jsd(outputs["summary"], outputs["local"][::-1]))
    print(matched, foreign)
    assert matched < 0 < foreign, "0 is what scores of zero cost"
    assert foreign > matched + 0.5


@pytest.mark.slow
def test_six_passes_over_photographs_beat_the_untrained_network(shared):
    untrained, trained = cifar_learning.before_and_after(
        "image.deep_infomax", shared, epochs=6, protocol=evaluate.linear
    )
    assert trained > untrained + 0.01
