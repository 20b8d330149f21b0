"""One gate: what `devmap validate` calls an error, no command plans, locks, simulates, loads or runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.machine import machine_of
from devmap.checking.engine import check
from devmap.checking.settings import find_settings
from devmap.config.document import load_document
from devmap.config.repository import repository_of
from devmap.errors import ConfigError, DevmapError
from devmap.findings.context import Context
from devmap.findings.model import Severity

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.overrides import Overrides
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

__all__ = ["SEEN_TO", "refuse_errors"]

SEEN_TO = ("DM220", "DM221")
"""Of loading: what a checkpoint lacks, the model's own code initialises; what it holds beyond the live model
stays unread. A warning names both."""


def refuse_errors(
    path: str | os.PathLike[str],
    plan: Plan,
    inventory: Inventory,
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
    besides: Collection[str] = (),
) -> None:
    """Refuse a config whose file `devmap validate` finds errors in, although it could be planned.

    The planner refuses by itself what it cannot plan. Some errors do not stop it: weights cast to int8, a
    class that no module has, devices of two kinds, a policy that the plan breaks. Suppressed findings and
    those about a lock count as little here as a warning does: whoever takes a plan from a lock checks the
    lock. `besides` are codes of what the caller mends itself and names.

    Raises:
        ConfigError: listing every such finding with its place.
    """
    document = load_document(path, profile=profile, overrides=overrides)
    if document.config is None:
        return  # reading it has raised before this is asked
    context = Context(
        document,
        profile=profile,
        inventory=inventory,
        plan=plan,
        machine=_machine(document.config),
        allow_code=allow_code,
        repository=repository_of(document.folder),
        judges_lock=False,
    )
    findings = check(context, settings=find_settings(Path(path).parent))
    errors = [
        each
        for each in findings
        if each.severity is Severity.ERROR and each.suppressed is None and each.code not in besides
    ]
    if errors:
        count = f"{len(errors)} problem{'s' if len(errors) != 1 else ''}"
        raise ConfigError(
            f"{document.source.name}: {count}",
            problems=errors,
            help=f"devmap validate {document.source.name}",
        )


def _machine(config: PlacementConfig) -> MachineProfile | None:
    """Return the machine that the config names.

    What is wrong with its name is a finding, not an error here.
    """
    try:
        return machine_of(config, probe=False)
    except DevmapError:
        return None
