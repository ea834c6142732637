"""Formulas with a mistake in each: export."""

from mutant_lists.mutant import Mutant

_FORMATS = "export/test_formats.py::"
_METADATA = "export/test_metadata.py::"

MUTANTS = (
    Mutant(
        "int16: a constant of two signatures is quantized twice",
        "export/int8.py",
        "if tensor.buffer in taken and",
        "if tensor.buffer in () and",
        (f"{_FORMATS}test_signatures_of_a_shared_model_in_int16",),
    ),
    Mutant(
        "metadata: mean and std exchanged",
        "export/metadata.py",
        "options = {0: np.asarray(mean, np.float32), 1: np.asarray(std, np.float32)}",
        "options = {1: np.asarray(mean, np.float32), 0: np.asarray(std, np.float32)}",
        (f"{_METADATA}test_labels_and_scaling_are_read_back",),
    ),
)
