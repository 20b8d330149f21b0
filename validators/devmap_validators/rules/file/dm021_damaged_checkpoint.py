"""DM021: a file of the checkpoint is damaged or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.sources import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    error = context.inventory_error
    for problem in error.problems if error is not None else ():
        if problem.code == RULE.code and error is not None:
            yield Report(
                problem.message,
                (*place_of(error), "checkpoint"),
                help="fetch the file again, and compare its size with the source's",
            )


RULE = Rule(
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
    check=_check,
    suppressible=False,
)
