"""KeepBest: which epoch training ends with."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.networks import X, Y, compiled, sequential, train, zeros
from tfpeft.core.arguments import InputError


class Logs(keras.callbacks.Callback):
    """Puts values into the logs of each epoch, and notes the weights after it."""

    def __init__(self, **values):
        super().__init__()
        self.values, self.weights = values, []

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: each[epoch] for name, each in self.values.items()})
        self.weights.append(self.model.get_weights())


def pruned(schedule=None, *, end=3, model=None):
    schedule = schedule or tfpeft.polynomial_decay(
        0.5, begin=0, end=end, steps_per_epoch=4, frequency=1
    )
    optimizer = tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-2), schedule)
    return compiled(model or sequential(), optimizer)


def ended_with(model, logs, best):
    """Trains, and returns the epoch whose weights the model has then."""
    train(model, epochs=len(next(iter(logs.values.values()))), callbacks=[logs, best])
    same = [
        all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
        for weights in logs.weights
    ]
    assert sum(same) == 1
    assert best.best_epoch == same.index(True)
    return best.best_epoch


def test_epochs_count_from_the_end_of_the_schedule_and_the_last_of_equals():
    model, logs = pruned(), Logs(val_accuracy=[0.9, 0.8, 0.5, 0.6, 0.6, 0.4])
    best = tfpeft.KeepBest()
    assert ended_with(model, logs, best) == 4
    assert best.best == 0.6
    assert [zeros(layer.kernel) for layer in model.layers] == [30, 15]
    tfpeft.strip_pruning(model)
    assert ended_with(model, Logs(val_accuracy=[0.1, 0.2, 0.1]), best) == 1  # anew in each fit


def test_means_modes_and_the_first_step_given():
    logs = Logs(val_a_loss=[1.0, 3.0, 2.0], val_b_loss=[4.0, 1.0, 4.0])
    best = tfpeft.KeepBest(["val_a_loss", "val_b_loss"])
    assert ended_with(compiled(sequential(), "adam"), logs, best) == 1
    assert best.best == 2.0
    logs = Logs(val_gain=[1.0, 3.0, 2.0])
    best = tfpeft.KeepBest("val_gain", mode="max", first_step=9)
    assert ended_with(pruned(end=1), logs, best) == 2
    best = tfpeft.KeepBest("val_gain", mode="min", first_step=0)
    assert ended_with(pruned(), Logs(val_gain=[1.0, 3.0, 2.0]), best) == 0  # before the end


def test_the_zeros_have_to_be_there_whatever_the_schedule_is():
    """A callable without `end_step`, and an inner optimizer that ends later than the outer one."""
    model = pruned(lambda step: (step >= 6, 0.5))
    assert ended_with(model, Logs(val_accuracy=[0.9, 0.5, 0.4]), tfpeft.KeepBest()) == 1
    inner = tfpeft.TargetedDropout(keras.optimizers.SGD(0.1), 0.5, 0.5, end_step=8)
    model = compiled(sequential(), tfpeft.ProximalL1(inner, 0.01))
    assert ended_with(model, Logs(val_accuracy=[0.9, 0.5, 0.4]), tfpeft.KeepBest()) == 1
    assert tfpeft.RigL(keras.optimizers.SGD(), 0.5, end_step=7).end_step == 7
    constant = tfpeft.constant_sparsity(0.5, begin=2, steps_per_epoch=4)
    assert tfpeft.MagnitudePruning(keras.optimizers.SGD(), constant).end_step == 8


def test_statistics_are_kept_and_frozen_layers_are_not_copied():
    norm, frozen = keras.layers.BatchNormalization(), keras.layers.Dense(6, trainable=False)
    layers = [keras.Input((6,)), frozen, norm, keras.layers.Dense(3, name="head")]
    model = pruned(end=1, model=keras.Sequential(layers))
    best = tfpeft.KeepBest()
    assert ended_with(model, Logs(val_accuracy=[0.5, 0.9, 0.1]), best) == 1
    kept = {variable.path for variable, _ in best._kept}
    assert kept == {v.path for layer in model.layers[1:] for v in layer.weights}


def end_at(step, best, model, **logs):
    """Calls the callback as `fit` does, with one epoch that ends at `step`."""
    model.optimizer.build(model.trainable_variables)
    best.set_model(model)
    best.on_train_begin()
    model.optimizer.iterations.assign(step)
    best.on_epoch_end(0, {"accuracy": 0.5, "loss": 1.0, **logs})
    best.on_train_end()


def test_what_is_missing_is_named():
    dense = compiled(sequential(), "adam")
    with pytest.raises(InputError, match=r"`monitor`.*among accuracy, loss;.*'val_accuracy'"):
        end_at(4, tfpeft.KeepBest(), dense)
    with pytest.raises(InputError, match="`mode`.*'val_gain' is no metric of Keras"):
        end_at(4, tfpeft.KeepBest("val_gain"), dense, val_gain=1.0)
    with pytest.raises(InputError, match="update 12 or later.*Received: 8 updates"):
        end_at(8, tfpeft.KeepBest("loss"), pruned())
    with pytest.raises(InputError, match="zeros that were promised.*hidden/kernel: 0 of 30 zeros"):
        end_at(12, tfpeft.KeepBest("loss"), pruned())
    with pytest.raises(InputError, match="with a number for loss"):
        end_at(4, tfpeft.KeepBest("loss"), dense, loss=float("nan"))
    dropout = tfpeft.TargetedDropout(keras.optimizers.SGD(), 0.5, 0.5)
    with pytest.raises(InputError, match="`end_step`.*Received: TargetedDropout"):
        end_at(4, tfpeft.KeepBest("loss"), compiled(sequential(), dropout))
    for options, message in (
        ({"monitor": 3}, "`monitor`.*3"),
        ({"monitor": []}, "`monitor`"),
        ({"mode": "auto"}, "`mode`.*'auto'"),
        ({"first_step": 0.5}, "`first_step`.*0.5"),
    ):
        with pytest.raises(InputError, match=message):
            tfpeft.KeepBest(**options)


def test_the_mean_of_metrics_of_two_modes_is_no_metric():
    best = tfpeft.KeepBest(["loss", "accuracy"], first_step=0)
    model = compiled(sequential(), keras.optimizers.SGD(0.1), metrics=["accuracy"])
    with pytest.raises(ValueError, match="`monitor`, expected metrics of one mode"):
        train(model, epochs=1, callbacks=[best])


def test_metrics_with_a_value_for_each_class_are_no_monitors():
    labels = np.eye(3, dtype="float32")[Y]
    model = sequential()
    metrics = [keras.metrics.F1Score(average=None), "categorical_accuracy"]
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=metrics)
    expected = "`monitor`, expected a metric of one number.*f1_score, an array of shape \\(3,\\)"
    data = (X, labels)
    best = tfpeft.KeepBest(["val_loss", "val_f1_score"])
    with pytest.raises(InputError, match=expected):
        model.fit(*data, validation_data=data, verbose=0, callbacks=[best])
    with pytest.raises(InputError, match=expected):
        tfpeft.layer_sensitivity(model, data, [0.5], monitor="f1_score")
    with pytest.raises(InputError, match=expected):
        tfpeft.prune_iteratively(model, data, data, target_sparsity=0.5, monitor="f1_score")
    assert tfpeft.layer_sensitivity(model, data, [0.5], monitor="categorical_accuracy").rows
