"""DM103: a value is of another kind than its key holds."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM103",
    name="wrong-type",
    severity=Severity.ERROR,
    summary="A value is of another kind than its key holds",
    why=(
        "Values are not converted silently: a list where one text is meant, or text where a number is "
        "meant, is most often a "
        "slip of indentation or quotes."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
no_split_module_classes: [LlamaDecoderLayer]
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
no_split_module_classes: LlamaDecoderLayer
""",
    check=partial(fault_reports, code="DM103"),
    suppressible=False,
)
