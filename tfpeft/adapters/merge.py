"""Merging an adapter into a plain model, and the summary of what a model trains."""

import keras
import numpy as np

from tfpeft.adapters.adapted_model import AdaptedModel
from tfpeft.adapters.mergeable import adapted_run, check_merged, merged_values
from tfpeft.core import clone
from tfpeft.core.arguments import invalid
from tfpeft.core.layers import set_trainable


def merge_adapters(model: AdaptedModel, name: str | None = None) -> keras.Model:
    """Returns a plain model whose weights contain an adapter.

    It has the architecture of the model that the adapter was added to, and the outputs of the
    adapted model, but for rounding. All its layers are trainable.

    Args:
        model: An `AdaptedModel`; it stays as it is.
        name: The adapter; None for the active one.

    Raises:
        InputError: for an adapter that is not linear in the weights (`BottleneckAdapter`), and
            names of adapters that the model does not have; naming the layer, if the merged model
            has other outputs than the adapted one.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.LoRA(rank=2))
    merged = tfpeft.merge_adapters(adapted)
    print(merged.count_params() == model.count_params())  # True
    ```

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022, section 4.1,
    https://arxiv.org/abs/2106.09685
    """
    if not isinstance(model, AdaptedModel):
        raise invalid("model", "an AdaptedModel", model)
    adapter = model.adapter(name)
    index = {id(variable): i for i, variable in enumerate(model.model.variables)}
    values = {index[id(variable)]: value for variable, value in merged_values(adapter.parts)}
    sample = adapted_run(model.model, adapter)
    merged = clone.copy_model(model.model, sample=sample, compare=False)
    set_trainable(merged, True)
    for i, value in values.items():
        merged.variables[i].assign(value)
    check_merged(model.model, adapter, merged, sample)
    return merged


def trainable_summary(model: keras.Model) -> str:
    """Returns a text: the variables that a model trains, and their share of all parameters.

    Args:
        model: A built `keras.Model`.

    Raises:
        InputError: for a model that is not built.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    print(tfpeft.trainable_summary(model))  # 27 of 27 parameters are trainable (100.00%) ...
    ```
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise invalid("model", "a keras.Model that is built", model)
    trainable = model.trainable_variables
    sizes = [int(np.prod(variable.shape)) for variable in trainable]
    total = sum(int(np.prod(variable.shape)) for variable in model.variables)
    share = 100.0 * sum(sizes) / total if total else 0.0
    lines = [f"{sum(sizes):,} of {total:,} parameters are trainable ({share:.2f}%)"]
    for variable, size in zip(trainable, sizes, strict=True):
        lines.append(f"  {variable.path}  {tuple(variable.shape)}  {size:,}")
    return "\n".join(lines)
