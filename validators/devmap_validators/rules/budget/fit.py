"""DM401, DM402: whether the model fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import capacity, headroom, map_path, nodes_of, pinned_bytes
from devmap_validators.checks.wording import exact_bytes, over_budget
from devmap_validators.rules.budget.amounts import DM406
from devmap_validators.rules.cluster import RULES as CLUSTER_RULES
from devmap_validators.rules.devices.dtypes import DM306
from devmap_validators.rules.devices.offered import DM301, DM302, DM304
from devmap_validators.rules.map.constraints import DM210

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.values.device import Device
    from devmap.findings.context import Context

__all__ = ["RULES"]


@dataclass(frozen=True, slots=True)
class _OverfullDevice:
    """A device, what the map pins on it and what it may hold after headroom, in bytes.

    And the keys that pin it.
    """

    device: Device
    used_bytes: int
    budget_bytes: int
    keys: tuple[str, ...]


def _pins_over_budget(context: Context) -> Iterator[_OverfullDevice]:
    """Yield the devices whose pinned weights are more than their budget, in tier order."""
    config = context.document.config
    if config is None or config.takes_turns:  # what is pinned is not there at once
        return
    for device, used in sorted(pinned_bytes(context).items()):
        total = capacity(context, device)
        if total is None:
            continue
        budget = max(0, total - headroom(context, device))
        if used > budget:
            keys = tuple(key for key, target in config.device_map.items() if target == device)
            yield _OverfullDevice(device, used, budget, keys)


def _infeasible(context: Context) -> Iterator[Report]:
    error, config = context.plan_error, context.document.config
    if error is None or config is None or _is_named(context):
        return
    message = error.message
    if error.shortfall_bytes and f"{error.shortfall_bytes:,}" not in message:
        message = f"{message} ({error.shortfall_bytes:,} bytes short)"
    hint = (
        "; or ".join(error.changes)
        or error.help
        or f"offer {exact_bytes(max(error.shortfall_bytes, 1))} more"
    )
    tiny = _number_without_unit(context)
    if tiny is not None:
        key, number = tiny
        label = f"this is {number} bytes; did you mean {number}GB?"
        yield Report(message, ("max_memory", key), help=hint, label=label)
        return
    path = error.path or (("max_memory",) if config.max_memory is not None else ("device_map",))
    yield Report(message, path, on_key=True, help=hint)


def _number_without_unit(context: Context) -> tuple[str, int] | None:
    """Return the first budget that is written as a number of fewer bytes than any tensor of use has."""
    memory = (context.document.data or {}).get("max_memory")
    for key, amount in memory.items() if isinstance(memory, dict) else ():
        if isinstance(amount, int) and not isinstance(amount, bool) and 0 < amount < _FEWEST_BYTES:
            return key, amount
    return None


_FEWEST_BYTES = 4096


def _is_named(context: Context) -> bool:
    """Return whether a rule that names the key to blame has an error of its own."""
    has_nodes = nodes_of(context) is not None
    # over several nodes a budget of a device that no node has ends the planning, on one machine it does not
    rules = (*_MORE_EXACT, DM302) if has_nodes else _MORE_EXACT
    return any(
        (report.severity or rule.severity) is Severity.ERROR
        for rule in rules
        for report in rule.check(context)
    )


DM401 = Rule(
    code="DM401",
    name="infeasible",
    severity=Severity.ERROR,
    summary="The model does not fit on the devices that are offered",
    why=(
        "No placement keeps every device within its budget. The message says how many bytes are missing, "
        "and the help which "
        "changes would make it fit, the cheapest first."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 500MB, 1: 500MB}
""",
    check=_infeasible,
)


def _over_budget_map(context: Context) -> Iterator[Report]:
    for pin in _pins_over_budget(context):
        keys = ", ".join(f"'{key}'" if key else '""' for key in pin.keys[:3])
        there = f"put{'s' if len(pin.keys) == 1 else ''} it there"
        hint = f"{keys} {there}: move modules away, or raise max_memory of {device_name(pin.device)}"
        yield Report(
            over_budget(pin.device, pin.used_bytes, pin.budget_bytes),
            map_path(context, pin.keys[0]),
            help=hint,
        )


DM402 = Rule(
    code="DM402",
    name="over-budget-map",
    severity=Severity.ERROR,
    summary="The device map puts more on a device than it may hold",
    why=(
        "The weights that the map itself pins, without any that a strategy adds, are more than the "
        "device's budget after its "
        "headroom. No strategy can mend that."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': 1}
max_memory: {0: 2GB, 1: 400MB}
""",
    check=_over_budget_map,
)


_MORE_EXACT = (
    DM210,
    DM301,
    DM304,
    DM306,
    DM402,
    DM406,
    *CLUSTER_RULES,
)
"""Rules that name the key that is to blame, where one is."""

RULES = (DM401, DM402)
