"""A family's table as JSON: a node on a line, so that a change shows where it is."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["render"]


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def render(table: dict[str, Any]) -> str:
    """The text of one file."""
    blocks: list[str] = []
    for key, value in table.items():
        if key == "nodes":
            rows = ",\n".join(_compact(row) for row in value)
            blocks.append(f'"nodes":[\n{rows}\n]')
        elif key in {"conversions", "facts"}:
            rows = ",\n".join(f"{_compact(name)}:{_compact(row)}" for name, row in value.items())
            blocks.append(f'"{key}":{{\n{rows}\n}}')
        else:
            blocks.append(f"{_compact(key)}:{_compact(value)}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"
