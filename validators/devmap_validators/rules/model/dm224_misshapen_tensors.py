"""DM224: the checkpoint holds tensors of the model in another shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.groups import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    if context.inventory is None or context.inventory.mapping is None:
        return
    wrong = context.inventory.mapping.mismatched
    if wrong:
        first = wrong[0]
        others = (
            f", and {counted(len(wrong) - 1, 'other tensor')} in another shape too" if len(wrong) > 1 else ""
        )
        message = (
            f"'{first.name}' is {list(first.expected)} in the model and "
            f"{list(first.found)} in the checkpoint{others}"
        )
        yield Report(
            message,
            ("model", "checkpoint"),
            help="is it the checkpoint of this model? its config.json and its tensors disagree",
        )


RULE = Rule(
    code="DM224",
    name="misshapen-tensors",
    severity=Severity.ERROR,
    summary="The checkpoint holds tensors of the model in another shape",
    why=(
        "The load would refuse them. The checkpoint is of another size of the model, or its vocabulary "
        "was changed and config.json was not."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./of-another-size}
max_memory: {0: 2GB}
""",
    check=_check,
)
