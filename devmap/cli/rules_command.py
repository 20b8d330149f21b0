"""`devmap rules`: every rule in a line."""

from __future__ import annotations

import json
from pathlib import Path

import click

from devmap.checking.registry import load_rules
from devmap.checking.settings import find_settings
from devmap.cli import options
from devmap.cli.terminal import width, wrapped

__all__ = ["command"]

_NARROWEST = 30
"""Columns that a summary needs to stand beside a rule's name."""


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
        head = f"{rule.code}  {rule.name:<{name_width}}  {rule.severity.value:<7}  "
        # Where the terminal leaves the summaries too little room beside the names, they stand below them.
        if len(head) + _NARROWEST > width():
            click.echo(head.rstrip())
            click.echo(wrapped(f"    {rule.summary}"))
        else:
            click.echo(wrapped(head + rule.summary, hanging=len(head)))
    return 0
