"""Tell in which of many orders the nine tiles of an image were handed over.

Paper: Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles
Authors: Mehdi Noroozi, Paolo Favaro
Venue: ECCV 2016
URL: https://arxiv.org/abs/1603.09246
Family: pretext-spatial
"""

import functools
import math

import keras
import tensorflow as tf

from tfssl import encoders, layers
from tfssl.encoders.image import MEAN, STD
from tfssl.errors import BadInput
from tfssl.method import Method, Run
from tfssl.objectives.classification import cross_entropy
from tfssl.optimizers import SGD
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import project_colour, random_square_crop
from tfssl.pipelines.sample.patches import permutations, standardise, tiles

# For `tfssl audit`: with which keywords of the recipe a cue gets in, and which keep it out.
COLOURS = dict(shift=0, grey=0.0, projection=0.0)
FIXES = {"shift": {"shift": 2}, "grey": {"grey": 1.0}, "project": {"projection": 1.0}}
GUARDS = {
    "aberration": (COLOURS, {name: COLOURS | fix for name, fix in FIXES.items()}),
    "gap": ({"fill": 1.0}, {}),
}


def views(
    examples,
    seed,
    size=255,
    share=255 / 256,
    fill=64 / 85,
    grid=3,
    orders=100,
    shift=2,
    grey=0.5,
    projection=0.5,
):
    """Shuffled tiles, float32 [B, grid^2, tile, tile, 3]; and their order, int32 [B].

    A square `share` of the shorter side wide, as `size` pixels; in each cell of the grid a tile at
    random, its side `fill` of the cell's (the paper: 64 px of 85), its channels apart by up to
    `shift` pixels. Slot i receives tile `permutations(orders)[y, i]`, tiles counted in raster
    order. Guards (section 4.2): the gap that smaller tiles leave; the channels' shift; a share
    `grey` of the puzzles without colour (the mean of the channels; the released loader's half, the
    paper's text has 30 %), and of the others a share `projection` without green-magenta; every
    tile's every channel standardised by itself.

    Tiles come in the units of encoders, MEAN + STD t where t has mean 0 and deviation 1.
    """
    seeds = tf.random.split(seed, 4)
    crops = random_square_crop(examples["image"], size, seeds[0], share)
    pieces = tiles(crops, seeds[2], grid, tile_side(size, grid, fill), shift)
    # Colours go last: channels moved apart after it would bring colour back into a grey puzzle.
    pieces = standardised(guard(pieces, seeds[1], grey, projection))
    table = tf.constant(permutations(orders, grid * grid))
    y = tf.random.stateless_uniform([tf.shape(pieces)[0]], seeds[3], 0, orders, tf.int32)
    return shuffle(pieces, tf.gather(table, y)), y


def tile_side(size, grid, fill):
    """Of a tile in pixels, whatever the `size` of the puzzle: `fill` of its cell."""
    tile = round(fill * (size // grid))
    if not 0 < tile <= size // grid:
        raise BadInput(
            f"jigsaw: fill={fill} leaves tiles of {tile} px in cells of {size // grid}: it is the "
            "share of a cell's side, above 0 and at most 1."
        )
    return tile


def guard(pieces, seed, grey, projection):
    """Some puzzles [B, P, h, w, 3] greyed, some robbed of green-magenta, each as a whole."""
    u = tf.random.stateless_uniform([tf.shape(pieces)[0], 1, 1, 1, 1], seed)
    robbed = tf.where(u < grey + (1 - grey) * projection, project_colour(pieces), pieces)
    return tf.where(u < grey, tf.reduce_mean(pieces, axis=-1, keepdims=True), robbed)


def standardised(pieces):
    """Tiles [B, P, h, w, 3] as encoders shall see them: mean 0 and deviation 1 once normalised."""
    return layers.unfold(MEAN + STD * standardise(layers.fold(pieces), (1, 2)), pieces.shape[1])


def shuffle(pieces, order):
    """Slot i gets tile order[:, i]: [B, P, ...] by int [B, P]."""
    return tf.gather(pieces, order, axis=1, batch_dims=1)


class Jigsaw(Method):
    """The context-free network: every tile alone up to fc6, joined in the order of the slots.

    Args:
        orders: number of permutations to tell apart.
        pieces: number of tiles.
        tile_width: of fc6, a tile's.
        width: of fc7, the puzzle's.
        dropout: after both; `seed` is of what it drops.
    """

    def __init__(
        self, encoder, orders=100, pieces=9, tile_width=1024, width=4096, dropout=0.5, seed=0
    ):
        super().__init__(encoder)
        self.pieces = pieces
        self.fc6 = _fully_connected(encoder.output_shape[-1], tile_width, dropout, seed, "fc6")
        self.fc7 = _fully_connected(pieces * tile_width, width, dropout, seed + 1, "fc7")
        self.classifier = layers.linear(width, orders)
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.chance = math.log(orders)

    def shown(self, x, y):
        """Every tile and, below it, its number in the picture."""
        return x, tf.gather(permutations(self.classifier.output_shape[-1], self.pieces), y)

    def towers(self, x, training=False):
        """The tiles' features side by side: [B, pieces * tile_width], slot after slot."""
        h = self.fc6(self.encoder(layers.fold(x), training=training), training=training)
        return tf.reshape(h, [-1, self.pieces * h.shape[-1]])

    def call(self, x, training=False):
        joined = self.fc7(self.towers(x, training), training=training)
        return self.classifier(joined)  # [B, orders]

    def objective(self, x, y, outputs):
        self.accuracy.update_state(y, outputs)
        return cross_entropy(outputs, y)


def _fully_connected(inputs, width, dropout, seed, name):
    dense = [keras.Input([inputs]), keras.layers.Dense(width), keras.layers.ReLU()]
    if dropout:
        dense.append(keras.layers.Dropout(dropout, seed=seed))
    return keras.Sequential(dense, name=name)


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=255,
    batch_size=256,
    epochs=70,  # 350,000 steps
    learning_rate=0.01,
    share=255 / 256,
    fill=64 / 85,
    grid=3,
    orders=1000,
    shift=2,
    grey=0.5,
    projection=0.5,
    tile_width=1024,
    width=4096,
    dropout=0.5,
    weight_decay=5e-4,
    fall=0.286,  # every 100,000 of 350,000 steps
    seed=0,
):
    """The paper's ImageNet run (section 4.1), numbers of MehdiNoroozi/JigsawPuzzleSolver.

    For tiles of 64 px our AlexNet's first convolution is 5 x 5 with stride 1, the paper's 11 x 11
    with stride 2; it has batch norm where the paper's has local response normalisation.
    """
    permutations(orders, grid * grid)  # refuses more than there are
    law = dict(share=share, fill=fill, grid=grid, orders=orders)
    law |= dict(shift=shift, grey=grey, projection=projection)
    view = functools.partial(views, size=size, **law)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    encoder = encoders.get(encoder, size=tile_side(size, grid, fill))
    model = Jigsaw(encoder, orders, grid * grid, tile_width, width, dropout, seed)
    steps = round(dataset.steps * epochs)
    rate = keras.optimizers.schedules.ExponentialDecay(
        learning_rate, max(1, round(fall * steps)), 0.1, staircase=True
    )
    model.compile(SGD(rate, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000",
    size=60,
    share=0.75,  # the grid that JPEG leaves of 8 px must not lie still within the cells
    batch_size=64,
    epochs=3,
    learning_rate=0.03,
    fill=16 / 20,
    orders=64,
    shift=1,
    tile_width=128,
    width=512,
    dropout=0.0,
    fall=0.4,
)
