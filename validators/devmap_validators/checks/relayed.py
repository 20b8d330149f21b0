"""Rules that pass on what the YAML reader or the config's models have found already."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["relayed"]


def relayed(code: str, name: str, summary: str, *, why: str, good: str, bad: str) -> Rule:
    """Return the rule that reports a document's faults of this code, where and as the reader saw them.

    It is an error that no comment suppresses: a config that cannot be read to its end is never known to be
    right.
    """
    return Rule(
        code=code,
        name=name,
        severity=Severity.ERROR,
        summary=summary,
        why=why,
        good=good,
        bad=bad,
        check=partial(fault_reports, code=code),
        suppressible=False,
    )
