"""`devmap plan`: the plan for a reader."""

from __future__ import annotations

import click

from devmap.api.explaining import explain_file
from devmap.api.resolution import resolve_file
from devmap.cli import options
from devmap.cli.completion import complete_paths
from devmap.cli.terminal import speaks_unicode, use_color, width
from devmap.report.plan import render_plan, render_plan_json
from devmap.report.plan_why import render_explanation, render_explanation_json

__all__ = ["command"]


@click.command("plan")
@click.argument("config", shell_complete=complete_paths)
@click.option(
    "--why",
    "module",
    metavar="MODULE",
    help="Explain one module or tensor: what it weighs, where it is, what binds.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the plan is shown.",
)
@options.profile
@options.overrides
@options.allow_code
@options.color
def command(
    config: str,
    *,
    module: str | None,
    output_format: str,
    profile: str | None,
    overrides: tuple[str, ...],
    allow_code: bool,
    color: str,
) -> int:
    """Show the plan for CONFIG.

    Bytes per device against its budget, runs of layers, what streams where, and why.

    With --why exit status 1 means that there is no plan.
    """
    as_json = output_format == "json"
    if module is not None:
        found = explain_file(config, module, profile=profile, overrides=overrides, allow_code=allow_code)
        text = (
            render_explanation_json(found)
            if as_json
            else render_explanation(found, width=width(), color=use_color(color))
        )
        click.echo(text, nl=False, color=True)
        return 0 if found.fits else 1
    plan, inventory = resolve_file(config, profile=profile, overrides=overrides, allow_code=allow_code)
    if as_json:
        text = render_plan_json(plan)
    else:
        text = render_plan(
            plan, inventory, width=width(), color=use_color(color), ascii_only=not speaks_unicode()
        )
    click.echo(text, nl=False, color=True)
    return 0
