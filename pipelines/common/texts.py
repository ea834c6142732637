"""Texts and labels from a CSV file, as data whose x are lists of texts."""

import collections

import numpy as np

from pipelines.common import csv_files, splits
from tfpeft.core.arguments import InputError, unexpected


def load_texts(path, text_column, label_column, received):
    """Loads a CSV with a header as `Data` whose x are lists of texts.

    The rows are split as the samples of other datasets are; `received` is what an error names.
    """
    columns, lines = csv_files.read(path, received, [text_column, label_column])
    csv_files.check_filled(columns.values(), lines, "a text and a label", received)
    texts, labels = columns[text_column], columns[label_column]
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
