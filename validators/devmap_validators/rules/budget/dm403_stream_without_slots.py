"""DM403: weights are streamed and there is no room for two slots."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from devmap.config.values.device import Tier
from devmap.config.values.strategy import Strategy
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import device_path
from devmap_validators.checks.groups import counted
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.values.device import Device
    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    plan, config = context.plan, context.document.config
    if plan is None or not any(use.device.is_accelerator for use in plan.devices):
        return
    largest: dict[Device, int] = defaultdict(int)
    for placement in plan.streamed:
        if placement.executes_on.is_accelerator:
            largest[placement.executes_on] = max(largest[placement.executes_on], placement.nbytes)
    for use in plan.devices:
        slots = sum(charge.nbytes for charge in use.charges if charge.what == "slots")
        block = largest[use.device]
        if use.device.is_accelerator and block and slots < 2 * block:
            message = (
                f"device {use.device} has room for one slot of {exact_bytes(block)}: "
                "copies cannot overlap with compute"
            )
            hint = f"free {exact_bytes(2 * block - slots)} more on it for a second slot"
            yield Report(message, device_path(context, ("max_memory",), use.device), help=hint)
    in_place = [
        placement
        for placement in plan.placements
        if placement.home.tier == Tier.CPU and placement.home == placement.executes_on and placement.nbytes
    ]
    chosen = (
        config is not None and Strategy.FASTEST in config.device_map.values()
    )  # it computes in place where that is faster
    if in_place and not chosen:
        block = max(placement.nbytes for placement in in_place)
        modules = f"{counted(len(in_place), 'module')} on cpu {'is' if len(in_place) == 1 else 'are'}"
        message = f"{modules} computed in place: no accelerator has room for a slot"
        hint = (
            f"'{in_place[0].path}' is the first; a slot of {exact_bytes(block)} "
            "on an accelerator would stream them"
        )
        yield Report(message, ("max_memory",), on_key=True, help=hint)


RULE = Rule(
    code="DM403",
    name="stream-without-slots",
    severity=Severity.WARNING,
    summary="Weights are streamed and there is no room for two slots",
    why=(
        "A streamed block is copied into a slot on the accelerator. With two slots the next block is "
        "copied while this one "
        "computes. With one, every copy is waited for; with none, the block is computed on the CPU."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 1.2GB, cpu: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 300MB, cpu: 2GB}
""",
    check=_check,
)
