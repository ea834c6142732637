"""SparseOptimizer: the base of every technique that changes weights after an update."""

import typing
import warnings
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfpeft.core.arguments import NoMatchError, check_exclude, invalid
from tfpeft.core.graph import without_all_reduce
from tfpeft.core.kernel_axes import find_kernel_axes
from tfpeft.core.layers import path_of
from tfpeft.sparsity import gradients, kernels, saved_states
from tfpeft.sparsity.moments import averages_of, wrapped


class Kernel(typing.NamedTuple):
    """One kernel while a step runs, on one replica."""

    index: int
    weight: tf.Variable
    gradient: tf.Tensor | None
    """The gradient over all replicas in float32, where `uses_gradients` asks for it."""
    state: dict
    """Name -> tf.Variable: those of `add_state`, such as "mask", and "average" with `use_ema`."""


class SparseOptimizer(keras.optimizers.Optimizer):
    """An optimizer that wraps an optimizer and acts on the kernels after each of its updates.

    A technique is a subclass: `add_states` adds the states it needs, `before_update` and
    `after_update` change weights, in the same graph as the update itself. It trains what any
    Keras optimizer trains: in `fit`, in a custom loop through `apply`, with mixed precision, with
    `steps_per_execution`, under `tf.distribute`. Its states are optimizer variables: they are
    saved with the model and resumed with it.

    The trainable kernels of Keras's and KerasHub's layers take part: the weights named `kernel`,
    `depthwise_kernel`, `pointwise_kernel` and `recurrent_kernel` of dense, convolution, recurrent
    and attention layers, and of subclasses of these. Embeddings, biases, normalisation and the
    weights of custom layers take part only if `include` names them. `skipped` is a dict of the
    path of each other variable -> the reason. Variables that no layer holds, in custom loops,
    take part if they are named as kernels or have no name. A kernel that a later `apply` does not
    name, such as that of a layer that was frozen since, stays as it is.

    Where a file has the states of another optimizer, or of none, `load_weights` and `load_model`
    warn, as with Keras's optimizers; masks and schedule then start anew.

    What it does not give: zeros do not make a dense kernel faster on most machines; they make
    compressed files smaller. Averages of weights (`use_ema`) are zero where the weights are, so
    what they remember of a weight ends when it is pruned.

    Args:
        optimizer: A `keras.optimizers.Optimizer`; it may be another `SparseOptimizer`, of
            another technique.
        exclude: Layer or variable names, or patterns such as `"head_*"`, to leave alone.
        include: Names or patterns of layers or variables that take part as well: of custom
            layers, with the custom layers inside them; other weights of Keras's layers by the
            names of these themselves, such as `"token_embedding"`. Of rank 2 or more.
        name: The optimizer's name.

    Raises:
        InputError: if an argument is not of its kind; and on the first update `NoMatchError` if
            no kernel takes part, or if an entry of `exclude` or `include` matches nothing. `fit`
            of a frozen model has no update, and raises it at the end.
        tf.errors.InvalidArgumentError: (`InputError` where it runs eagerly) while training, if
            a gradient is NaN or infinite, before anything has changed. Of large gradients only
            two slices are checked, which is enough for NaN in data, loss or activations, and
            not for a single bad entry. Not with `jit_compile=True`, as XLA leaves assertions
            out, nor with a `LossScaleOptimizer` inside, which skips such steps itself.

    Example: see `MagnitudePruning`; for a custom technique, docs/architecture.md.
    """

    uses_gradients = False
    """Whether the technique needs `Kernel.gradient`, a sum over the replicas."""

    end_step = 0
    """The update from which promised zeros are there; None if only the end of `fit` has them."""

    uses_axes = False
    """Whether the technique needs `axes_of`: the axes of inputs and outputs of each kernel."""

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        *,
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        name: str | None = None,
    ):
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise invalid("optimizer", "a keras.optimizers.Optimizer instance", optimizer)
        if any(type(inner) is type(self) for inner in wrapped(optimizer)):
            raise invalid(
                "optimizer", f"one that {type(self).__name__} does not wrap already", optimizer
            )
        check_exclude(exclude)
        check_exclude(include, name="include")
        if name is not None and not isinstance(name, str):
            raise invalid("name", "a string or None", name)
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = optimizer
        self.exclude = tuple(exclude)
        self.include = tuple(include)
        self.skipped = {}
        self._sparse_indices, self._states = None, {}

    def adjust_gradients(self, gradients):
        """Returns {index: gradient, of a replica} of kernels that the wrapped optimizer gets."""
        return gradients

    def add_states(self):
        """Adds the technique's states, by `add_state`; the kernels are known now."""

    def before_update(self, kernels, step):
        """Acts on the `kernels` before the wrapped optimizer, which has done `step` steps."""

    def after_update(self, kernels, step, updated, learning_rate):
        """Acts on the `kernels` after the wrapped optimizer, which has done `step` steps.

        `updated` is False where the wrapped optimizer changed nothing: it gathered gradients, or
        skipped a step that overflowed. `learning_rate` is that of this step.
        """

    def clear_averages(self, kernels, step):
        """Makes averages of weights zero where the weights are: callbacks put them in the model."""
        for kernel in kernels:
            if "average" in kernel.state:
                average = kernel.state["average"]
                average.assign(tf.where(kernel.weight == 0, tf.zeros_like(average), average))

    def skip_reason(self, variable) -> str | None:
        """Returns why a kernel does not suit the technique; None if it does."""

    def promised_zeros(self) -> list[tuple[list, int]]:
        """Returns pairs (variables, zeros that they have at least when training has ended)."""
        return []

    def promised_values(self) -> list[tuple]:
        """Returns (variable, distinct values at most, axes of channels that have as many)."""
        return []

    @property
    def sparse_variables(self) -> list:
        """The variables that take part; known once built."""
        if self._sparse_indices is None:
            raise self._nothing_found()
        return [self._trainable_variables[i] for i in self._sparse_indices]

    def add_state(self, name, *, dtype=None, shape=None, initial=None):
        """Adds a variable for each kernel.

        Args:
            name: The key in `Kernel.state`.
            dtype: Of the variables; that of the kernel where it is not given, as is the shape.
            shape, initial: Functions `(index, kernel) -> shape`, or values; zeros without one.
        """

        def make(index, variable):
            values = (lambda shape, dtype: initial(index, variable)) if initial else "zeros"
            with self._distribution_strategy.extended.colocate_vars_with(_tf_variable(variable)):
                return self.add_variable(
                    shape=shape(index, variable) if shape else variable.shape,
                    dtype=dtype or variable.dtype,
                    initializer=values,
                    name=f"{path_of(variable).replace('/', '_')}_{name}",
                )

        self._states[name] = [make(i, v) for i, v in enumerate(self.sparse_variables)]

    def states(self) -> dict[str, list]:
        """Returns {name: a variable for each kernel}: what `Kernel.state` consists of."""
        averages = averages_of(self.inner_optimizer, self.sparse_variables)
        return {**self._states, **({"average": averages} if averages else {})}

    def build(self, variables):
        # Without variables: Keras builds optimizers so when it loads a whole .h5 file.
        if self.built or not variables:
            return
        reasons = self.skip_reasons(variables)
        self.skipped = {path_of(v): why for v, why in zip(variables, reasons, strict=True) if why}
        if all(reasons):
            raise self._nothing_found()
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        super().build(variables)
        self._sparse_indices = tuple(i for i, why in enumerate(reasons) if why is None)
        self._states = {}
        self.built = False  # if a state cannot be made, the next call raises the same error
        # Outside of a function that is being traced: the first values of states may be read
        # before that function runs.
        with tf.init_scope():
            self.add_states()
        self.built = True
        for variable in self.sparse_variables:
            variable.sparse_optimizer = self  # see `promises_of`

    def _nothing_found(self):
        return NoMatchError(
            f"{type(self).__name__} found no kernel to work on, expected at least one trainable "
            "kernel of a layer of Keras, or `include` with the names of other weights. Received: "
            f"{self.skipped or 'no trainable variables'}"
        )

    def skip_reasons(self, variables: Sequence) -> list[str | None]:
        """Returns, for each variable, why it does not take part; None if it does."""
        reasons = kernels.skip_reasons(variables, self.exclude, self.include)
        found = [v for v, why in zip(variables, reasons, strict=True) if why is None]
        if self.uses_axes:
            self._axes = dict(zip(map(id, found), find_kernel_axes(found), strict=True))
        return [
            self.skip_reason(variable) if why is None else why
            for variable, why in zip(variables, reasons, strict=True)
        ]

    def axes_of(self, variable):
        """Returns the `core.kernel_axes.KernelAxes` of a kernel, where `uses_axes` asks for it."""
        return self._axes[id(variable)]

    def apply(self, grads, trainable_variables=None):
        grads = list(grads)
        if trainable_variables is not None:
            variables = list(trainable_variables)
            self.build(variables)
        elif self.built:
            variables = self._trainable_variables
        else:
            raise invalid("trainable_variables", "the variables, in the first call", None)
        if not self.built:
            raise self._nothing_found()
        self._check_variables_are_known(variables)
        if not self._scales_loss():
            grads = gradients.checked(grads, [path_of(variable) for variable in variables])
        by_variable = {
            self._get_variable_index(v): g for g, v in zip(grads, variables, strict=True)
        }
        active = [i for i, index in enumerate(self._sparse_indices) if index in by_variable]
        by_kernel = self._gradients_of_kernels(by_variable, active)
        grads = self._adjusted(by_variable)
        before = tf.cast(self.iterations, tf.int64)
        # Now, as that of a schedule changes with the step.
        learning_rate = tf.cast(self.learning_rate, tf.float32)
        # Not before the gradients are known, which are what a step that fails fails for.
        known = [] if tf.executing_eagerly() else [g for g in grads if g is not None]
        with tf.control_dependencies(known):
            self._run(self.before_update, active, by_kernel, before)
        with without_all_reduce(wrapped(self.inner_optimizer)):
            self.inner_optimizer.apply(grads, variables)
        step = tf.cast(self.iterations, tf.int64)
        self._run(self.after_update, active, by_kernel, step, step > before, learning_rate)
        self._run(self.clear_averages, active, by_kernel, step)

    def _scales_loss(self):
        optimizers = wrapped(self.inner_optimizer)
        return any(isinstance(each, keras.optimizers.LossScaleOptimizer) for each in optimizers)

    def _gradients_of_kernels(self, by_variable, active):
        if not self.uses_gradients:
            return [None] * len(active)
        variables = [self.sparse_variables[i] for i in active]
        found = [by_variable[self._sparse_indices[i]] for i in active]
        found = [
            tf.zeros(v.shape, v.dtype) if g is None else tf.convert_to_tensor(g)
            for g, v in zip(found, variables, strict=True)
        ]
        with without_all_reduce([self]):
            summed = self._all_reduce_sum_gradients(list(zip(found, variables, strict=True)))
        scale = self.loss_scale_factor
        if self._scales_loss():
            scale = self.scale_loss(tf.constant(1.0))
        return [gradients.unscaled(gradient, scale) for gradient, _ in summed]

    def _adjusted(self, by_variable):
        places = self._sparse_indices
        known = {i: by_variable[p] for i, p in enumerate(places) if by_variable.get(p) is not None}
        adjusted = {places[i]: gradient for i, gradient in self.adjust_gradients(known).items()}
        return [adjusted.get(place, gradient) for place, gradient in by_variable.items()]

    def _run(self, method, active, *args):
        # Like the update step of Keras: variables change outside of the replicas, all together.
        tf.__internal__.distribute.interim.maybe_merge_call(
            lambda distribution, *args: self._run_on_replicas(distribution, method, active, *args),
            self._distribution_strategy,
            *args,
        )

    def act(self, method):
        """Calls `method(kernels, step)` outside of a training step."""
        step = tf.cast(self.iterations, tf.int64)
        everything = range(len(self.sparse_variables))
        none = [None] * len(everything)
        self._run_on_replicas(self._distribution_strategy, method, everything, none, step)

    def _run_on_replicas(self, distribution, method, active, by_kernel, *args):
        if not active:
            return
        weights = [_tf_variable(self.sparse_variables[i]) for i in active]
        states = {
            name: [_tf_variable(each[i]) for i in active] for name, each in self.states().items()
        }

        def run(_, weights, states, by_kernel, *args):
            kernels = [
                Kernel(index, weight, gradient, {name: each[i] for name, each in states.items()})
                for i, (index, weight, gradient) in enumerate(
                    zip(active, weights, by_kernel, strict=True)
                )
            ]
            method(kernels, *args)

        distribution.extended.update(
            weights[0], run, args=(weights, states, by_kernel, *args), group=False
        )

    def finalize_variable_values(self, var_list):
        # With `use_ema` the averages replace the weights here; they may have fewer zeros.
        named = set(map(id, var_list))
        zeros = [
            (variable, self.final_zeros(index, variable))
            for index, variable in enumerate(self.sparse_variables)
            if id(variable) in named
        ]
        self.inner_optimizer.finalize_variable_values(var_list)
        for variable, zero in zeros:
            # This makes zeros positive, too: -1 * 0 leaves a negative one, which gzip dislikes.
            variable.assign(tf.where(zero, tf.zeros_like(zero, variable.dtype), variable))

    def final_zeros(self, index, variable):
        """Returns a boolean tensor: where the kernel `index` is zero when training has ended."""
        return tf.convert_to_tensor(variable) == 0

    @property
    def variables(self):
        return self._variables + self.inner_optimizer.variables

    def save_own_variables(self, store):
        # Keras saves the wrapped optimizer by itself, as an attribute of this one.
        saved_states.save(store, self._variables, self._states)

    def load_own_variables(self, store):
        reason = saved_states.load(store, self._variables, self._states)
        if reason is not None:
            warnings.warn(f"Skipping variable loading for {self.name!r}: {reason}", stacklevel=2)

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def loss_scale_factor(self):
        return self.inner_optimizer.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor):
        # The base class sets its default before there is anything to wrap.
        if hasattr(self, "inner_optimizer"):
            self.inner_optimizer.loss_scale_factor = factor

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def get_config(self):
        config = {
            "optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "exclude": list(self.exclude),
            "name": self.name,
        }
        # Not where it is empty, for techniques whose `__init__` has no `include`.
        return {**config, "include": list(self.include)} if self.include else config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["optimizer"] = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(**config)


def sparse_optimizers_of(optimizer):
    """Returns the sparse optimizers among an optimizer and those inside it, outermost first."""
    return [each for each in wrapped(optimizer) if isinstance(each, SparseOptimizer)]


def sparse_optimizer_of(optimizer):
    """Returns the outermost `SparseOptimizer` of an optimizer, or None."""
    return next(iter(sparse_optimizers_of(optimizer)), None)


def _tf_variable(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable
