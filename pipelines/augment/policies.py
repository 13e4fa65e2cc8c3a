"""RandAugment and AutoAugment: operations drawn by a policy, one image at a time and slow.

Images and clips, uint8 or float in [0, 1], give float32 in [0, 1], as in `image`, whose functions
are some thirty times faster; `seed` is int32 [2].
"""

import tensorflow as tf

from tfssl.pipelines.augment.image import examples_in, fold, for_frames, to_float, unfold, uniform

# The sixteen operations of RandAugment, in the order of official.vision.ops.augment.
OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
    "SolarizeAdd",
)


def _apply(name, image, level, sign, centre):
    """One operation on uint8 [H, W, 3]: level 0..10, sign +-1, centre [2] in [0, 1) for Cutout.

    The operations are the Model Garden's pure functions; the draws are ours, because its own come
    from stateful generators and could not be repeated. Translations and cut-outs are measured
    against 224 px, for which its constants were made, and so shrink with the image.
    """
    from official.vision.ops import augment

    part = level / 10.0
    grey = [128] * 3
    scale = tf.cast(tf.reduce_min(tf.shape(image)[:2]), tf.float32) / 224.0
    function = augment.NAME_TO_FUNC[name]
    if name == "Sharpness" and any(side is not None and side < 3 for side in image.shape[:2]):
        return image  # its filter of 3 x 3 finds no place
    if name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return function(image, part * 1.8 + 0.1)
    if name == "Rotate":
        return function(image, sign * part * 30.0, grey)
    if name in ("ShearX", "ShearY"):
        return function(image, sign * part * 0.3, grey)
    if name in ("TranslateX", "TranslateY"):
        return function(image, sign * part * 100.0 * scale, grey)
    if name == "Posterize":
        return function(image, tf.cast(int(part * 4), tf.uint8))
    if name == "Solarize":
        # At the strongest level nothing reaches the threshold of 256, which is no uint8 either.
        return image if part >= 1 else function(image, int(part * 256))
    if name == "SolarizeAdd":
        return function(image, int(part * 110))
    if name == "Cutout":
        extent = tf.shape(image)[:2]
        middle = tf.cast(centre * tf.cast(extent, tf.float32), tf.int32)
        half = tf.cast(part * 40.0 * scale, tf.int32)
        rows = tf.abs(2 * (tf.range(extent[0]) - middle[0]) + 1) <= 2 * half
        columns = tf.abs(2 * (tf.range(extent[1]) - middle[1]) + 1) <= 2 * half
        hole = rows[:, None, None] & columns[None, :, None]
        return tf.where(hole, tf.constant(128, tf.uint8), image)
    return function(image)


def _distort(images, programs, chances, choice, u):
    """Runs program number `choice` [B] on each example; u [B, layers, 4] decides the rest."""
    images = to_float(images)
    folded, frames = fold(images)
    levels = tf.cast(tf.round(folded * 255), tf.uint8)
    choice, u = for_frames(choice, frames), for_frames(u, frames)

    def run(program, chance, image, u):
        for layer, ((name, level), probability) in enumerate(zip(program, chance)):
            sign = tf.where(u[layer, 1] < 0.5, -1.0, 1.0)
            changed = _apply(name, image, level, sign, u[layer, 2:])
            image = tf.where(u[layer, 0] < probability, changed, image)
        return tf.ensure_shape(image, levels.shape[1:])

    def one(arguments):
        image, number, u = arguments
        branches = [
            lambda program=program, chance=chance: run(program, chance, image, u)
            for program, chance in zip(programs, chances)
        ]
        return tf.switch_case(number, branches)

    out = tf.TensorSpec(levels.shape[1:], tf.uint8)
    result = tf.map_fn(one, (levels, choice, u), fn_output_signature=out)
    result.set_shape(folded.shape)
    return unfold(to_float(result), images)


def rand_augment(images, seed, layers=2, magnitude=10, operations=OPERATIONS):
    """`layers` operations in turn, each drawn from `operations`, at `magnitude` (0 to 10).

    RandAugment (Cubuk et al., 2020) with the operations of the Model Garden, repeatable under
    `seed`. One image at a time: some thirty times slower than the functions above. Raises
    ValueError for an operation that is not among OPERATIONS.
    """
    for name in operations:
        if name not in OPERATIONS:
            raise ValueError(f"no operation is called {name!r}; there are {', '.join(OPERATIONS)}")
    images = to_float(images)
    programs = [[(name, magnitude)] for name in operations]
    always = [[1.0]] * len(programs)
    for layer_seed in tf.unstack(tf.random.split(seed, layers)):
        seeds = tf.random.split(layer_seed, 2)
        count = [examples_in(images)]
        choice = tf.random.stateless_uniform(count, seeds[0], 0, len(programs), tf.int32)
        images = _distort(images, programs, always, choice, uniform(seeds[1], images, 1, 4))
    return images


def auto_augment(images, seed, policy="v0"):
    """One sub-policy an example of the AutoAugment `policy` (Cubuk et al., CVPR 2019).

    `policy` is a name of the Model Garden's: "v0" (ImageNet), "reduced_cifar10", "svhn",
    "reduced_imagenet", ... These were found with labels: a method that calls itself self-supervised
    should say so when it uses them. Repeatable under `seed`. Raises ValueError for another name.
    """
    from official.vision.ops.augment import AutoAugment

    images = to_float(images)
    found = [[(n, p, lv) for n, p, lv in sub] for sub in _policies(AutoAugment, policy)]
    programs = [[(name, level) for name, _, level in sub] for sub in found]
    chances = [[probability for _, probability, _ in sub] for sub in found]
    seeds = tf.random.split(seed, 2)
    choice = tf.random.stateless_uniform([examples_in(images)], seeds[0], 0, len(found), tf.int32)
    longest = max(map(len, found))
    return _distort(images, programs, chances, choice, uniform(seeds[1], images, longest, 4))


def _policies(auto_augment, name):
    """The published table of (operation, probability, level)."""
    known = [n for n in dir(auto_augment) if n.startswith("policy_")]
    if f"policy_{name}" not in known:
        names = ", ".join(n.removeprefix("policy_") for n in known)
        raise ValueError(f"no AutoAugment policy is called {name!r}; there are {names}")
    return getattr(auto_augment, f"policy_{name}")()
