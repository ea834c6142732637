"""JSON whose content is checked."""

import json
import math
import numbers

import pytest

from tfpeft.core.arguments import InputError
from tfpeft.core.json_files import mismatch, read_json

SCHEMA = {
    "name": str,
    "baseline": numbers.Real,
    "ratio": (float, None),
    "rounds": [{"held": bool, "sparsity": float, "count": int}],
    "classes": {str: [str]},
}
GOOD = {
    "name": "a",
    "baseline": math.nan,
    "ratio": None,
    "rounds": [{"held": True, "sparsity": 1, "count": 2}],
    "classes": {"a": ["x", "y"], "b": []},
    "more": {},
}


def test_what_has_the_form():
    for changes in ({}, {"ratio": 0.5}, {"rounds": []}, {"baseline": 3}):
        assert mismatch({**GOOD, **changes}, SCHEMA) is None
    assert mismatch([1], object) is None
    assert mismatch({}, dict) is None


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"name": 3}, "a text for name"),
        ({"name": None}, "a text for name"),
        ({"baseline": "1"}, "a number for baseline"),
        ({"baseline": True}, "a number for baseline"),
        ({"ratio": math.nan}, "a finite number for ratio"),
        ({"ratio": 10**400}, None),
        ({"rounds": {}}, "a list for rounds"),
        ({"rounds": [*GOOD["rounds"], {}]}, r"a value for rounds[1].held"),
        ({"rounds": [{"held": 1, "sparsity": 1, "count": 2}]}, "true or false for rounds[0].held"),
        ({"rounds": [{"held": True, "sparsity": 1, "count": 2.5}]}, "an integer for"),
        ({"classes": ["a"]}, "an object for classes"),
        ({"classes": {"a": ["x", 1]}}, "a text for classes.a[1]"),
    ],
)
def test_what_has_another_form_is_named(changes, found):
    received = mismatch({**GOOD, **changes}, SCHEMA)
    assert received is None if found is None else received.startswith(found)
    for key in SCHEMA:
        without = {name: value for name, value in GOOD.items() if name != key}
        assert mismatch(without, SCHEMA) == f"a value for {key}"
    assert mismatch([], SCHEMA) == "an object"


@pytest.mark.parametrize("content", [b"", b"{", b"garbage", b"\xff\xfe\0", b"[" * 100_000])
def test_files_that_are_not_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged file, expected JSON. Received: .*a.json"):
        read_json(tmp_path / "a.json", SCHEMA)


def test_files_of_another_form(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({**GOOD, "name": []}))
    with pytest.raises(InputError, match=r"expected a text for name. Received: .*a.json"):
        read_json(tmp_path / "a.json", SCHEMA)
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    assert read_json(tmp_path / "a.json", SCHEMA)["classes"] == GOOD["classes"]
