"""Mutants of training on several machines: the parts of a batch."""

from mutant_lists.mutant import Mutant

_BATCHES = "distribution/test_batches.py"

MUTANTS = (
    Mutant(
        "parts: the last ones have a sample more",
        "distribution/batches.py",
        "smaller(i, size % replicas)",
        "smaller(0, size % replicas)",
        (f"{_BATCHES}::test_no_part_is_empty_and_no_sample_is_lost",),
    ),
    Mutant(
        "parts: a small last batch stays small",
        "distribution/batches.py",
        "size - rows, 0)",
        "0, 0)",
        (f"{_BATCHES}::test_parts_by_hand",),
    ),
)
