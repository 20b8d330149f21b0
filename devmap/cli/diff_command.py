"""`devmap diff`: what moves between any two of config, lock and plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from devmap.api.comparison import compare
from devmap.api.locks.revisions import changed_locks
from devmap.cli import options
from devmap.cli.completion import complete_plans
from devmap.cli.files import write_page
from devmap.cli.terminal import use_color, width
from devmap.errors import UsageError
from devmap.report.changed_locks import render_changed, render_changed_json, render_changed_markdown
from devmap.report.markdown import render_diff_markdown
from devmap.report.plan_diff import render_diff, render_diff_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.api.locks.revisions import ChangedLock

__all__ = ["command"]


@click.command("diff")
@click.argument("sides", nargs=-1, metavar="BEFORE AFTER", shell_complete=complete_plans)
@click.option(
    "--base",
    metavar="REVISION",
    help="Compare every lock that changed since the branch left REVISION; "
    "PATHs in place of BEFORE and AFTER.",
)
@click.option("--exit-code", is_flag=True, help="Status 1 where something moves.")
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
    sides: tuple[str, ...],
    *,
    base: str | None,
    exit_code: bool,
    output_format: str,
    html: str | None,
    profile_before: str | None,
    profile_after: str | None,
    allow_code: bool,
    color: str,
) -> int:
    """Show what moves from BEFORE to AFTER, and the bytes per device on both sides.

    Each is a config, a lock (*.devmap.lock.yaml), or a plan that `devmap plan --format json` printed
    (*.json). A lock or plan may be one of a git revision: HEAD~1:x.devmap.lock.yaml.

    Exit status: 0 whether or not anything moves; with --exit-code 1 where something does.
    """
    if base is not None:
        if html is not None or profile_before is not None or profile_after is not None:
            raise UsageError(
                "--base compares locks, in text, JSON or Markdown",
                help="leave --html and the profiles out, or compare two files",
            )
        locks = list(changed_locks(base, sides or (".",)))
        click.echo(_shown(locks, base, output_format, color=use_color(color)), nl=False, color=True)
        return int(exit_code and any(lock.moves for lock in locks))
    if len(sides) != _SIDES:
        raise UsageError(
            f"two sides are compared, and {len(sides)} were named",
            help="devmap diff BEFORE AFTER, or devmap diff --base main for every lock that changed",
        )
    before, after = sides
    found = compare(
        before, after, allow_code=allow_code, profile_before=profile_before, profile_after=profile_after
    )
    status = int(exit_code and not (found.is_empty and found.same_model))
    if html is not None:
        from devmap.report.page.diff_page import render_diff_page  # noqa: PLC0415 - only for a page

        write_page(html, render_diff_page(found, before, after))
        return status
    if output_format == "json":
        text = render_diff_json(found)
    elif output_format == "markdown":
        text = render_diff_markdown(found)
    else:
        text = render_diff(found, width=width(), color=use_color(color))
    click.echo(text, nl=False, color=True)
    return status


_SIDES = 2


def _shown(locks: Sequence[ChangedLock], base: str, output_format: str, *, color: bool) -> str:
    if output_format == "json":
        return render_changed_json(locks, base)
    if output_format == "markdown":
        return render_changed_markdown(locks, base)
    return render_changed(locks, base, width=width(), color=color)
