"""Batch normalisation that is the same over one replica and over many."""

import keras


@keras.saving.register_keras_serializable("tfssl")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation, with statistics shared by all replicas."""

    def __init__(self, *args, synchronized=True, **kwargs):
        super().__init__(*args, synchronized=synchronized, **kwargs)
