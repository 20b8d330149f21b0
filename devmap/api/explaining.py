"""Why a module of a config's model lives where it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.api.machine import machine_of
from devmap.api.sources import inventory_of
from devmap.config.document import read_config
from devmap.planning.why.explanation import why

if TYPE_CHECKING:
    import os

    from devmap.config.overrides import Overrides
    from devmap.planning.why.explanation import Explanation

__all__ = ["explain_file"]


def explain_file(
    path: str | os.PathLike[str],
    module: str,
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
) -> Explanation:
    """Explain where the plan of a config file puts one module or tensor, or why there is no plan.

    Raises:
        UsageError: when the model has no such module or tensor; says which one may be meant.
        ConfigError, InventoryError, ResolutionError, DeviceMapError: as for resolving it, but for a model
        that does not fit.
    """
    config = read_config(path, profile, overrides=overrides)
    inventory = inventory_of(config, allow_code=allow_code)
    return why(config, inventory, module, machine_of(config, probe=True))
