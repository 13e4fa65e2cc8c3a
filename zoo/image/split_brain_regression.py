"""Two halves of a network predict each other's channels, lightness and colour, by regression.

Paper: Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction
Authors: Richard Zhang, Phillip Isola, Alexei A. Efros
Venue: CVPR 2017
URL: https://arxiv.org/abs/1611.09842
Family: pretext-generative
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.maps import halved, side_by_side, trunk
from tfssl.layers.decoders import PixelHead
from tfssl.layers.lab import AB, Lab
from tfssl.method import Method, Run
from tfssl.objectives.reconstruction import squared_error
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop, rgb_to_lab
from tfssl.zoo.image.colorization import steps_down

# Mean and standard deviation of each channel of photographs as `views` gives them (ours, rounded).
LAB = {"lightness": ((0.5,), (0.25,)), "colour": ((0.0, 0.0), (0.12, 0.12))}


def views(examples, seed, size=180, area=(0.49, 0.49), stride=15):
    """A crop in two parts, and what each half is asked: the other part, every `stride`-th pixel.

    Returns:
        (x, y), a dict each. x: "lightness", L / 100 [B, size, size, 1], and "colour", ab / 110
        [B, size, size, 2]. y: what the half of that name is asked, under "lightness" the colour
        and under "colour" the lightness, of size / stride px (rounded up). The paper crops 180 px
        of 256 and predicts maps of 12 x 12.
    """
    crops = random_resized_crop(examples["image"], size, seed, area=area, aspect=(1.0, 1.0))
    lab = rgb_to_lab(crops)
    x = {"lightness": lab[..., :1] / 100, "colour": lab[..., 1:] / AB}
    return x, asked(x, stride)


def asked(x, stride):
    """What each of two halves is asked: every `stride`-th pixel of the other part."""
    return dict(zip(x, [part[:, ::stride, ::stride] for part in x.values()][::-1]))


class SplitBrainRegression(Method):
    """Two networks that share nothing, each with a head that regresses the other one's input.

    Args:
        encoder: the plan of the whole, a network of convolutions; each half is built anew with half
            of its channels. What is published takes RGB and returns both halves' features, with
            their taps side by side.
        width: of the 1 x 1 convolution between a half and its prediction.
        stride: pixels of the input by pixel of the prediction.
        outputs: values a pixel of each half's head; by default the channels of the other part.
        parts: dict of two names -> (mean, standard deviation) of the channels.
    """

    def __init__(self, encoder, width=256, stride=15, outputs=None, parts=LAB):
        tap = encoders.tap_names(encoder)[-1:]
        trunk(encoder, "split_brain")
        halves = {
            name: halved(encoder, mean, [d**2 for d in deviation], name)
            for name, (mean, deviation) in parts.items()
        }
        super().__init__(self.join(halves, encoder.name))
        self.parts, self.stride, self.tap = parts, stride, tap[0]
        self.halves = halves
        self.other = dict(zip(parts, list(parts)[::-1]))
        outputs = outputs or {name: len(parts[self.other[name]][0]) for name in parts}
        self.heads = {
            name: PixelHead(half.output[self.tap].shape[-1], width, outputs[name], kernel=1)
            for name, half in halves.items()
        }
        self.costs = {name: keras.metrics.Mean(name=f"{name}_loss") for name in parts}

    def join(self, halves, name):
        """The encoder that is published."""
        return side_by_side(halves, Lab(name="lab"), f"{name}_split")

    def call(self, x, training=False):
        """Each half's prediction, [B, H / stride, W / stride, outputs], by what it was given."""
        outputs = {}
        for name, half in self.halves.items():
            maps = half(x[name], training=training)[self.tap]
            sides = [-(-x[name].shape[i] // self.stride) for i in (1, 2)]
            outputs[name] = self.heads[name](maps, sides=sides, training=training)
        return outputs

    def objective(self, x, y, outputs):
        losses = []
        for name, prediction in outputs.items():
            wanted = self.other[name]
            losses.append(self.cost(wanted, y[name], prediction))
            self.costs[wanted].update_state(losses[-1])
        return tf.add_n(losses)

    def cost(self, name, target, prediction):
        """Squared error of the predicted part `name`, its channels standardised."""
        mean, deviation = (tf.constant(value) for value in self.parts[name])
        return squared_error(prediction, (target - mean) / deviation)


def compiled(model, dataset, epochs, learning_rate, weight_decay):
    """The run with Adam and the steps of colorization's rate."""
    rate = steps_down(learning_rate, round(dataset.steps * epochs))
    model.compile(keras.optimizers.Adam(rate, 0.9, 0.99, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=180,
    batch_size=40,
    epochs=14,
    learning_rate=3e-5,
    weight_decay=1e-3,
    width=256,
    area=(0.49, 0.49),
    stride=15,
    seed=0,
):
    """The paper's reg, reg on ImageNet; it names no schedule, so it has colorization's."""
    view = functools.partial(views, size=size, area=area, stride=stride)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = SplitBrainRegression(encoders.get(encoder, size=size), width, stride)
    return compiled(model, dataset, epochs, learning_rate, weight_decay)


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000",
    size=32,
    batch_size=64,
    epochs=2,
    learning_rate=1e-3,
    width=128,
    area=(0.5, 1.0),
    stride=4,
)
