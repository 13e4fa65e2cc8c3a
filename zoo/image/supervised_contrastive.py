"""Views of one class attract each other: needs labels, and is an upper bound for the others.

Paper: Supervised Contrastive Learning
Authors: Prannay Khosla, Piotr Teterwak, Chen Wang, Aaron Sarna, Yonglong Tian, Phillip Isola, Aaron Maschinot, Ce Liu, Dilip Krishnan
Venue: NeurIPS 2020
URL: https://arxiv.org/abs/2004.11362
Family: contrastive

The labels of the training split are used, by design (`views.uses`); data without labels is refused.
So its numbers are no rival of self-supervised ones: they say what the network could have learned.
The paper's second stage, a linear classifier on the frozen encoder, is the evaluation's.
"""  # noqa: E501

import functools

import keras

from tfssl import encoders, layers
from tfssl.method import Run
from tfssl.objectives.contrastive import supervised_contrastive
from tfssl.optimizers import SGD, warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.zoo.image import moco, simclr


def views(examples, seed, size=32, area=(0.2, 1.0), blur=0.0):
    """(x, y): two views float32 [B, 2, size, size, 3], and the classes int64 [B].

    The released CIFAR law: crop, flip, jitter, grey, no blur.
    """
    return moco.views(examples, seed, size, area=area, blur=blur), examples["label"]


views.uses = ("label",)


class SupCon(simclr.SimCLR):
    """SimCLR's head, and a loss in which every other view of the same class is a positive.

    A batch must hold several images of a class, or the loss is SimCLR's.
    """

    def objective(self, x, y, outputs):
        labels = keras.ops.repeat(y, outputs.shape[1])  # a view of each image after the other
        return supervised_contrastive(layers.fold(outputs), labels, self.temperature)  # equation 2


def recipe(
    encoder="resnet50",
    data="tfds:cifar10",
    size=32,
    batch_size=1024,
    epochs=1000,
    learning_rate=0.5,
    warmup_epochs=10,  # from 0; the released code begins at 0.01
    weight_decay=1e-4,
    temperature=0.1,
    width=128,
    area=(0.2, 1.0),
    blur=0.0,
    seed=0,
):
    """The released CIFAR-10 run, HobbitLong/SupContrast; its loss is 0.1 / 0.07 times this one.

    The paper's ImageNet runs take a batch of 6144 and LARS (section 4.2).
    """
    view = functools.partial(views, size=size, area=area, blur=blur)
    dataset = batching.train(load(data, keys=("image", "label")), view, batch_size, seed)
    model = SupCon(encoders.get(encoder, size=size), temperature, width)
    end = learning_rate / 1000
    rate = warmup_cosine(learning_rate, dataset.steps, epochs, warmup_epochs, end)
    model.compile(SGD(rate, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=20,
    learning_rate=0.1,
    width=64,
)
