"""Files and folders to the configs that they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.regular_files import is_folder, is_there, real_path
from devmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["CONFIG_SUFFIXES", "find_configs", "is_config_name"]

CONFIG_SUFFIXES = (".devmap.yaml", ".devmap.yml")
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})


def find_configs(
    paths: Sequence[str | os.PathLike[str]], *, excluded: Callable[[str], bool] | None = None
) -> list[str]:
    """Return the configs among `paths` and in the folders among them, sorted, each once.

    A file is taken whatever its name; in folders configs are `*.devmap.yaml` and `*.devmap.yml`. Hidden
    folders and those with a virtual environment are left out, and what `excluded` says of a path.

    Raises:
        UsageError: when a path does not exist, or none of them is or holds a config.
    """
    found: dict[Path, str] = {}
    for given in paths:
        path = Path(given)
        if is_folder(path):
            files = [file for file in _walk(path) if excluded is None or not excluded(str(file))]
        elif is_there(path):
            files = [path]
        else:
            raise UsageError(
                f"{given}: no such file or folder",
                help="devmap validate takes configs and folders that hold some",
            )
        for file in files:
            found.setdefault(real_path(file), str(file))
    if not found:
        where = ", ".join(str(path) for path in paths) or "nothing"
        raise UsageError(
            f"no config in {where}", help="a config's name ends with .devmap.yaml or .devmap.yml"
        )
    return sorted(found.values())


def is_config_name(name: str) -> bool:
    """Return whether a file of that name is taken for a config.

    `x.devmap.yaml`, but neither `x.devmap.lock.yaml` nor a hidden one.
    """
    return name.endswith(CONFIG_SUFFIXES) and not name.startswith(".")


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        # A link to a folder above would be walked for ever.
        real = os.path.realpath(root)
        if real in seen or "pyvenv.cfg" in files:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        yield from (Path(root, name) for name in sorted(files) if is_config_name(name))
