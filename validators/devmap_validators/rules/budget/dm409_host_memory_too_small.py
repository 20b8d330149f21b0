"""DM409: `offload.host_memory` is too small for two of the largest block, or to quantise a weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import DISK
from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.quantizing import largest_conversion
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, plan = context.document.config, context.plan
    if config is None or plan is None:
        return
    allowed = config.offload.host_memory
    if context.inventory is not None:
        module, needed = largest_conversion(context.inventory)
        if allowed < needed:
            yield _report(
                context,
                f"host_memory is {exact_bytes(allowed)}, and to quantise '{module}' while it is loaded takes "
                f"{exact_bytes(needed)}",
                f"give it {exact_bytes(needed)}, or name '{module}' among the modules that stay whole",
                severity=Severity.ERROR,
            )
            return
    read = [placement for placement in plan.streamed if placement.home == DISK]
    if not read:
        return
    largest = max(read, key=lambda placement: placement.nbytes)
    if allowed < 2 * largest.nbytes:
        yield _report(
            context,
            f"host_memory is {exact_bytes(allowed)}, and '{largest.path}' alone is read "
            f"from disk with {exact_bytes(largest.nbytes)}",
            f"give it {exact_bytes(2 * largest.nbytes)}: room for two blocks",
        )


def _report(context: Context, message: str, hint: str, *, severity: Severity | None = None) -> Report:
    offload = (context.document.data or {}).get("offload")
    written = isinstance(offload, dict) and "host_memory" in offload
    path = ("offload", "host_memory") if written else ("max_memory",)
    return Report(message, path, on_key=not written, help=hint, severity=severity)


RULE = Rule(
    code="DM409",
    name="host-memory-too-small",
    severity=Severity.WARNING,
    summary="`offload.host_memory` holds less than two of the largest streamed block, or than quantising one",
    why=(
        "Blocks are read into host memory before they are copied. With room for one only, reading waits "
        "for copying, and "
        "neither runs at its own speed. A weight that is quantised while it is loaded is whole in host "
        "memory for that time, with what the library's kernels take beside it: with less than that the load "
        "is refused."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 1.2GB, disk: 2GB}
offload: {host_memory: 1GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 1.2GB, disk: 2GB}
offload: {host_memory: 300MB}
""",
    check=_check,
)
