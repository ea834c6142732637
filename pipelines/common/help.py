"""The texts of --help and --helpfull: flags in groups, those that matter most first."""

import textwrap

WIDTH = 88


def short(doc, groups, first):
    """Returns the docstring, the flags named in `first`, and the names of the others by group.

    Args:
        doc: Docstring of the script.
        groups: Title -> flags.
        first: Names of the flags that matter most, in their order.
    """
    by_name = {flag.name: flag for flags in groups.values() for flag in flags}
    lines = [doc.strip(), "", "Flags that matter most:", ""]
    lines += [_described(by_name[name]) for name in first]
    others = {
        title: [flag for flag in flags if flag.name not in first] for title, flags in groups.items()
    }
    if any(others.values()):
        lines += ["", "Other flags, which --helpfull describes:", ""]
        for title, flags in others.items():
            if flags:
                names = ", ".join(f"--{flag.name}" for flag in flags)
                lines.append(_wrapped(f"{title}: {names}", indent=2, hanging=4))
    return "\n".join(lines)


def full(doc, groups, first):
    """Returns the docstring, and each group with its flags, those named in `first` first."""
    lines = [doc.strip()]
    for title, flags in groups.items():
        order = sorted(flags, key=lambda flag: flag.name not in first)
        lines += ["", f"{title.capitalize()}:", "", *map(_described, order)]
    return "\n".join(lines)


def _described(flag):
    name = f"--[no]{flag.name}" if flag.kind is bool else f"--{flag.name}"
    facts = [fact for fact in (flag.expected, _default(flag)) if fact]
    notes = f" ({'; '.join(facts)})" if facts else ""
    return f"  {name}\n{_wrapped(flag.help + notes, indent=6, hanging=6)}"


def _default(flag):
    if flag.default is None or flag.default == ():
        return ""
    if flag.kind is bool:
        return f"default: {str(flag.default).lower()}"
    value = ",".join(flag.default) if flag.kind is list else flag.default
    return f"default: {value}"


def _wrapped(text, *, indent, hanging):
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * hanging,
        break_on_hyphens=False,
        break_long_words=False,
    )
