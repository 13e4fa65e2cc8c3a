"""Train one encoder on several pretexts at once: where a patch lies, what colour, which way up.

Paper: Multi-task Self-Supervised Visual Learning
Authors: Carl Doersch, Andrew Zisserman
Venue: ICCV 2017
URL: https://arxiv.org/abs/1708.07860
Family: multi-task
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.errors import BadInput
from tfssl.method import MultiTask, Run
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import rgb_to_lab
from tfssl.zoo.image import colorization, relative_position, rotation

TASKS = ("relative_position", "colorization", "rotation")


def views(examples, seed, size=224, tasks=TASKS):
    """({task: x}, {task: y}), each as the task's own method has it, all of lightness alone.

    Harmonised inputs (section 3.5): every picture is taken to Lab, ab thrown away, L given three
    times. So colour dropping has nothing left to do, and all tasks see the same kind of picture.
    """
    seeds = tf.random.split(seed, len(TASKS))
    both = {name: view(name, examples, seeds[TASKS.index(name)], size) for name in tasks}
    return {name: x for name, (x, _) in both.items()}, {name: y for name, (_, y) in both.items()}


def view(task, examples, seed, size):
    """(x, y) of one task."""
    if task == "colorization":
        return colorization.views(examples, seed, size, area=(0.5, 1.0))
    grey = harmonise(examples["image"])
    if task == "rotation":
        return rotation.views({"image": grey}, seed, size, area=(0.5, 1.0))
    # Patches as large as 96 px are cut of images of 548 px, as the task by itself has it.
    side = size if size <= 96 else round(size * 548 / 224)
    return relative_position.neighbours(grey, seed, side)


def harmonise(images):
    """Lightness three times: float32 [B, H, W, 3] in [0, 1]; colours of one L become equal."""
    return colorization.lightness(rgb_to_lab(images))


class MultiTaskSSL(MultiTask):
    """Methods of one encoder, each loss divided by that of guessing.

    Where a task has learned nothing it weighs 1, so that none begins by drowning the others (the
    paper tunes rates by hand). The published encoder takes colour pictures too.

    Args:
        tasks: dict of name -> `Method` with a `chance`.
    """

    def __init__(self, tasks):
        super().__init__(tasks, {name: 1 / task.chance for name, task in tasks.items()})
        self.chance = float(len(tasks))


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    size=224,
    batch_size=32,
    epochs=70,
    learning_rate=1e-3,
    tasks=("relative_position", "colorization"),
    width=1024,
    grid=10,
    sigma=5.0,
    seed=0,
):
    """The paper's "RP + Col" (section 5), with `rotation` to be added by name.

    RMSProp with momentum 0.9 as there; rate, batch and epochs are ours, for the paper trained a
    ResNet-101 on 64 GPUs with a rate tuned for each task. Its exemplar and motion tasks and its
    learnt combination of layers (lasso, section 3.4) are left out. Batch norm's moving statistics
    are shared: with harmonised inputs they are of one kind.
    """
    tasks = _known(tasks)
    examples = load(data, keys=("image",))
    encoder = encoders.get(encoder, size=size)
    methods, streams = {}, {}
    for name in tasks:
        methods[name] = _method(name, encoder, examples, width, grid, sigma)
        task_views = functools.partial(view, name, size=size)
        # Each task has its own order of the data and its own draws.
        task_seed = seed + 1000 * TASKS.index(name)
        streams[name] = batching.train(examples, task_views, batch_size, task_seed)
    dataset = batching.multitask(streams)
    model = MultiTaskSSL(methods)
    model.compile(keras.optimizers.RMSprop(learning_rate, momentum=0.9))
    return Run(model, dataset, epochs)


def _known(tasks):
    tasks = (tasks,) if isinstance(tasks, str) else tuple(dict.fromkeys(tasks))
    for name in tasks:
        if name not in TASKS:
            raise BadInput(f"tasks: there is no task {name!r}; choose among {', '.join(TASKS)}.")
    if not tasks:
        raise BadInput(f"tasks: name at least one of {', '.join(TASKS)}.")
    return tasks


def _method(name, encoder, examples, width, grid, sigma):
    if name == "rotation":
        return rotation.Rotation(encoder)
    if name == "relative_position":
        return relative_position.RelativePosition(encoder, width)
    centres = colorization.bins(grid)
    prior = colorization.frequencies(examples, centres, sigma)
    return colorization.Colorization(encoder, centres, prior, sigma=sigma, width=width)


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000",
    size=64,
    batch_size=64,
    epochs=2,
    learning_rate=1e-3,
    tasks=("relative_position", "colorization"),
    width=128,
    grid=20,
    sigma=10.0,
)
