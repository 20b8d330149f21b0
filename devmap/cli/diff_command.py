"""`devmap diff`: what moves between any two of config, lock and plan."""

from __future__ import annotations

import click

from devmap.api.comparison import compare
from devmap.cli import options
from devmap.cli.completion import complete_plans
from devmap.cli.files import write_page
from devmap.cli.terminal import use_color, width
from devmap.report.plan_diff import render_diff, render_diff_json

__all__ = ["command"]


@click.command("diff")
@click.argument("before", shell_complete=complete_plans)
@click.argument("after", shell_complete=complete_plans)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="How the diff is shown; markdown is for a comment on a pull request.",
)
@options.html
@click.option("--profile-before", metavar="NAME", help="Pick a profile of BEFORE, where that is a config.")
@click.option("--profile-after", metavar="NAME", help="Pick a profile of AFTER, where that is a config.")
@options.allow_code
@options.color
def command(
    before: str,
    after: str,
    *,
    output_format: str,
    html: str | None,
    profile_before: str | None,
    profile_after: str | None,
    allow_code: bool,
    color: str,
) -> int:
    """Show what moves from BEFORE to AFTER, and the bytes per device on both sides.

    Each is a config, a lock (*.devmap.lock.yaml), or a plan that `devmap plan --format json` printed
    (*.json).

    Exit status: 0 whether or not anything moves; use `devmap validate --locked` as a gate.
    """
    found = compare(
        before, after, allow_code=allow_code, profile_before=profile_before, profile_after=profile_after
    )
    if html is not None:
        from devmap.report.page.diff_page import render_diff_page  # noqa: PLC0415 - only for a page

        write_page(html, render_diff_page(found, before, after))
        return 0
    if output_format == "json":
        text = render_diff_json(found)
    elif output_format == "markdown":
        from devmap.report.markdown import render_diff_markdown  # noqa: PLC0415 - only for this format

        text = render_diff_markdown(found)
    else:
        text = render_diff(found, width=width(), color=use_color(color))
    click.echo(text, nl=False, color=True)
    return 0
