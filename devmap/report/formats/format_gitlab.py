"""Findings as GitLab's code quality report (a subset of Code Climate's)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING

from devmap.findings.model import Severity
from devmap.report.formats.results import file_of, json_text

if TYPE_CHECKING:
    from devmap.findings.model import Finding
    from devmap.report.formats.results import Results

__all__ = ["render"]

_SEVERITIES = {Severity.ERROR: "major", Severity.WARNING: "minor", Severity.NOTE: "info"}


def render(results: Results) -> str:
    """Return a JSON list of the open findings; GitLab wants a path and a line for each."""
    seen: Counter[str] = Counter()
    entries = []
    for finding in results.open:
        key = json.dumps([finding.code, file_of(finding), list(finding.path), finding.message])
        seen[key] += 1
        fingerprint = hashlib.sha256(f"{key}{seen[key]}".encode("utf-8", "backslashreplace")).hexdigest()
        entries.append(_entry(finding, fingerprint))
    return json_text(entries)


def _entry(finding: Finding, fingerprint: str) -> dict[str, object]:
    description = f"{finding.message} ({finding.label})" if finding.label else finding.message
    line = finding.position.start.line if finding.position else 1
    return {
        "description": f"{finding.code} {finding.name}: {description}",
        "check_name": finding.code,
        "fingerprint": fingerprint,
        "severity": _SEVERITIES[finding.severity],
        "location": {"path": file_of(finding) or ".", "lines": {"begin": line}},
    }
