"""Write docs/architectures.md.

The classes that the built-in table has, and those that it leaves out, from its files.

python scripts/list_architectures.py            # rewrites the page
python scripts/list_architectures.py --check    # says whether it is fresh
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from devmap.inventory.table.skeleton import known_families

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architectures.md"
TABLE = ROOT / "devmap" / "inventory" / "architectures"


def page() -> str:
    """The text of the page."""
    tables = {
        name: json.loads((TABLE / f"{name}.json").read_text(encoding="utf-8")) for name in known_families()
    }
    with_classes = {name: table for name, table in tables.items() if table.get("classes")}
    count = sum(len(table["classes"]) for table in with_classes.values())
    version = next(iter(tables.values()))["transformers"]
    lines = [
        "# Architectures that headers alone describe",
        "",
        f"{count:,} classes of {len(with_classes)} types of config, from Transformers {version}. Written by",
        "`scripts/list_architectures.py` from the files of `devmap/inventory/architectures/`.",
        "",
        "| type | classes |",
        "| --- | --- |",
        *(f"| `{name}` | {_listed(table['classes'])} |" for name, table in with_classes.items()),
        "",
        "## What the table does not settle",
        "Each of these is said in a warning (DM222) by whoever plans such a model.",
        "",
        "| type | class of the part | what |",
        "| --- | --- | --- |",
        *_doubts(with_classes),
        "",
        "## Classes that the table leaves out",
        (
            "They could not be built from a config of their own defaults. "
            "Transformers, if it is installed, is asked."
        ),
        "",
        "| type | class | why |",
        "| --- | --- | --- |",
        *(
            f"| `{name}` | `{left}` | {_plain(reason)} |"
            for name, table in tables.items()
            for left, reason in table.get("left_out", {}).items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _listed(names: dict[str, int]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("<", "(").replace(">", ")").replace("`", "'")


def _doubts(tables: dict[str, dict[str, Any]]) -> list[str]:
    found: dict[str, None] = {}
    for name, table in tables.items():
        for row in table["nodes"]:
            if isinstance(row, list) and len(row) > 4:
                for doubt in row[4].get("doubts", ()):
                    found[f"| `{name}` | `{row[0]}` | {_plain(doubt)} |"] = None
    return list(found)


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv[1:]:
        is_fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        print(
            "" if is_fresh else "docs/architectures.md is not fresh; run python scripts/list_architectures.py"
        )
        return 0 if is_fresh else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
