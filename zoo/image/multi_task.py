"""Train one encoder on several pretexts at once: places, colours, crops of one image, what moves.

Paper: Multi-task Self-Supervised Visual Learning
Authors: Carl Doersch, Andrew Zisserman
Venue: ICCV 2017
URL: https://arxiv.org/abs/1708.07860
Family: multi-task
"""

import difflib
import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.errors import BadInput
from tfssl.layers.mixture import LayerMixture, readers
from tfssl.method import MultiTask, Run
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop, rgb_to_lab
from tfssl.pipelines.sample.clips import frame_pair
from tfssl.zoo.image import colorization, exemplar_triplet, relative_position, rotation
from tfssl.zoo.image import watching_move as moving

# Rotation is ours; the others are the paper's.
TASKS = ("relative_position", "colorization", "rotation", "exemplar", "motion_segmentation")
STRIDE = 8  # of the map of what moves


def views(examples, seed, size=224, tasks=TASKS[:-1]):
    """({task: x}, {task: y}), each as the task's own method has it, all of lightness alone.

    Harmonised inputs (section 3.5): every picture is taken to Lab, ab thrown away, L given three
    times; colour dropping has nothing left to do, and patches are not standardised either, so that
    batch norm meets one kind of input (brightness may then help to tell places). Motion
    segmentation reads "frames", the others "image".
    """
    seeds = tf.random.split(seed, len(TASKS))
    both = {name: view(name, examples, seeds[TASKS.index(name)], size) for name in tasks}
    x = {name: made[0] if isinstance(made, tuple) else made for name, made in both.items()}
    return x, {name: made[1] for name, made in both.items() if isinstance(made, tuple)}


def view(task, examples, seed, size, least=0.1):
    """x or (x, y) of one task."""
    if task == "motion_segmentation":
        seeds = tf.random.split(seed, 2)
        pair = harmonise(frame_pair(examples["frames"], seeds[0], 1, 2))
        side = -(-size // STRIDE)
        return moving.still_and_mask(pair, seeds[1], size, side, least=least)
    grey = harmonise(examples["image"])
    if task == "colorization":  # the same crop twice: cutting interpolates, which mixes colours
        _, ab = colorization.views(examples, seed, size, area=(0.5, 1.0))
        return random_resized_crop(grey, size, seed, area=(0.5, 1.0)), ab
    if task == "rotation":
        return rotation.views({"image": grey}, seed, size, area=(0.5, 1.0))
    if task == "exemplar":
        return exemplar_triplet.views({"image": grey}, seed, size, crops=2, area=(0.2, 1.0))
    # Patches are cut of images as much larger than those of the other tasks as the paper's are.
    return relative_position.neighbours(grey, seed, round(size * 548 / 224))


def harmonise(images):
    """Lightness three times: float32 [..., H, W, 3] in [0, 1]; colours of one L become equal."""
    light = rgb_to_lab(images)[..., :1] / 100
    return tf.clip_by_value(tf.repeat(light, 3, axis=-1), 0.0, 1.0)


class MultiTaskSSL(MultiTask):
    """Methods of one encoder, each loss divided by that of guessing.

    Where a task has learned nothing it weighs 1, so that none begins by drowning the others (the
    paper tunes rates by hand). The published encoder takes colour pictures too.

    Args:
        tasks: dict of name -> `Method` with a `chance`.
        encoder: what is published where each task has a reader of its own; else theirs.
    """

    def __init__(self, tasks, encoder=None):
        own = {name: task.encoder for name, task in tasks.items()}
        for task in tasks.values():
            task.encoder = encoder or task.encoder
        super().__init__(tasks, {name: 1 / task.chance for name, task in tasks.items()})
        for name, task in tasks.items():
            task.encoder = own[name]
            for metric in task._metrics:
                metric.name = f"{name}_{metric.name}"
        self.chance = float(len(tasks))

    @property
    def mixtures(self):
        """{task: alpha [units]}, how much it reads of each; without a lasso empty."""
        return {
            name: layer.alpha.numpy()
            for name, task in self.tasks.items()
            for layer in task.encoder.layers
            if isinstance(layer, LayerMixture)
        }


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    videos="tfds:ucf101",
    size=224,
    batch_size=32,
    epochs=70,
    learning_rate=1e-3,
    tasks="relative_position,colorization,exemplar,motion_segmentation",
    lasso=0.0,
    width=1024,
    grid=10,
    sigma=5.0,
    least=0.1,
    seed=0,
):
    """The paper's four tasks (section 5); `tasks` names any of TASKS, with commas or as a list.

    With a `lasso` above 0, the weight of the L1 penalty, each task reads its own weighted sum of
    the units of one shape (section 3.4), and the encoder ends with the last of them; with 0 all
    tasks read the encoder's end. Clips for motion come from `videos`, by "" from `data`.

    RMSProp with momentum 0.9 as there; rate, batch and epochs are ours, for the paper trained a
    ResNet-101 on 64 GPUs with a rate tuned for each task, and clips of SoundNet. Batch norm's
    moving statistics are shared: with harmonised inputs they are of one kind. Colours are told at
    stride 4, as `colorization` has them at a quarter of the size; the paper's at 8.

    The paper's trunk ends with block 3, kept at stride 8 by dilation, and its head of positions
    begins with convolutions of each patch; ours is the whole ResNet-50, pooled for that head.
    Together is not always best: on `world` colour alone made better features than all three.
    """
    tasks = _known(tasks)
    encoder = encoders.get(encoder, size=size)
    if "relative_position" in tasks and None not in encoder.input_shape[1:3]:
        raise BadInput(f"tasks: relative_position has a size of its own; {encoder.name} takes one.")
    encoder, reader = readers(encoder, lasso) if lasso else (encoder, lambda: encoder)
    methods, streams = {}, {}
    for name in tasks:
        examples = _examples(name, data, videos, size)
        methods[name] = _method(name, reader(), examples, size, width, grid, sigma)
        task_views = functools.partial(view, name, size=size, least=least)
        # Each task has its own order of the data and its own draws.
        task_seed = seed + 1000 * TASKS.index(name)
        streams[name] = batching.train(examples, task_views, batch_size, task_seed)
    model = MultiTaskSSL(methods, encoder)
    model.compile(keras.optimizers.RMSprop(learning_rate, momentum=0.9))
    return Run(model, batching.multitask(streams), epochs)


def _known(tasks):
    tasks = tasks.split(",") if isinstance(tasks, str) else tasks
    tasks = tuple(dict.fromkeys(name.strip() for name in tasks if name.strip()))
    for name in tasks:
        if name not in TASKS:
            near = difflib.get_close_matches(name, TASKS, 1, 0.0)[0]
            raise BadInput(f"tasks: {name!r}; did you mean {near}? There are {', '.join(TASKS)}.")
    if not tasks:
        raise BadInput(f"tasks: name at least one of {', '.join(TASKS)}.")
    return tasks


def _examples(task, data, videos, size):
    if task != "motion_segmentation":
        return load(data, keys=("image",))
    examples = load(videos or data, keys=("frames",), short_side=max(128, size))
    if "frames" not in examples.element_spec:
        raise BadInput("motion_segmentation learns from clips: name some with --set videos=...")
    return examples


def _method(name, encoder, examples, size, width, grid, sigma):
    if name == "rotation":
        return rotation.Rotation(encoder)
    if name == "relative_position":
        return relative_position.RelativePosition(encoder, width)
    if name == "exemplar":
        return exemplar_triplet.ExemplarTriplet(encoder, width)
    if name == "motion_segmentation":
        return moving.MotionSegmentation(encoder, size, -(-size // STRIDE), width)
    centres = colorization.bins(grid)
    prior = colorization.frequencies(examples, centres, sigma)
    return colorization.Colorization(encoder, centres, prior, sigma=sigma, width=width)


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000,length=4",
    videos="",
    size=32,
    batch_size=64,
    epochs=2,
    learning_rate=1e-3,
    tasks="relative_position,colorization,exemplar",
    width=128,
    grid=20,
    sigma=10.0,
    least=0.02,
)
