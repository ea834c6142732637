"""Formulas of tfpeft with a mistake in each, and the tests that must notice it."""

from mutant_lists import (
    channels,
    clustering,
    devices,
    distribution,
    export,
    formulas,
    int8,
    quantization,
)

MUTANTS = (
    *formulas.MUTANTS,
    *channels.MUTANTS,
    *clustering.MUTANTS,
    *devices.MUTANTS,
    *distribution.MUTANTS,
    *export.MUTANTS,
    *int8.MUTANTS,
    *quantization.MUTANTS,
)
