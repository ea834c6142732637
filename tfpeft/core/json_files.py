"""JSON whose content is checked: the keys, the types and the numbers that its reader needs."""

import json
import math
import numbers
import pathlib

from tfpeft.core.arguments import InputError


def read_json(path, schema):
    """Returns the content of a JSON file that has the form of `schema`; see `mismatch`.

    Raises:
        InputError: for a file that is not JSON, or of another form; it names the file and the key.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"Received a damaged file, expected JSON. Received: {path}") from error
    found = mismatch(content, schema)
    if found:
        raise InputError(f"Received a damaged file, expected {found}. Received: {path}")
    return content


def mismatch(value, schema, key=""):
    """Returns what a value should be and is not, in words, with its key; None if it has the form.

    Args:
        value: What JSON holds.
        schema: `str`, `bool`, `int`; `float` for a finite number; `numbers.Real` for a number
            that may be NaN; None for null; `object` for anything; a tuple of alternatives; a list
            [schema] of such items; a dict {key: schema} with these keys, and perhaps others; or
            {str: schema} with any keys.
        key: Where the value is.
    """
    if isinstance(schema, tuple):
        found = [mismatch(value, each, key) for each in schema]
        return None if None in found else found[0]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return f"a list{_at(key)}"
        found = (mismatch(item, schema[0], f"{key}[{i}]") for i, item in enumerate(value))
        return next(filter(None, found), None)
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return f"an object{_at(key)}"
        if str in schema:
            schema = dict.fromkeys(value, schema[str])
        missing = [name for name in schema if name not in value]
        if missing:
            return f"a value{_at(_joined(key, missing[0]))}"
        found = (mismatch(value[name], schema[name], _joined(key, name)) for name in schema)
        return next(filter(None, found), None)
    return None if _is(value, schema) else f"{_WORDS[schema]}{_at(key)}"


_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "an integer",
    float: "a finite number",
    numbers.Real: "a number",
    None: "null",
    dict: "an object",
    list: "a list",
}


def _is(value, schema):
    if schema is object:
        return True
    if schema is None:
        return value is None
    if isinstance(value, bool):
        return schema is bool
    if schema is float:
        return isinstance(value, numbers.Real) and abs(value) < math.inf
    return isinstance(value, schema)


def _joined(key, name):
    return f"{key}.{name}" if key else name


def _at(key):
    return f" for {key}" if key else ""
