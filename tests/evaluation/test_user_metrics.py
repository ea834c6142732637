"""Metrics of Keras and functions, on outputs of models, against Keras's own evaluation."""

import keras
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

import tfpeft
from tfpeft.evaluation import user_metrics

rng = np.random.default_rng(0)
X = rng.normal(size=(5000, 4)).astype("float32")
Y = rng.integers(0, 3, 5000)
WEIGHTS = rng.random(5000).astype("float32")


def balanced(y, outputs):
    return balanced_accuracy_score(y, outputs.argmax(1))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2")]
    net.compile("sgd", "sparse_categorical_crossentropy", weighted_metrics=metrics)
    return net


def test_compiled_metrics_have_the_values_of_keras(model):
    expected = model.evaluate(X, Y, sample_weight=WEIGHTS, verbose=0, return_dict=True)
    row = tfpeft.evaluate(model, (X, Y, WEIGHTS))
    for name in ("accuracy", "top_2"):
        assert row.metrics[name] == pytest.approx(expected[name], rel=1e-5)
    low, high = row.intervals["top_2"]
    assert low < row.metrics["top_2"] < high


def test_metrics_and_functions_that_are_given(model):
    outputs = model.predict(X, verbose=0)
    given = keras.metrics.SparseCategoricalAccuracy(name="mine")
    given.update_state([0], [[1.0, 0.0, 0.0]])
    metrics = {
        "mine": given,
        "auc_of_0": lambda y, p: (y == 0) * p[:, 0],
        "balanced": balanced,
        "recall": keras.metrics.F1Score(average=None),
        "crossentropy": "sparse_categorical_crossentropy",
        "accuracy": lambda y, p: 0.5,
    }
    row = tfpeft.evaluate(
        model, (X, Y), metrics={k: v for k, v in metrics.items() if k != "recall"}
    )
    hits = outputs.argmax(1) == Y
    assert row.metrics["mine"] == pytest.approx(hits.mean())
    assert float(given.result()) == 1.0  # its state is the user's
    assert row.metrics["auc_of_0"] == pytest.approx(np.mean((Y == 0) * outputs[:, 0]), rel=1e-5)
    assert row.metrics["balanced"] == pytest.approx(balanced(Y, outputs))
    assert row.metrics["crossentropy"] == pytest.approx(row.loss, rel=1e-5)
    assert (row.accuracy, "accuracy" in row.intervals) == (0.5, False)
    assert {"mine", "auc_of_0"} <= set(row.intervals)
    assert "top_2" not in row.metrics
    one_hot = (X, np.eye(3)[Y])
    per_class = tfpeft.evaluate(model, one_hot, metrics=[metrics["recall"]]).per_class["f1_score"]
    np.testing.assert_allclose(per_class, tfpeft.evaluate(model, (X, Y)).per_class["f1"], atol=1e-5)


def test_a_metric_that_the_model_is_compiled_with_and_does_not_fit_is_noted(model):
    net = keras.models.clone_model(model)
    net.compile(loss="mse", metrics=[keras.metrics.F1Score(name="rows")])
    row = tfpeft.evaluate(net, (X[:20], Y[:20]))
    assert "rows" not in row.metrics
    assert any(note.startswith("no rows, which the model is compiled with") for note in row.notes)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["nonsense"], "`metrics`, expected metrics of Keras, their names, or functions"),
        ([3], "`metrics`, expected metrics of Keras"),
        ({3: "mse"}, "`metrics`, expected metrics of Keras"),
        ([keras.metrics.Accuracy], "`metrics`, expected metrics of Keras"),
        (["mse", "mse"], "metrics of different names.*'mse'"),
        ([keras.metrics.F1Score()], "`metrics`.*outputs of shape.*'f1_score', which raises"),
        ([lambda y, p: p[:2]], "a number, or one per sample.*shape"),
        ([lambda y, p: p / "a"], "which raises .*Error"),
    ],
)
def test_metrics_that_raise(model, metrics, message):
    with pytest.raises(tfpeft.InputError, match=message):
        tfpeft.evaluate(model, (X, Y), metrics=metrics)


def test_functions_of_all_samples_have_limits(model, monkeypatch):
    with pytest.raises(tfpeft.InputError, match="without sample weights for the function 'bal"):
        tfpeft.evaluate(model, (X, Y, WEIGHTS), metrics=[balanced])
    monkeypatch.setattr(user_metrics, "MOST_NUMBERS", 1000)
    with pytest.raises(tfpeft.InputError, match="`metrics`, expected .*more than 1,000 labels"):
        tfpeft.evaluate(model, (X, Y), metrics=[balanced])
