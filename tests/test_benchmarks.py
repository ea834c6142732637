"""The lists of benchmarks/ fit the code: formulas, tests and public names are there."""

import ast
import importlib
import pathlib
import re
import sys

import pytest

import tfpeft

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
MUTANTS = importlib.import_module("mutant_lists").MUTANTS


def names_of_tests(path):
    """Returns the names of the tests in a file, as pytest writes them."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{each.name}" for each in node.body if hasattr(each, "name"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_one_change_of_a_file_that_compiles(mutant):
    text = (ROOT / "tfpeft" / mutant.file).read_text()
    assert text.count(mutant.right) == 1, "the formula has changed: change the mutant, too"
    ast.parse(text.replace(mutant.right, mutant.wrong))


def test_the_tests_of_mutants_are_there():
    named = {test for mutant in MUTANTS for test in mutant.tests}
    files = {test.partition("::")[0] for test in named}
    there = {f"{file}::{name}" for file in files for name in names_of_tests(ROOT / "tests" / file)}
    assert named <= there
    assert all(mutant.tests for mutant in MUTANTS)


def test_there_are_many_mutants_of_different_names():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30


# What functions return, and the classes of errors: nothing is given to them.
WITHOUT_INPUTS = {
    *(
        "Comparison",
        "Evaluation",
        "ExportReport",
        "IterativeChannelPruningResult",
        "IterativePruningResult",
        "ServingReport",
        "TFLiteDescription",
        "QuantizationError",
        "Recommendation",
        "Recommendations",
        "SearchResult",
        "SearchTrial",
        "SelectiveQuantizationResult",
        "XnnpackPolicy",
    ),
    *("BudgetError", "ExportError", "InputError", "NoMatchError"),
}


def test_each_public_name_has_bad_inputs():
    cases = "".join(path.read_text() for path in (ROOT / "benchmarks/bad_cases").glob("*.py"))
    missing = {name for name in tfpeft.__all__ if not re.search(rf"\b{name}\b", cases)}
    assert missing <= WITHOUT_INPUTS
