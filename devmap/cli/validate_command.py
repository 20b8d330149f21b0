"""`devmap validate`: check configs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from devmap.api.fixing import fix
from devmap.api.validation import validate, validate_text
from devmap.checking.registry import load_rules
from devmap.checking.settings import find_settings
from devmap.checking.status import exit_status
from devmap.cli import options
from devmap.cli.completion import complete_paths, complete_rules
from devmap.cli.files import write_text
from devmap.cli.terminal import use_color, width
from devmap.errors import UsageError
from devmap.report.findings import FORMATS, render, statistics
from devmap.report.fixes import fixes_summary, render_diff

__all__ = ["command"]


@click.command("validate")
@click.argument("paths", nargs=-1, metavar="PATH...", shell_complete=complete_paths)
@click.option(
    "--format", "output_format", type=click.Choice(list(FORMATS)), default="text", show_default=True, help="How findings are shown."
)
@click.option("--output-file", type=click.Path(dir_okay=False), help="Write the findings there in --format, and text to the screen.")
@click.option("--locked", is_flag=True, help="Ask for a lock beside each config that is fresh and unedited.")
@click.option(
    "--select",
    multiple=True,
    metavar="RULE",
    shell_complete=complete_rules,
    help="Check only these rules: a code, a name, or a prefix such as DM2.",
)
@click.option("--ignore", multiple=True, metavar="RULE", shell_complete=complete_rules, help="Leave these rules out.")
@click.option("--extend-select", multiple=True, metavar="RULE", shell_complete=complete_rules, help="Check these rules too.")
@click.option(
    "--fail-on", type=click.Choice(["error", "warning", "note", "never"]), help="From which severity on the status is 1.  [default: error]"
)
@click.option("--fix", "mend", is_flag=True, help="Mend what can be mended safely, and show what is left.")
@click.option("--diff", "show_diff", is_flag=True, help="Show what --fix would change, and write nothing.")
@click.option("--statistics", "show_statistics", is_flag=True, help="Count the findings by rule.")
@click.option("--stdin-filename", metavar="PATH", help="With '-': where the config on standard input would be.")
@options.profile
@options.overrides
@options.allow_code
@options.color
@options.quiet
def command(
    paths: tuple[str, ...],
    output_format: str,
    output_file: str | None,
    *,
    locked: bool,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    extend_select: tuple[str, ...],
    fail_on: str | None,
    mend: bool,
    show_diff: bool,
    show_statistics: bool,
    stdin_filename: str | None,
    profile: str | None,
    overrides: tuple[str, ...],
    allow_code: bool,
    color: str,
    quiet: bool,
) -> int:
    """Check configs: files, folders (every *.devmap.yaml below them), or - for standard input.

    Needs neither a GPU nor weights nor torch. Exit status: 0 nothing at or above --fail-on, 1 findings, 2 could not run.
    """
    if not paths:
        raise UsageError("no config was named", help="devmap validate PATH..., for example: devmap validate .")
    start = Path(stdin_filename or ".").parent if paths == ("-",) else Path.cwd()
    settings = find_settings(start).with_options(select=select, ignore=ignore, extend_select=extend_select, fail_on=fail_on)
    summary = ""
    if "-" in paths:
        _refuse_beside_stdin(paths, mends=mend or show_diff)
        result = validate_text(
            sys.stdin.buffer.read(),
            stdin_filename or "stdin.devmap.yaml",
            settings=settings,
            profile=profile,
            overrides=overrides,
            allow_code=allow_code,
            locked=locked,
        )
    elif mend or show_diff:
        fixes = fix(
            paths, settings=settings, profile=profile, overrides=overrides, allow_code=allow_code, locked=locked, write=not show_diff
        )
        summary = fixes_summary(fixes, written=not show_diff)
        if show_diff:
            click.echo(render_diff(fixes), nl=False)
            click.echo(summary, nl=False, err=True)
            return exit_status(fixes.before.findings, settings.fail_on)
        result = fixes.after
    else:
        result = validate(paths, settings=settings, profile=profile, overrides=overrides, allow_code=allow_code, locked=locked)
    show = partial(render, result.findings, files=result.files, rules=load_rules(settings), width=width())
    if output_file is not None:
        write_text(Path(output_file), show(output_format))
    text = show("text" if output_file is not None else output_format, color=use_color(color))
    if show_statistics:
        text += statistics(result.findings)
    if not (quiet and not result.findings and output_format == "text"):
        click.echo(text, nl=False, color=True)
    if not quiet:
        click.echo(summary, nl=False, err=output_format != "text" and output_file is None)
    return exit_status(result.findings, settings.fail_on)


def _refuse_beside_stdin(paths: tuple[str, ...], *, mends: bool) -> None:
    if len(paths) > 1:
        raise UsageError("'-' stands alone", help="check standard input and files in two calls")
    if mends:
        raise UsageError("standard input has no file to mend", help="name the file, or leave --fix and --diff out")
