"""DM310: the machine is no preset and no file that can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    error = context.machine_error
    if error is None:
        return
    yield Report(
        error.message, ("machine",), help=error.help or "name a preset, or a file that devmap doctor wrote"
    )
    for problem in error.problems:
        yield Report(problem.message, ("machine",))


RULE = Rule(
    code="DM310",
    name="unknown-machine",
    severity=Severity.ERROR,
    summary="The machine is neither a preset nor a readable file",
    why="The machine gives budgets, rates and devices to check against. Without it the config is only "
    "half checked.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
machine: 2x9999
""",
    check=_check,
)
