"""Formulas with a mistake in each: export."""

from mutant_lists.mutant import Mutant

_FORMATS = "export/test_formats.py::"
_INT4 = "export/test_int4.py::"
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
    Mutant(
        "blocks of 4 bits: along the wrong axis",
        "export/int4.py",
        ".shape[-1] % _BLOCK",
        ".shape[0] % _BLOCK",
        (f"{_INT4}test_the_table_of_an_embedding_is_in_4_bits",),
    ),
    Mutant(
        "4 bits: weights of Dense are not clipped",
        "export/int4.py",
        'bits == 4 and name == "FULLY_CONNECTED"',
        'bits == 8 and name == "FULLY_CONNECTED"',
        (f"{_INT4}test_signatures_share_weights_of_4_bits_and_small_layers_stay",),
    ),
    Mutant(
        "lookups: the sides of the indices are lost",
        "export/embedding_lookups.py",
        "[*outer, width])",
        "[-1, width])",
        (f"{_INT4}test_lookups_read_what_gather_read",),
    ),
)
