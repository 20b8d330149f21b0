"""The published JSON Schemas as files: `python -m devmap.report.schema_files` writes them anew."""

from __future__ import annotations

from pathlib import Path

from devmap.config.model.json_schema import config_schema, render_schema
from devmap.report.formats.findings_schema import findings_schema

__all__ = ["schema_texts", "write_schemas"]


def schema_texts() -> dict[str, str]:
    """Return the text of each file of `schema/`, by its name."""
    return {
        "devmap.schema.json": render_schema(config_schema()),
        "findings.schema.json": render_schema(findings_schema()),
    }


def write_schemas(folder: Path) -> None:
    """Write every schema into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schema_texts().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_schemas(Path("schema"))
