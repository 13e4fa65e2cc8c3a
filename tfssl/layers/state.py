"""What methods keep beside their networks' weights."""


def step_counter(method):
    """A weight of the method, int32, for the number of its steps: the same on every replica.

    The method raises it in `after_step`. The optimiser's own counter stands still where a step is
    skipped, and inside a `MultiTask` a method has none.
    """
    return method.add_weight(
        name="step",
        shape=[],
        dtype="int32",
        initializer="zeros",
        trainable=False,
        aggregation="only_first_replica",
    )
