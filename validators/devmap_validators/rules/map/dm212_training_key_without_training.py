"""DM212: a key of training in a workload that does not train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.strategy import WorkloadKind
from devmap.findings.model import Report, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.workload is None or config.workload.kind is WorkloadKind.TRAINING:
        return
    for key in ("optimizer", "trainable"):
        if getattr(config.workload, key) is not None:
            message = f"'{key}' has no effect: the workload is {config.workload.kind}"
            yield Report(
                message, ("workload", key), on_key=True, help="write kind: training, or remove the key"
            )


RULE = Rule(
    code="DM212",
    name="training-key-without-training",
    severity=Severity.WARNING,
    summary="A key of training in a workload that does not train",
    why=(
        "`optimizer` and `trainable` count only where `kind` is `training`. Elsewhere no room is kept for "
        "gradients, which is "
        "probably not what was meant."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20GB}
workload: {kind: training, optimizer: adamw}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20GB}
workload: {kind: inference, optimizer: adamw}
""",
    check=_check,
)
