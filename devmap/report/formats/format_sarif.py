"""Findings as SARIF 2.1.0, with the metadata of their rules and the comments that suppress some."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from devmap.report.formats.results import file_of, json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.config.yaml.faults import Edit
    from devmap.config.yaml.source import Position
    from devmap.findings.model import Finding, Rule
    from devmap.report.formats.results import Results

__all__ = ["render"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HOME = "https://pypi.org/project/torch-devmap/"

Json = dict[str, Any]


def render(results: Results) -> str:
    """Return one SARIF log with one run."""
    names = {finding.code: finding for finding in results.findings}
    known = {rule.code: rule for rule in results.rules}
    codes = sorted(names)
    index = {code: place for place, code in enumerate(codes)}
    run = {
        "tool": {
            "driver": {
                "name": "devmap",
                "informationUri": _HOME,
                "rules": [_descriptor(names[code], known.get(code)) for code in codes],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index) for finding in results.findings],
    }
    return json_text({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _descriptor(finding: Finding, rule: Rule | None) -> Json:
    descriptor: Json = {"id": finding.code, "name": finding.name}
    if rule is None:
        return {**descriptor, "shortDescription": {"text": finding.name.replace("-", " ")}}
    return {
        **descriptor,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.why}\n\nBad:\n{rule.bad}\nGood:\n{rule.good}", "markdown": _markdown(rule)},
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _markdown(rule: Rule) -> str:
    return f"{rule.why}\n\nBad:\n```yaml\n{rule.bad.strip()}\n```\nGood:\n```yaml\n{rule.good.strip()}\n```\n"


def _result(finding: Finding, index: Mapping[str, int]) -> Json:
    text = ". ".join(part.rstrip(".") for part in (finding.message, finding.label, finding.help) if part)
    result: Json = {
        "ruleId": finding.code,
        "ruleIndex": index[finding.code],
        "level": finding.severity.value,
        "message": {"text": text},
        "partialFingerprints": {"devmap/v1": _fingerprint(finding)},
    }
    if finding.position is not None:
        result["locations"] = [
            {
                "physicalLocation": {
                    "artifactLocation": _artifact(finding),
                    "region": _region(finding.position),
                }
            }
        ]
        if finding.edit is not None:
            result["fixes"] = [_fix(finding, finding.edit)]
    result["suppressions"] = (
        [] if finding.suppressed is None else [{"kind": "inSource", "justification": finding.suppressed}]
    )
    return result


def _artifact(finding: Finding) -> Json:
    return {"uri": quote(file_of(finding), safe="/~"), "uriBaseId": "%SRCROOT%"}


def _region(position: Position) -> Json:
    return {
        "startLine": position.start.line,
        "startColumn": position.start.column,
        "endLine": position.end.line,
        "endColumn": position.end.column,
    }


def _fix(finding: Finding, edit: Edit) -> Json:
    change = {"deletedRegion": _region(edit.position), "insertedContent": {"text": edit.replacement}}
    return {
        "description": {"text": edit.description},
        "artifactChanges": [{"artifactLocation": _artifact(finding), "replacements": [change]}],
    }


def _fingerprint(finding: Finding) -> str:
    """Return the same for the same problem when lines move: code, file and place in the document."""
    key = json.dumps([finding.code, file_of(finding), list(finding.path), finding.message])
    return hashlib.sha256(key.encode("utf-8", "backslashreplace")).hexdigest()[:32]
