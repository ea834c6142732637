"""Scripts on every task: from data to a .tflite file, with figures as scikit-learn has them."""

import json

import keras
import numpy as np
import pytest
from sklearn import metrics

import tfpeft
from pipelines import compress, evaluate, predict
from tests.pipelines.scripts import call, read_report
from tfpeft.export.tflite_file import TFLiteFile

QUICK = ["--epochs=2", "--batch_size=64", "--final_sparsity=0.3", "--prune_updates=2"]
RNG = np.random.default_rng(0)


def save(path, x, y=None, count=100):
    """Writes an .npz whose last `count` samples are test data."""
    arrays = {"x": x} if y is None else {"x": x, "y": y}
    parts = {}
    for axis, value in arrays.items():
        named = value.items() if isinstance(value, dict) else [("", value)]
        for name, array in named:
            end = f"/{name}" if name else ""
            parts[f"{axis}_train{end}"], parts[f"{axis}_test{end}"] = array[:-count], array[-count:]
    np.savez(path, **parts)


def numbers(samples=400):
    return RNG.normal(size=(samples, 6)).astype("float32")


def regression():
    x = numbers()
    return x, (100 + 30 * x[:, 0] - 20 * x[:, 1]).astype("float32")


def binary():
    x = numbers()
    return x, (x[:, 0] + x[:, 1] > 0).astype(int)


def multi_label():
    x = numbers()
    return x, (x[:, :3] > 0).astype(int)


def segmentation():
    x = RNG.normal(size=(300, 6, 6, 1)).astype("float32")
    return x, (x[..., 0] > 0).astype(int)


def reconstruction():
    return numbers()[:, :4] @ RNG.normal(size=(4, 8)).astype("float32"), None


TASKS = {  # data, the figure of the report, and the same by another hand
    "regression": (regression, "rmse", metrics.root_mean_squared_error),
    "binary": (binary, "accuracy", lambda y, z: metrics.accuracy_score(y, z.argmax(-1))),
    "multi_label": (
        multi_label,
        "f1",
        lambda y, z: metrics.f1_score(y, z > 0.5, average="micro"),
    ),
    "segmentation": (
        segmentation,
        "mean_iou",
        lambda y, z: metrics.jaccard_score(y.ravel(), z.argmax(-1).ravel(), average="macro"),
    ),
    "reconstruction": (reconstruction, "mse", lambda y, z: np.mean((y - z) ** 2)),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_from_data_to_a_file(task, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make, figure, by_hand = TASKS[task]
    x, y = make()
    save("mine.npz", x, y)
    flags = ["--dataset=mine.npz", "--stages=prune,quantize", *QUICK]
    assert call(compress, *flags) == 0
    assert f"{task if task != 'binary' else 'one class per sample'}" in capsys.readouterr().out
    folder = tmp_path / "saved_models" / "mine-compress"
    report = read_report(folder)
    outputs = TFLiteFile(folder / "model.tflite").predict(x[-100:])
    expected = by_hand((x if y is None else y)[-100:], outputs)
    assert report["rows"]["model.tflite"]["metrics"][figure] == pytest.approx(expected, rel=1e-4)


def two_heads():
    """A compiled model of two inputs and two outputs in a list, and its data.

    In a dict, which Keras sorts, the outputs have another order.
    """
    inputs = {name: keras.Input((3,), name=name) for name in ("left", "right")}
    hidden = keras.layers.Dense(16, "relu")(keras.layers.Concatenate()(list(inputs.values())))
    outputs = [
        keras.layers.Dense(1, name="size")(hidden),
        keras.layers.Dense(3, name="kind")(hidden),
    ]
    model = keras.Model(inputs, outputs)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", ["mse", crossentropy], loss_weights=[0.5, 2.0])
    x = numbers()
    x = {"left": x[:, :3], "right": x[:, 3:]}
    y = {"kind": x["left"].argmax(1), "size": x["right"].sum(1)}
    return model, x, y


def test_several_inputs_and_outputs_of_a_compiled_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, x, y = two_heads()
    model.fit(x, y, epochs=20, verbose=0)
    model.save("mine.keras")
    save("mine.npz", x, y)
    mine = ["--dataset=mine.npz", "--model=mine.keras"]
    stages = ["--stages=tune,prune_channels,quantize", "--max_macs=0.8"]
    assert call(compress, *mine, *stages, "--max_metric_loss=1000", *QUICK[:2]) == 0
    output = capsys.readouterr().out
    assert "regression of size, classification of kind" in output
    split = np.random.default_rng(0).permutation(300)[:30]  # of validation, as scripts take it
    size, logits = model.predict({k: v[split] for k, v in x.items()}, verbose=0)
    z = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    losses = (size[:, 0] - y["size"][split]) ** 2, -z[np.arange(30), y["kind"][split]]
    before = 0.5 * losses[0].mean() + 2 * losses[1].mean()
    assert f"Validation loss: {before:.4g} before" in output
    folder = tmp_path / "saved_models" / "mine-compress"
    report = read_report(folder)
    found = TFLiteFile(folder / "model.tflite").predict({k: v[-100:] for k, v in x.items()})
    expected = {
        "kind/accuracy": np.mean(found["kind"].argmax(-1) == y["kind"][-100:]),
        "size/rmse": metrics.root_mean_squared_error(y["size"][-100:], found["size"][:, 0]),
    }
    row = report["rows"]["model.tflite"]["metrics"]
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert set(report["metrics"]) == set(expected)
    tfpeft.export_tflite(model, "list.tflite")
    files = ["mine.keras", str(folder / "model.tflite"), "list.tflite"]
    capsys.readouterr()
    assert call(evaluate, "--format=json", mine[0], *files) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["list.tflite"]["metrics"] == pytest.approx(rows["mine.keras"]["metrics"], rel=1e-4)
    assert rows[files[1]]["metrics"]["size/rmse"] == pytest.approx(row["size/rmse"], rel=1e-4)


def test_a_table_from_csv_to_predictions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["length,colour,price"]
    for i, length in enumerate(RNG.normal(10, 3, 300)):
        colour = ("red", "green", "blue")[i % 3]
        lines.append(f"{length:.3f},{colour},{5 * length + 20 * (colour == 'red'):.3f}")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    flags = ["--dataset=rows.csv:price", "--name=rows", "--stages=quantize", "--epochs=20"]
    assert call(compress, *flags) == 0
    assert "regression" in capsys.readouterr().out
    (tmp_path / "new.csv").write_text("colour,length\nred,10\nblue,10\n")
    call(predict, "--run=saved_models/rows", "--input=new.csv", "--save=found.npy")
    assert "regression" not in capsys.readouterr().err
    red, blue = np.load("found.npy")[:, 0]
    assert (red, blue) == pytest.approx((70, 50), abs=10)
