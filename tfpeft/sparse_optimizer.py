"""The base of everything that acts on weights after an update."""

import fnmatch

import keras
import tensorflow as tf

from tfpeft import schedules

# Variables of rank 2 and more that are no kernels, by parts of their names.
_NOT_KERNELS = ("embedding", "bias", "gamma", "beta", "mean", "variance", "lora")


class SparseOptimizer(keras.optimizers.Optimizer):
    """An optimizer that wraps an optimizer and keeps part of the weights at exactly zero.

    After each update of the wrapped optimizer, in the same graph:

    1. where `schedule` says so, `mask <- calculate_mask(weight, sparsity)`,
    2. `weight <- mask * weight`.

    A technique is a subclass that overrides `calculate_mask`. It trains what any Keras
    optimizer trains: in `fit`, in a loop of one's own through `apply`, with mixed precision,
    with `steps_per_execution`, under `tf.distribute`. Masks and steps are optimizer variables:
    they are saved with the model and resumed with it. They cost one byte a weight.

    Every trainable kernel of rank 2 or more takes part; biases, normalisation and embeddings
    do not. `skipped` says why, a variable each.

    What it does not give: zeros do not make a dense kernel faster on most machines; they make
    compressed files smaller.

    Args:
        optimizer: A `keras.optimizers.Optimizer`; it may be another `SparseOptimizer`.
        schedule: A callable `step -> (update_now, sparsity)`, such as TFMOT's
            `PolynomialDecay` or `ConstantSparsity`. `step` counts updates.
        exclude: Layer or variable names, or patterns such as `"head_*"`, to leave alone.
        name: The optimizer's name.

    Raises:
        ValueError: if `optimizer` or `schedule` is not of its kind; and on the first update if
            no kernel takes part, or if an entry of `exclude` matches nothing.
    """

    def __init__(self, optimizer, schedule, *, exclude=(), name=None):
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise ValueError(
                "Received an invalid value for `optimizer`, expected a keras.optimizers.Optimizer "
                f"instance. Received: optimizer={optimizer!r}"
            )
        if not callable(schedule):
            raise ValueError(
                "Received an invalid value for `schedule`, expected a callable of a step such as "
                "tfmot.sparsity.keras.PolynomialDecay(...). "
                f"Received: schedule={schedule!r}"
            )
        if isinstance(exclude, str):
            raise ValueError(
                "Received an invalid value for `exclude`, expected a list or tuple of names. "
                f"Received: exclude={exclude!r}"
            )
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = optimizer
        self.schedule = schedule
        self.exclude = tuple(exclude)
        self.skipped = {}

    def calculate_mask(self, weight, sparsity):
        """Returns a boolean tensor of the shape of `weight`, True where it is kept.

        Args:
            weight: Tensor, a kernel as the wrapped optimizer left it.
            sparsity: Scalar tensor in [0, 1).
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `calculate_mask`.")

    @property
    def sparse_variables(self):
        """The variables that take part, in the order of the masks; known once built."""
        return [self._trainable_variables[i] for i in self._sparse_indices]

    @property
    def promised_sparsity(self):
        """The fraction of zeros in [0, 1) that each kernel has when the schedule has ended."""
        return schedules.promised_sparsity(self.schedule)

    def build(self, variables):
        if self.built:
            return
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        super().build(variables)
        self.skipped = self._skip_reasons(variables)
        self._sparse_indices = tuple(
            i for i, variable in enumerate(variables) if _path(variable) not in self.skipped
        )
        if not self._sparse_indices:
            raise ValueError(
                f"{type(self).__name__} found no kernel to work on, expected at least one "
                f"trainable kernel of rank >= 2. Received: {self.skipped or 'no variables'}"
            )
        self._masks = tuple(self._add_mask(variable) for variable in self.sparse_variables)
        for variable in self.sparse_variables:
            # `strip_pruning` asks the weight who promised zeros: the model may have been
            # trained inside another one, or in a loop that never compiled it.
            variable.sparse_optimizer = self

    def _skip_reasons(self, variables):
        unmatched = set(self.exclude)
        reasons = {}
        for variable in variables:
            path = _path(variable)
            names = [path, *path.split("/")]
            matched = {p for p in self.exclude if any(fnmatch.fnmatchcase(n, p) for n in names)}
            unmatched -= matched
            if len(variable.shape) < 2:
                reasons[path] = f"rank {len(variable.shape)}: no kernel"
            elif any(part in names[-1] for part in _NOT_KERNELS):
                reasons[path] = f"`{names[-1]}`: no kernel"
            elif matched:
                reasons[path] = f"excluded by {sorted(matched)[0]!r}"
        if unmatched:
            raise ValueError(
                "Received an invalid value for `exclude`, expected names or patterns of layers "
                f"among {sorted({_path(v) for v in variables})}. "
                f"Received without a match: {sorted(unmatched)}"
            )
        return reasons

    def _add_mask(self, variable):
        value = variable.value if isinstance(variable, keras.Variable) else variable
        with self._distribution_strategy.extended.colocate_vars_with(value):
            return self.add_variable(
                shape=variable.shape,
                dtype="bool",
                initializer="ones",
                name=f"{_path(variable).replace('/', '_')}_mask",
            )

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables))
        self.inner_optimizer.apply(grads, trainable_variables)
        update, sparsity = schedules.evaluate_schedule(
            self.schedule, tf.cast(self.iterations, tf.int64)
        )
        # Like Keras's own update step: variables change outside the replicas, all at once.
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._sparsify, self._distribution_strategy, update, sparsity
        )

    def _sparsify(self, distribution, update, sparsity):
        def update_masks():
            for mask, weight in zip(self._masks, self.sparse_variables, strict=True):
                distribution.extended.update(
                    _tf_variable(mask),
                    lambda mask, weight, sparsity: mask.assign(
                        self.calculate_mask(tf.convert_to_tensor(weight), sparsity)
                    ),
                    args=(_tf_variable(weight), sparsity),
                    group=False,
                )
            return tf.constant(True)

        update = distribution.experimental_local_results(update)[0]
        tf.cond(update, update_masks, lambda: tf.constant(False))
        self._project(distribution)

    def _project(self, distribution):
        for weight, mask in zip(self.sparse_variables, self._masks, strict=True):
            distribution.extended.update(
                _tf_variable(weight),
                # Not a product: 0 * inf is not zero, and -1 * 0 is the zero that gzip dislikes.
                lambda weight, mask: weight.assign(tf.where(mask, weight, tf.zeros_like(weight))),
                args=(_tf_variable(mask),),
                group=False,
            )

    def finalize_variable_values(self, var_list):
        # With `use_ema` the averages replace the weights here; they are not sparse by themselves.
        self.inner_optimizer.finalize_variable_values(var_list)
        self._project(self._distribution_strategy)

    @property
    def variables(self):
        return self._variables + self.inner_optimizer.variables

    def save_own_variables(self, store):
        # Keras saves the wrapped optimizer by itself, as an attribute of this one.
        for i, variable in enumerate(self._variables):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store):
        if len(store.keys()) != len(self._variables):
            raise ValueError(
                f"Cannot load the state of {type(self).__name__}, expected "
                f"{len(self._variables)} variables. Received: {len(store.keys())}"
            )
        for i, variable in enumerate(self._variables):
            variable.assign(store[str(i)])

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
        return {
            "optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "schedule": schedules.serialize_schedule(self.schedule),
            "exclude": list(self.exclude),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["optimizer"] = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        config["schedule"] = schedules.deserialize_schedule(config["schedule"])
        return cls(**config)


def _path(variable):
    return getattr(variable, "path", variable.name)


def _tf_variable(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable
