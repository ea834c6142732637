"""Formulas of int8 files with a mistake in each: ranges, equalisation, bias correction."""

from mutant_lists.mutant import Mutant

_RANGES = "export/test_ranges.py::"
_EQUALIZATION = "export/test_equalization.py::"

MUTANTS = (
    Mutant(
        "percentiles: all that is outside on each side",
        "export/ranges.py",
        "(1 - percent / 100) / 2 + 1e-12",
        "(1 - percent / 100) + 1e-12",
        (f"{_RANGES}test_percentiles_by_hand",),
    ),
    Mutant(
        "range of least error: clipping does not count",
        "export/ranges.py",
        "np.clip(np.round(values / step) + zero, 0, 255)",
        "(np.round(values / step) + zero)",
        (f"{_RANGES}test_the_range_of_least_error_is_that_of_a_search_through_fake_quant",),
    ),
    Mutant(
        "equalisation: without the square root",
        "export/equalization.py",
        "np.sqrt(np.where(is_used, made, 1.0) / np.where(is_used, read, 1.0))",
        "(np.where(is_used, made, 1.0) / np.where(is_used, read, 1.0))",
        (f"{_EQUALIZATION}test_scales_by_hand",),
    ),
    Mutant(
        "equalisation: the bias stays",
        "export/equalization.py",
        "        bias /= factors\n",
        "        bias /= 1.0\n",
        (f"{_EQUALIZATION}test_equalised_layers_have_equal_outputs_and_ranges",),
    ),
    Mutant(
        "equalisation: ReLU6 counts as homogeneous",
        "export/equalization.py",
        "ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)",
        "ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU, 3)",
        (f"{_EQUALIZATION}test_equalised_layers_have_equal_outputs_and_ranges",),
    ),
    Mutant(
        "bias correction: the wrong sign",
        "export/bias_correction.py",
        "theirs, expected - found)",
        "theirs, found - expected)",
        (f"{_EQUALIZATION}test_wrong_biases_are_corrected",),
    ),
    Mutant(
        "signal-to-noise ratio: decibels of amplitudes",
        "export/layer_errors.py",
        "10 * math.log10(",
        "20 * math.log10(",
        ("quantization/test_error.py::test_decibels_by_hand",),
    ),
)
