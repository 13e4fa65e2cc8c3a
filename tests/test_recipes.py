"""What a recipe says is the paper's is in it, and reaches the optimiser, the views and the model.

Numbers are those of the method cards. A recipe which departs from its card, and says so, is left
out of `PAPERS` and held to its own word in the other tables.
"""

import functools
import inspect
import math

import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo
from tfssl.pipelines import batching

TWO_VIEWS = dict(area=(0.08, 1.0), blur=(1.0, 0.1), solarisation=(0.0, 0.2))
PAPERS = {
    "audio_visual.ave_net": dict(
        size=224, batch_size=1024, dims=128, seconds=1.0, sample_rate=48000, misalignment=1.0,
    ),
    "geometry.unflow": dict(
        size=(320, 1152), batch_size=4, learning_rate=1e-4, weights=(12.7, 4.35, 3.9, 3.4, 1.1),
        radii=(3, 2, 2, 1, 1), masking=0.5, zoom=(0.9, 1.1),
    ),
    "image.barlow_twins": dict(
        size=224, batch_size=2048, epochs=1000, learning_rate=0.2 * 2048 / 256,
        bias_rate=0.0048 / 0.2, warmup_epochs=10, weight_decay=1e-6, widths=(8192, 8192, 8192),
        off_diagonal=0.0051, **TWO_VIEWS,
    ),
    "image.bigan": dict(
        size=64, batch_size=128, epochs=400, learning_rate=2e-4, beta=0.5, weight_decay=2.5e-5,
        width=200,
    ),
    "image.boosting": dict(
        size=227, epochs=90, learning_rate=0.01, clusters=2000, tap="c4", side=256, tile=64,
        orders=701, grey=0.7,
    ),
    "image.byol": dict(
        size=224, batch_size=4096, epochs=1000, learning_rate=0.2 * 4096 / 256, warmup_epochs=10,
        weight_decay=1.5e-6, momentum=0.996, hidden=4096, width=256, **TWO_VIEWS,
    ),
    "image.cluster_embedding": dict(
        batch_size=256, learning_rate=0.01, widths=(500, 500, 2000), width=10, tolerance=1e-3,
    ),
    "image.colorization": dict(
        learning_rate=3e-5, weight_decay=1e-3, grid=10, sigma=5.0, neighbours=5, uniform=0.5,
    ),
    "image.colorization_regression": dict(learning_rate=3e-5, weight_decay=1e-3),
    "image.context_encoder": dict(
        size=128, batch_size=64, epochs=500, learning_rate=2e-3, critic_learning_rate=2e-4,
        overlap=4, share=0.001, channels=(64, 128, 256, 512), area=((128 / 350) ** 2,) * 2,
    ),
    "image.context_encoder_random": dict(
        size=128, batch_size=64, epochs=500, learning_rate=2e-3, critic_learning_rate=2e-4,
        share=0.001, area=((128 / 350) ** 2,) * 2,
    ),
    "image.data_dependent_init": dict(filters="kmeans", batch_size=16, batches=10, beta=0.1),
    "image.dcgan": dict(
        size=64, batch_size=128, epochs=25, learning_rate=2e-4, beta=0.5, weight_decay=1e-5,
        width=100, channels=(128, 256, 512, 1024), kernel=5,
    ),
    "image.deep_cluster": dict(
        size=224, batch_size=256, epochs=200, learning_rate=0.05, weight_decay=1e-5, clusters=10000,
        widths=(4096, 4096), dimensions=256, every=1,
    ),
    "image.deep_infomax": dict(
        size=32, batch_size=64, epochs=1000, learning_rate=1e-4, end_rate=1e-4, local="c2",
        estimator="jsd", width=64, channels=(64, 128, 256), hidden=1024, units=2048, alpha=0.0,
        beta=1.0, gamma=0.1, area=(1.0, 1.0), flip=0.0,
    ),
    "image.dino": dict(
        size=224, batch_size=1024, epochs=100, learning_rate=5e-4 * 1024 / 256, warmup_epochs=10,
        weight_decay=(0.04, 0.4), units=65536, widths=(2048, 2048, 256),
        teacher_temperature=(0.04, 0.07), warm_epochs=30, momentum=0.996, local_size=96,
        local_crops=8, area=(0.4, 1.0), local_area=(0.05, 0.4), blur=(1.0, 0.1, 0.5),
    ),
    "image.exemplar": dict(
        size=32, seeds=8000, transformations=150, translation=0.2, scale=(0.7, 1.4), rotation=20.0,
        width=512, dropout=0.5, learning_rate=0.01, weight_decay=0.004,
    ),
    "image.exemplar_triplet": dict(
        batch_size=64, epochs=35, learning_rate=0.1 * 64 / 256, crops=8, width=1000, margin=0.5,
        grey=0.66,
    ),
    "image.jigsaw": dict(
        size=255, batch_size=256, learning_rate=0.01, share=255 / 256, fill=64 / 85, grid=3,
        orders=1000, shift=2, grey=0.5, projection=0.5, tile_width=1024, width=4096, dropout=0.5,
        weight_decay=5e-4,
    ),
    "image.joint_cluster": dict(
        batch_size=100, learning_rate=0.01, weight_decay=5e-5, width=160, neighbours=20, contrast=5,
        rate=0.9, margin=0.2, every=20,
    ),
    "image.learning_to_count": dict(
        size=228, batch_size=128, grey=2 / 3, hidden=(4096, 4096), counts=1000, margin=10.0,
    ),
    "image.mae": dict(
        size=224, batch_size=4096, epochs=800, learning_rate=1.5e-4 * 4096 / 256, warmup_epochs=40,
        weight_decay=0.05, ratio=0.75, width=512, depth=8, heads=16, area=(0.2, 1.0),
    ),
    "image.moco": dict(
        batch_size=256, epochs=200, learning_rate=0.03, weight_decay=1e-4, widths=(2048, 128),
        queue=65536, momentum=0.999, temperature=0.2, area=(0.2, 1.0), hue=0.1, jitter=0.8,
        blur=0.5,
    ),
    "image.multi_task": dict(tasks="relative_position,colorization,exemplar,motion_segmentation"),
    "image.predict_noise": dict(
        size=224, batch_size=256, epochs=100, learning_rate=0.01 * 256, width=2048,
        hidden=(4096, 4096), permute=3,
    ),
    "image.relative_position": dict(
        batch_size=512 // 2, learning_rate=1e-5 * 256, momentum=0.0, width=4096, area=(0.5, 1.5),
        shrink=0.33,
    ),
    "image.rotation": dict(
        size=224, batch_size=192, epochs=50, learning_rate=0.1, falls=(15 / 50, 30 / 50, 45 / 50),
        factor=0.1,
    ),
    "image.self_gan": dict(
        batch_size=64, learning_rate=2e-4, beta_1=0.5, width=128, rotated=16, alpha=0.2, beta=1.0,
    ),
    "image.simclr": dict(
        batch_size=4096, epochs=100, learning_rate=0.3 * 4096 / 256, warmup_epochs=10,
        weight_decay=1e-6, temperature=0.1, area=(0.08, 1.0), strength=1.0, blur=0.5,
    ),
    "image.simsiam": dict(
        size=224, batch_size=512, epochs=100, learning_rate=0.05 * 512 / 256, weight_decay=1e-4,
        hidden=(2048, 2048), width=2048, bottleneck=512, area=(0.2, 1.0), blur=0.5,
    ),
    "image.split_brain": dict(
        size=180, grid=10, sigma=5.0, learning_rate=3e-5, weight_decay=1e-3, stride=180 // 12,
    ),
    "image.split_brain_regression": dict(size=180, learning_rate=3e-5, stride=180 // 12),
    "image.spot_artifacts": dict(
        size=96, batch_size=128, epochs=500, learning_rate=3e-4, beta=0.5, weight_decay=5e-5,
        channels=(32, 64, 128, 256, 512), keep=0.3, hidden=4096,
    ),
    "image.supervised_contrastive": dict(
        size=32, batch_size=1024, epochs=1000, learning_rate=0.5, weight_decay=1e-4,
        temperature=0.1, width=128, area=(0.2, 1.0), blur=0.0,
    ),
    "image.swav": dict(
        size=224, batch_size=4096, epochs=800, learning_rate=4.8, warmup_epochs=10,
        weight_decay=1e-6, prototypes=3000, hidden=2048, width=128, epsilon=0.05, freeze_epochs=1,
        queue_epochs=15, local_size=96, local_crops=6, area=(0.14, 1.0), local_area=(0.05, 0.14),
        strength=1.0, blur=0.5,
    ),
    "image.vicreg": dict(
        batch_size=2048, learning_rate=0.2 * 2048 / 256, warmup_epochs=10, weight_decay=1e-6,
        widths=(8192, 8192, 8192), invariance=25.0, variance=25.0, covariance=1.0,
        **{key: TWO_VIEWS[key] for key in ("blur", "solarisation")},
    ),
    "image.watching_move": dict(size=227, side=56, least=0.1),
    "text.skip_gram": dict(
        epochs=5, learning_rate=0.025, words=1000, window=5, negatives=5, threshold=1e-5, least=5,
    ),
    "video.tcc": dict(
        size=224, batch_size=2, learning_rate=1e-4, tap="conv4_block3_out", count=20, context=2,
        stride=15, width=512, dims=128, dropout=0.1, temperature=0.1, variance_weight=0.001,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name, keyword, value", [(name, *item) for name, row in PAPERS.items() for item in row.items()]
)
def test_a_default_is_the_papers(name, keyword, value):
    default = inspect.signature(zoo.get(name).recipe).parameters[keyword].default
    assert default == (value if isinstance(value, str) else pytest.approx(value, rel=1e-12))


# An encoder for any size, and narrow heads where the paper's would fill the memory. Nothing that an
# optimiser, a schedule or a view is told.
STEPS = 36  # an epoch
ENCODERS = ("resnet", "alexnet", "conv", "vit")  # any network will do for these
NARROW = {
    "audio_visual.ave_net": dict(width=4),
    "geometry.unflow": dict(width=4),
    "image.barlow_twins": dict(widths=(16, 16, 8)),
    "image.boosting": dict(teacher="conv4", tile_width=16, width=16),
    "image.cluster_embedding": dict(widths=(16,)),
    "image.context_encoder": dict(channels=(8, 8, 8, 8)),
    "image.context_encoder_random": dict(channels=(8, 8, 8, 8, 8)),
    "image.dcgan": dict(channels=(8, 8, 8, 8)),
    "image.deep_cluster": dict(widths=(16, 16)),
    "image.deep_infomax": dict(channels=(8, 8, 8), hidden=16),
    "image.denoising_autoencoder": dict(channels=(8, 8)),
    "image.dino": dict(units=64, widths=(32, 32, 16)),
    "image.jigsaw": dict(tile_width=16, width=16),
    "image.learning_to_count": dict(hidden=(16, 16)),
    "image.mae": dict(encoder="vit_mini", size=32, width=16, depth=1, heads=2),
    "image.predict_noise": dict(width=16, hidden=(16, 16)),
    "image.relative_position": dict(width=16),
    "image.self_gan": dict(channels=(8, 8, 8, 8)),
    "image.spot_artifacts": dict(channels=(8, 8, 8, 8, 8), hidden=16),
    "image.swav": dict(prototypes=30),
    "image.vicreg": dict(widths=(16, 16, 8)),
    "image.watching_move": dict(size=64, side=8, width=16),
    "image.multi_task": dict(size=64, width=16),
    "text.skip_gram": dict(dim=8, least=1),
    "video.tcc": dict(tap="c2", width=8),
}


def stream(views, batch_size):
    """In place of batches: nothing is read or traced for what a recipe asks the length of."""
    batches = tf.data.Dataset.from_tensors((tf.zeros([2, 9, 2, 2, 3]), tf.zeros([2])))
    batches.steps, batches.views, batches.batch_size = STEPS, views, batch_size
    return batches


@functools.cache
def built(name):
    """(run, the streams it asked for, what its recipe was called with)."""
    module, streams = zoo.get(name), []

    def train(ds, views, batch_size, seed=0):
        streams.append(stream(views, batch_size))
        return streams[-1]

    parameters = inspect.signature(module.recipe).parameters
    called = {key: p.default for key, p in parameters.items()} | NARROW.get(name, {})
    data = zoo_runs.dataset(zoo_runs.examples(name))
    called |= {key: data for key in ("data", "videos") if key in called}
    if str(called.get("encoder")).startswith(ENCODERS) and name != "image.mae":
        called["encoder"] = zoo_runs.tiny_image_encoder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "train", train)
        patch.setattr(batching, "multitask", lambda tasks: tasks)
        return module.recipe(**called), streams, called


def lars(weight_decay, bias_rate=1.0):
    settings = dict(momentum=0.9, eta=0.001, weight_decay=weight_decay, bias_rate=bias_rate)
    return dict(kind="tfssl.LARS", **settings)


def sgd(weight_decay, kind="tfssl.SGD", **more):
    return dict(kind=kind, momentum=0.9, weight_decay=weight_decay, **more)


def adam(beta_1=0.9, beta_2=0.999, kind="keras.Adam", **more):
    return dict(kind=kind, beta_1=beta_1, beta_2=beta_2, **more)


COLOURS = ((0, 3e-5), (6.2, 3e-5), (6.3, 1e-5), (11.6, 1e-5), (11.7, 3e-6), (14, 3e-6))
PAIRS = ((0, 0.0), (5, 0.8), (10, 1.6), (505, (1.6 + 0.0016) / 2), (1000, 0.0016))
# Of each optimiser: all its settings but those that are 0, None or False, and its learning rate at
# some epochs.
OPTIMISERS = {
    "audio_visual.ave_net": (
        adam(),
        ((0, 1e-4), (15.9, 1e-4), (16, 0.94e-4), (32, 0.94**2 * 1e-4)),
    ),
    "geometry.unflow": (
        adam(),
        (
            *((0, 1e-4), (5400, 1e-4), (5410, 5e-5), (8110, 2.5e-5), (10812, 1.25e-5)),
            *((13513, 1.25e-5), (13515, 1e-5), (18918, 1e-5), (18920, 5e-6), (27027, 1.25e-6)),
        ),
    ),
    "image.barlow_twins": (lars(1e-6, bias_rate=0.024), PAIRS),
    "image.bigan": (
        adam(0.5, weight_decay=2.5e-5),
        ((0, 2e-4), (200, 2e-4), (300, 2e-5), (400, 2e-6)),
    ),
    "image.boosting": (
        sgd(5e-4),
        ((0, 0.01), (29.9, 0.01), (30.1, 1e-3), (59.9, 1e-3), (60.1, 1e-4), (90, 1e-4)),
    ),
    "image.byol": (lars(1.5e-6), ((0, 0.0), (5, 1.6), (10, 3.2), (505, 1.6), (1000, 0.0))),
    "image.cluster_embedding": (
        dict(kind="keras.SGD", momentum=0.9),
        ((0, 0.01), (100, 0.01)),
    ),
    "image.colorization": (adam(0.9, 0.99, weight_decay=1e-3), COLOURS),
    "image.colorization_regression": (adam(0.9, 0.99, weight_decay=1e-3), COLOURS),
    "image.context_encoder": (adam(0.5), ((0, 2e-3), (500, 2e-3))),
    "image.context_encoder_random": (adam(0.5), ((0, 2e-3), (500, 2e-3))),
    "image.dcgan": (adam(0.5, weight_decay=1e-5), ((0, 2e-4), (25, 2e-4))),
    "image.deep_cluster": (sgd(1e-5), ((0, 0.05), (200, 0.05))),
    "image.deep_infomax": (adam(), ((0, 1e-4), (1000, 1e-4))),
    "image.denoising_autoencoder": (adam(), ((0, 1e-3), (50, 5e-4), (100, 0.0))),
    "image.dino": (
        adam(kind="tfssl.AdamW", clip=3.0),
        ((0, 0.0), (5, 1e-3), (10, 2e-3), (55, (2e-3 + 1e-6) / 2), (100, 1e-6)),
    ),
    "image.exemplar": (
        sgd(0.004),
        ((0, 0.01), (4.9, 0.01), (5.1, 1e-3), (7.4, 1e-3), (7.6, 1e-4), (8.8, 1e-5)),
    ),
    "image.exemplar_triplet": (
        sgd(1e-4),
        ((0, 0.0), (2.5, 0.0125), (5, 0.025), (20, 0.0125), (35, 0.0)),
    ),
    "image.jigsaw": (
        sgd(5e-4),
        ((0, 0.01), (19.9, 0.01), (20.1, 1e-3), (39.9, 1e-3), (40.1, 1e-4), (70, 1e-5)),
    ),
    "image.joint_cluster": (
        sgd(5e-5),
        tuple((epoch, 0.01 * (1 + 1e-4 * epoch * STEPS) ** -0.75) for epoch in (0, 10, 100)),
    ),
    "image.learning_to_count": (adam(), ((0, 1e-4), (20, 1e-4))),
    "image.mae": (
        adam(0.9, 0.95, kind="keras.AdamW", weight_decay=0.05),
        ((0, 0.0), (20, 1.2e-3), (40, 2.4e-3), (420, 1.2e-3), (800, 0.0)),
    ),
    "image.moco": (sgd(1e-4), ((0, 0.03), (100, 0.015), (200, 0.0))),
    "image.multi_task": (
        dict(kind="keras.RMSprop", rho=0.9, momentum=0.9),
        ((0, 1e-3), (70, 1e-3)),
    ),
    "image.predict_noise": (dict(kind="keras.SGD"), ((0, 2.56), (100, 2.56))),
    "image.relative_position": (dict(kind="keras.SGD"), ((0, 2.56e-3), (100, 2.56e-3))),
    "image.rotation": (
        sgd(5e-4, nesterov=True),
        ((0, 0.1), (14.9, 0.1), (15.1, 0.01), (30.1, 1e-3), (44.9, 1e-3), (45.1, 1e-4)),
    ),
    "image.self_gan": (adam(0.5), ((0, 2e-4), (128, 2e-4))),
    "image.simclr": (lars(1e-6), ((0, 0.0), (5, 2.4), (10, 4.8), (55, 2.4), (100, 0.0))),
    "image.simsiam": (
        sgd(1e-4, kind="tfssl.HalfFixedSGD"),
        ((0, 0.1), (50, 0.05), (100, 0.0)),
    ),
    "image.split_brain": (adam(0.9, 0.99, weight_decay=1e-3), COLOURS),
    "image.split_brain_depth": (adam(0.9, 0.99, weight_decay=1e-3), COLOURS),
    "image.split_brain_regression": (adam(0.9, 0.99, weight_decay=1e-3), COLOURS),
    "image.spot_artifacts": (
        adam(0.5, weight_decay=5e-5),
        ((0, 3e-4), (250, 1.5e-4), (500, 0.0)),
    ),
    "image.supervised_contrastive": (
        sgd(1e-4),
        ((0, 0.0), (5, 0.25), (10, 0.5), (505, (0.5 + 0.0005) / 2), (1000, 0.0005)),
    ),
    "image.swav": (
        lars(1e-6),
        ((0, 0.0), (5, 2.4), (10, 4.8), (405, (4.8 + 0.0048) / 2), (800, 0.0048)),
    ),
    "image.vicreg": (lars(1e-6), PAIRS),
    "image.watching_move": (dict(kind="keras.SGD", momentum=0.9), ((0, 0.01), (10, 0.01))),
    "text.skip_gram": (adam(), ((0, 0.025), (2.5, 0.01250125), (5, 2.5e-6))),
    "video.tcc": (adam(), ((0, 1e-4), (4286, 1e-4))),
}
# The second optimiser of a game; the same as the first unless it is here.
CRITICS = {
    "image.context_encoder": (adam(0.5), ((0, 2e-4), (500, 2e-4))),
    "image.context_encoder_random": (adam(0.5), ((0, 2e-4), (500, 2e-4))),
}
# What is trained before the first epoch, and for how many epochs.
FIRST = {
    "image.boosting": ("teacher", 70, sgd(5e-4), ((0, 0.01), (70, 0.01))),
    "image.cluster_embedding": ("autoencoder", 366, adam(), ((0, 1e-3), (366, 1e-3))),
    "image.spot_artifacts": ("autoencoder", 500, *OPTIMISERS["image.spot_artifacts"]),
}
NO_SETTINGS = ("name", "learning_rate", "epsilon", "ema_momentum", "decay")


def settings(optimizer):
    """What an optimiser is, but for its learning rate; `decay` is a schedule where it is any."""
    kind = type(optimizer)
    config = optimizer.get_config().items()
    some = {key: value for key, value in config if value and key not in NO_SETTINGS}
    return {"kind": f"{kind.__module__.split('.')[0]}.{kind.__name__}", **some}


def is_set(optimizer, expected, rates):
    assert settings(optimizer) == expected
    for epoch, rate in rates:
        optimizer.iterations.assign(round(STEPS * epoch))
        found = float(tf.convert_to_tensor(optimizer.learning_rate))
        assert found == pytest.approx(rate, rel=1e-4, abs=1e-9), f"epoch {epoch}"
    optimizer.iterations.assign(0)


@pytest.mark.parametrize("name", zoo.names())
def test_a_recipe_compiles_the_optimisers_it_speaks_of(name):
    run, _, called = built(name)
    if name == "image.data_dependent_init":
        assert run.model.optimizer is None
        return
    assert run.epochs == called["epochs"]
    is_set(run.model.optimizer, *OPTIMISERS[name])
    if hasattr(run.model, "critic_optimizer"):
        is_set(run.model.critic_optimizer, *CRITICS.get(name, OPTIMISERS[name]))
    if name in FIRST:
        part, epochs, *optimiser = FIRST[name]
        is_set(getattr(run.model, part).optimizer, *optimiser)
        assert run.callbacks[0].part == part and run.callbacks[0].steps == epochs * STEPS


@pytest.mark.parametrize("name", zoo.names())
def test_the_views_get_what_the_recipe_is_told(name):
    _, streams, called = built(name)
    told = set(inspect.signature(zoo.get(name).views).parameters) & set(called) - {"seed"}
    if name == "image.multi_task":  # a view each task
        assert [s.views.args for s in streams] == [(task,) for task in called["tasks"].split(",")]
        told = {"size", "least"}
    for batches in streams[:1] if name == "image.boosting" else streams:  # its second is a jigsaw
        bound = getattr(batches.views, "keywords", {})
        assert {key: bound.get(key) for key in told} == {key: called[key] for key in told}
    assert all(batches.batch_size == called["batch_size"] for batches in streams)


# What a recipe hands to its method: attributes of the model.
HANDED = {
    "geometry.unflow": dict(masking_from=round(STEPS * 27027 / 2)),
    "image.barlow_twins": dict(off_diagonal=0.0051),
    "image.cluster_embedding": dict(tolerance=1e-3),
    "image.colorization": dict(neighbours=5, sigma=5.0),
    "image.context_encoder": dict(share=0.001),
    "image.context_encoder_random": dict(share=0.001),
    "image.data_dependent_init": dict(filters="kmeans", depth=5, beta=0.1, batches=10),
    "image.deep_cluster": dict(dimensions=256, iterations=20),
    "image.deep_infomax": dict(alpha=0.0, beta=1.0, gamma=0.1),
    "image.denoising_autoencoder": dict(emphasis=(1.0, 1.0)),
    "image.dino": dict(student_temperature=0.1, centre_momentum=0.9, freeze_steps=STEPS),
    "image.exemplar_triplet": dict(margin=0.5),
    "image.jigsaw": dict(chance=math.log(1000)),
    "image.joint_cluster": dict(neighbours=20, contrast=5, rate=0.9, margin=0.2, clusters=10),
    "image.learning_to_count": dict(margin=10.0),
    "image.mae": dict(visible=16),  # of 64
    "image.moco": dict(temperature=0.2, momentum=0.999, groups=8, chance=math.log(65537)),
    "image.predict_noise": dict(permute=3, steps=STEPS),
    "image.self_gan": dict(rotated=16, alpha=0.2, beta=1.0),
    "image.simclr": dict(temperature=0.1),
    "image.split_brain": dict(levels=100, neighbours=5, sigma=5.0),
    "image.supervised_contrastive": dict(temperature=0.1),
    "image.swav": dict(
        temperature=0.1, epsilon=0.05, iterations=3, freeze_steps=STEPS, queue_steps=15 * STEPS
    ),
    "image.vicreg": dict(weights_of_terms=(25.0, 25.0, 1.0)),
    "text.skip_gram": dict(chance=6 * math.log(2)),
    "video.tcc": dict(temperature=0.1, variance_weight=0.001),
}


@pytest.mark.parametrize("name", HANDED)
def test_the_method_gets_the_papers_numbers(name):
    model = built(name)[0].model
    for key, value in HANDED[name].items():
        assert getattr(model, key) == pytest.approx(value), key


# Epochs between two passes of an `EmbedEachEpoch`.
PASSES = {
    "image.boosting": 10**9,
    "image.cluster_embedding": 1,
    "image.deep_cluster": 1,
    "image.joint_cluster": 20,
}


@pytest.mark.parametrize("name", PASSES)
def test_the_data_are_clustered_as_often_as_the_paper_says(name):
    assert built(name)[0].callbacks[-1].every == PASSES[name]


def test_masked_autoencoders_decay_matrices_only():
    model = built("image.mae")[0].model
    model.optimizer.build(model.trainable_variables)
    decayed = [v for v in model.trainable_variables if model.optimizer._use_weight_decay(v)]
    spared = [v for v in model.trainable_variables if not model.optimizer._use_weight_decay(v)]
    assert all(len(v.shape) > 1 and v.name != "bias" for v in decayed) and len(decayed) > 5
    assert all(len(v.shape) < 2 or v.name == "bias" for v in spared) and len(spared) > 5


TCC_LAYERS = ("c2_conv", "c3_conv", "fc1", "fc2", "embedding")


@pytest.mark.parametrize("name", zoo.names())
def test_layers_that_decay_their_own_weights_are_those_of_two_papers(name):
    held = {v.path: v.regularizer for v in built(name)[0].model.trainable_variables}
    found = {path: float(r.l2) for path, r in held.items() if r is not None}
    if name not in ("audio_visual.ave_net", "video.tcc"):
        assert not found
        return
    kernels = {path for path in held if path.endswith(("kernel", "scale"))}
    if name == "video.tcc":  # the network of single frames came with its weights
        kernels = {path for path in kernels if path.split("/")[-2] in TCC_LAYERS}
    assert found == pytest.approx(dict.fromkeys(kernels, 1e-5)) and len(found) >= 5


def test_dinos_decay_rises_from_the_first_step_to_the_last():
    decay = built("image.dino")[0].model.optimizer.decay
    found = [float(decay(STEPS * epoch)) for epoch in (0, 50, 100)]
    np.testing.assert_allclose(found, [0.04, 0.22, 0.4], rtol=1e-5)


def test_simsiams_predictor_keeps_the_first_rate_to_the_end():
    model = built("image.simsiam")[0].model
    model.optimizer.iterations.assign(100 * STEPS)
    ends = {v.path: float(model.optimizer.rate_of(v)) for v in model.trainable_variables}
    model.optimizer.iterations.assign(0)
    predictor = {v.path for v in model.predictor.trainable_variables}
    expected = {path: 0.1 if path in predictor else 0.0 for path in ends}
    assert ends == pytest.approx(expected, abs=1e-7) and len(predictor) == 5


@pytest.mark.parametrize(
    "name, teacher, momenta",
    [
        ("image.byol", "target", {0: 0.996, 500: 0.998, 1000: 1.0}),
        ("image.dino", "teacher", {0: 0.996, 50: 0.998, 100: 1.0}),
        ("image.moco", "key", {0: 0.999, 200: 0.999}),
    ],
)
def test_a_teacher_follows_by_the_papers_momentum(name, teacher, momenta):
    model = built(name)[0].model
    ours = getattr(model, teacher).copies[0].weights[0]
    model._step.outputs = {"key": tf.eye(4, 128), "teacher": tf.zeros([4, 2, 64])}
    for epoch, momentum in momenta.items():
        model.encoder.weights[0].assign(tf.ones(ours.shape))
        ours.assign(tf.zeros(ours.shape))
        if name != "image.moco":
            model.step.assign(STEPS * epoch)
        model.after_step()
        np.testing.assert_allclose(ours, 1 - momentum, atol=1e-6)


def test_dinos_teacher_warms_up_for_thirty_epochs():
    model, found = built("image.dino")[0].model, []
    for epoch in (0, 15, 30, 100):
        model.step.assign(STEPS * epoch)
        found.append(float(model.temperature()))
    np.testing.assert_allclose(found, [0.04, 0.055, 0.07, 0.07], rtol=1e-5)


@pytest.mark.parametrize("name", ["image.swav", "image.dino"])
def test_the_last_layer_is_frozen_for_one_epoch(name):
    model = built(name)[0].model
    rows = model.prototypes.prototypes if name == "image.swav" else model.head.layers[-1].rows
    x = {"global": tf.random.stateless_uniform([4, 2, 16, 16, 3], [0, 1])}
    moves = []
    for step in (0, STEPS - 1, STEPS):
        model.step.assign(step)
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            total = tf.reduce_sum(outputs["scores" if name == "image.swav" else "student"] ** 2)
        moves.append(float(tf.reduce_max(tf.abs(tape.gradient(total, rows.value)))))
    assert moves[:2] == [0, 0] and moves[2] > 0
