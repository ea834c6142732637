"""Zeros and clusters in the file of a quantise-aware model, read from its buffers; devices."""

import importlib.util

import keras
import numpy as np
import pytest

import tfpeft
from tests.quantization import networks
from tests.quantization.networks import samples, shaken
from tests.quantization.test_integer_files import aware, kernels

CLUSTERS = 5
X = samples(networks.cnn(), 32)
Y = np.random.default_rng(2).integers(0, 4, 32)


def fit(model, optimizer):
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(X, Y, batch_size=8, verbose=0)
    return model


def sgd():
    return keras.optimizers.SGD(0.05)


def half():
    return tfpeft.StaticSparse(sgd(), 0.5, distribution="uniform")


def clustered(optimizer):
    return tfpeft.WeightClustering(optimizer, CLUSTERS)


def distinct(values):
    """Returns the largest number of distinct values of an output channel."""
    return max(len(np.unique(channel)) for channel in values)


@pytest.fixture(scope="module")
def plain():
    keras.utils.set_random_seed(0)
    return shaken(networks.cnn())


@pytest.mark.parametrize("has_zeros", [True, False])
@pytest.mark.parametrize("has_clusters", [True, False])
def test_zeros_and_clusters_survive_into_the_file(plain, has_zeros, has_clusters, tmp_path):
    """Pruned, clustered, or both; then tuned with rounding, which keeps them."""
    model, optimizer = plain, sgd()
    if has_zeros:
        model = tfpeft.strip_pruning(fit(keras.models.clone_model(plain), half()))
        optimizer = tfpeft.FixedMask(optimizer)
    if has_clusters:
        optimizer = clustered(optimizer)
    small = fit(tfpeft.quantize_aware(model), optimizer)
    path = tmp_path / "model.tflite"
    tfpeft.export_tflite(small, path, quantization="int8", allow_deviation=1.0)
    found = kernels(path)
    before = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    after = [layer.kernel.numpy() for layer in small.model.layers if hasattr(layer, "kernel")]
    for old, new, in_file in zip(before, after, found, strict=True):
        zeros = np.moveaxis(old, -1, 0).reshape(len(in_file), -1) == 0
        if has_zeros:
            assert np.mean(zeros) >= 0.45
        assert np.all(in_file.reshape(len(in_file), -1)[zeros] == 0)
        if has_clusters:
            assert len(np.unique(new)) <= CLUSTERS
            assert distinct(in_file) <= CLUSTERS
        else:
            assert distinct(in_file) > CLUSTERS


needs_devices = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ethosu", "tflite_micro")),
    reason="the extra `devices` is not installed",
)


@needs_devices
@pytest.mark.parametrize("name", ["cnn", "mobile_net_v2", "res_net"])
def test_a_file_for_a_microcontroller_and_an_npu(name, tmp_path):
    path = tmp_path / "model.tflite"
    borders = {"batch_size": 1, "input_type": "int8", "output_type": "int8"}
    tfpeft.export_tflite(aware(name), path, quantization="int8", compact=True, **borders)
    vela = tfpeft.describe_tflite(path, target="ethos-u55-128")
    assert vela.device.cpu_operators == ()
    assert vela.float_operators == ()
    assert {"QUANTIZE", "DEQUANTIZE"}.isdisjoint(vela.ops)
    micro = tfpeft.describe_tflite(path, target="tflm").device
    assert micro.reference_difference == 0.0
    assert micro.max_steps <= 8
    x = samples(aware(name).model, seed=1)
    found, expected = tfpeft.TFLiteFile(path).predict(x), np.asarray(aware(name)(x))
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.03 * np.std(expected)
