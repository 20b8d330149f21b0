"""DM409: `offload.host_memory` holds less than two of the largest streamed block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import DISK
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, plan = context.document.config, context.plan
    if config is None or plan is None:
        return
    read = [placement for placement in plan.streamed if placement.home == DISK]
    if not read:
        return
    largest = max(read, key=lambda placement: placement.nbytes)
    allowed = config.offload.host_memory
    if allowed < 2 * largest.nbytes:
        message = (
            f"host_memory is {exact_bytes(allowed)}, and '{largest.path}' alone is read "
            f"from disk with {exact_bytes(largest.nbytes)}"
        )
        written = (
            isinstance(offload := (context.document.data or {}).get("offload"), dict)
            and "host_memory" in offload
        )
        path = ("offload", "host_memory") if written else ("max_memory",)
        yield Report(
            message,
            path,
            on_key=not written,
            help=f"give it {exact_bytes(2 * largest.nbytes)}: room for two blocks",
        )


RULE = Rule(
    code="DM409",
    name="host-memory-too-small",
    severity=Severity.WARNING,
    summary="`offload.host_memory` holds less than two of the largest streamed block",
    why=(
        "Blocks are read into host memory before they are copied. With room for one only, reading waits "
        "for copying, and "
        "neither runs at its own speed."
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
