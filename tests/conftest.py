"""What every test may ask for: the shared data, two replicas, and a quiet TensorFlow."""

import gc
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the command line does

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

# Before TensorFlow's first operation, or it is too late: two replicas on one CPU.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session")
def shared():
    """The folder of real data beside the checkout; tests that need it skip without it."""
    folder = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def two_replicas():
    """The process' one MirroredStrategy: a second would reuse its collective keys and abort."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(autouse=True)
def fresh_start():
    """The next test starts with float32, whatever this one set, and without this one's graphs.

    In a graph `tf.custom_gradient`, which Keras' optimisers reach through `all_reduce`, registers
    its gradient under a name of its own for ever, and with it the whole graph: hundreds of graphs
    are gigabytes.
    """
    gradients = ops.gradient_registry._registry
    before = set(gradients)
    yield
    keras.config.set_dtype_policy("float32")
    keras.backend.clear_session(free_memory=False)
    new = [name for name in set(gradients) - before if name.startswith("CustomGradient-")]
    for name in new:
        del gradients[name]
    if new:
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def little_garbage():
    """What outlives a module of tests is for good: looking through it at each test takes long."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def machines(monkeypatch):
    """The settings of every linear SVM that the test fits, in order."""
    from sklearn import svm

    fitted = []

    class Recorded(svm.LinearSVC):
        def fit(self, *data):
            fitted.append(self.get_params())
            return super().fit(*data)

    monkeypatch.setattr(svm, "LinearSVC", Recorded)
    return fitted
