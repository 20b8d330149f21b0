"""Device maps for PyTorch models that are bigger than one GPU: checked, resolved, loaded and streamed.

`import devmap` is light: each public name is imported when it is first used, and torch only by what runs
models.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap import testing
    from devmap.api.checks.validation import validate
    from devmap.api.device_maps import check_device_map, get_balanced_memory, infer_auto_device_map
    from devmap.api.models.loading import dispatch, load
    from devmap.api.resolution import resolve
    from devmap.config.document import read_config
    from devmap.config.model.placement_config import PlacementConfig
    from devmap.errors import (
        CheckpointError,
        ConfigError,
        DeviceError,
        DeviceMapError,
        DevmapError,
        InventoryError,
        LoadError,
        LockError,
        ManifestError,
        OutOfMemoryError,
        QuantizationError,
        RankError,
        ResolutionError,
        StreamError,
        UsageError,
    )
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

_HOME = {
    **dict.fromkeys(
        (
            "CheckpointError",
            "ConfigError",
            "DeviceError",
            "DeviceMapError",
            "DevmapError",
            "InventoryError",
            "LoadError",
            "LockError",
            "ManifestError",
            "OutOfMemoryError",
            "QuantizationError",
            "RankError",
            "ResolutionError",
            "StreamError",
            "UsageError",
        ),
        "devmap.errors",
    ),
    "Inventory": "devmap.inventory.model",
    "PlacementConfig": "devmap.config.model.placement_config",
    "Plan": "devmap.plan.model",
    "check_device_map": "devmap.api.device_maps",
    "dispatch": "devmap.api.models.loading",
    "get_balanced_memory": "devmap.api.device_maps",
    "infer_auto_device_map": "devmap.api.device_maps",
    "load": "devmap.api.models.loading",
    "read_config": "devmap.config.document",
    "resolve": "devmap.api.resolution",
    "validate": "devmap.api.checks.validation",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "DeviceMapError",
    "DevmapError",
    "Inventory",
    "InventoryError",
    "LoadError",
    "LockError",
    "ManifestError",
    "OutOfMemoryError",
    "PlacementConfig",
    "Plan",
    "QuantizationError",
    "RankError",
    "ResolutionError",
    "StreamError",
    "UsageError",
    "check_device_map",
    "dispatch",
    "get_balanced_memory",
    "infer_auto_device_map",
    "load",
    "read_config",
    "resolve",
    "testing",
    "validate",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name == "testing":
        return importlib.import_module("devmap.testing")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'devmap' has no attribute '{name}'")
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "transformers"}:
            raise
        needs = f"devmap.{name} needs {error.name}: pip install 'torch-devmap[{error.name}]'"
        raise ModuleNotFoundError(needs, name=error.name) from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
