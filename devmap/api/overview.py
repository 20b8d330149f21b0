"""Everything that a page about a config shows: its plan explained, its model, its findings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.checks.validation import validate
from devmap.api.machine import machine_of
from devmap.api.sources import inventory_of
from devmap.config.document import read_config
from devmap.planning.why.overview import overview

if TYPE_CHECKING:
    import os

    from devmap.config.overrides import Overrides
    from devmap.findings.model import Finding
    from devmap.inventory.model import Inventory
    from devmap.planning.why.overview import PlanOverview

__all__ = ["ConfigOverview", "overview_of"]


@dataclass(frozen=True)
class ConfigOverview:
    """A config's plan with what is shown beside it."""

    name: str
    """The config's file, with the profile where one was picked."""
    overview: PlanOverview
    inventory: Inventory
    findings: tuple[Finding, ...] | None
    """None where the config was not checked."""


def overview_of(
    path: str | os.PathLike[str],
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
) -> ConfigOverview:
    """Resolve a config file, explain the runs of its plan, and check it.

    Raises:
        ConfigError: the file is wrong; lists every fault. Otherwise as `resolve`.
    """
    config = read_config(path, profile, overrides=overrides)
    inventory = inventory_of(config, allow_code=allow_code)
    found = overview(config, inventory, machine=machine_of(config, probe=True))
    checked = validate([str(path)], profile=profile, overrides=overrides, allow_code=allow_code)
    name = Path(path).name + (f", profile {profile}" if profile else "")
    return ConfigOverview(name, found, inventory, checked.findings)
