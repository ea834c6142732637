"""Formulas of tfpeft with a mistake in each, and the tests that must notice it."""

from mutant_lists import channels, devices, export, formulas

MUTANTS = (*formulas.MUTANTS, *channels.MUTANTS, *devices.MUTANTS, *export.MUTANTS)
