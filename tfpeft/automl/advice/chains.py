"""Chains of stages, as trials run them: how each stage makes a model of a model."""

import dataclasses

import keras
import numpy as np

from tfpeft.channels.prune_channels import prune_channels
from tfpeft.core.clone import copy_model
from tfpeft.core.moving_statistics import following_statistics
from tfpeft.distillation.students import scale_width
from tfpeft.quantization.clustering import WeightClustering
from tfpeft.quantization.quantize_aware import quantize_aware
from tfpeft.quantization.strip import strip_clustering
from tfpeft.sparsity.criteria import MagnitudePruning
from tfpeft.sparsity.fixed_mask import FixedMask
from tfpeft.sparsity.kernels import select_kernels
from tfpeft.sparsity.schedules import polynomial_decay
from tfpeft.sparsity.strip import strip_pruning

_PRUNE_END = 0.6  # of the steps, as in the scripts: in the rest, what is left is tuned
_UPDATES = 20


@dataclasses.dataclass(frozen=True)
class Step:
    """A stage with its settings.

    Attributes:
        stage: Its name, as in the scripts.
        settings: Pairs (flag of the scripts, value).
    """

    stage: str
    settings: tuple = ()

    @property
    def value(self):
        """The first setting, which says how much; None of a stage without any."""
        return self.settings[0][1] if self.settings else None

    @property
    def is_trained(self):
        """Whether the stage trains; what only the file has, it does not."""
        return self.stage != "quantize"

    @property
    def exclude(self):
        """The layers that the stage leaves out."""
        return dict(self.settings).get("exclude", ())

    def excluding(self, layers):
        """Returns the step that leaves these layers out, and no others."""
        settings = tuple(pair for pair in self.settings if pair[0] != "exclude")
        more = (("exclude", tuple(layers)),) if layers else ()
        return dataclasses.replace(self, settings=(*settings, *more))

    def __str__(self):
        more = [name for name, value in self.settings[1:] if value is True]
        return "-".join([self.stage, *map(str, [self.value] if self.settings else []), *more])


@dataclasses.dataclass(frozen=True)
class Chain:
    """Stages one after the other; the last one may be "quantize", which is the file's.

    Attributes:
        steps: Its `Step`s.
    """

    steps: tuple

    @classmethod
    def read(cls, steps):
        """Returns the chain of steps as JSON has them: [stage, [[flag, value], ...]]."""

        def plain(value):
            return tuple(value) if isinstance(value, list) else value

        return cls(
            tuple(Step(stage, tuple((k, plain(v)) for k, v in pairs)) for stage, pairs in steps)
        )

    @property
    def name(self):
        """The name of the trial, and of its files."""
        return "+".join(map(str, self.steps)) or "model"

    @property
    def stages(self):
        """The names of the stages."""
        return tuple(step.stage for step in self.steps)

    @property
    def trained(self):
        """The chain of those that train, whose model the file is of."""
        return Chain(tuple(step for step in self.steps if step.is_trained))

    @property
    def techniques(self):
        """The chain of those that train, without quantise-aware training unless that is all."""
        steps = tuple(step for step in self.trained.steps if step != QUANTIZE_AWARE)
        return Chain(steps) if steps else self.trained

    @property
    def before(self):
        """The chain without its last step."""
        return Chain(self.steps[:-1])

    @property
    def quantization(self):
        """{flag: value} of the step "quantize"; {} without one."""
        return next((dict(s.settings) for s in self.steps if s.stage == "quantize"), {})

    def then(self, *steps):
        """Returns the chain with further steps."""
        return Chain((*self.steps, *steps))


def quantize(quantization, **options):
    """Returns the step that writes a file in other numbers."""
    return Step("quantize", (("quantization", quantization), *options.items()))


LADDERS = {  # stage -> its flag, and values: the first, a bolder one, a milder one
    "prune_channels": ("max_macs", 0.5, 0.25, 0.75),
    "distill": ("student", 0.5, 0.25, 0.75),
    "prune": ("final_sparsity", 0.8, 0.9, 0.5),
    "cluster": ("number_of_clusters", 16, 8, 64),
}
QUANTIZE_AWARE = Step("quantize_aware", (("weight_bits", 8),))
TUNE = Step("tune")
"""Training alone: what a model wins without any technique."""


def first_step(stage, exclude=()):
    """Returns the step of a stage that is tried first; `exclude` are layers that it leaves."""
    flag, value, _, _ = LADDERS[stage]
    return Step(stage, ((flag, value),)).excluding(exclude)


def next_step(step, held):
    """Returns a bolder step if this one held, and a milder one if it did not."""
    flag, _, bolder, milder = LADDERS[step.stage]
    return dataclasses.replace(
        step, settings=((flag, bolder if held else milder), *step.settings[1:])
    )


def run_step(chain, model, training):
    """Returns the model that the last stage of a chain makes of a model, after short training.

    It has the same random numbers, of a student's first weights too, whatever ran before.

    Args:
        chain: A `Chain`, whose last step trains.
        model: The model after the steps before; it stays as it is.
        training: A `training.Training`.
    """
    keras.utils.set_random_seed(training.seed)
    step = chain.steps[-1]
    return _RUN[step.stage](step, model, training, _keeping(chain.before, model))


def _tune(step, model, training, keep):
    tuned = copy_model(model)
    training.fit(tuned, wrap=keep)
    return copy_model(tuned)


def _distill(step, model, training, keep):
    student = scale_width(model, step.value)
    with following_statistics(student, training.steps):
        training.fit(student, teacher=model)
    return copy_model(student)


def _prune_channels(step, model, training, keep):
    compiled = training.compiled(copy_model(model))
    small = prune_channels(
        compiled,
        max_macs=step.value,
        data=training.sample().element(),
        batch_size=training.batch_size,
        seed=training.seed,
    )
    with following_statistics(small, training.steps):
        training.fit(small, teacher=model, wrap=keep)
    return copy_model(small)


def _prune(step, model, training, keep):
    pruned = copy_model(model)
    frequency = max(1, int(_PRUNE_END * training.steps) // _UPDATES)
    end = min(_UPDATES * frequency, max(1, int(_PRUNE_END * training.steps)))
    schedule = polynomial_decay(
        step.value,
        begin=0.0,
        end=end / training.steps,
        total_steps=training.steps,
        frequency=frequency,
    )

    def wrap(optimizer):
        return MagnitudePruning(keep(optimizer), schedule, exclude=step.exclude)

    training.fit(pruned, wrap=wrap)
    return strip_pruning(pruned)


def _cluster(step, model, training, keep):
    clustered = copy_model(model)
    training.fit(clustered, wrap=lambda optimizer: _clustering(keep(optimizer), step))
    return strip_clustering(clustered)


def _quantize_aware(step, model, training, keep):
    aware = quantize_aware(model, representative_data=(training.sample().x,))
    training.fit(aware, wrap=keep)
    return copy_model(aware)


_RUN = {
    "tune": _tune,
    "distill": _distill,
    "prune_channels": _prune_channels,
    "prune": _prune,
    "cluster": _cluster,
    "quantize_aware": _quantize_aware,
}


def _keeping(chain, model):
    """Returns what wraps an optimizer so that zeros stay, and the values that a chain made few."""
    has_zeros = bool(zeros_of(model))
    clusters = next((step for step in chain.steps if step.stage == "cluster"), None)

    def wrap(optimizer):
        kept = FixedMask(optimizer) if has_zeros else optimizer
        return kept if clusters is None else _clustering(kept, clusters)

    return wrap


def _clustering(optimizer, step):
    return WeightClustering(optimizer, step.value, begin_step=0, exclude=step.exclude)


def zeros_of(model):
    """Returns the fraction of zeros in the kernels of a model that pruning takes part in."""
    kernels = [kernel.numpy() for kernel in select_kernels(model.trainable_variables)]
    size = sum(kernel.size for kernel in kernels)
    return sum(int(np.sum(kernel == 0)) for kernel in kernels) / size if size else 0.0
