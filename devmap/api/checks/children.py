"""Configs together with those that extend them: what a change of the first may break."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.api.checks.validation import named, settings_of
from devmap.checking.discovery import find_configs
from devmap.config.document import load_document
from devmap.config.regular_files import real_path
from devmap.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from devmap.checking.settings import NearestSettings, Settings

__all__ = ["with_children"]


def with_children(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    folder: str | os.PathLike[str] = ".",
    settings: Settings | NearestSettings | None = None,
) -> tuple[str, ...]:
    """Return the configs that `paths` mean, and those that extend them.

    Of every config below `folder` at any depth.

    Raises:
        UsageError: when a path does not exist, or nothing under it is a config.
    """
    nearest = settings_of(settings, allow_code=False)

    def is_excluded(file: str) -> bool:
        return nearest.of(file).is_excluded(file)

    files = find_configs(named(paths), excluded=is_excluded)
    given = {real_path(file) for file in files}
    try:
        others = find_configs([folder], excluded=is_excluded)
    except UsageError:
        return tuple(files)  # no config below the folder: none that extends another
    children = [
        file
        for file in others
        if real_path(file) not in given
        and any(
            real_path(source.name) in given
            for source in load_document(file, limits=nearest.of(file).limits).sources[1:]
        )
    ]
    return tuple(sorted((*files, *children)))
