"""`devmap plan`: the plan for a reader."""

from __future__ import annotations

import click

from devmap.api.resolution import resolve_file
from devmap.cli import options
from devmap.cli.terminal import use_color, width
from devmap.report.plan import render_plan

__all__ = ["command"]


@click.command("plan")
@click.argument("config")
@options.profile
@options.overrides
@options.allow_code
@options.color
def command(config: str, *, profile: str | None, overrides: tuple[str, ...], allow_code: bool, color: str) -> int:
    """Show the plan for CONFIG: bytes per device against its budget, runs of layers, what streams where, and why."""
    plan, inventory = resolve_file(config, profile=profile, overrides=overrides, allow_code=allow_code)
    click.echo(render_plan(plan, inventory, width=width(), color=use_color(color)), nl=False, color=True)
    return 0
