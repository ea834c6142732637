"""The stage that trains the given model on, before others make it small."""

from pipelines.common import objectives, samples, training
from pipelines.stages import keeping
from pipelines.stages.stage import Stage
from tfpeft.core.clone import copy_model
from tfpeft.core.data import read
from tfpeft.core.monitor import is_better, metric_mode


def run(settings, inputs):
    """Returns the model after training, or as it was where no epoch was better on validation data.

    Zeros and clusters of the model stay.
    """
    model, data = copy_model(inputs.model), inputs.data
    objective = objectives.of(data, model)
    before = _validated(settings, objective, model, data)
    training.check_monitor(objective, before, model)
    kept = keeping.kept_of(model)
    training.fit(settings, model, data, objective, sparsify=kept.wrap if str(kept) else None)
    kept.check(model)
    after = _validated(settings, objective, model, data)
    name = objective.monitor.removeprefix("val_")
    mode = objective.mode or metric_mode(name, model=model)
    print(f"Validation {name}: {before[name]:.4g} before, {after[name]:.4g} after", flush=True)
    return copy_model(model if is_better(after[name], before[name], mode=mode) else inputs.model)


def _validated(settings, objective, model, data):
    """Returns {metric: value} of the validation data."""
    if not model.compiled:
        objective.compile(model, "sgd")
    split = samples.as_data(data.validation, settings.batch_size)
    arguments = read(split).fit_arguments(settings.batch_size)
    return model.evaluate(**arguments, verbose=0, return_dict=True)


STAGE = Stage("tune", (), run)
