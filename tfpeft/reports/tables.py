"""Tables of rows of cells: aligned text, and Markdown."""


def text_table(header, rows, *, align=None):
    """Returns the rows as aligned text.

    Args:
        header: The titles of the columns, over a line of dashes; None for none.
        rows: Rows of texts, one per column.
        align: "left" or "right" per column; None is the first left, the others right.
    """
    lines = [[*header], *rows] if header is not None else [*rows]
    if not lines:
        return ""
    align = align or _default_align(len(lines[0]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join(
            cell.ljust(width) if side == "left" else cell.rjust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ).rstrip()
        for line in lines
    ]
    if header is not None:
        texts.insert(1, "-" * max(map(len, texts)))
    return "\n".join(texts)


def markdown_table(header, rows, *, align=None):
    """Returns the rows as a Markdown table, of the same arguments as `text_table`."""
    align = align or _default_align(len(header))
    rule = "|".join("---" if side == "left" else "---:" for side in align)
    return "\n".join([_markdown_line(header), f"|{rule}|", *map(_markdown_line, rows)])


def _default_align(columns):
    return ["left", *["right"] * (columns - 1)]


def _markdown_line(cells):
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
