"""DM401: the model does not fit on the devices that are offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.wording import exact_bytes
from devmap_validators.rules.budget import dm402_over_budget_map, dm406_headroom_takes_all
from devmap_validators.rules.cluster import RULES as CLUSTER_RULES
from devmap_validators.rules.devices import (
    dm301_device_without_budget,
    dm304_tier_not_offered,
    dm306_integer_dtype,
)
from devmap_validators.rules.map import dm210_contradicted_constraint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


_MORE_EXACT = (
    dm210_contradicted_constraint.RULE,
    dm301_device_without_budget.RULE,
    dm304_tier_not_offered.RULE,
    dm306_integer_dtype.RULE,
    dm402_over_budget_map.RULE,
    dm406_headroom_takes_all.RULE,
    *CLUSTER_RULES,
)
"""Rules that name the key that is to blame, where one is."""


def _check(context: Context) -> Iterator[Report]:
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
    path = ("max_memory",) if config.max_memory is not None else ("device_map",)
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
    return any(
        (report.severity or rule.severity) is Severity.ERROR
        for rule in _MORE_EXACT
        for report in rule.check(context)
    )


RULE = Rule(
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
    check=_check,
)
