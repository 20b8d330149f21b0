"""Which repository a config stands in, and what of a file outside it may be shown.

A config from a stranger can name any file of the machine that checks it. What is wrong with such a file is
said by its place alone: its lines, and the values in messages about them, would stand in a log that
strangers read.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from devmap.config.regular_files import is_there, real_path
from devmap.config.values.words import shown_path

if TYPE_CHECKING:
    from devmap.config.yaml.source import Position
    from devmap.errors import DevmapError

__all__ = ["is_outside", "repository_of", "withheld", "without_content"]

_Error = TypeVar("_Error", bound="DevmapError")


def repository_of(folder: Path) -> Path | None:
    """Return the repository that a folder lies in: the nearest folder with a `.git`, itself or above.

    None without one.
    """
    # Without `..`, so that the same file has the same repository however a caller wrote its path.
    return _repository_of(Path(os.path.abspath(folder)))  # noqa: PTH100 - resolve() would follow links


@lru_cache(maxsize=1024)
def _repository_of(absolute: Path) -> Path | None:
    return next((place for place in (absolute, *absolute.parents) if is_there(place / ".git")), None)


def is_outside(path: Path, folder: Path) -> bool:
    """Return whether a file, after links, lies outside the repository of a config that stands in `folder`.

    Without a repository the config's folder and the current one count as it, each with what lies below.
    """
    repository = repository_of(folder)
    roots = (folder, Path()) if repository is None else (repository,)
    target = real_path(path)
    return not any(target.is_relative_to(real_path(root)) for root in roots)


def withheld(position: Position | None, message: str) -> str:
    """Return the message, or what stands for it where its place is in a text that is not to be shown."""
    if position is None or not position.source.is_hidden:
        return message
    return f"something is wrong at this place; {_NOT_SHOWN}"


def without_content(error: _Error, path: Path, folder: Path) -> _Error:
    """Return the error about a file that was read for a config in `folder`.

    Without its details where the file lies outside.

    That a file is absent or cannot be opened may be said of any file.
    """
    is_about_content = bool(error.problems) or not isinstance(error.__cause__, OSError)
    if not is_about_content or not is_outside(path, folder):
        return error
    return type(error)(f"{shown_path(path)} is wrong; {_NOT_SHOWN}", help=error.help)


_NOT_SHOWN = "the file lies outside the repository, so what it holds is not shown"
