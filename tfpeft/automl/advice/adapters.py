"""Recommendations for the cost of training: adapters against training of all weights."""

import dataclasses
import math

from tfpeft.adapters.adapted_model import add_adapters
from tfpeft.adapters.bitfit import BitFit
from tfpeft.adapters.bottleneck import BottleneckAdapter
from tfpeft.adapters.ia3 import IA3
from tfpeft.adapters.lora import DoRA, LoRA
from tfpeft.adapters.norm_tuning import NormTuning
from tfpeft.automl.advice import figures
from tfpeft.automl.advice.layers import facts_of, layer_rows
from tfpeft.automl.advice.request import samples_of
from tfpeft.automl.advice.result import few_samples, recommendations
from tfpeft.automl.advice.training import Training
from tfpeft.automl.advice.trials import kept_model
from tfpeft.automl.advice.words import BEGINNING
from tfpeft.core.clone import copy_model
from tfpeft.core.layers import set_trainable

_RANK = 8
RATE = 5.0
"""Adapters start at nothing, and train with the learning rate times this."""
METHODS = {
    "lora": lambda: LoRA(rank=_RANK),
    "dora": lambda: DoRA(rank=_RANK),
    "bottleneck": lambda: BottleneckAdapter(size=_RANK),
    "ia3": IA3,
    "bitfit": BitFit,
    "norm_tuning": NormTuning,
}
_CODE = {
    "lora": f"LoRA(rank={_RANK})",
    "dora": f"DoRA(rank={_RANK})",
    "bottleneck": f"BottleneckAdapter(size={_RANK})",
    "ia3": "IA3()",
    "bitfit": "BitFit()",
    "norm_tuning": "NormTuning()",
}
_TITLES = {
    "lora": "low-rank adapters (LoRA)",
    "dora": "low-rank adapters with magnitudes (DoRA)",
    "bottleneck": "bottleneck adapters",
    "ia3": "scales of activations (IA3)",
    "bitfit": "biases alone (BitFit)",
    "norm_tuning": "scales and shifts of normalisation alone",
}
MOST_STEPS, TRAINING_SHARE = 1000, 0.7
"""Updates that are enough, and the part of the time for training; the rest is for measuring."""


def recommend_training(request, folder):
    """Returns the `Recommendations` of a `Request`, whose trials are in a folder."""
    train, validation = samples_of(request)
    plain = figures.Metric(request.model, validation, **request.options)
    training = Training.of(request.model, train, plain.tasks, **request.training)
    store = request.store(folder, (train, validation))
    with store.folder:
        steps = store.updates(
            request.steps,
            lambda: training.seconds_per_step(_unfrozen(request.model)),
            trainings=1 + len(request.techniques),
            share=TRAINING_SHARE,
            most=MOST_STEPS,
        )
        training = dataclasses.replace(training, steps=steps)
        full = kept_model(store.folder, "full", lambda: _trained(request.model, training))
        metric = figures.Metric(full, validation, **request.options)
        for name in request.techniques:
            store.run(
                name, name, lambda name=name: _trial(name, request.model, full, training, metric)
            )
        request.clock.finish()
        found = {
            **facts_of(request.model),
            "parameters": request.model.count_params(),
            "training_bytes": training_bytes(full),
        }
        reasons = [
            "All trials, and the training of all weights that they are compared with, had "
            f"{training.steps} updates.",
            *few_samples(request, validation),
        ]
        return recommendations(
            request,
            store,
            metric,
            words=_words,
            model=found,
            layers=layer_rows(request.model, train.x),
            reasons=reasons,
        )


def _trained(model, training):
    """Returns a copy of which all weights were trained."""
    full = _unfrozen(model)
    training.fit(full)
    return full


def _unfrozen(model):
    """Returns a copy of which all weights are trainable."""
    copy = copy_model(model)
    set_trainable(copy, True)
    return copy


def _trial(name, model, full, training, metric):
    adapted = add_adapters(model, METHODS[name]())
    rate = RATE * training.learning_rate
    dataclasses.replace(training, learning_rate=rate).fit(adapted)
    loss = metric.loss(adapted)
    copy = training.compiled(copy_model(full))
    batch = training.batches(1)[0]
    runs = [lambda each=each: each.train_on_batch(*batch) for each in (copy, adapted)]
    for run in runs:  # traces
        run()
    gain = figures.Gain.timed("step_ms", figures.timed(*runs))
    return {
        "updates": training.steps,
        "learning_rate": rate,
        "trainable_parameters": _count(adapted.trainable_variables),
        "training_bytes": training_bytes(adapted),
        "gain": dataclasses.asdict(gain),
        "loss": dataclasses.asdict(loss),
    }


def _count(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def training_bytes(model):
    """Returns the bytes of weights, gradients and Adam's two moments, without activations."""
    return 4 * (model.count_params() + 3 * _count(model.trainable_variables))


def _words(found):
    """Returns the title, the limits and the code of a trial."""
    name = found["name"]
    lines = [
        BEGINNING,
        f"adapted = tfpeft.add_adapters(model, tfpeft.{_CODE[name]})",
        f"optimizer = keras.optimizers.Adam({found['learning_rate']:g})",
        "adapted.compile(optimizer, loss=loss, metrics=metrics)",
        "adapted.fit(x, y, validation_data=validation, epochs=30)",
    ]
    if name != "bottleneck":  # which is not linear in the weights
        lines.append("model = tfpeft.merge_adapters(adapted)")
    return {
        "title": f"Train {_TITLES[name]}: {found['trainable_parameters']:,} parameters",
        "limits": (
            f"Weights, gradients and moments take {found['training_bytes'] / 1e6:.2f} MB; "
            "activations take what they took. The forward pass is no faster, and the trained "
            "model no smaller."
        ),
        "command": None,  # the scripts train adapters below new heads only
        "code": "\n".join(lines),
    }
