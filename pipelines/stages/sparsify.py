"""What the stages that end in zeros share: training with a sparse optimizer."""

import numpy as np

import tfpeft
from pipelines.common import objectives, training
from pipelines.common.flags import Flag
from pipelines.stages.distill import make_distiller
from tfpeft.sparsity.kernels import select_kernels

EXCLUDE = Flag(
    "exclude",
    list,
    (),
    "Names or patterns of layers that stay dense and unclustered, and that keep their channels.",
)
INCLUDE = Flag(
    "include",
    list,
    (),
    "Names or patterns of custom layers that become sparse or clustered as well.",
)
LAYER_FLAGS = (EXCLUDE, INCLUDE)


def fit(settings, inputs, sparsify, *, first_step, strip=tfpeft.strip_pruning):
    """Trains `inputs.model`, and returns a plain copy whose zeros are verified.

    A model that was distilled keeps its teacher; zeros of an earlier stage stay.

    Args:
        settings: Settings of the stage.
        inputs: The `Inputs`.
        sparsify: A function that wraps an optimizer in a `SparseOptimizer`.
        first_step: The update after which epochs can be the best one.
        strip: A function that verifies the model, and returns the plain copy.
    """
    model, data = inputs.model, inputs.data
    has_zeros = has_zeros_in(model, settings.include)

    def wrap(optimizer):
        if has_zeros:
            optimizer = tfpeft.FixedMask(optimizer, include=settings.include)
        return sparsify(optimizer)

    trained, train = model, None
    if inputs.teacher:
        trained, train = make_distiller(settings, inputs, inputs.teacher, model)
    training.fit(
        settings,
        trained,
        data,
        objectives.of(data, model),
        train=train,
        sparsify=wrap,
        first_step=first_step,
    )
    return strip(model)


def has_zeros_in(model, include=()):
    """Whether any kernel that an optimizer would prune has zeros."""
    kernels = select_kernels(model.trainable_variables, include=include)
    return any(np.any(kernel.numpy() == 0) for kernel in kernels)
