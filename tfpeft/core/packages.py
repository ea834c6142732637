"""Packages that only some functions need."""

import importlib.util

from tfpeft.core.arguments import unexpected


def check_packages(names, extra):
    """Raises unless the packages of an extra of setup.py are there.

    Args:
        names: What they are imported as.
        extra: The name of the extra.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise unexpected(
            f"the packages {', '.join(names)}, which `pip install tfpeft[{extra}]` brings",
            f"no {', '.join(missing)}",
        )
