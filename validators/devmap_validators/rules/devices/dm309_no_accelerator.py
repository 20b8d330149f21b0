"""DM309: nothing but cpu and disk is offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import offered_devices
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, offered = context.document.config, offered_devices(context)
    if config is None or not offered or any(device.is_accelerator for device in offered):
        return
    path = ("max_memory",) if config.max_memory is not None else ("machine",)
    message = (
        f"only {devices_in_words(offered)} {'is' if len(offered) == 1 else 'are'} "
        "offered: the model runs on the CPU"
    )
    yield Report(message, path, on_key=True, help="add an accelerator such as '0: 20GB' if there is one")


RULE = Rule(
    code="DM309",
    name="no-accelerator",
    severity=Severity.NOTE,
    summary="Nothing but cpu and disk is offered",
    why=(
        "The model runs on the CPU. That is right for small models and for tests; otherwise an "
        "accelerator is missing from `max_memory`."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, cpu: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {cpu: 2GB}
""",
    check=_check,
)
