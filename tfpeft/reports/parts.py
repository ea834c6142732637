"""What a page consists of: sections of tables, charts, steps, cards and texts, as plain dicts.

`templates/report.html` knows how each kind is drawn.
"""


def section(name, title, parts):
    """Returns a section; None if it has no parts."""
    parts = [part for part in parts if part is not None]
    return {"id": name, "title": title, "parts": parts} if parts else None


def table(header, rows, *, caption="", marked=()):
    """Returns a table; None without rows.

    Args:
        header: Titles of the columns.
        rows: Rows of texts or `cell`s.
        caption: What the table shows.
        marked: Numbers of the rows that stand out.
    """
    if not rows:
        return None
    made = [{"cells": cells, "marked": i in marked} for i, cells in enumerate(rows)]
    return {"kind": "table", "header": header, "rows": made, "caption": caption}


def cell(text, *, small="", level=None, second=False, words=False, line=False):
    """Returns a cell with more than a text.

    Args:
        text: The text.
        small: A smaller text below.
        level: Length of a bar, in [0, 1]; None for no bar.
        second: Whether the bar has the second colour.
        words: Whether the text is long, and may break into lines.
        line: Whether the text is long, and stays on one line.
    """
    level = None if level is None else min(1.0, max(0.0, level))
    return {
        "text": text,
        "small": small,
        "level": level,
        "leveled": level is not None,
        "second": second,
        "words": words,
        "line": line,
    }


def chart(svg, caption=""):
    return {"kind": "chart", "svg": svg, "caption": caption}


def charts(items):
    """Returns charts side by side, where there is room; None without any."""
    items = [item for item in items if item is not None]
    return {"kind": "charts", "parts": items} if items else None


def facts(pairs):
    """Returns names and their values; None without any."""
    return {"kind": "facts", "pairs": pairs} if pairs else None


def heading(text):
    return {"kind": "heading", "text": text}


def items(texts):
    """Returns a list of texts; None without any."""
    return {"kind": "list", "items_shown": [*texts]} if texts else None


def text(words):
    return {"kind": "text", "text": words}


def settings(texts):
    """Returns settings, "name = value" each; None without any."""
    return {"kind": "settings", "texts": [*texts]} if texts else None


def note(words):
    return {"kind": "note", "text": words}


def callout(words):
    return {"kind": "callout", "text": words}


def code(lines):
    return {"kind": "code", "text": lines}


def details(title, parts):
    """Returns parts that open with a click; None without parts."""
    parts = [part for part in parts if part is not None]
    return {"kind": "details", "title": title, "parts": parts} if parts else None


def step(title, *, time="", texts=(), settings=(), codes=()):
    return {
        "title": title,
        "time": time,
        "texts": [*texts],
        "settings": [*settings],
        "codes": [*codes],
    }


def steps(items):
    """Returns numbered steps; None without any."""
    return {"kind": "steps", "steps": items} if items else None


def card(*, title="", texts=(), pictures=(), facts=()):
    """Returns a card: pictures and facts are pairs of a name, and HTML or a text."""
    return {"title": title, "texts": [*texts], "pictures": [*pictures], "facts": [*facts]}


def cards(items):
    """Returns cards side by side; None without any."""
    return {"kind": "cards", "cards": items} if items else None


def tile(title, value, detail=""):
    return {"title": title, "value": value, "detail": detail}


def duration(seconds):
    """Returns seconds in words: "8.2 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
