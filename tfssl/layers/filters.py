"""Filters made of a layer's own inputs, before any training."""

import math

import keras
import numpy as np
import tensorflow as tf

from tfssl.layers.kmeans import kmeans, unit_rows

PATCHES = 20_000  # the most of a layer's inputs that its filters are made of
EPSILON = 1e-3  # of the whitening, added to the variances


def directions(layer, x, kind, random):
    """Filters of the shape of a Conv2D's or Dense's kernel, of any scale, from its inputs `x`.

    Args:
        kind: "elwise", independent normal numbers; "pca", the first principal directions; "zca",
            rows, drawn at random, of the matrix that whitens patches and leaves them most alike;
            "kmeans", the centres of unit-length whitened patches; "rand", some of these patches.
            Where the patches do not suffice for all filters, the rest are normal.
        random: NumPy generator.

    Source: Krähenbühl et al., ICLR 2016, section 3.3; whitening as in the released code.
    """
    kernel = random.normal(size=layer.kernel.shape).astype(np.float32)
    if kind == "elwise":
        return kernel
    rows = _patches(layer, x).reshape(-1, math.prod(kernel.shape[:-1])).astype(np.float64)
    rows = random.permutation(rows)[:PATCHES]
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    filters = kernel.shape[-1]
    whitening = vectors / np.sqrt(np.maximum(values, 0) + EPSILON)
    if kind == "pca":
        made = vectors[:, ::-1].T[:filters]
    elif kind == "zca":
        made = random.permutation(whitening @ vectors.T)[:filters]
    else:
        made = unit_rows(centred @ whitening)  # in random order
        if kind == "kmeans":
            made, _ = kmeans(made, filters, seed=int(random.integers(2**31)))
        made = made[:filters] @ whitening.T
    kernel.reshape(-1, kernel.shape[-1])[:, : len(made)] = made.T
    return kernel


def linear_part(layer, x, kernel):
    """What a Conv2D or Dense with `kernel` computes before bias and activation, in float32."""
    if isinstance(layer, keras.layers.Dense):
        return tf.matmul(x, kernel)
    dilations = layer.dilation_rate
    return tf.nn.convolution(x, kernel, layer.strides, layer.padding.upper(), dilations=dilations)


def _patches(layer, x):
    """The inputs of single outputs [..., values], in the order of the kernel's."""
    if isinstance(layer, keras.layers.Dense):
        return x.numpy()
    pairs = layer.kernel_size, layer.strides, layer.dilation_rate
    sizes, strides, rates = ([1, *pair, 1] for pair in pairs)
    return tf.image.extract_patches(x, sizes, strides, rates, "VALID").numpy()
