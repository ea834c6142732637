"""Knowledge distillation: a student learns from labels and from a teacher."""

import keras
from keras import ops

from tfpeft import cloning


@keras.saving.register_keras_serializable(package="tfpeft")
class Distiller(keras.Model):
    """Trains a student on labels and on the softened outputs of a teacher.

    The loss of a batch, with the loss of `compile` as `L_hard`:

    `L = alpha * L_hard + (1 - alpha) * T^2 * KL(softmax(z_t / T) || softmax(z_s / T)) + R`

    where z_t and z_s are the logits of teacher and student, T is the temperature, KL is summed
    over classes and averaged over the batch (weighted by `sample_weight`, as Keras weights
    losses), and R are the student's own regularization losses. T^2 keeps the gradients of the
    soft term at one scale for every temperature.

    The distiller is a `keras.Model`: `compile`, `fit`, `evaluate`, `predict` and saving work as
    for the student alone, and metrics are the student's. The teacher runs with training=False
    and is not changed: neither its weights, nor BatchNorm's statistics, nor `trainable`.
    `distiller.student` is the trained model.

    What it does not give: a soft term for outputs other than classes on the last axis, or for
    several outputs; a student that is never better than its capacity allows.

    Args:
        teacher: A built `keras.Model` of one output, (batch, ..., classes), 2 classes or more.
        student: A `keras.Model` with the same inputs and the same output shape.
        alpha: Weight of the labels in [0, 1]; 0 learns from the teacher alone.
        temperature: T > 0; above 1 the teacher's small probabilities count more.
        teacher_from_logits: Whether the teacher answers logits (True) or probabilities (False).
            None recognises it by the last activation, of functional and Sequential models.
        student_from_logits: The same of the student.
        name: The model's name.

    Raises:
        ValueError: for alpha or temperature out of range, outputs of other shapes, and outputs
            whose kind cannot be recognised.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    distiller = tfpeft.Distiller(teacher, student, alpha=0.1, temperature=4.0)
    distiller.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    distiller.fit(x, y, verbose=0)
    distiller.student.predict(x, verbose=0)
    ```

    Reference: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531
    """

    def __init__(
        self,
        teacher,
        student,
        *,
        alpha=0.1,
        temperature=4.0,
        teacher_from_logits=None,
        student_from_logits=None,
        name=None,
    ):
        super().__init__(name=name)
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(
                "Received an invalid value for `alpha`, expected a number in [0, 1]. "
                f"Received: alpha={alpha}"
            )
        if not temperature > 0.0:
            raise ValueError(
                "Received an invalid value for `temperature`, expected a positive number. "
                f"Received: temperature={temperature}"
            )
        for role, model in (("teacher", teacher), ("student", student)):
            if not isinstance(model, keras.Model):
                raise ValueError(
                    f"Received an invalid value for `{role}`, expected a keras.Model. "
                    f"Received: {role}={model!r}"
                )
        if teacher is student:
            raise ValueError("Received the same model for `teacher` and `student`, expected two.")
        self.teacher = teacher
        self.student = student
        self.alpha = alpha
        self.temperature = temperature
        self.teacher_from_logits = _from_logits(teacher, teacher_from_logits, "teacher")
        self.student_from_logits = _from_logits(student, student_from_logits, "student")
        self.soft_loss = SoftLabels(
            temperature=temperature,
            teacher_from_logits=self.teacher_from_logits,
            student_from_logits=self.student_from_logits,
        )
        if teacher.built and student.built:
            _check_outputs(teacher, student)

    def build(self, input_shape=None):
        for model in (self.teacher, self.student):
            if not model.built:
                model.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        total = super().compute_loss(x, y, y_pred, sample_weight, training)
        regularization = sum(self._aggregate_additional_loss(loss) for loss in self.losses)
        teacher_outputs = ops.stop_gradient(self.teacher(x, training=False))
        soft = self.soft_loss(teacher_outputs, y_pred, sample_weight)
        hard = total - regularization
        return self.alpha * hard + (1.0 - self.alpha) * soft + regularization

    # The teacher is a layer of this model, so that it is saved with it; but it does not learn,
    # and what it would add to the loss is none of the student's business.

    @property
    def trainable_variables(self):
        return self.student.trainable_variables

    @property
    def trainable_weights(self):
        return self.student.trainable_weights

    @property
    def losses(self):
        return self.student.losses

    def get_config(self):
        return {
            "teacher": keras.saving.serialize_keras_object(self.teacher),
            "student": keras.saving.serialize_keras_object(self.student),
            "alpha": self.alpha,
            "temperature": self.temperature,
            "teacher_from_logits": self.teacher_from_logits,
            "student_from_logits": self.student_from_logits,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for role in ("teacher", "student"):
            config[role] = keras.saving.deserialize_keras_object(
                config[role], custom_objects=custom_objects
            )
        return cls(**config)


class SoftLabels(keras.losses.Loss):
    """T^2 * KL(softmax(z_t / T) || softmax(z_s / T)), summed over the last axis.

    Called with the outputs of teacher and student, it is weighted, masked and averaged as every
    Keras loss is. Arguments: see `Distiller`.
    """

    def __init__(self, *, temperature, teacher_from_logits, student_from_logits):
        super().__init__(name="soft_labels")
        self.temperature = temperature
        self.teacher_from_logits = teacher_from_logits
        self.student_from_logits = student_from_logits

    def call(self, y_true, y_pred):
        teacher = self._log_probabilities(y_true, self.teacher_from_logits)
        student = self._log_probabilities(y_pred, self.student_from_logits)
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
        return self.temperature**2 * divergence

    def _log_probabilities(self, outputs, from_logits):
        # Probabilities do for logits: z = log p + a constant, which softmax forgets.
        logits = outputs if from_logits else ops.log(ops.maximum(outputs, _SMALLEST))
        return ops.log_softmax(logits / self.temperature, axis=-1)


def scale_width(model, width):
    """Returns a new, untrained model: the architecture of `model` at another width.

    Every layer of `units` or `filters` gets `max(1, round(width * units))` of them, but for
    those whose channels are the outputs of the model. Dropout rates of a narrower model become
    0: its size and its teacher regularise it, and on top of them dropout made students worse
    (see benchmarks/README.md). Preprocessing state that no training
    changes (what `Normalization` was adapted to) is copied.

    What it does not give: other depths or kernel sizes. Layers that name a shape, such as
    `Reshape` to a number of channels or the `Input` of a functional model in the middle of
    another, cannot follow.

    Args:
        model: A functional or Sequential `keras.Model`, built; it stays as it is.
        width: Factor > 0, such as 0.5.

    Raises:
        ValueError: for another kind of model, a width out of range, or a model in which no
            layer can be scaled.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(3)])
    print(tfpeft.scale_width(model, 0.5).layers[0].units)  # 8
    ```

    Reference: the width multiplier of Howard et al., "MobileNets", 2017,
    https://arxiv.org/abs/1704.04861
    """
    if not width > 0:
        raise ValueError(
            "Received an invalid value for `width`, expected a positive number. "
            f"Received: width={width}"
        )
    if not getattr(model, "outputs", None):
        raise ValueError(
            "Received an invalid value for `model`, expected a functional or Sequential model "
            f"that is built. Received: {model.name!r}, a {type(model).__name__}"
        )
    kept = {layer.name for output in model.outputs for layer in _output_layers(output)}
    scaled = []

    def edit(config, parents):
        if "layers" in config and "input_layers" not in config and config["name"] != model.name:
            # A Sequential inside another model takes the width that it is given.
            layers = [each for each in config["layers"] if each["class_name"] != "InputLayer"]
            return {**config, "layers": layers, "build_input_shape": None}
        if width < 1 and "rate" in config:
            config = {**config, "rate": 0.0}
        for argument in _WIDTHS:
            if isinstance(config.get(argument), int) and config.get("name") not in kept:
                groups = config.get("groups") or 1
                units = max(1, round(width * config[argument] / groups)) * groups
                scaled.append(config["name"])
                config = {**config, argument: units}
        return config

    new = cloning.rebuild(model, edit, copy_weights=False)
    if not scaled:
        raise ValueError(
            "Received an invalid value for `model`, expected layers with `units` or `filters` "
            f"before the output layers. Received: {model.name!r} without any"
        )
    cloning.copy_adapted(model, new)
    return new


_WIDTHS = ("units", "filters")
_SMALLEST = 1e-37  # the smallest normal float32, about
_SHAPE_ONLY = (
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Dropout,
    keras.layers.Identity,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
)


def _output_layers(tensor):
    """Yields the layers that decide how many channels an output has."""
    operation, node, index = tensor._keras_history
    if isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
        yield from _output_layers(operation.outputs[index])
    elif isinstance(operation, keras.layers.Wrapper):
        yield operation.layer
    elif any(hasattr(operation, argument) for argument in _WIDTHS):
        yield operation
    else:
        for argument in operation._inbound_nodes[node].input_tensors:
            yield from _output_layers(argument)


def _last_activation(model):
    """Returns the name of what made the output of a model, or None where it does not tell."""
    if len(getattr(model, "outputs", None) or []) != 1:
        return None
    tensor = model.outputs[0]
    while True:
        operation, node, index = tensor._keras_history
        if isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
            tensor = operation.outputs[index]
        elif isinstance(operation, _SHAPE_ONLY):
            tensor = operation._inbound_nodes[node].input_tensors[0]
        else:
            break
    activation = getattr(operation, "activation", None)
    return getattr(activation, "__name__", type(operation).__name__.lower())


def _check_outputs(teacher, student):
    shapes = [getattr(model, "output_shape", None) for model in (teacher, student)]
    if not all(isinstance(shape, tuple) for shape in shapes):
        return  # A subclassed model does not tell.
    if shapes[0] != shapes[1] or (shapes[0][-1] or 2) < 2:
        raise ValueError(
            "Received incompatible values for `teacher` and `student`, expected one output each, "
            "of the same shape and at least 2 classes. "
            f"Received: teacher {shapes[0]}, student {shapes[1]}"
        )


def _from_logits(model, from_logits, role):
    if from_logits is not None:
        return bool(from_logits)
    activation = _last_activation(model)
    if activation in ("linear", "softmax"):
        return activation == "linear"
    received = activation or "a model that does not show its layers"
    raise ValueError(
        f"Cannot recognise the outputs of `{role}`, expected a last activation of linear or "
        f"softmax, or `{role}_from_logits` to say it. Received: {received}"
    )
