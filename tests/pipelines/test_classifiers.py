"""What given models output, the loss and the metric of that, and models at chance."""

import json

import keras
import numpy as np
import pytest

import tfpeft
from pipelines import compress, distill, evaluate, predict, prune, sparse_train
from pipelines.common import classifiers, models
from tests.pipelines.scripts import call, read_report
from tfpeft.core.arguments import InputError
from tfpeft.evaluation.outputs import Outputs, recognize_outputs
from tfpeft.evaluation.tasks import TASKS
from tfpeft.export.tflite_file import TFLiteFile

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 4)).astype("float32")


def net(units, activation=None, *more):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation), *more])


class Subclassed(keras.Model):
    """A model whose graph cannot be read."""

    def __init__(self, units, activation):
        super().__init__()
        self.dense = keras.layers.Dense(units, activation)

    def call(self, x):
        return self.dense(x)


def two_outputs(as_dict=False):
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(3)(inputs), keras.layers.Dense(2)(inputs)]
    return keras.Model(inputs, dict(zip("ab", outputs, strict=True)) if as_dict else outputs)


def two_inputs():
    inputs = [keras.Input((4,), name=name) for name in ("left", "right")]
    return keras.Model(inputs, keras.layers.Dense(3)(inputs[0] + inputs[1]))


def manual_softmax():
    inputs = keras.Input((4,))
    powers = keras.ops.exp(keras.layers.Dense(3)(inputs))
    return keras.Model(inputs, powers / keras.ops.sum(powers, axis=-1, keepdims=True))


@pytest.mark.parametrize(
    ("make", "expected", "described"),
    [
        (lambda: net(3), Outputs("logits", 3), "logits of 3 classes"),
        (lambda: net(3, "softmax"), Outputs("softmax", 3), "softmax of 3 classes"),
        (lambda: net(3, "sigmoid"), Outputs("sigmoid", 3), "sigmoid of 3 classes"),
        (lambda: net(1, "sigmoid"), Outputs("sigmoid", 1), "one sigmoid for 2 classes"),
        (lambda: net(1), Outputs("logits", 1), "one logit for 2 classes"),
        (lambda: net(3, None, keras.layers.Softmax()), Outputs("softmax", 3), None),
        (lambda: net(3, "softmax", keras.layers.Activation("linear")), Outputs("softmax", 3), None),
        (lambda: net(3, "log_softmax"), Outputs("logits", 3), None),
        (manual_softmax, Outputs("softmax", 3), None),
        (lambda: Subclassed(3, None), Outputs("logits", 3), None),
        (lambda: Subclassed(3, "softmax"), Outputs("softmax", 3), None),
        (lambda: Subclassed(1, "sigmoid"), Outputs("sigmoid", 1), None),
    ],
)
def test_what_a_model_outputs(make, expected, described):
    found = classifiers.outputs_of(make(), X)
    assert found == expected
    assert described in (str(found), None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_outputs, "a model with one output.*--model with outputs in a list of 2"),
        (lambda: two_outputs(as_dict=True), "a model with one output.*in a dict of 2"),
        (two_inputs, "does not take inputs"),
        (lambda: net(1, "softmax"), r"\(samples, classes\).*of shape \(1,\)"),
        (lambda: net(8, None, keras.layers.Reshape((4, 2))), r"outputs of shape \(4, 2\)"),
        (lambda: keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)]), r"shape \(4,\)"),
    ],
)
def test_models_that_are_no_classifiers(make, message):
    with pytest.raises(InputError, match=message):
        classifiers.outputs_of(make(), X)


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
def test_the_loss_and_the_accuracy_are_those_of_numpy(units, activation):
    if (units, activation) == (1, "softmax"):
        return
    keras.utils.set_random_seed(0)
    logits = net(units)
    model = net(units, activation)
    model.set_weights(logits.get_weights())
    z = logits.predict(X, verbose=0).astype("float64")
    y = rng.integers(0, max(units, 2), len(X))
    if units == 1:
        expected = np.log1p(np.exp(np.where(y == 1, -z[:, 0], z[:, 0]))).mean()
    elif activation == "sigmoid":
        expected = np.log1p(np.exp(np.where(np.eye(3)[y] == 1, -z, z))).mean()
    else:
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        expected = -np.log(p[np.arange(len(y)), y]).mean()
    predictions = (z[:, 0] > 0) if units == 1 else z.argmax(1)
    outputs = classifiers.outputs_of(model, X)
    task = TASKS["classification"]
    model.compile(loss=task.loss(outputs), metrics=[task.training_metric(outputs)])
    measured = model.evaluate(X, y, verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(expected, rel=1e-4)
    assert measured["accuracy"] == pytest.approx(np.mean(predictions == y))
    predicted = model.predict(X, verbose=0)
    np.testing.assert_array_equal(outputs.class_numbers(predicted), predictions)
    from_logits = classifiers.from_logits([outputs])
    name, activation = "binary" if units == 1 else "classification", activation or "linear"
    kind = recognize_outputs(predicted, name, activation=activation, from_logits=from_logits)
    figures = TASKS[name].figures(y, predicted, kind).values
    assert figures["accuracy"] == pytest.approx(np.mean(predictions == y))
    assert figures["loss"] == pytest.approx(expected, rel=1e-4)


def test_single_logits_are_not_compared_with_others():
    kinds = [Outputs("logits", 1), Outputs("sigmoid", 1)]
    with pytest.raises(InputError, match="outputs are alike.*one logit for.*one sigmoid for"):
        classifiers.from_logits(kinds)
    assert classifiers.from_logits([Outputs("softmax", 3), Outputs("logits", 3)]) is None


@pytest.mark.parametrize(
    ("units", "activation", "loss", "message"),
    [
        (1, None, "mse", "compiled with mse, with one logit for 2 classes"),
        (3, None, keras.losses.MeanAbsoluteError(), "compiled with MeanAbsoluteError"),
        (3, None, keras.losses.huber, "compiled with huber"),
        (
            3,
            None,
            ["binary_crossentropy"],
            "sigmoid after the last layer.*--model=m, compiled with bin",
        ),
        (3, None, "sparse_categorical_crossentropy", None),
        (1, None, keras.losses.BinaryCrossentropy(from_logits=True), None),
        (3, "softmax", "mse", None),
        (3, None, None, None),
    ],
)
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_compiled_loss_says_that_outputs_are_no_classes(
    tmp_path, units, activation, loss, message, ending
):
    model, path = net(units, activation), tmp_path / f"m.{ending}"
    if loss is not None:
        model.compile("sgd", loss)
    model.save(path)
    outputs = classifiers.outputs_of(model, X)
    if message is None:
        classifiers.check_loss(path, outputs, "--model=m")
    else:
        with pytest.raises(InputError, match=f"{message}"):
            classifiers.check_loss(path, outputs, "--model=m")


def test_the_input_shape_of_models_and_files(tmp_path):
    model = keras.Sequential([keras.Input((6, None, 2)), keras.layers.GlobalMaxPooling2D()])
    assert models.input_shape(model) == (6, None, 2)
    assert models.input_shape(two_inputs()) is None
    assert models.input_shape(Subclassed(3, None)) is None
    tfpeft.export_tflite(net(3), tmp_path / "m.tflite")
    file = TFLiteFile(tmp_path / "m.tflite")
    assert models.input_shape(file) == (4,)
    assert classifiers.outputs_of(file, X) == Outputs("logits", 3)


LABELS = np.repeat([0, 1], [90, 10])


def chance_of(predictions, y):
    outputs = Outputs("softmax", 4)
    return TASKS["classification"].is_better_than_chance(y, np.eye(4)[predictions], outputs)


@pytest.mark.parametrize(
    ("predictions", "y", "is_better"),
    [
        (np.zeros(100, int), LABELS, False),  # the most frequent class
        (1 - LABELS, LABELS, False),  # classes in another order
        (LABELS, LABELS, True),
        (np.arange(100) % 2, LABELS, False),  # half of each
        (np.repeat([0, 1], [70, 30]), LABELS, True),  # below the share of a class; finds the other
        (np.arange(100) % 4, np.arange(100) // 25, False),
        (np.where(np.arange(100) < 40, np.arange(100) % 4, 0), np.arange(100) % 4, True),
        (np.zeros(3, int), np.zeros(3, int), True),
    ],
)
def test_better_than_chance(predictions, y, is_better):
    chance = chance_of(predictions, y)
    assert chance.is_better == is_better
    assert chance.value == pytest.approx(np.mean(predictions == y))
    assert chance.constant == pytest.approx(np.bincount(y).max() / len(y))


def test_the_margin_by_hand():
    """A quarter of 400 by chance: two standard errors are 2 * sqrt(.25 * .75 / 400) = .0433."""
    y = np.arange(400) % 4
    for hits, is_better in ((117, False), (118, True)):
        predictions = np.where(np.arange(400) < hits, y, (y + 1) % 4)
        chance = chance_of(predictions, y)
        assert (chance.value, chance.is_better) == (pytest.approx(hits / 400), is_better)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Arrays of pixels, bright ones in class 1, and models that expect them in several ranges."""
    monkeypatch.chdir(tmp_path)
    y = np.arange(120) % 2
    noise = np.random.default_rng(0).integers(0, 128, (120, 4))
    noise[:2] = [[0] * 4, [127] * 4]
    x = (noise + 127 * y[:, None]).astype("uint8")
    np.savez("a.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    np.savez("b.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=1 - y[80:])
    for name, activation in (("raw", None), ("scaled", "sigmoid")):
        model = net(1, activation)
        scale = 1.0 if name == "raw" else 100.0
        middle = 127.5 * 4 if name == "raw" else 50.0 * 4
        model.set_weights([np.full((4, 1), scale), np.array([-middle])])
        model.save(f"{name}.keras")
    return tmp_path


def test_a_model_of_another_range_of_pixels_stops_the_run(photos, capsys):
    wanted = r"better than chance.*scaled.keras with accuracy 50.0% on 40 .*--pixel_range.*--allow"
    with pytest.raises(InputError, match=wanted):
        call(evaluate, "--dataset=a.npz", "scaled.keras")
    with pytest.raises(InputError, match="raw.keras with accuracy 0.0%.*another order"):
        call(evaluate, "--dataset=b.npz", "raw.keras")
    files = ["--format=json", "scaled.keras"]
    for flag, accuracy in (("--allow_chance", 0.5), ("--pixel_range=0,1", 1.0)):
        capsys.readouterr()
        assert call(evaluate, "--dataset=a.npz", flag, *files) == 0
        rows = json.loads(capsys.readouterr().out)
        assert rows["scaled.keras"]["accuracy"] == accuracy


def test_a_sigmoid_is_pruned_and_its_classes_are_named(photos, capsys):
    model = ["--model=scaled.keras", "--dataset=a.npz", "--epochs=1"]
    with pytest.raises(InputError, match="better than chance.*--model=scaled.keras"):
        call(prune, *model)
    assert not list(photos.glob("saved_models/*/*.keras"))
    known = ["--pixel_range=0,1", "--classes=dark,light", "--final_sparsity=0"]
    assert call(prune, *model, *known, "--name=run") == 0
    output = capsys.readouterr().out
    assert (
        "values 0 to 0.996078; one class per sample (class numbers), 2 classes: dark, light"
        in output
    )
    assert "Model: one sigmoid for 2 classes, accuracy 100.0% on 72 samples" in output
    assert (photos / "saved_models/run/labels.txt").read_text() == "dark\nlight\n"
    rows = read_report("saved_models/run")["rows"]
    assert [row["accuracy"] for row in rows.values()] == [1.0] * 3
    np.save("x.npy", np.array([[0.1] * 4, [0.75] * 4], "float32"))
    assert call(predict, "--run=saved_models/run", "--input=x.npy", "--format=json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["class"], row["sample"]) for row in found] == [("dark", 0), ("light", 1)]
    assert [row["probability"] for row in found] == pytest.approx([1.0, 1.0])
    student = ["--pixel_range=0,1", "--student=scaled.keras", "--soft_loss=dist"]
    with pytest.raises(InputError, match="logits, which --soft_loss=dist .*one sigmoid for 2 cl"):
        call(distill, *model, *student)


def test_sparse_training_starts_from_a_model_at_chance(photos, capsys):
    files = ["--model=scaled.keras", "--dataset=a.npz", "--epochs=1"]
    with pytest.raises(InputError, match="better than chance.*--model=scaled.keras"):
        call(compress, *files, "--stages=prune,sparse_train")
    assert call(sparse_train, *files, "--sparsity=0") == 0
    line = "It does no better than chance: sparse_train trains it from scratch"
    assert line in capsys.readouterr().out
    (report,) = photos.glob("saved_models/*-sparse_train")
    assert read_report(report)["rows"]["teacher"]["accuracy"] == 0.5


@pytest.mark.parametrize(("pixel_range", "bias"), [(None, 127.5), (["0", "1"], 0.5)])
def test_predict_reads_images_as_the_run_did(tmp_path, monkeypatch, capsys, pixel_range, bias):
    monkeypatch.chdir(tmp_path)
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4, 5, 1)), *layers])
    model.set_weights([np.array([[-1.0, 1.0]]), np.array([bias, -bias])])
    tfpeft.export_tflite(model, "run/model.tflite")
    report = {"outputs": {"kind": "logits", "units": 2}, "flags": {"pixel_range": pixel_range}}
    (tmp_path / "run/report.json").write_text(json.dumps(report))
    (tmp_path / "run/labels.txt").write_text("dark\nlight\n")
    for name, pixel in (("a", 30), ("b", 250)):
        keras.utils.save_img(f"{name}.png", np.full((8, 8, 1), pixel), scale=False)
    assert call(predict, "--run=run", "--format=markdown", "--", "b.png", "a.png") == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["| class", "|---|---:|---|", "| light", "| dark"]
    for line, pixel in zip(lines[2:], (250, 30), strict=True):
        distance = abs(pixel - 127.5) * 2 / (1 if pixel_range is None else 255)
        assert float(line[1]) == pytest.approx(1 / (1 + np.exp(-distance)), abs=1e-3)
    (tmp_path / "c.png").write_text("no image")
    with pytest.raises(InputError, match="an image that can be read.*c.png"):
        call(predict, "--run=run", "--", "c.png")
    with pytest.raises(InputError, match="no --task, as --run has none.*--task=a"):
        call(predict, "--run=run", "--task=a", "--", "a.png")
