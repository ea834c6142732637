"""What `FigureLogger` writes, read back from event files and from MLflow's local store."""

import importlib.util
import math

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.core.arguments import InputError


@pytest.fixture(scope="module")
def model():
    """Two kernels of 8 and 4 weights, of which 8 are zero."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    first, _, second, _ = model.weights
    first.assign(np.array([[0, 0], [0, 0], [0, 1], [1, 1]]))
    second.assign(np.array([[0, 1], [0, 0]]))
    model.compile(keras.optimizers.SGD(0.0), loss="mse", run_eagerly=True)
    return model


def fitted(model, logger):
    """Trains two epochs of one step with a learning rate of 0; returns the history."""
    x, y = np.ones((4, 4), "float32"), np.zeros((4, 2), "float32")
    callbacks = {"callbacks": [logger], "validation_data": (x, y)}
    return model.fit(x, y, epochs=2, verbose=0, **callbacks).history


def test_tensorboard_has_every_figure_of_every_epoch(model, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    logger = tfpeft.FigureLogger("tensorboard", folder=tmp_path / "logs")
    history = fitted(model, logger)
    logger.log({"size_bytes": 1000, "metrics": {"accuracy": np.float32(0.5)}, "note": "a"}, step=2)
    logger.close()
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    found = {
        name: [
            (e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events.Tensors(name)
        ]
        for name in events.Tags()["tensors"]
    }
    assert set(found) == {
        *("loss", "val_loss", "sparsity", "nonzero_parameters"),
        *("size_bytes", "metrics/accuracy"),
    }
    assert found["loss"] == [(i, pytest.approx(v)) for i, v in enumerate(history["loss"])]
    assert found["sparsity"] == [(0, pytest.approx(8 / 12)), (1, pytest.approx(8 / 12))]
    assert found["nonzero_parameters"] == [(0, 4.0), (1, 4.0)]
    assert found["size_bytes"] == [(2, 1000.0)]
    assert found["metrics/accuracy"] == [(2, 0.5)]


def test_the_sparsity_of_the_logs_comes_first(model, tmp_path):
    pytest.importorskip("tensorboard")
    written = []
    logger = tfpeft.FigureLogger("tensorboard", folder=tmp_path)
    logger.log = lambda figures, step: written.append((step, figures))
    logger.set_model(model)
    logger.on_epoch_end(3, {"sparsity": 0.25, "loss": 1.0})
    assert written == [(3, {"nonzero_parameters": 4, "sparsity": 0.25, "loss": 1.0})]


def test_mlflow_has_the_figures(model, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'store'}")
    logger = tfpeft.FigureLogger("mlflow")
    history = fitted(model, logger)
    run = mlflow.active_run().info.run_id
    logger.close()
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient()
    assert client.get_run(run).info.status == "FINISHED"
    values = [(each.step, each.value) for each in client.get_metric_history(run, "val_loss")]
    assert values == [(i, pytest.approx(v)) for i, v in enumerate(history["val_loss"])]
    with mlflow.start_run() as outer:
        logger = tfpeft.FigureLogger("mlflow")
        logger.log({"size_bytes": 12})
        logger.close()
        assert mlflow.active_run().info.run_id == outer.info.run_id  # it is not the logger's
    assert client.get_run(outer.info.run_id).data.metrics == {"size_bytes": 12.0}


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_one_line(name):
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(InputError, match=rf"`pip install tfpeft\[{name}\]` brings") as error:
        tfpeft.FigureLogger(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "csv"}, "`to`, expected one of 'tensorboard', 'mlflow', 'wandb'"),
        ({"to": "tensorboard"}, "`folder`, expected a folder"),
        ({"to": "mlflow", "folder": "a"}, "`folder`, expected None"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        tfpeft.FigureLogger(**arguments)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"figures": {"a": math.nan}}, "figures"),
        ({"figures": {"a": "text", "b": True}}, "figures"),
        ({"figures": 3.0}, "figures"),
        ({"figures": {"a": 1}, "step": -1}, "step"),
        ({"figures": {"a": 1}, "step": 0.5}, "step"),
    ],
)
def test_bad_figures(arguments, name, tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(InputError, match=f"`{name}`"):
        tfpeft.FigureLogger("tensorboard", folder=tmp_path).log(**arguments)
    assert not list(tmp_path.iterdir())
