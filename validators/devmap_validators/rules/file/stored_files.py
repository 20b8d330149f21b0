"""DM020, DM021: manifests and checkpoints that cannot be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.yaml.source import Position
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.sources import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULES"]


def _wrong_manifest(context: Context) -> Iterator[Report]:
    for problem in context.inventory_error.problems if context.inventory_error is not None else ():
        position = getattr(problem, "position", None)
        if isinstance(position, Position):
            place = f"{position.file}:{position.start.line}:{position.start.column}: "  # the finding has it
            hint = "write the manifest again: devmap inspect CHECKPOINT -o MANIFEST"
            yield Report(
                problem.message.removeprefix(place), ("model", "manifest"), position=position, help=hint
            )


DM020 = Rule(
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
    check=_wrong_manifest,
    suppressible=False,
)


def _damaged_checkpoint(context: Context) -> Iterator[Report]:
    error = context.inventory_error
    for problem in error.problems if error is not None else ():
        if problem.code == DM021.code and error is not None:
            yield Report(
                problem.message,
                (*place_of(error), "checkpoint"),
                help="fetch the file again, and compare its size with the source's",
            )


DM021 = Rule(
    code="DM021",
    name="damaged-checkpoint",
    severity=Severity.ERROR,
    summary="A file of the checkpoint is damaged or missing",
    why=(
        "A shard that the index promises is not there, a header reaches past the end of its file, two "
        "files hold the same tensor. "
        "Most often a download was cut off. Each file is named, so that it alone has to be fetched again."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./with-half-a-shard}
max_memory: {0: 2GB}
""",
    check=_damaged_checkpoint,
    suppressible=False,
)


RULES = (DM020, DM021)
