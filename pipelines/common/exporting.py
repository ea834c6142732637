"""The flags of an exported file, and the arguments of `export_tflite` that they are."""

from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import Flag
from tfpeft.core.arguments import InputError
from tfpeft.core.packages import check_packages
from tfpeft.export.formats import INT4, QUANTIZATIONS, check_types
from tfpeft.export.ranges import RANGES

QUANTIZATION = Flag(
    "quantization", str, "int8", "Numbers in the exported file.", choices=QUANTIZATIONS
)
ALLOW_DEVIATION = Flag(
    "allow_deviation",
    float,
    None,
    "Error of the file, as a fraction of the spread of the model's outputs, up to which it is "
    "kept. By default: see the documentation of export_tflite.",
    above=0,
)
INT8_FLAGS = (
    Flag(
        "int8_ranges",
        str,
        "mse",
        "Of activations in int8: from the least to the largest value (extended), of 99.99% of the "
        "values, or those of the least squared error.",
        choices=RANGES,
    ),
    Flag(
        "equalize",
        bool,
        False,
        "Whether int8 first moves weights between layers, so that their channels have like ranges.",
    ),
    Flag(
        "correct_bias",
        bool,
        False,
        "Whether int8 takes the mean error of layers out of their biases.",
    ),
)
_TYPES = ("float32", "int8", "uint8", "int16")
FLAGS = (
    QUANTIZATION,
    ALLOW_DEVIATION,
    *INT8_FLAGS,
    Flag(
        "file_batch_size",
        int,
        None,
        "Samples of a run of the file: 1 for a microcontroller or an NPU. By default any number.",
        at_least=1,
    ),
    Flag(
        "input_type",
        str,
        "float32",
        "Type of the inputs of the file: int8 or uint8 of an int8 file, int16 of an int16x8 file, "
        "float32 of any.",
        choices=_TYPES,
    ),
    Flag("output_type", str, "float32", "Type of its outputs, in the same way.", choices=_TYPES),
    Flag(
        "sparse_encoding",
        bool,
        False,
        "Whether constants with many zeros are stored as sparse ones, where that is smaller and "
        "runs: for phones.",
    ),
    Flag(
        "compact",
        bool,
        False,
        "Whether names of inner tensors are left out of the file, by which devices.md names "
        "layers, and equal zero points are stored once.",
    ),
)


def check(settings):
    """Raises for flags that the quantization does not have, and a package that it lacks."""
    for flag in INT8_FLAGS:
        if flag.name in settings.given and settings.quantization != "int8":
            raise unread_flag(flag.name, f"--quantization={settings.quantization}")
    if settings.quantization in INT4:
        check_packages(["litert_quantizer"], "quantizer")
    try:
        check_types(settings.quantization, settings.input_type, settings.output_type)
    except InputError as error:
        name = "input_type" if "`input_type`" in str(error) else "output_type"
        expected = f"float32, or another --quantization than {settings.quantization}"
        raise invalid_flag(name, expected, getattr(settings, name)) from error


def arguments(settings):
    """Returns the arguments of `export_tflite` that the flags are."""
    return {
        "quantization": settings.quantization,
        "allow_deviation": settings.allow_deviation,
        "ranges": settings.int8_ranges,
        "equalize": settings.equalize,
        "correct_bias": settings.correct_bias,
        "batch_size": settings.file_batch_size,
        "input_type": settings.input_type,
        "output_type": settings.output_type,
        "sparse": settings.sparse_encoding,
        "compact": settings.compact,
    }


def labels(names, units):
    """Returns the names of the classes as labels of a file; None where they say nothing.

    Args:
        names: Names of the classes.
        units: How many outputs a sample has; one is the second of two classes.
    """
    are_numbers = tuple(names) == tuple(map(str, range(len(names))))
    return None if are_numbers or len(names) != units else [" ".join(n.split()) for n in names]
