"""The configs that the sections load by, written beside the checkpoint as a user would write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devmap.config.yaml.writer import render_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["write_config"]


def write_config(
    folder: Path,
    name: str,
    *,
    device_map: str | Mapping[str, Any] = "auto",
    memory: Mapping[Any, int | str],
    host_memory: str = "2GB",
    **others: object,
) -> Path:
    """Write `NAME.devmap.yaml` beside a checkpoint's folder and return its path."""
    content = {
        "version": 1,
        "model": {"checkpoint": folder.name},
        "device_map": device_map if isinstance(device_map, str) else dict(device_map),
        "max_memory": {str(device): amount for device, amount in memory.items()},
        "offload": {"folder": f"offload-{folder.name}", "host_memory": host_memory},
        **others,
    }
    path = folder.parent / f"{folder.name}-{name}.devmap.yaml"
    path.write_text(render_yaml(content), encoding="utf-8")
    return path
