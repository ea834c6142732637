"""Formulas of tfpeft with a mistake in each, and the tests that must notice it."""

from mutant_lists import (
    channels,
    clustering,
    devices,
    distribution,
    evaluation,
    export,
    formulas,
    int8,
    loading,
    quantization,
    recommend,
    search,
)

MUTANTS = (
    *formulas.MUTANTS,
    *channels.MUTANTS,
    *clustering.MUTANTS,
    *devices.MUTANTS,
    *distribution.MUTANTS,
    *evaluation.MUTANTS,
    *export.MUTANTS,
    *int8.MUTANTS,
    *loading.MUTANTS,
    *quantization.MUTANTS,
    *recommend.MUTANTS,
    *search.MUTANTS,
)
