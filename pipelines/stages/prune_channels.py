"""The stage that removes channels, and tunes what is left by distillation from the model before."""

import fractions

import keras

import tfpeft
from pipelines.common import objectives, samples, training
from pipelines.common.errors import invalid_flag
from pipelines.common.flags import Flag, with_value
from pipelines.stages import distill, sparsify
from pipelines.stages.stage import Stage
from tfpeft.channels.importance import IMPORTANCES
from tfpeft.channels.selection import SCOPES
from tfpeft.channels.targets import Budget
from tfpeft.core.arguments import unexpected
from tfpeft.core.clone import copy_model
from tfpeft.core.graph import is_graph

_COUNT = "a whole number above 1, or a fraction of the model's own such as 0.5 or 50%"
_BUDGETS = {  # what is limited, and the values that the flag takes
    "max_macs": ("Multiply-accumulates of a sample", _COUNT),
    "max_params": ("Parameters", _COUNT),
    "max_size_bytes": ("Bytes of the float32 .tflite file", _COUNT),
    "max_latency_ms": (
        "Milliseconds of a sample in the float32 .tflite file, on one thread of this machine",
        "a number above 0, or a fraction of the model's own in percent such as 50%",
    ),
}
_DEFAULT = {"max_macs": 0.5}
_ANY = 1e30  # more than a metric can fall by
FLAGS = (
    Flag(
        "ratio",
        float,
        None,
        "Fraction of all channels that is removed; more where a budget needs it.",
        above=0,
        below=1,
    ),
    *(
        Flag(
            name,
            str,
            None,
            f"{what}, at most: {values}."
            + (" Without any target it is 50%." if name in _DEFAULT else ""),
        )
        for name, (what, values) in _BUDGETS.items()
    ),
    Flag(
        "importance",
        str,
        "taylor",
        "Which channels are removed first: docs/channel_pruning.md compares them.",
        choices=IMPORTANCES,
    ),
    Flag(
        "channel_scope",
        str,
        "global",
        "Whether channels are ranked with all others, with those of their layer, or with those of "
        "layers of the same structure.",
        choices=SCOPES,
    ),
    Flag("round_to", int, 1, "The channels left in a layer are a multiple of it.", at_least=1),
    Flag("min_channels", int, 1, "Channels that stay in each layer.", at_least=1),
    Flag(
        "max_ratio_per_layer",
        float,
        0.9,
        "Fraction of a layer's channels that is removed at most.",
        above=0,
        below=1,
    ),
    Flag(
        "through_statistics",
        bool,
        False,
        "Remove channels through LayerNormalization and RMSNormalization, too.",
    ),
    Flag(
        "steps",
        int,
        1,
        "Rounds in which channels are removed. The rounds, and the tuning after the last one, have "
        "an equal share of --epochs each.",
        at_least=1,
    ),
    sparsify.EXCLUDE,
    distill.ALPHA,
    distill.TEMPERATURE,
)


def check(settings):
    """Raises for targets that cannot be, and for fewer epochs than there are rounds."""
    _targets(settings)
    if 1 < settings.steps >= settings.epochs:
        expected = f"more than --steps={settings.steps}, as each round is followed by epochs"
        raise invalid_flag("epochs", expected, settings.epochs)


def run(settings, inputs):
    """Returns the smaller model, tuned; writes the report of its channels beside it."""
    model, data = inputs.model, inputs.data
    if not is_graph(model):
        raise unexpected(
            "a functional or Sequential model, whose channels can be followed; "
            "--stages=prune,quantize takes others, and --student=FILE trains a smaller one",
            f"a {type(model).__name__}",
        )
    if settings.steps > 1 and sparsify.has_zeros_in(model):
        expected = "1 for a model with zeros, which training between rounds does not keep"
        raise invalid_flag("steps", expected, settings.steps)
    objective = objectives.of(data, model)
    rounds = settings.steps if settings.steps > 1 else 0
    share = settings.epochs // (rounds + 1)
    objective.compile(model, keras.optimizers.Adam(settings.learning_rate))
    if rounds:
        small, report = _in_rounds(settings, inputs, objective, share)
    else:
        small = tfpeft.prune_channels(
            model, data=samples.as_data(data.train), **_arguments(settings)
        )
        report = small.channel_report
    print(f"{report}\n", flush=True)
    inputs.folder.write("channels.md", report.to_markdown())
    inputs.folder.write("channels.png", report.plot)
    tuning = _tuning(settings, settings.epochs - rounds * share)
    distiller, train = distill.make_distiller(tuning, inputs, model, small)
    has_zeros = sparsify.has_zeros_in(small)
    sparse = tfpeft.FixedMask if has_zeros else None  # zeros of an earlier stage stay
    training.fit(tuning, distiller, data, objective, train=train, sparsify=sparse)
    return tfpeft.strip_pruning(small) if has_zeros else copy_model(small)  # not compiled


def _in_rounds(settings, inputs, objective, epochs):
    """Returns the model of the last round, after as many epochs in each, and the report of all."""
    pruned = tfpeft.prune_channels_iteratively(
        inputs.model,
        samples.as_data(inputs.data.train, settings.batch_size),
        samples.as_data(inputs.data.validation, settings.batch_size),
        monitor=objective.monitor.removeprefix("val_"),
        steps=settings.steps,
        epochs_per_step=epochs,
        tolerance=_ANY,  # no round is the last one but for the targets
        teacher=inputs.model,
        alpha=settings.alpha,
        temperature=settings.temperature,
        directory=inputs.folder / "channel_rounds",
        verbose=training.verbosity(),
        **_arguments(settings),
    )
    print(pruned)
    return pruned.model, pruned.report


def _arguments(settings):
    """Returns the arguments that `prune_channels` and `prune_channels_iteratively` share."""
    return {
        **_targets(settings),
        "importance": settings.importance,
        "scope": settings.channel_scope,
        "round_to": settings.round_to,
        "min_channels": settings.min_channels,
        "max_ratio_per_layer": settings.max_ratio_per_layer,
        "exclude": settings.exclude,
        "through_statistics": settings.through_statistics,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
    }


def _targets(settings):
    """Returns {argument: target} of --ratio and the budgets; by default half of the MACs."""
    targets = {name: budget_of(name, getattr(settings, name)) for name in _BUDGETS}
    targets = {name: value for name, value in targets.items() if value is not None}
    if settings.ratio is not None:
        targets["ratio"] = settings.ratio
    return targets or _DEFAULT


def budget_of(name, text):
    """Returns a budget as the library takes it; with "%" it is a fraction of the model's own."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%"))
        if text.endswith("%"):
            value = fractions.Fraction(value) / 100
        Budget(name, value)
    except (ValueError, OverflowError) as error:
        raise invalid_flag(name, _BUDGETS[name][1], text) from error
    return value


def _tuning(settings, epochs):
    """Returns settings of so many epochs, whose teacher no flag of `distill` names."""
    settings = with_value(settings, "epochs", epochs)
    for flag in distill.FLAGS:
        if flag not in FLAGS:
            settings = with_value(settings, flag.name, flag.default)
    return settings


STAGE = Stage("prune_channels", FLAGS, run, check=check, folders=("channel_rounds",), distils=True)
