"""evaluate and compare on models of every task, and on their files, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score

import tfpeft
from tfpeft.evaluation.quality import measure_quality
from tfpeft.evaluation.resampling import interval
from tfpeft.evaluation.subjects import FileSubject, KerasSubject

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 8)).astype("float32")
IMAGES = rng.normal(size=(12, 4, 4, 2)).astype("float32")
MASK = rng.integers(0, 2, (12, 4, 4))
BITS = rng.integers(0, 2, (60, 3))


def dense(units, activation=None, x=X):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dense(units, activation)])


def as_dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(7)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns (model, file) of two outputs: 3 classes and a number."""
    inputs = keras.Input((8,))
    outputs = {
        "kind": keras.layers.Dense(3, activation="softmax")(inputs),
        "age": keras.layers.Dense(1)(inputs),
    }
    model, path = keras.Model(inputs, outputs), tmp_path_factory.mktemp("files") / "m.tflite"
    tfpeft.export_tflite(model, path)
    return model, path


@pytest.mark.parametrize(
    ("model", "x", "y", "task", "headline"),
    [
        (dense(3, "sigmoid"), X, BITS, "multi_label", "f1"),
        (dense(2), X, X[:, :2] * 2, "regression", "rmse"),
        (dense(3, None, IMAGES), IMAGES, MASK + 1, "segmentation", "mean_iou"),
        (dense(1, "sigmoid", IMAGES), IMAGES, MASK, "segmentation", "mean_iou"),
        (dense(8), X, X, "reconstruction", "mse"),
    ],
)
def test_model_and_file_of_a_task(model, x, y, task, headline, tmp_path):
    tfpeft.export_tflite(model, tmp_path / "m.tflite")
    file = tfpeft.TFLiteFile(tmp_path / "m.tflite")
    subjects = {"model": KerasSubject(model), "file": FileSubject(file, None)}
    found, tasks, _ = measure_quality(subjects, as_dataset(x, y))
    outputs = model.predict(x, verbose=0)
    if task == "multi_label":
        expected = f1_score(y, outputs > 0.5, average="micro")
    elif task == "segmentation":
        classes = outputs.argmax(-1) if outputs.shape[-1] > 1 else outputs[..., 0] > 0.5
        shares = [
            np.sum((classes == c) & (y == c)) / np.sum((classes == c) | (y == c))
            for c in np.union1d(classes, y)
        ]
        expected = np.mean(shares)
    else:
        expected = np.mean((outputs - y) ** 2) ** (0.5 if task == "regression" else 1)
    assert tasks == {None: task}
    for figures in (each[None] for each in found.values()):
        assert figures.values[headline] == pytest.approx(expected, rel=1e-4)
        low, high = interval(figures.replicates[headline])
        assert low < figures.values[headline] < high
        assert figures.notes == ()


def test_the_rows_of_a_task():
    model = dense(2)
    compared = tfpeft.compare({"a": model, "b": model}, (X, X[:, :2] * 2))
    row = compared["b"].as_dict()
    assert row["task"] == compared["b"].task == "regression"
    assert row["metrics"]["rmse"] == compared["b"].metrics["rmse"]
    assert (row["accuracy"], compared["b"].f1, row["confusion_matrix"]) == (None, None, None)
    assert len(row["per_class"]["r2"]) == 2
    assert compared.headlines == ("rmse",)
    assert not compared.difference("b", "a").is_clear
    lines = str(compared).splitlines()
    assert lines[0].split()[:4] == ["RMSE", "MAE", "R2", "pearson"]
    assert lines[-1].startswith("b: rmse +0 against a")
    assert lines[-1].endswith("no clear difference")


def test_x_alone_is_reconstructed():
    subjects = {"model": KerasSubject(dense(8))}
    (alone, tasks, _), (labelled, _, _) = (measure_quality(subjects, data) for data in (X, (X, X)))
    assert tasks == {None: "reconstruction"}
    assert alone["model"][None].values == labelled["model"][None].values


def test_several_outputs(exported):
    model, path = exported
    y = {"kind": rng.integers(0, 3, 60), "age": rng.normal(size=60)}
    weights = rng.integers(0, 3, 60)
    models = {"model": model, "file": path}
    compared = tfpeft.compare(models, (X, y, weights), metrics={"age": "mse"})
    found = model.predict(X, verbose=0)
    hits = found["kind"].argmax(1) == y["kind"]
    squares = (found["age"][:, 0] - y["age"]) ** 2
    for row in compared.rows.values():
        assert row.task == {"kind": "classification", "age": "regression"}
        assert row.metrics["kind/accuracy"] == pytest.approx(np.average(hits, weights=weights))
        mse = np.average(squares, weights=weights)
        assert row.metrics["age/rmse"] == pytest.approx(np.sqrt(mse), rel=1e-5)
        assert row.metrics["age/mse"] == pytest.approx(mse, rel=1e-5)
        assert set(row.confusion_matrix) == {"kind", "age"}
        assert (row.accuracy, row.confusion_matrix["age"]) == (None, None)
    assert compared.headlines == ("kind/accuracy", "age/rmse")
    header = str(compared).splitlines()[0]
    assert "kind/accuracy %" in header
    assert "age/RMSE" in header
    given = tfpeft.evaluate(model, (X, y), task={"kind": "classification"})
    assert given.task == {"kind": "classification", "age": "regression"}
    for data, message in [
        ((X, y["age"]), "labels of the outputs kind, age, .*Received: one array"),
        ((X, {"kind": y["kind"]}), "labels of the outputs .*Received: kind"),
        ((X, {**y, "age": y["age"][:, None] + np.ones(2)}), r"labels of shape \(2,\)"),
    ]:
        with pytest.raises(tfpeft.InputError, match=message):
            tfpeft.evaluate(model, data)


def test_a_list_of_outputs_goes_by_names_and_by_position(tmp_path):
    """The names are in another order in a dict; a second list model has names of its own."""
    inputs = keras.Input((8,))
    outputs = [
        keras.layers.Dense(3, name="kind")(inputs),
        keras.layers.Dense(1, "sigmoid", name="age")(inputs),
    ]
    model = keras.Model(inputs, outputs)
    model.compile(loss=["mse", "mse"], metrics=[[], ["mae"]])
    tfpeft.export_tflite(model, tmp_path / "m.tflite")
    in_dict = keras.Model(inputs, {"age": outputs[1], "kind": outputs[0]})
    other = keras.Model(
        inputs, [keras.layers.Identity(name=n)(o) for n, o in zip("ba", outputs, strict=True)]
    )
    models = {"other": other, "file": tmp_path / "m.tflite", "dict": in_dict}
    y = [rng.normal(size=(60, 3)), rng.integers(0, 2, 60)]
    named, weight = {"age": y[1], "kind": y[0]}, np.ones(60)
    by_hand = np.abs(model.predict(X, verbose=0)[1][:, 0] - y[1]).mean()
    for data, task in [
        ((X, y), None),
        ((X, named, {"age": weight, "kind": weight}), {0: "regression", "age": "binary"}),
    ]:
        compared = tfpeft.compare({"model": model, **models}, data, task=task)
        for row in compared.rows.values():
            assert row.task == {"kind": "regression", "age": "binary"}
            assert row.metrics["age/mae"] == pytest.approx(by_hand, rel=1e-4)
    alone = tfpeft.evaluate(tmp_path / "m.tflite", (X, y), metrics={1: ["mae"]})
    assert alone.task == {0: "regression", 1: "binary"}
    assert alone.metrics["1/mae"] == pytest.approx(by_hand, rel=1e-4)
    with pytest.raises(tfpeft.InputError, match="labels of the outputs kind, age.*: kind, years"):
        tfpeft.evaluate(model, (X, {"kind": y[0], "years": y[1]}))


def test_a_shared_model_and_one_sample():
    """Its file has a signature per task, none of which stands for the whole."""
    shared = tfpeft.SharedModel(dense(4), {"a": 3, "b": 2})
    row = tfpeft.evaluate(shared, (X[:1], {"a": np.array([0]), "b": np.array([1])}))
    assert row.task == {"a": "classification", "b": "classification"}
    assert row.size_bytes > 0
    assert "no latency: its file has a signature per task" in row.notes
    assert (row.latency_ms, row.intervals) == (None, {})


def test_positions_of_batches_of_other_lengths():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Embedding(20, 4), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *layers])
    given = [(rng.integers(0, 20, (4, n)), rng.integers(0, 3, (4, n))) for n in (5, 7, 7, 3)]
    spec = tf.TensorSpec((None, None), "int64")
    data = tf.data.Dataset.from_generator(lambda: iter(given), output_signature=(spec, spec))
    found, tasks, _ = measure_quality({"m": KerasSubject(model)}, data)
    hits = [(model.predict(x, verbose=0).argmax(-1) == y).ravel() for x, y in given]
    assert tasks == {None: "segmentation"}
    assert found["m"][None].values["accuracy"] == pytest.approx(np.concatenate(hits).mean())


def test_agreement_without_labels(exported):
    model, path = exported
    other = keras.models.clone_model(model)
    rows = tfpeft.compare({"b": other, "a": model, "file": path}, (X,), reference="a").rows
    a, b = (each.predict(X, verbose=0) for each in (model, other))
    found = rows["b"].metrics
    equal = np.mean(a["kind"].argmax(1) == b["kind"].argmax(1))
    assert found["kind/equal_classes"] == pytest.approx(equal)
    correlation = np.corrcoef(a["age"].ravel(), b["age"].ravel())[0, 1]
    assert found["age/correlation"] == pytest.approx(correlation, rel=1e-4)
    assert found["age/largest_deviation"] == pytest.approx(np.max(np.abs(a["age"] - b["age"])))
    assert rows["file"].metrics["kind/equal_classes"] == 1.0
    assert rows["file"].metrics["kind/largest_deviation"] < 1e-5
    assert list(rows) == ["b", "a", "file"]
    assert rows["a"].metrics == {}
    assert rows["a"].task == {"kind": None, "age": None}


def test_a_model_of_numbers_has_no_equal_classes():
    model = dense(3)
    model.compile(loss="mse")
    subjects = {"a": KerasSubject(model), "b": KerasSubject(dense(3))}
    found = measure_quality(subjects, (X,), reference="a")[0]["b"][None]
    assert found.values == pytest.approx({"correlation": 1.0, "largest_deviation": 0.0})


def test_agreement_beside_quality():
    models = {"logits": dense(3), "softmax": dense(3, "softmax")}
    compared = tfpeft.compare(models, (X, BITS[:, 0]), reference="logits")
    row = compared["softmax"]
    assert row.metrics["equal_classes"] == 1.0
    assert "correlation" not in row.metrics
    assert row.accuracy == compared["logits"].accuracy
    assert any("softmax against logits" in note for note in row.notes)
    assert "equal_classes" in str(compared)
    for name in ("other", 3):
        with pytest.raises(
            tfpeft.InputError, match="`reference`, expected one of .*logits, softmax"
        ):
            tfpeft.compare(models, (X,), reference=name)


@pytest.mark.parametrize(
    ("model", "y", "task", "message"),
    [
        (dense(1), BITS[:, 0], None, "`task`, expected 'binary' or 'regression'"),
        (dense(3), BITS[:, 0], "colour", "`task`, expected one of classification, binary"),
        (dense(3), BITS[:, 0], {"kind": 3}, "`task`, expected one of"),
        (dense(3), BITS[:, 0], {}, "`task`, expected one of"),
        (dense(3), BITS * 2, "multi_label", "labels of 0 and 1.*from 0 to 2"),
        (
            dense(3),
            BITS[:, 0],
            "regression",
            r"\(samples, 3\) for the task 'regression'.*shape \(60,\)",
        ),
        (dense(3), BITS - 0.5, "classification", "whole numbers >= 0, or one-hot"),
        (dense(3), BITS[:, 0], "binary", r"one output, or two, for the task 'binary'.*\(3,\)"),
        (dense(3), BITS[:, 0], "segmentation", r"\(samples, ..., classes\) for the task 'segm"),
    ],
)
def test_tasks_that_do_not_fit(model, y, task, message):
    with pytest.raises(tfpeft.InputError, match=message):
        tfpeft.evaluate(model, (X, y), task=task)
