"""The shape of `--format json`, and its JSON Schema."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on

__all__ = ["FindingEntry", "FindingsDocument", "Fix", "Point", "Summary", "Suppressed", "findings_schema"]

FINDINGS_ID = "urn:torch-devmap:findings.schema.json"


class Point(TypedDict):
    """A place in a file: both from 1, columns in code points."""

    line: int
    column: int


class Fix(TypedDict):
    """A safe change: the text from `start` up to but not including `end` becomes `replacement`."""

    description: str
    start: Point
    end: Point
    replacement: str


class Suppressed(TypedDict):
    """A comment in the file suppresses the finding."""

    reason: str


class FindingEntry(TypedDict):
    """One problem."""

    code: str
    name: str
    severity: Literal["error", "warning", "note"]
    message: str
    label: str
    help: str
    file: str | None
    path: list[str | int]
    start: Point | None
    end: Point | None
    fix: Fix | None
    suppressed: Suppressed | None


class Summary(TypedDict):
    """Counts; suppressed findings are in none of errors, warnings and notes."""

    files: int
    errors: int
    warnings: int
    notes: int
    suppressed: int


class FindingsDocument(TypedDict):
    """What `devmap validate --format json` prints."""

    version: Literal[1]
    findings: list[FindingEntry]
    summary: Summary


def findings_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `FindingsDocument`."""
    from pydantic import TypeAdapter  # noqa: PLC0415 - `--format json` itself needs no pydantic

    schema = TypeAdapter(FindingsDocument).json_schema()
    for definition in (schema, *schema["$defs"].values()):
        definition.pop("title", None)
        definition["additionalProperties"] = False
        for node in definition["properties"].values():
            node.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": FINDINGS_ID,
        "title": "devmap findings",
        **schema,
    }
