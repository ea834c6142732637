"""The stage that trains a model sparse from its first step."""

import tfpeft
from pipelines.common import training
from pipelines.common.errors import unread_flag
from pipelines.common.flags import Flag
from pipelines.stages import sparsify
from pipelines.stages.stage import Stage

_TECHNIQUES = {  # and the flags that each of them reads
    "rigl": ("sparsity", "distribution", "mask_updates", "drop_fraction"),
    "set": ("sparsity", "distribution", "mask_updates", "drop_fraction"),
    "static": ("sparsity", "distribution"),
    "targeted_dropout": ("sparsity", "mask_updates", "drop_rate"),
    "proximal_l1": ("l1",),
    "proximal_group_l1": ("l1",),
}
FLAGS = (
    *sparsify.LAYER_FLAGS,
    Flag(
        "technique",
        str,
        "rigl",
        "How the model is trained sparse: docs/sparsity.md compares them.",
        choices=tuple(_TECHNIQUES),
    ),
    Flag("sparsity", float, 0.8, "Fraction of zeros of sparse training.", at_least=0, below=1),
    Flag(
        "distribution",
        str,
        "erk",
        "Of the zeros over layers: fewer in small ones, or the same in all.",
        choices=("erk", "uniform"),
    ),
    Flag(
        "mask_updates", int, 50, "How often masks change in the first 75% of the stage.", at_least=1
    ),
    Flag(
        "drop_fraction",
        float,
        0.3,
        "Fraction of the kept weights that are exchanged at first.",
        above=0,
        at_most=1,
    ),
    Flag(
        "drop_rate", float, 0.5, "Probability that a small weight is dropped.", above=0, at_most=1
    ),
    Flag(
        "l1",
        float,
        0.1,
        "Fraction of each of Adam's steps that is taken back; more gives more zeros.",
        above=0,
    ),
)
_CHANGING = 0.75  # the fraction of the stage in which masks change


def check(settings):
    """Raises for flags that the chosen technique does not read."""
    read = _TECHNIQUES[settings.technique]
    for name in dict.fromkeys(name for names in _TECHNIQUES.values() for name in names):
        if name in settings.given and name not in read:
            raise unread_flag(name, f"--technique={settings.technique}")


def run(settings, inputs):
    """Returns the sparse model, its zeros verified."""
    end_step = max(2, int(_CHANGING * training.total_steps(settings, inputs.data)))
    frequency = min(max(1, end_step // settings.mask_updates), end_step - 1)

    def wrap(optimizer):
        return _sparse_optimizer(settings, optimizer, end_step, frequency)

    return sparsify.fit(settings, inputs, wrap, first_step=end_step)


def _sparse_optimizer(settings, optimizer, end_step, frequency):
    """Returns the optimizer of --technique around another one."""
    technique, sparsity = settings.technique, settings.sparsity
    layers = {"exclude": settings.exclude, "include": settings.include}
    if technique in ("rigl", "set"):
        return {"rigl": tfpeft.RigL, "set": tfpeft.SET}[technique](
            optimizer,
            sparsity,
            drop_fraction=settings.drop_fraction,
            end_step=end_step,
            frequency=frequency,
            distribution=settings.distribution,
            seed=settings.seed,
            **layers,
        )
    if technique == "static":
        return tfpeft.StaticSparse(
            optimizer,
            sparsity,
            distribution=settings.distribution,
            seed=settings.seed,
            **layers,
        )
    if technique == "targeted_dropout":
        return tfpeft.TargetedDropout(
            optimizer,
            settings.drop_rate,
            sparsity,
            end_step=end_step,
            frequency=frequency,
            seed=settings.seed,
            **layers,
        )
    if technique == "proximal_group_l1":
        return tfpeft.ProximalGroupL1(optimizer, settings.l1, **layers)
    return tfpeft.ProximalL1(optimizer, settings.l1, **layers)


STAGE = Stage("sparse_train", FLAGS, run, check=check, from_scratch=True)
