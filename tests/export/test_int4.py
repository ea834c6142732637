"""Files with weights of 4 bits against NumPy, and what is not in 4 bits."""

import importlib.util

import keras
import ml_dtypes
import numpy as np
import pytest

import tfpeft
from tfpeft.export.embedding_lookups import with_embedding_lookups
from tfpeft.export.tflite_file import TFLiteFile

pytest.importorskip("litert_quantizer")
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 80, (40, 5)).astype("int32")


def four_bits(rows, block):
    """Worked out by hand: each block of a row in steps of a seventh of its largest value.

    The steps of blocks, of which there are many, have the bits of bfloat16.
    """
    blocks = rows.reshape(len(rows), -1, block)
    steps = np.abs(blocks).max(axis=-1, keepdims=True) / 7
    if block < rows.shape[1]:
        steps = steps.astype(ml_dtypes.bfloat16).astype("float32")
    return (np.round(blocks / steps) * steps).reshape(rows.shape)


def embedding(rows, width, dtype="int32"):
    table = keras.layers.Embedding(rows, width, name="table")
    built = keras.Sequential([keras.Input((None,), dtype=dtype, name="ids"), table])
    table.embeddings.assign(RNG.normal(size=(rows, width)))
    return built, table.embeddings.numpy()


def clipped_to_4_bits(rows, block):
    """The steps that make the least square error, with values beyond seven steps clipped.

    Sakr et al., "Optimal Clipping and Magnitude-aware Differentiation for Improved
    Quantization-aware Training", 2022, https://arxiv.org/abs/2206.06501, equation 6.
    """
    blocks = rows.reshape(len(rows), -1, block)
    sizes, limits = np.abs(blocks), np.ones((*blocks.shape[:2], 1))
    for _ in range(10):
        are_clipped = sizes >= limits
        counts = are_clipped.sum(axis=-1, keepdims=True)
        squares = counts + 4.0**-4 / 3 * (block - counts)
        limits = (sizes * are_clipped).sum(axis=-1, keepdims=True) / squares
    steps = (limits / 7).astype("float32").astype(ml_dtypes.bfloat16).astype("float32")
    return (np.clip(np.round(blocks / steps), -7, 7) * steps).reshape(rows.shape)


@pytest.mark.parametrize(
    ("rows", "width", "block", "dtype"),
    [(10_000, 64, 32, "int32"), (80, 50, 50, "int64")],
    ids=["large, in blocks", "per row"],
)
def test_the_table_of_an_embedding_is_in_4_bits(tmp_path, rows, width, block, dtype):
    model, table = embedding(rows, width, dtype)
    path = tmp_path / "m.tflite"
    report = tfpeft.export_tflite(
        model, path, quantization="int4_weights", representative_data=IDS.astype(dtype)
    )
    outputs = TFLiteFile(path).predict(IDS)
    np.testing.assert_allclose(outputs, four_bits(table, block)[IDS], atol=1e-5)
    # Of another length than the samples.
    longer = np.tile(IDS, (1, 3))
    np.testing.assert_array_equal(TFLiteFile(path).predict(longer), np.tile(outputs, (1, 3, 1)))
    assert report.ops["EMBEDDING_LOOKUP"] == 1
    assert "GATHER" not in report.ops
    assert report.notes == ("100% of the weights in 4 bits",)
    # 4 bits per number, 2 bytes per block or 12 per row, and the operators around them.
    least = rows * width / 2 + rows * (2 * width / block if block < width else 12)
    assert least < report.size_bytes < least + 7_000


@pytest.fixture(scope="module")
def classifier():
    """Two tasks on an embedding and a Dense of 64 x 32, which are large enough."""
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((5,), dtype="int32", name="ids"),
            keras.layers.Embedding(80, 64),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(32, name="hidden"),
        ]
    )
    backbone.layers[0].embeddings.assign(RNG.normal(size=(80, 64)))
    return tfpeft.SharedModel(backbone, {"a": 3, "b": 2})


def test_lookups_read_what_gather_read(classifier, tmp_path):
    path = tmp_path / "m.tflite"
    tfpeft.export_tflite(classifier, path, representative_data=IDS)
    before = TFLiteFile(path)
    expected = {task: before.predict(IDS, task) for task in ("a", "b")}
    assert before.contents.ops["GATHER"] == 2
    path.write_bytes(with_embedding_lookups(before.content))
    file = TFLiteFile(path)
    for task, outputs in expected.items():
        np.testing.assert_array_equal(file.predict(IDS, task), outputs)
    assert "GATHER" not in file.contents.ops
    assert file.contents.ops["EMBEDDING_LOOKUP"] == 2
    assert file.contents.parameters == before.contents.parameters


def test_signatures_share_weights_of_4_bits_and_small_layers_stay(classifier, tmp_path):
    path = tmp_path / "m.tflite"
    report = tfpeft.export_tflite(
        classifier, path, quantization="int4_weights", representative_data=IDS
    )
    large, small = 80 * 64 + 64 * 32, 32 * 2 + 32 * 3  # biases are zeros, which a file leaves out
    assert report.notes == (f"{large / (large + small):.0%} of the weights in 4 bits",)
    assert report.signatures == ("a", "b")
    assert report.size_bytes < large / 2 + 4 * small + 8_000
    table, kernel = classifier.encoder.backbone.layers[0], classifier.encoder.backbone.layers[2]
    means = four_bits(table.embeddings.numpy(), 32)[IDS].mean(axis=1)
    rows = kernel.kernel.numpy().T
    hidden, other = (means @ f(rows, 32).T for f in (clipped_to_4_bits, four_bits))
    for task, width in {"a": 3, "b": 2}.items():
        head = classifier.parts[task].head
        expected = hidden @ head.kernel.numpy()
        outputs = TFLiteFile(path).predict(IDS, task)
        assert outputs.shape == (40, width)
        # The inputs of `hidden` are rounded to 8 bits as the file runs.
        np.testing.assert_allclose(outputs, expected, atol=0.05 * np.abs(expected).max())
        unclipped = other @ head.kernel.numpy()
        assert np.abs(outputs - expected).mean() < np.abs(outputs - unclipped).mean() / 2


def test_a_model_without_such_layers_raises(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"an earlier file")
    dense = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    with pytest.raises(tfpeft.ExportError, match="a layer Embedding of 1,024 weights"):
        tfpeft.export_tflite(dense, path, quantization="int4_embeddings")
    assert path.read_bytes() == b"an earlier file"
    assert list(tmp_path.iterdir()) == [path]


def test_what_4_bits_lose_raises(tmp_path):
    """Weights beside others of 100 times their size, in each block, are rounded to zero."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    kernel = RNG.normal(size=(64, 64))
    kernel[::16] *= 100
    model.layers[0].kernel.assign(kernel)
    data = RNG.normal(size=(40, 64)).astype("float32")
    data[:, ::16] = 1.0  # the large weights only add the same to all samples
    with pytest.raises(tfpeft.ExportError, match='4_weights.*Try quantization="dynamic_range"'):
        tfpeft.export_tflite(
            model, tmp_path / "m.tflite", quantization="int4_weights", representative_data=data
        )
    assert not list(tmp_path.iterdir())


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    model, _ = embedding(80, 32)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(tfpeft.InputError, match=r"`pip install tfpeft\[quantizer\]` brings"):
        tfpeft.export_tflite(model, tmp_path / "m.tflite", quantization="int4_weights")
