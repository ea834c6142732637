"""The stage that prunes a model while it is tuned: by a schedule, or in rounds."""

import tfpeft
from pipelines.common import training
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import Flag
from pipelines.stages import prune_rounds, sparsify
from pipelines.stages.stage import Stage

_CRITERIA = {
    "magnitude": tfpeft.MagnitudePruning,
    "gradient": tfpeft.GradientPruning,
    "movement": tfpeft.MovementPruning,
    "random": tfpeft.RandomPruning,
}

FINAL_SPARSITY = Flag(
    "final_sparsity", float, 0.5, "Fraction of zeros that pruning ends with.", at_least=0, below=1
)
CRITERION = Flag(
    "criterion",
    str,
    "magnitude",
    "What is pruned first: weights that are small, that matter little to the loss, that move "
    "towards zero, or any.",
    choices=tuple(_CRITERIA),
)
SCOPE = Flag(
    "scope",
    str,
    "layer",
    "Whether sparsity is that of each layer, of all together, or by Erdos-Renyi-Kernel.",
    choices=("layer", "global", "erk"),
)
SCHEDULE_FLAGS = (
    Flag(
        "initial_sparsity",
        float,
        0.0,
        "Fraction of zeros at --prune_begin.",
        at_least=0,
        below=1,
    ),
    Flag(
        "prune_begin",
        float,
        0.0,
        "When pruning begins, as a fraction of the stage.",
        at_least=0,
        at_most=1,
    ),
    Flag(
        "prune_end",
        float,
        0.6,
        "When it ends, as a fraction of the stage; in the rest what is left is tuned.",
        at_least=0,
        at_most=1,
    ),
    Flag("prune_updates", int, 20, "How often masks change in between.", at_least=1),
    Flag("power", float, 3.0, "Of the schedule: 3 prunes fast first, 1 evenly.", above=0),
    Flag(
        "block_size",
        list,
        None,
        "height,width: whole blocks are pruned.",
        items=int,
        at_least=1,
    ),
    Flag(
        "n_m",
        list,
        None,
        "n,m: n of each m weights are kept; --final_sparsity is then 1 - n / m.",
        items=int,
        at_least=1,
    ),
    Flag("straight_through", bool, False, "Whether pruned weights are trained on behind zeros."),
)
FLAGS = (
    *sparsify.LAYER_FLAGS,
    FINAL_SPARSITY,
    CRITERION,
    SCOPE,
    *SCHEDULE_FLAGS,
    prune_rounds.ITERATIVE,
    *prune_rounds.FLAGS,
)


def check(settings):
    """Raises for flags that the chosen kind of pruning does not read, or that cannot be."""
    kind = "pruning in rounds, --iterative," if settings.iterative else "gradual pruning"
    for flag in SCHEDULE_FLAGS if settings.iterative else prune_rounds.FLAGS:
        if flag.name in settings.given:
            raise unread_flag(flag.name, kind)
    if settings.iterative:
        prune_rounds.check(settings)
    _two_integers("block_size", settings.block_size)
    if settings.n_m is not None:
        _check_n_m(settings)
    begin, end = settings.prune_begin, settings.prune_end
    if end <= begin:
        raise invalid_flag("prune_end", f"a number above --prune_begin={begin}", end)


def _check_n_m(settings):
    """Raises for an --n_m that cannot be, or not beside the other flags."""
    n, m = _two_integers("n_m", settings.n_m)
    if n >= m:
        raise invalid_flag("n_m", "two integers such as 2,4, the second one larger", settings.n_m)
    if settings.block_size is not None or settings.scope != "layer":
        expected = "a pattern alone, without --block_size and with --scope=layer"
        raise invalid_flag("n_m", expected, settings.n_m)
    if "final_sparsity" in settings.given and abs(settings.final_sparsity - (1 - n / m)) > 1e-6:
        expected = f"1 - n / m = {1 - n / m:.10g}, or none, with --n_m={n},{m}"
        raise invalid_flag("final_sparsity", expected, settings.final_sparsity)


def run(settings, inputs):
    """Returns the pruned model, its zeros verified."""
    if settings.iterative:
        return tfpeft.strip_pruning(prune_rounds.run(settings, inputs))
    n_m = _two_integers("n_m", settings.n_m)
    block_size = _two_integers("block_size", settings.block_size)
    schedule = _schedule(settings, inputs.data, n_m)

    def wrap(optimizer):
        return _CRITERIA[settings.criterion](
            optimizer,
            schedule,
            scope=settings.scope,
            block_size=block_size,
            n_m=n_m,
            exclude=settings.exclude,
            include=settings.include,
            straight_through=settings.straight_through,
        )

    return sparsify.fit(settings, inputs, wrap, first_step=schedule.end_step)


def _schedule(settings, data, n_m):
    """Returns the schedule of --prune_begin to --prune_end, in the steps of the stage."""
    begin, end = settings.prune_begin, settings.prune_end
    final_sparsity = settings.final_sparsity
    if n_m and "final_sparsity" not in settings.given:
        final_sparsity = 1 - n_m[0] / n_m[1]
    total = training.total_steps(settings, data)
    begin_step = round(begin * total)
    frequency = max(1, int((end - begin) * total) // settings.prune_updates)
    last_step = max(begin_step + 1, round(end * total))
    end_step = min(begin_step + settings.prune_updates * frequency, last_step)
    return tfpeft.polynomial_decay(
        final_sparsity,
        begin=begin_step / total,
        end=end_step / total,
        total_steps=total,
        initial_sparsity=settings.initial_sparsity,
        frequency=frequency,
        power=settings.power,
    )


def _two_integers(name, values):
    """Returns the integers of --block_size or --n_m; None without the flag."""
    if values is None:
        return None
    if len(values) != 2:
        raise invalid_flag(name, "two integers such as 2,4, of at least 1", values)
    return tuple(map(int, values))


STAGE = Stage("prune", FLAGS, run, check=check, folders=("rounds",))
