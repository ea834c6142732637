"""Texts and labels from a CSV file, as data whose x are lists of texts."""

import collections
import csv

import numpy as np

from pipelines.common import splits
from tfpeft.core.arguments import InputError, unexpected


def load_texts(path, text_column, label_column, received):
    """Loads a CSV with a header as `Data` whose x are lists of texts.

    The rows are split as the samples of other datasets are; `received` is what an error names.
    """
    texts, labels = _csv_columns(path, text_column, label_column, received)
    counts = collections.Counter(labels)
    names = sorted(counts)
    if len(names) < 2:
        seen = repr(names[0]) if names else "no row"
        raise unexpected("at least 2 classes", f"{received} with {seen} only")
    numbers = {name: number for number, name in enumerate(names)}
    y = np.array([numbers[label] for label in labels])
    try:
        train, test = splits.stratified(texts, y, 0.2)
        train, validation = splits.stratified(*train, 0.1)
    except InputError as error:
        least = min(names, key=counts.get)
        raise InputError(
            f"{error}. Expected more rows. Received: {received} with {len(texts)}, and of the "
            f"class {least!r} with {counts[least]}"
        ) from error
    return splits.Data(train, validation, test, len(names), tuple(names), "names")


def _csv_columns(path, text_column, label_column, received):
    """Returns the texts and the labels of all rows."""
    expected = f"Expected a CSV file with a header, in UTF-8. Received: {received}"
    columns = (text_column, label_column)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(reader.fieldnames or [], columns, path, received)
            rows = [(reader.line_num, *_cells(reader, row, columns, received)) for row in reader]
    except FileNotFoundError as error:
        raise InputError(f"{expected}, and no file {path}") from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{expected}: {error}") from error
    missing = [line for line, text, label in rows if not text or not label]
    if missing:
        raise unexpected(
            "a text and a label in every row",
            f"{received}, where one is empty in {len(missing)} of {len(rows)} rows, first in line "
            f"{missing[0]}",
        )
    return [text for _, text, _ in rows], [label for *_, label in rows]


def _check_header(header, columns, path, received):
    unknown = [name for name in columns if name not in header]
    if unknown:
        raise unexpected(
            f"a column among {', '.join(map(repr, header)) or 'none'}, which {path} has",
            f"{received}, with {' and '.join(unknown)}",
        )
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        raise unexpected(f"one column {twice[0]}", f"{received} with more")


def _cells(reader, row, columns, received):
    """Returns the stripped text and label of a row."""
    if None in row or None in row.values():
        raise unexpected(
            f"{len(reader.fieldnames)} columns in every row, texts with a comma in quotes",
            f"{received}, where line {reader.line_num} has others",
        )
    return [row[name].strip() for name in columns]
