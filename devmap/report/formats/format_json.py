"""Findings as JSON, after schema/findings.schema.json.

Lines and columns from 1, columns in code points, files relative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Severity
from devmap.report.formats.results import file_of, json_text

if TYPE_CHECKING:
    from devmap.config.yaml.faults import Edit
    from devmap.config.yaml.source import LineColumn
    from devmap.findings.model import Finding
    from devmap.report.formats.findings_schema import FindingEntry, FindingsDocument, Fix, Point
    from devmap.report.formats.results import Results

__all__ = ["render"]


def render(results: Results) -> str:
    """Return one JSON document."""
    document: FindingsDocument = {
        "version": 1,
        "findings": [_entry(finding) for finding in results.findings],
        "summary": {
            "files": len(results.files),
            "errors": len(results.of(Severity.ERROR)),
            "warnings": len(results.of(Severity.WARNING)),
            "notes": len(results.of(Severity.NOTE)),
            "suppressed": len(results.findings) - len(results.open),
        },
    }
    return json_text(document)


def _entry(finding: Finding) -> FindingEntry:
    position = finding.position
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.value,
        "message": finding.message,
        "label": finding.label,
        "help": finding.help,
        "file": file_of(finding) or None,
        "path": list(finding.path),
        "start": _point(position.start) if position else None,
        "end": _point(position.end) if position else None,
        "fix": _fix(finding.edit) if finding.edit else None,
        "suppressed": None if finding.suppressed is None else {"reason": finding.suppressed},
    }


def _point(place: LineColumn) -> Point:
    return {"line": place.line, "column": place.column}


def _fix(edit: Edit) -> Fix:
    return {
        "description": edit.description,
        "start": _point(edit.position.start),
        "end": _point(edit.position.end),
        "replacement": edit.replacement,
    }
