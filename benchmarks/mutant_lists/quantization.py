"""Formulas of quantisation with a mistake in each."""

from mutant_lists.mutant import Mutant

_FOLDER = "quantization/"

MUTANTS = (
    Mutant(
        "quantisation, weights: a step too many",
        "quantization/fake_quant.py",
        "scales = quotient(largest, 2 ** (bits - 1) - 1)",
        "scales = quotient(largest, 2 ** (bits - 1))",
        (f"{_FOLDER}test_fake_quant.py::test_weights_on_their_grid",),
    ),
    Mutant(
        "quantisation, learned ranges: no scaling of the gradient",
        "quantization/fake_quant.py",
        "factor = 1.0 / np.sqrt(2**bits - 1) / tf.sqrt(tf.cast(tf.size(x), x.dtype))",
        "factor = 1.0 / np.sqrt(2**bits - 1)",
        (f"{_FOLDER}test_fake_quant.py::test_the_gradient_of_a_learned_range",),
    ),
    Mutant(
        "quantisation, ranges: 16 bits that are not symmetric",
        "quantization/fake_quant.py",
        "        return -max(-low, high), max(-low, high)",
        "        return low, high",
        (f"{_FOLDER}test_fake_quant.py::test_a_deployed_range_has_zero_on_its_grid",),
    ),
    Mutant(
        "quantisation, ranges: without the first steps of equal weight",
        "quantization/activation_quantizer.py",
        "tf.maximum(1.0 / (steps + 1.0), 1.0 - self.momentum)",
        "1.0 - self.momentum",
        (f"{_FOLDER}test_quantize_aware.py::test_ranges_follow_the_batches_and_freeze",),
    ),
    Mutant(
        "quantisation, folding: the variance without its root",
        "quantization/deployed_calls.py",
        "1.0 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)",
        "1.0 / (norm.moving_variance.numpy() + norm.epsilon)",
        (f"{_FOLDER}test_integer_files.py::test_no_float_operator_and_the_same_outputs",),
    ),
    Mutant(
        "quantisation, inference in 4 bits: rounded once",
        "quantization/integer_calls.py",
        "tf.floor(tf.floor(sums * (multiplier * power) + 0.5) / power + 0.5)",
        "tf.floor(sums * multiplier + 0.5)",
        (f"{_FOLDER}test_integer_calls.py::test_sums_are_integers_and_rounded_as_by_litert",),
    ),
    Mutant(
        "quantisation, inference: biases that are no integers",
        "quantization/integer_calls.py",
        "rounded = tf.round(tf.stop_gradient(exact))",
        "rounded = tf.stop_gradient(exact)",
        (f"{_FOLDER}test_integer_calls.py::test_biases_are_integers",),
    ),
    Mutant(
        "quantisation, inference: additions with exact factors",
        "quantization/integer_calls.py",
        "integers * tf.round(factor * power)",
        "integers * factor * power",
        (
            f"{_FOLDER}test_integer_calls.py::test_both_factors_of_an_addition_have_one_power_of_two",
        ),
    ),
    Mutant(
        "quantisation, inference: halves of averages go up",
        "quantization/integer_calls.py",
        "tf.sign(x) * tf.floor(tf.abs(x) + 0.5)",
        "tf.floor(x + 0.5)",
        (
            f"{_FOLDER}test_integer_calls.py::"
            "test_halves_of_an_average_go_away_from_the_zero_of_stored_integers",
        ),
    ),
    Mutant(
        "quantisation, steps: other last bits in a graph",
        "quantization/fake_quant.py",
        'tf.cast(tf.cast(x, "float64") / number, x.dtype)',
        "x / number",
        (f"{_FOLDER}test_integer_calls.py::test_a_quotient_is_the_same_in_a_graph",),
    ),
    Mutant(
        "quantisation, concatenation: ranges of its parts",
        "quantization/placement.py",
        "        joined = self._last_concatenation(operation)",
        "        joined = None",
        (f"{_FOLDER}test_placement.py::test_what_is_joined_has_one_range",),
    ),
    Mutant(
        "selective quantisation: no layer is put back into int8",
        "quantization/selective.py",
        "    for layer in reversed(found[:-1]):",
        "    for layer in ():",
        (f"{_FOLDER}test_selective.py::test_search_by_hand",),
    ),
    Mutant(
        "selective quantisation: layers in the order of the file",
        "quantization/selective.py",
        "fewest(measure_error(files).worst(), trials.hold)",
        "fewest(list(files.layers), trials.hold)",
        (f"{_FOLDER}test_selective.py::test_exactly_the_layer_that_int8_breaks_stays_in_float32",),
    ),
    Mutant(
        "quantisation, 4 bits: the bias keeps its step",
        "export/four_bits.py",
        "found[index, number] = graph.tensors[number], np.int32, False",
        "pass",
        (f"{_FOLDER}test_integer_files.py::test_weights_of_four_bits_are_stored_in_four",),
    ),
)
