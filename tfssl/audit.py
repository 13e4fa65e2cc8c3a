"""Whether a pretext is solved by a cue: equal training with and without it, told from noise."""

import keras
import numpy as np

UNITS = 16  # held-out batches a seed: what the intervals are drawn from
DRAWS = 2000
CERTAIN = 0.95
LEAST = 0.02  # less than this is no gain, however certain


def audit(arms, steps, seeds, units=UNITS, probe=None, progress=None):
    """Trains every arm for the same number of steps from the same seeds, and measures it.

    Args:
        arms: dict of name -> f(seed) -> (`Run`, held-out views): both datasets as
            `batching.train` makes them; the held-out examples are the same in every arm.
        steps: of each training.
        seeds: ints; each trains every arm once.
        units: held-out batches on which each training is measured.
        probe: f(encoder) -> numbers that say what the encoder is worth downstream (a list of K), or
            None to leave it out.
        progress: called with (trainings done, all).

    Returns:
        dict of name -> {`metric`: "accuracy" or "loss", `scores`: float [seeds, units], `probe`:
        float [seeds, K] or None}.
    """
    results, done = {}, 0
    for name, arm in arms.items():
        rows, probes = [], []
        for seed in seeds:
            run, held_out = arm(seed)
            run.model.fit(
                run.dataset.endless(),
                steps_per_epoch=steps,
                epochs=1,
                verbose=0,
                shuffle=False,
                callbacks=list(run.callbacks),
            )
            metric, row = held_out_scores(run.model, held_out, units)
            rows.append(row)
            if probe is not None:
                probes.append(probe(next(iter(run.model.published.values()))))
            done += 1
            if progress:
                progress(done, len(arms) * len(seeds))
            keras.backend.clear_session()  # graphs of models that are gone fill the memory
        results[name] = {
            "metric": metric,
            "scores": np.array(rows),
            "probe": np.array(probes) if probes else None,
        }
    return results


def held_out_scores(model, held_out, units=UNITS):
    """("accuracy" or "loss", a number a batch): the pretext on views of examples held out.

    Methods that log no accuracy are measured by the loss of their encoder's side: where the encoder
    is the critic, the critic's.
    """
    found = []
    for batch in held_out.endless().take(units):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        model.reset_metrics()
        found.append(model.test_on_batch(x, y, return_dict=True))
    if "accuracy" in found[0]:
        metric = logged = "accuracy"
    else:
        metric, logged = "loss", "critic_loss" if _is_critic(model) else "loss"
    return metric, np.array([float(np.mean(logs[logged])) for logs in found])


def _is_critic(model):
    """Whether the encoder of a method is of the critic's side."""
    critic = {id(v) for v in getattr(getattr(model, "critic", None), "trainable_variables", ())}
    return bool(critic) and critic >= {id(v) for v in model.encoder.trainable_variables}


def summary(scores, seed=0):
    """{value, low, high}: the mean of scores [S, U] and the interval of `resampled_means`."""
    low, high = np.quantile(resampled_means(scores, seed), [(1 - CERTAIN) / 2, (1 + CERTAIN) / 2])
    return {"value": float(np.mean(scores)), "low": float(low), "high": float(high)}


def difference(ours, theirs, seed=0):
    """`summary` of ours - theirs, both [S, U], paired by seed and held-out batch."""
    return summary(np.asarray(ours) - np.asarray(theirs), seed)


def resampled_means(scores, seed=0):
    """Means of `scores` [S, U] with seeds and then batches drawn anew, with replacement: [DRAWS].

    Trainings differ from each other and batches within a training: both are in the interval. One
    seed tells nothing of the first; the interval is then that of the batches alone.
    """
    scores = np.asarray(scores, np.float64)
    generator = np.random.default_rng(seed)
    runs, units = scores.shape
    drawn = generator.integers(0, runs, [DRAWS, runs])
    batches = generator.integers(0, units, [DRAWS, runs, units])
    return scores[drawn[:, :, None], batches].mean(axis=(1, 2))


def gained(change, metric, base):
    """Whether a `difference` is an improvement that is told from noise.

    Its interval lies on the better side of 0, and it is at least `LEAST`: of all answers where
    accuracy is measured, of the loss without the cue (`base`) where that is.
    """
    if metric == "accuracy":
        return change["low"] > 0 and change["value"] >= LEAST
    return change["high"] < 0 and -change["value"] >= LEAST * abs(base)
