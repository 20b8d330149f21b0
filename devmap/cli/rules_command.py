"""`devmap rules`: every rule in a line."""

from __future__ import annotations

import json
from pathlib import Path

import click

from devmap.checking.registry import load_rules
from devmap.checking.settings import find_settings
from devmap.cli import options

__all__ = ["command"]


@click.command("rules")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How rules are shown.",
)
@options.allow_code
def command(output_format: str, *, allow_code: bool) -> int:
    """List every rule: code, name, severity and what it finds."""
    rules = load_rules(find_settings(Path.cwd()).with_options(allow_code=allow_code))
    if output_format == "json":
        rows = [
            {"code": rule.code, "name": rule.name, "severity": rule.severity.value, "summary": rule.summary}
            for rule in rules
        ]
        click.echo(json.dumps(rows, indent=2))
        return 0
    name_width = max(len(rule.name) for rule in rules)
    for rule in rules:
        click.echo(f"{rule.code}  {rule.name:<{name_width}}  {rule.severity.value:<7}  {rule.summary}")
    return 0
