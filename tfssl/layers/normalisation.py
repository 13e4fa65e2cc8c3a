"""Batch normalisation that is the same over one replica and over many."""

import keras


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation, with statistics shared by all replicas."""

    def __init__(self, *args, synchronized=True, **kwargs):
        super().__init__(*args, synchronized=synchronized, **kwargs)
