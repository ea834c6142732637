"""Formulas of tfpeft with a mistake in each, and the tests that must notice it."""

from mutant_lists import (
    channels,
    clustering,
    devices,
    evaluation,
    export,
    formulas,
    int8,
    loading,
    quantization,
)

MUTANTS = (
    *formulas.MUTANTS,
    *channels.MUTANTS,
    *clustering.MUTANTS,
    *devices.MUTANTS,
    *evaluation.MUTANTS,
    *export.MUTANTS,
    *int8.MUTANTS,
    *loading.MUTANTS,
    *quantization.MUTANTS,
)
