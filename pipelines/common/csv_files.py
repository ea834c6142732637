"""CSV files with a header: what --dataset and --task name of them, and their columns as texts."""

import csv
import re
import typing

from tfpeft.core.arguments import InputError, unexpected


class Reference(typing.NamedTuple):
    """What "FILE.csv:LABELS" or "FILE.csv:TEXT:LABELS" names.

    Attributes:
        path: The file.
        text: The column of texts; None for all columns but the labels.
        labels: The column of labels, or several with "+" between them.
    """

    path: str
    text: str | None
    labels: str


def parse(value):
    """Returns the `Reference` of a text that names a CSV file and columns; None of another text."""
    found = re.fullmatch(r"(.+\.csv):([^:]+)(?::([^:]+))?", value, re.IGNORECASE)
    if not found:
        return None
    path, first, second = found.groups()
    return Reference(path, first if second else None, second or first)


def read(path, received, wanted=None):
    """Returns {name: texts of a column}, stripped, and the line numbers of the rows.

    Args:
        path: A file in UTF-8, whose first row names the columns.
        received: What an error names.
        wanted: Names of columns that must be there; None for all columns.
    """
    expected = f"Expected a CSV file with a header, in UTF-8. Received: {received}"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            _check_header(header, wanted or header, path, received)
            places = [header.index(name) for name in wanted or header]
            rows, lines = [], []
            for row in reader:
                if row:
                    _check_row(row, header, reader.line_num, received)
                    rows.append([row[place].strip() for place in places])
                    lines.append(reader.line_num)
    except FileNotFoundError as error:
        raise InputError(f"{expected}, and no file {path}") from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{expected}: {error}") from error
    columns = map(list, zip(*rows, strict=True)) if rows else ([] for _ in places)
    return dict(zip(wanted or header, columns, strict=True)), lines


def _check_header(header, wanted, path, received):
    unknown = [name for name in wanted if name not in header]
    if unknown or not header:
        raise unexpected(
            f"a column among {', '.join(map(repr, header)) or 'none'}, which {path} has",
            f"{received}, with {' and '.join(unknown)}",
        )
    twice = [name for name in wanted if header.count(name) > 1]
    if twice:
        raise unexpected(f"one column {twice[0]}", f"{received} with more")


def _check_row(row, header, line, received):
    if len(row) != len(header):
        raise unexpected(
            f"{len(header)} columns in every row, texts with a comma in quotes",
            f"{received}, where line {line} has others",
        )


def label_columns(labels, header):
    """Returns the names of the columns that a text with "+" between them names."""
    return [labels] if labels in header else [name.strip() for name in labels.split("+")]


def check_filled(columns, lines, what, received):
    """Raises where a cell of the columns is empty in some row."""
    missing = [line for line, *cells in zip(lines, *columns, strict=True) if "" in cells]
    if missing:
        raise unexpected(
            f"{what} in every row",
            f"{received}, where one is empty in {len(missing)} of {len(lines)} rows, first in line "
            f"{missing[0]}",
        )
