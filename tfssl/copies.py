"""What a copy of a network takes over from its original, beyond the plan that Keras clones."""

import keras


def with_weights(copy, original):
    """The copy, now with the original's weights and what its layers learnt by `adapt`."""
    assign(copy.weights, original.weights)
    return with_adapted(copy, original)


def with_adapted(copy, original):
    """The copy, now with what the original's layers learnt by `adapt`: statistics, vocabularies.

    Keras' configurations leave them out, and its layers do not compute with the weights that hold
    them but with what `finalize_state` made of these.
    """
    for new, old in zip(_adaptable(copy), _adaptable(original), strict=True):
        if hasattr(new, "lookup_table"):
            words = old.get_vocabulary()
            if words != new.get_vocabulary():
                idf = {"idf_weights": old.idf_weights} if old.output_mode == "tf_idf" else {}
                new.set_vocabulary(words, **idf)
        elif new.weights:
            assign(new.non_trainable_weights, old.non_trainable_weights)
            new.finalize_state()
    return copy


def assign(variables, values):
    """Variables take the values of others, each in its own precision."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(keras.ops.convert_to_numpy(keras.ops.cast(value, variable.dtype)))


def _adaptable(network):
    return [layer for layer in network._flatten_layers() if hasattr(layer, "finalize_state")]
