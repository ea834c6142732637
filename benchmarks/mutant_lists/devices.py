"""Mutants of what a file holds, and of what devices make of it."""

from mutant_lists.mutant import Mutant

_DESCRIBE = "export/test_describe.py::"
_DEVICES = "export/test_devices.py::"

MUTANTS = (
    Mutant(
        "sparse form: places inside of blocks are lost",
        "export/tflite_constants.py",
        "places[:, axis] * size + coordinates[:, rank + i]",
        "places[:, axis] * size",
        (f"{_DESCRIBE}test_blocks_of_two_by_two_by_hand",),
    ),
    Mutant(
        "sparse form: dimensions in the order of the walk",
        "export/tflite_constants.py",
        "coordinates[:, np.argsort(order)]",
        "coordinates[:, :]",
        (f"{_DESCRIBE}test_columns_first_by_hand",),
    ),
    Mutant(
        "4 bits without a sign",
        "export/tflite_constants.py",
        "np.where(nibbles > 7, nibbles - 16, nibbles)",
        "np.where(nibbles > 15, nibbles - 16, nibbles)",
        (f"{_DESCRIBE}test_four_bits_have_a_sign",),
    ),
    Mutant(
        "distinct values: steps between them",
        "export/tflite_constants.py",
        "!= 0, axis=1)) + 1)",
        "!= 0, axis=1)))",
        (f"{_DESCRIBE}test_most_distinct_values_of_a_channel",),
    ),
    Mutant(
        "tables of values: one for a constant of many scales",
        "export/targets/tflm.py",
        "axis = tensor.channel_axis\n",
        "axis = None\n",
        (f"{_DEVICES}test_tflm_runs_it_and_compresses_it",),
    ),
    Mutant(
        "XNNPACK: a half of zeros is enough",
        "core/xnnpack.py",
        "LEAST_ZEROS = 2 / 3",
        "LEAST_ZEROS = 1 / 10",
        (f"{_DEVICES}test_two_thirds_of_the_zeros_of_a_part_count",),
    ),
    Mutant(
        "XNNPACK: convolutions of strides 2 skip zeros",
        "core/xnnpack.py",
        "{*kernel, *strides, *dilation, groups}",
        "{*kernel, *dilation, groups}",
        (f"{_DEVICES}test_what_keeps_a_part_from_running_sparse",),
    ),
)
