"""How sure a measured mean is: percentile intervals from resampled test examples."""

import numpy as np


def interval(values, samples=2000, level=0.95, seed=0):
    """Percentile bootstrap interval of a mean over test examples (Efron 1979).

    Args:
        values: [N] numbers, one per test example; booleans for right and wrong.
        samples: how many data sets of N examples are drawn with replacement.
        level: the share of the drawn means between the two limits.
        seed: same seed, same interval.

    Returns:
        (low, high), floats.

    Raises:
        ValueError: `values` is empty.
    """
    values = np.asarray(values)
    count = len(values)
    if not count:
        raise ValueError("an interval needs at least one test example, got none")
    generator = np.random.default_rng(seed)
    if values.dtype == bool:
        # Drawing N of N with replacement makes the number of right ones binomial: no loop needed.
        means = generator.binomial(count, values.mean(), samples) / count
    else:
        means = np.array(
            [values[generator.integers(0, count, count)].mean() for _ in range(samples)]
        )
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def with_interval(name, values, seed=0):
    """{name, name_low, name_high}: the mean of `values` [N] and its 95 % interval."""
    low, high = interval(values, seed=seed)
    return {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}
