"""Recommendations whose figures are those of a .tflite file: latency, size, download, memory."""

import dataclasses

import keras

from tfpeft.automl.advice.chains import Chain, zeros_of
from tfpeft.automl.advice.figures import Metric
from tfpeft.automl.advice.layers import facts_of, layer_rows
from tfpeft.automl.advice.plan import LONGER, Planner
from tfpeft.automl.advice.request import samples_of
from tfpeft.automl.advice.result import few_samples, recommendations
from tfpeft.automl.advice.sensitivity import sensitivities
from tfpeft.automl.advice.training import Training, evenly
from tfpeft.automl.advice.trials import FileTrials
from tfpeft.automl.advice.words import code_of, command_of, limits_of, title_of
from tfpeft.core.clone import copy_model
from tfpeft.evaluation.latency import round_robin
from tfpeft.export.conversion import quantization_settings

_MOST_STEPS = 400
_TRAINING_SHARE = 1 / 3  # of the time; the rest is export, evaluation, and longer training
_EXPECTED_TRIALS = 3  # for each technique: alone, bolder or milder, and with another


def recommend_files(request, folder):
    """Returns the `Recommendations` of a `Request`, whose trials are in a folder."""
    model = request.model
    train, validation = samples_of(request)
    metric = Metric(model, validation, **request.options)
    training = Training.of(model, train, metric.tasks, **request.training)
    store = request.store(folder, (train, validation))
    with store.folder:
        facts = facts_of(model)
        skipped = {**request.goal.reasons, **_skipped(model, facts, request)}
        techniques = [name for name in request.techniques if name not in skipped]
        training = _with_steps(request, store, model, training, techniques)
        x = keras.tree.map_structure(lambda array: array[:1], validation.x)
        are_floats = any("float" in str(a.dtype) for a in keras.tree.flatten(train.x))
        trials = FileTrials(
            store, model, request.goal, request.device, metric, training, x, are_floats
        )
        trials.before()  # raises for a model that cannot be exported
        is_held_out = request.validation_data is not None
        measured = store.of_model(lambda: _figures_of(trials, metric, train, x, is_held_out))
        rows = layer_rows(model, train.x)
        exclude = sensitivities(store, model, training, rows, _tried(request, techniques))
        if request.device.kind == "xnnpack" and request.goal.figure == "macs":
            exclude = tuple(dict.fromkeys((*facts["xnnpack_exclude"], *exclude)))
        planner = Planner(
            trials,
            request.goal,
            request.max_metric_loss,
            techniques,
            exclude=exclude,
            gap=measured["gap"]["relative"],
            skipped=skipped,
        )
        planner.run(map(trials.longer, LONGER) if request.steps is None else ())
        request.clock.finish()
        figures = {
            **measured,
            "zeros": zeros_of(model),
            "is_quantise_aware": quantization_settings(model) is not None,
            **facts,
        }
        return recommendations(
            request,
            store,
            metric,
            words=_words(trials),
            model=figures,
            layers=rows,
            skipped=skipped,
            reasons=few_samples(request, validation),
        )


def _skipped(model, facts, request):
    """Returns {technique: why it has nothing to do}, by what the model is."""
    if quantization_settings(model) is not None:
        why = "the model is quantise-aware: its file is integer already, with trained ranges"
        return dict.fromkeys(request.techniques, why)
    found = {}
    if facts["removable_channels"] is None:
        found["prune_channels"] = facts["channels_reason"]
    if zeros_of(model) >= 0.8:
        found["prune"] = f"{zeros_of(model):.0%} of the weights are zeros already; they are kept"
        found["distill"] = "a student would have none of the zeros that the model has"
    skips_zeros = request.goal.figure != "macs" or facts["xnnpack_layers"]
    if request.device.kind == "xnnpack" and not skips_zeros:
        found["prune"] = facts["xnnpack_reason"]
    return found


def _with_steps(request, store, model, training, techniques):
    """Returns the training with as many updates for each trial as there is time for."""
    trained = _tried(request, techniques)
    if "quantize_aware" in techniques:  # which is tried where int8 loses too much
        trained = trained or ["quantize_aware"]
    if not trained:
        return dataclasses.replace(training, steps=request.steps or 1)
    steps = store.updates(
        request.steps,
        lambda: training.seconds_per_step(copy_model(model)),
        trainings=_EXPECTED_TRIALS * len(trained),
        share=_TRAINING_SHARE,
        most=_MOST_STEPS,
    )
    return dataclasses.replace(training, steps=steps)


def _tried(request, techniques):
    """Returns the stages that train, of those that may be tried."""
    return [name for name in request.goal.techniques if name in techniques]


def _gap(metric, train, is_held_out):
    """Returns the metrics on training data, and what is lost from there to validation data.

    Nothing is known of validation data that the model may have been trained on, and a loss that
    the interval of the metric has room for is none.
    """
    on_train = metric.on(evenly(train, 1000))
    losses = {}
    for name, (value, _) in metric.before.items():
        if name in on_train and is_held_out:
            ends = metric.intervals.get(name, (value,))
            least = min(metric.relative_loss(name, on_train[name], end) for end in ends)
            losses[name] = metric.relative_loss(name, on_train[name], value) if least > 0 else 0.0
    return {
        "train": on_train,
        "validation": {name: value for name, (value, _) in metric.before.items()},
        "relative": max(losses.values(), default=None),
    }


def _figures_of(trials, metric, train, x, is_held_out):
    """Returns the figures of the model's file, of its metrics, and of the gap to training data."""
    file = trials.before()
    latency, p90 = round_robin({None: file.prepare(x)})[None]
    return {
        "size_bytes": file.contents.size_bytes,
        "gzip_bytes": file.contents.gzip_bytes,
        "parameters": file.contents.parameters,
        "macs": file.macs(x),
        "latency_ms": latency,
        "latency_p90_ms": p90,
        **trials.device_figure(),
        "metrics": {name: value for name, (value, _) in metric.before.items()},
        "intervals": metric.intervals,
        "gap": _gap(metric, train, is_held_out),
    }


def _words(trials):
    """Returns a function of a trial that returns its title, limits, command and code."""
    training, device = trials.training, trials.device
    has_zeros = zeros_of(trials.model) > 0

    def words(found):
        chain = Chain.read(found["steps"])
        return {
            "title": title_of(chain),
            "limits": limits_of(chain, device, found["is_short"]),
            "command": command_of(
                chain,
                device,
                batch_size=training.batch_size,
                learning_rate=training.learning_rate,
                float_inputs=trials.float_inputs,
            ),
            "code": code_of(
                chain,
                device,
                trials.float_inputs,
                batch_size=training.batch_size,
                learning_rate=training.learning_rate,
                tasks=training.tasks,
                names=training.names,
                has_zeros=has_zeros,
            ),
        }

    return words
