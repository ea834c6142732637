"""What the exports for servers share: a file written, compared with its model, and its report."""

import dataclasses

import keras

from tfpeft.core.arguments import invalid
from tfpeft.core.files import replacing
from tfpeft.export.check import Check
from tfpeft.export.conversion import fixed_batch_size, input_specs
from tfpeft.export.model_samples import inputs_and_samples


@dataclasses.dataclass(frozen=True)
class ServingReport:
    """What `export_saved_model` or `export_onnx` wrote.

    Attributes:
        path: The folder of the SavedModel, or the .onnx file.
        size_bytes: Bytes of the file, or of all files in the folder.
        inputs: {name: (type, shape)} of the inputs, in the order of the model's; None is a free
            side.
        outputs: {signature: names of its outputs}. An .onnx file has one signature.
        max_deviation: Largest |file - model| over the outputs of the compared samples, in the unit
            of the outputs.
        relative_error: Root mean square of file - model, relative to the standard deviation of the
            model's outputs over the compared samples; of the worst output.
        agreement: Fraction in [0, 1] of the compared samples whose largest output is the same;
            None for outputs without classes.
        compared_samples: How many samples file and model were compared on.
    """

    path: str
    size_bytes: int
    inputs: dict[str, tuple[str, tuple]]
    outputs: dict[str, tuple[str, ...]]
    max_deviation: float
    relative_error: float
    agreement: float | None
    compared_samples: int

    @property
    def signatures(self) -> tuple[str, ...]:
        """The names of the signatures."""
        return tuple(self.outputs)

    def __str__(self) -> str:
        inputs = []
        for name, (dtype, shape) in self.inputs.items():
            sides = ("free" if side is None else str(side) for side in shape)
            inputs.append(f"{name} ({', '.join([dtype, *sides])})")
        outputs = (f"{name}: {', '.join(names)}" for name, names in self.outputs.items())
        return (
            f"{self.path}: {self.size_bytes:,} bytes, inputs {', '.join(inputs)}, outputs of "
            f"{'; '.join(outputs)}, largest deviation {self.max_deviation:.3g} on "
            f"{self.compared_samples} samples"
        )


def check_model(model):
    """Raises unless `model` is a Keras model."""
    if not isinstance(model, keras.Model):
        raise invalid("model", "a keras.Model", model)


def write_checked(model, path, data, *, models, write, open_file):
    """Writes a file or folder beside `path`, compares it with the model, and renames it.

    Args:
        model: The model.
        path: Where it goes.
        data: The argument `representative_data`.
        models: {signature: model} of the file.
        write: A function of `ModelInput`s, `tf.TensorSpec`s and a path.
        open_file: A function of a path and the names of the inputs in the order of the model. It
            returns an object with a method `signature(name)`, whose result has `outputs`, a tuple
            of names, and `run`, a function of a list of arrays that returns {name: array}.

    Returns:
        A `ServingReport`.

    Raises:
        InputError: for data that does not fit.
        ExportError: if the file does not run, or its outputs are not the model's.
        OSError: if the path cannot be written.
    """
    inputs, samples, _ = inputs_and_samples(model, data, texts=True)
    specs = input_specs(inputs, fixed_batch_size(model))
    with replacing(path) as partial:
        write(inputs, specs, partial)
        file = open_file(partial, [spec.name for spec in specs])
        check = Check(model, None, inputs, samples, None, None, lambda _: file, models)
        deviation = check.float_file(partial)
        check.other_sides(partial)
        size_bytes = sum(p.stat().st_size for p in (partial, *partial.rglob("*")) if p.is_file())
    return ServingReport(
        path=str(path),
        size_bytes=size_bytes,
        inputs={spec.name: (spec.dtype.name, tuple(spec.shape)) for spec in specs},
        outputs={name: tuple(file.signature(name).outputs) for name in models},
        max_deviation=deviation.largest,
        relative_error=deviation.relative,
        agreement=deviation.agreement,
        compared_samples=len(samples),
    )
