"""Where a checkpoint is: a path, or a model of the Hugging Face hub that is already in the local cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from devmap.config.regular_files import expand_user, is_folder, is_there, read_regular
from devmap.config.values.words import shown_path
from devmap.errors import CheckpointError

__all__ = ["find_checkpoint", "hub_cache"]

_LONGEST_REVISION = 1000
_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*\Z")


def find_checkpoint(name: str, *, folder: Path) -> Path:
    """Return the path of a checkpoint.

    Relative to `folder`, absolute, or the snapshot of a hub id in the local cache.

    Nothing is downloaded. A path wins over a hub id of the same name.

    Raises:
        CheckpointError: when it is neither, naming the places that were looked at and the command that
            fetches it.
    """
    path = folder / expand_user(name)
    if is_there(path):
        return path
    is_path = (
        name.startswith((".", "~", "/", "\\"))
        or Path(name).is_absolute()
        or name.endswith((".safetensors", ".json"))
    )
    if is_path or not _HUB_ID.match(name):
        raise CheckpointError(
            f"there is no checkpoint at {shown_path(path)}",
            help="model.checkpoint is relative to the config's folder",
        )
    home = hub_cache() / f"models--{name.replace('/', '--')}"
    revision = home / "refs" / "main"
    try:
        snapshot = home / "snapshots" / read_regular(revision, limit_bytes=_LONGEST_REVISION).decode().strip()
    except (OSError, ValueError):
        snapshot = home
    if snapshot != home and is_folder(snapshot):
        return snapshot
    raise CheckpointError(
        f"there is no checkpoint '{name}': neither the path '{path}' nor the hub cache '{home}' holds it",
        help=f"nothing is downloaded unasked; fetch it with: hf download {name}",
    )


def hub_cache() -> Path:
    """Return the folder of the hub's local cache, as the environment says."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return expand_user(os.environ[variable])
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return expand_user(str(home)) / "hub"
