import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

# Before anything runs on the CPU: later it can no longer be split.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def _short_collections():
    """Takes what is left after a test out of Python's searches for garbage.

    Every training step that Keras traces stays in TensorFlow's registry of gradients for good.
    After hundreds of tests a search through all of them takes seconds, and Keras and the
    converter to TFLite ask for one again and again.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def mirrored():
    """One strategy for all tests: two in a process disagree about their collective operations."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
