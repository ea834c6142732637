"""A change of a formula, and the tests that must notice it."""

import typing


class Mutant(typing.NamedTuple):
    """A change of a formula.

    Attributes:
        name: What is wrong in it.
        file: The file in tfpeft/.
        right: The formula; it is in the file once.
        wrong: What takes its place.
        tests: Tests, in tests/, one of which must fail: "folder/file.py::test".
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
