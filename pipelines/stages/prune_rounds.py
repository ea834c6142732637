"""Pruning in rounds, the other kind of the stage `prune`: remove, retrain, measure, and again."""

import keras

import tfpeft
from pipelines.common import objectives, samples
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import Flag
from tfpeft.core.arguments import BudgetError

ITERATIVE = Flag(
    "iterative",
    bool,
    False,
    "Prune in rounds, with --epochs_per_step epochs after each, until --final_sparsity is reached "
    "or the metric of validation data is worse by more than --tolerance. Learns from labels only.",
)
FLAGS = (
    Flag("step", float, 0.1, "Fraction of all weights that a round prunes.", above=0, at_most=1),
    Flag(
        "tolerance",
        float,
        0.01,
        "By how much the monitored metric of validation data may be worse than before the first "
        "round, in the unit of the metric: 0.01 is a point of accuracy, from 90% to 89%, and of an "
        "error in metres a centimetre.",
        at_least=0,
    ),
    Flag("epochs_per_step", int, 1, "Epochs after each round.", at_least=1),
    Flag(
        "sensitivity",
        bool,
        False,
        "Prune each layer alone first (sensitivity.md, sensitivity.png), and those least that "
        "lose most.",
    ),
)
_CRITERIA = ("magnitude", "gradient")
_SENSITIVITY_SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)


def check(settings):
    """Raises for flags that pruning in rounds does not read."""
    if settings.criterion not in _CRITERIA:
        expected = f"{' or '.join(_CRITERIA)} with --iterative"
        raise invalid_flag("criterion", expected, settings.criterion)
    if settings.sensitivity and "scope" in settings.given:
        raise unread_flag("scope", "--sensitivity")


def run(settings, inputs):
    """Returns the last model that held validation accuracy, as `prune_iteratively` returns it."""
    model, data = inputs.model, inputs.data
    objective = objectives.of(data, model)
    objective.compile(model, keras.optimizers.Adam(settings.learning_rate))
    pruned = tfpeft.prune_iteratively(
        model,
        samples.as_data(data.train, settings.batch_size),
        samples.as_data(data.validation, settings.batch_size),
        monitor=objective.monitor.removeprefix("val_"),
        target_sparsity=settings.final_sparsity,
        step=settings.step,
        tolerance=settings.tolerance,
        epochs_per_step=settings.epochs_per_step,
        criterion=settings.criterion,
        scope=settings.scope,
        densities=_densities(settings, inputs) if settings.sensitivity else None,
        exclude=settings.exclude,
        include=settings.include,
        batch_size=settings.batch_size,
        directory=inputs.folder / "rounds",
    )
    print(pruned)
    inputs.folder.write("rounds.md", pruned.to_markdown())
    if not any(step["held"] for step in pruned.history):
        raise BudgetError(
            f"No round held the metric within --tolerance={settings.tolerance}, expected at least "
            f"one. Received: {pruned.history}"
        )
    return pruned.model


def _densities(settings, inputs):
    """Returns a number per kernel, by what each layer can lose, and writes that to the folder."""
    sensitivity = tfpeft.layer_sensitivity(
        inputs.model,
        samples.as_data(inputs.data.validation),
        _SENSITIVITY_SPARSITIES,
        exclude=settings.exclude,
        include=settings.include,
    )
    print(sensitivity)
    inputs.folder.write("sensitivity.md", sensitivity.to_markdown())
    inputs.folder.write("sensitivity.png", sensitivity.plot)
    return sensitivity.densities(settings.tolerance)
