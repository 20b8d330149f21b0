"""DM111: the profile that was picked is not in the config."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM111",
    name="unknown-profile",
    severity=Severity.ERROR,
    summary="The profile that was picked is not in the config",
    why=(
        "`--profile` names one of `profiles`. A name that is not there would leave the config as it is, "
        "on a machine that it "
        "was not written for."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
profiles: {laptop: {max_memory: {cpu: 12GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
profiles: {laptop: {max_memory: {cpu: 12GB}}}
""",
    check=partial(fault_reports, code="DM111"),
    suppressible=False,
)
