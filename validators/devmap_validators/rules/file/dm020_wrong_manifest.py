"""DM020: a manifest is wrong, each fault in its place in the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.yaml.source import Position
from devmap.findings.model import Report, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    for problem in context.inventory_error.problems if context.inventory_error is not None else ():
        position = getattr(problem, "position", None)
        if isinstance(position, Position):
            place = f"{position.file}:{position.start.line}:{position.start.column}: "  # the finding has it
            hint = "write the manifest again: devmap inspect CHECKPOINT -o MANIFEST"
            yield Report(
                problem.message.removeprefix(place), ("model", "manifest"), position=position, help=hint
            )


RULE = Rule(
    code="DM020",
    name="wrong-manifest",
    severity=Severity.ERROR,
    summary="A line of the manifest is wrong",
    why=(
        "The manifest is the model as far as checks and plans know it. `devmap inspect -o` writes it; "
        "what was changed by hand, or "
        "merged by a tool, is read as strictly as a config. DM217 says in the config that its manifest "
        "cannot be used."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: with-an-unknown-dtype.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=_check,
    suppressible=False,
)
