"""DM311: the machine has accelerators that `max_memory` does not offer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import is_offered
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.max_memory is None or context.machine is None:
        return
    unused = [
        device
        for device in context.machine.devices
        if device.is_accelerator and not is_offered(context, device)
    ]
    if unused:
        message = f"the machine also has {devices_in_words(unused)}, which max_memory does not offer"
        yield Report(message, ("max_memory",), on_key=True, help="add them, unless they are left to others")


RULE = Rule(
    code="DM311",
    name="unused-accelerators",
    severity=Severity.NOTE,
    summary="The machine has accelerators that `max_memory` does not offer",
    why="They stay empty, while weights may go to cpu or disk. They may be left to others on purpose.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 1: 2GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    check=_check,
)
