"""DM407: all weights lie on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import DISK
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.assignment import run_bytes
from devmap_validators.checks.config_map import assignment_of
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, assignment, inventory = context.document.config, assignment_of(context), context.inventory
    if config is None or assignment is None or inventory is None:
        return
    if context.plan is not None:
        all_there = bool(context.plan.placements) and all(
            placement.home == DISK for placement in context.plan.placements
        )
    else:
        all_there = bool(assignment.runs) and all(
            run.path is not None and assignment.by_path[run.path] == DISK for run in assignment.runs
        )
    if all_there:
        message = (
            "all weights lie on disk: each pass reads "
            f"{exact_bytes(run_bytes(inventory, inventory.tensors, config.model.dtype))}"
        )
        yield Report(
            message, ("device_map",), help="offer an accelerator or cpu memory for what is used in every pass"
        )


RULE = Rule(
    code="DM407",
    name="everything-on-disk",
    severity=Severity.WARNING,
    summary="All weights lie on disk",
    why=(
        "Each pass then reads the whole model from disk: a disk of 3 GB/s gives 70B parameters in "
        "bfloat16 one token in 47 seconds."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': disk, lm_head: 0, model.embed_tokens: 0}
max_memory: {0: 300MB, disk: 10GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: disk
max_memory: {0: 2GB, disk: 10GB}
""",
    check=_check,
)
