"""Import a module when it is first used.

The one way to do so where start-up time or the direction of imports asks for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["lazy"]


def lazy(module: str, name: str) -> Any:
    """Return one name of a module, importing the module now.

    >>> lazy("math", "floor")(1.5)
    1
    """
    return getattr(import_module(module), name)
