"""DM220: tensors of the checkpoint that belong to no part of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import quoted
from devmap_validators.checks.groups import counted
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    if context.inventory is None or context.inventory.mapping is None:
        return
    unmapped = context.inventory.mapping.unmapped
    if unmapped:
        held = context.inventory.checkpoint.tensors if context.inventory.checkpoint is not None else {}
        nbytes = sum(held[name].nbytes for name in unmapped if name in held)
        message = (
            f"the checkpoint holds {counted(len(unmapped), 'tensor')} "
            f"({exact_bytes(nbytes)}) that no part of the "
            f"model comes from: {quoted(unmapped)}"
        )
        yield Report(
            message,
            ("model", "checkpoint"),
            help="is it the checkpoint of this model? if the model holds them, "
            "the plan is short of these bytes: "
            "devmap inspect --through-transformers tells; if it does not, ignore DM220 with the reason",
        )


RULE = Rule(
    code="DM220",
    name="unmapped-tensors",
    severity=Severity.ERROR,
    summary="Tensors of the checkpoint that belong to no part of the model",
    why=(
        "What is stored and has no place in the inventory is counted nowhere. "
        "If the model holds it, every budget "
        "is too small by its bytes; if it does not, the checkpoint is another "
        "model's, or has an adapter or a head "
        "that is never loaded. Tensors that the model's own code ignores are not reported."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./with-an-extra-head}
max_memory: {0: 2GB}
""",
    check=_check,
)
