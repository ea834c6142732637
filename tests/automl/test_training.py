"""How trials are trained: zeros and clusters that stay, distillation, and early stops."""

import keras
import keras_tuner
import numpy as np
import pytest

import tfpeft
from tests.automl import searches
from tfpeft.automl.students.interface import interface_of
from tfpeft.automl.trials.costs import Costs, export, imposed, least_bytes
from tfpeft.automl.trials.objective import Objective
from tfpeft.automl.trials.records import Records, SearchTrial
from tfpeft.automl.trials.training import Stopped, Training, Watch
from tfpeft.automl.trials.tuner import Runner
from tfpeft.evaluation.outputs import Outputs
from tfpeft.evaluation.tasks import TASKS

SETTINGS = {
    **{"alpha": 0.3, "temperature": 2.0, "learning_rate": 1e-2, "channel_ratio": 0.0},
    **{"sparsity": 0.0, "clusters": 0, "order": "together", "quantization": "none"},
}
OUTPUTS = Outputs("logits", 2)
TASK = TASKS["classification"]


def model_of(width=8):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(width, activation="relu")]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(2)])


def training_of(batch, teacher=None):
    return Training(
        *(batch, TASK, OUTPUTS, TASK.loss(OUTPUTS)),
        teacher=teacher,
        teacher_from_logits=True,
        batch_size=32,
        seed=0,
    )


def shown(model):
    """Returns the fraction of zeros and the most distinct values of the kernels of a model."""
    kernels = [w.numpy() for w in model.trainable_variables if len(w.shape) > 1]
    return (
        np.mean(np.concatenate([kernel.ravel() == 0 for kernel in kernels])),
        max(len(np.unique(kernel)) for kernel in kernels),
    )


def test_zeros_and_clusters_come_in_steps_and_stay_when_a_training_goes_on(batch):
    settings = {**SETTINGS, "sparsity": 0.5, "clusters": 4, "order": "steps"}
    settings["quantization"] = "quantize_aware"
    teacher = np.where(batch.y[:, None] == np.arange(2), 5.0, -5.0).astype("float32")
    training = training_of(batch, teacher)
    quantized, model = training.run(model_of(), settings, 40)
    zeros, values = shown(model)
    assert zeros >= 0.5
    assert values <= 4
    quantized, model = training.run(model, settings, 20, is_continued=True, seed=1)
    zeros, values = shown(quantized)
    assert zeros >= 0.5
    assert values <= 4
    assert isinstance(quantized, tfpeft.QuantizeAwareModel)
    assert training.evaluate(model, batch) > 0.8


def test_the_teacher_is_learnt_from_and_not_the_labels(batch):
    """With alpha 0 and a teacher that is always wrong, the student is wrong."""
    teacher = np.where(batch.y[:, None] == np.arange(2), -5.0, 5.0).astype("float32")
    training = training_of(batch, teacher)
    model, _ = training.run(model_of(), {**SETTINGS, "alpha": 0.0}, 60)
    assert training.evaluate(model, batch) < 0.2


def test_moving_statistics_follow_the_first_training_of_a_model(batch):
    """Of 10 steps; with Keras's momentum nine tenths of the first statistics would be left."""
    layer = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((8, 8, 1)), layer, *model_of().layers])
    training = training_of(batch, np.zeros((len(batch.y), 2), "float32"))
    settings = {**SETTINGS, "quantization": "quantize_aware"}
    training.run(model, settings, 10)
    mean = layer.moving_mean.numpy()
    np.testing.assert_allclose(mean, [batch.x.mean()], rtol=0.2)
    training.run(model, {**settings, "quantization": "none"}, 1, is_continued=True)
    assert layer.momentum == 0.99
    assert 0 < np.max(np.abs(layer.moving_mean.numpy() - mean)) < 0.003


def test_a_watch_measures_after_a_ninth_and_a_third(batch):
    training, seen = training_of(batch), []

    def is_worse(part, steps, metric):
        seen.append(steps)
        return "worse" if steps >= 15 else None

    settings = {key: SETTINGS[key] for key in SETTINGS if key not in ("alpha", "temperature")}
    with pytest.raises(Stopped, match="worse") as stopped:
        training.run(model_of(), settings, 45, watch=Watch(batch, is_worse))
    assert seen == [5, 15]
    assert (stopped.value.steps, 0 <= stopped.value.metric <= 1) == (15, True)


def test_trainings_of_other_lengths_are_compared_after_equal_parts(batch, tmp_path):
    records = Records(tmp_path / "trials")
    for i, metric in enumerate((0.7, 0.8, 0.9)):
        records.add(SearchTrial(f"000{i}", {}, "completed", metric=metric, reports={"3": metric}))
    objective = Objective(TASK, OUTPUTS, tfpeft.Budget(max_macs=1))
    runner = Runner(tmp_path, None, None, batch, objective, records, None, steps=90, units=9)
    reports = {}
    watch = runner._watch("0003", reports)
    watch.arguments(7, "accuracy")  # steps of a part
    watch.on_epoch_end(0, {"val_accuracy": 0.5})  # no other has a metric of this part
    watch.on_epoch_end(2, {"val_accuracy": 0.81})
    with pytest.raises(Stopped, match="0.79 after 21 steps, worse than the median 0.8 of 3"):
        watch.on_epoch_end(2, {"val_accuracy": 0.79})
    assert reports == {"1": 0.5, "3": 0.79}


def test_models_have_as_many_steps_as_take_them_equal_times(batch, tmp_path):
    runner = Runner(tmp_path, None, None, batch, None, None, None, steps=9000, units=9)
    assert runner.own_steps(1000, 0.04) == 1000  # of epochs that were given
    runner.pace = 0.02
    assert runner.own_steps(1000, 0.04) == 500
    assert runner.own_steps(1000, 0.016) == 1250
    assert runner.own_steps(1000, 0.5) == 125
    assert runner.own_steps(1000, 0.001) == 8000
    assert runner.own_steps(499, 0.04) == 499  # less than ten seconds


def test_the_time_of_a_step_is_that_of_training(batch):
    model = model_of()
    before = model.get_weights()[0].copy()
    training = training_of(batch)
    settings = {key: SETTINGS[key] for key in SETTINGS if key not in ("alpha", "temperature")}
    assert training.pace(model, settings) > 0
    assert np.any(model.get_weights()[0] != before)


def test_zeros_and_values_are_imposed_on_a_kernel():
    kernel = np.array([[0.1, -0.2, 0.3], [-0.4, 0.5, 1.0]])
    np.testing.assert_array_equal(imposed(kernel, 0.5, 0), [[0.0, 0.0, 0.0], [-0.4, 0.5, 1.0]])
    few = imposed(kernel, 0.5, 3)  # from -0.4 to 1.0 in steps of 0.7
    np.testing.assert_allclose(few, [[0.0, 0.0, 0.0], [-0.4, 0.3, 1.0]])


def test_bytes_are_known_before_training(batch, tmp_path):
    space = tfpeft.SmallCNN(**searches.SPACE)
    interface = interface_of(batch.x, batch.y, TASK.name, OUTPUTS)
    model = space.build(keras_tuner.HyperParameters(), interface)
    costs = Costs(tfpeft.Budget(max_size_bytes=1, max_gzip_bytes=1), batch.x)
    for quantization in ("float16", "int8"):
        settings = {"quantization": quantization}
        figures, violations = costs.of(model, settings, stop=False)
        least = least_bytes(model, settings)
        assert 0.1 * figures["size_bytes"] < least <= figures["size_bytes"]
        assert len(violations) == 2
    model.compile("adam", TASK.loss(OUTPUTS))
    model.fit(batch.x, batch.y, verbose=0)
    trained = export(model, tmp_path / "t.tflite", settings, tfpeft.Budget(max_macs=1), batch.x)
    assert figures["size_bytes"] == trained.size_bytes
    figures, violations = costs.of(model, {"quantization": "int8"})
    assert figures == {"size_bytes": least}  # nothing was exported
    assert "in its weights alone" in violations[0]


def test_weights_of_four_bits_are_trained_and_their_bytes_known_before(batch, tmp_path):
    settings = {key: SETTINGS[key] for key in SETTINGS if key not in ("alpha", "temperature")}
    settings["quantization"] = "quantize_aware_int4"
    model, budget = model_of(64), tfpeft.Budget(max_size_bytes=1)
    costs = Costs(budget, batch.x)
    before, _ = costs.of(model, settings, stop=False)
    in_8_bits, _ = costs.of(model, {"quantization": "int8"}, stop=False)
    assert least_bytes(model, settings) == 64 * (64 + 2) / 2
    training = training_of(batch)
    quantized, _ = training.run(model, settings, 20)
    path = tmp_path / "t.tflite"
    export(quantized, path, settings, budget, batch.x, trained=True)
    assert path.stat().st_size == before["size_bytes"] < in_8_bits["size_bytes"] - 1500
