"""`devmap diff`: what moves between two configs or locks."""

from __future__ import annotations

import click

from devmap.api.comparison import compare
from devmap.cli import options
from devmap.cli.terminal import use_color, width
from devmap.report.plan_diff import render_diff

__all__ = ["command"]


@click.command("diff")
@click.argument("before")
@click.argument("after")
@options.allow_code
@options.color
def command(before: str, after: str, *, allow_code: bool, color: str) -> int:
    """Show what moves from BEFORE to AFTER, each a config or a lock, and the bytes per device on both sides.

    Exit status: 0 whether or not anything moves; use `devmap validate --locked` as a gate.
    """
    click.echo(render_diff(compare(before, after, allow_code=allow_code), width=width(), color=use_color(color)), nl=False, color=True)
    return 0
