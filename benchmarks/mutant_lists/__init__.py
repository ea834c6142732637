"""Formulas of tfpeft with a mistake in each, and the tests that must notice it."""

from mutant_lists import channels, clustering, export, formulas, quantization

MUTANTS = (
    *formulas.MUTANTS,
    *channels.MUTANTS,
    *clustering.MUTANTS,
    *export.MUTANTS,
    *quantization.MUTANTS,
)
