"""The rules' pages in `docs/rules`, made from the rule objects.

`python -m devmap_validators.pages docs` writes them anew.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.findings.meta import META_RULES
from devmap_validators.rules import ALL_RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devmap.findings.model import Rule

__all__ = ["FAMILIES", "pages", "render_index", "render_page", "write_pages"]

FAMILIES: Mapping[str, str] = {
    "DM0": "The file",
    "DM1": "Values",
    "DM2": "The config and the model",
    "DM3": "Devices and dtypes",
    "DM4": "Budgets",
    "DM5": "The lock",
    "DM6": "Policies",
    "DM7": "Several nodes",
    "DM9": "The checks themselves",
}
"""What the first digit of a code stands for."""

_LONGEST_LINE = 160
_GENERATED = "<!-- Written by `python -m devmap_validators.pages docs` from the rule; change it there. -->"


def render_page(rule: Rule) -> str:
    """Return one rule's page in Markdown."""
    ways = [f"Severity: **{rule.severity}**."]
    if rule.suppressible:
        ways.append(
            f"Silenced on its line by `# devmap: ignore[{rule.code}] reason`, everywhere by `--ignore "
            f"{rule.code}`."
        )
    else:
        ways.append("It cannot be silenced.")
    if rule.optional:
        ways.append(f"It runs only where `--extend-select {rule.code}` or the settings name it.")
    parts = [
        _GENERATED,
        f"# {rule.code} {rule.name}",
        f"{rule.summary}.",
        " ".join(ways),
        "## Why",
        rule.why,
        "## A config that passes",
        _block(rule.good),
    ]
    if rule.bad != rule.good:
        parts += ["## A config in which it fires", _block(rule.bad)]
    return "\n\n".join(parts) + "\n"


def render_index(rules: Iterable[Rule]) -> str:
    """Return the table of all rules in Markdown, family by family."""
    ordered = sorted(rules, key=lambda rule: rule.code)
    lines = [_GENERATED, "", "# Rules", ""]
    lines += [
        f"{len(ordered)} rules. A rule is named by its code or its name, wherever one is asked for.",
        "",
    ]
    for family, members in groupby(ordered, key=lambda rule: rule.code[:3]):
        lines += [
            f"## {FAMILIES[family]}",
            "",
            "| code | name | severity | what it finds |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| [{rule.code}](rules/{rule.code}.md) | {rule.name} | {rule.severity} | {rule.summary} |"
            for rule in members
        ]
        lines.append("")
    return "\n".join(lines)


def pages() -> Mapping[str, str]:
    """Return every generated page: its path below `docs`, and its text."""
    rules = (*ALL_RULES, *META_RULES)
    return {"rules.md": render_index(rules), **{f"rules/{rule.code}.md": render_page(rule) for rule in rules}}


def write_pages(folder: Path) -> None:
    """Write all pages below `folder`, and remove those of rules that are no more."""
    written = pages()
    for path in (folder / "rules").glob("DM*.md"):
        if f"rules/{path.name}" not in written:
            path.unlink()
    (folder / "rules").mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")


def _block(config: str) -> str:
    return f"```yaml\n{''.join(_shown_line(line) for line in config.splitlines(keepends=True))}```"


def _shown_line(line: str) -> str:
    """Return a line as a page can hold it: characters that do not print as escapes, what is too long cut."""
    text = line.rstrip("\n")
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )
    cut = f"{shown[:60]}... ({len(text):,} characters)" if len(shown) > _LONGEST_LINE else shown
    return f"{cut}\n"


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
