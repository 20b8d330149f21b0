"""`devmap validate`: check configs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from devmap.api.checks.validation import validate, validate_text
from devmap.checking.registry import with_policies
from devmap.checking.settings import NearestSettings
from devmap.cli import options
from devmap.cli.completion import complete_configs, complete_rules
from devmap.cli.terminal import use_color, width, wraps
from devmap.errors import UsageError
from devmap.findings.registry import without_meaning
from devmap.report.formats.findings import FORMATS, render, statistics

if TYPE_CHECKING:
    from devmap.api.checks.validation import Validation

__all__ = ["command"]


@click.command("validate")
@click.argument("paths", nargs=-1, metavar="PATH...", shell_complete=complete_configs)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(list(FORMATS)),
    default="text",
    show_default=True,
    help="How findings are shown.",
)
@click.option(
    "--output-file",
    type=click.Path(dir_okay=False),
    help="Write the findings there in --format, and text to the screen.",
)
@click.option(
    "--children",
    is_flag=True,
    help="Check too every config below the current folder that extends one of these.",
)
@click.option("--locked", is_flag=True, help="Ask for a lock beside each config that is fresh and unedited.")
@click.option(
    "--select",
    multiple=True,
    metavar="RULE",
    shell_complete=complete_rules,
    help="Check only these rules: a code, a name, or a prefix such as DM2.",
)
@click.option(
    "--ignore", multiple=True, metavar="RULE", shell_complete=complete_rules, help="Leave these rules out."
)
@click.option(
    "--extend-select",
    multiple=True,
    metavar="RULE",
    shell_complete=complete_rules,
    help="Check these rules too.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "note", "never"]),
    help="Lowest severity that gives exit status 1.  [default: error]",
)
@click.option("--fix", "mend", is_flag=True, help="Fix what can be fixed safely, and show what is left.")
@click.option("--diff", "show_diff", is_flag=True, help="Show what --fix would change, and write nothing.")
@click.option(
    "--add-ignores",
    metavar="REASON",
    help="Write a comment that ignores it behind every line with a finding, and show what is left.",
)
@click.option(
    "--watch", is_flag=True, help="Check again whenever a config or a file that it stands on changes."
)
@click.option("--statistics", "show_statistics", is_flag=True, help="Count the findings by rule.")
@click.option(
    "--through-transformers",
    is_flag=True,
    help="Ask Transformers, once, for what headers and the built-in table do not tell of a model.",
)
@click.option(
    "--stdin-filename", metavar="PATH", help="With '-': where the config on standard input would be."
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=0),
    default=0,
    envvar="DEVMAP_JOBS",
    metavar="N",
    help="Number of worker processes; 0 (default) picks automatically.",
)
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
    children: bool,
    locked: bool,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    extend_select: tuple[str, ...],
    fail_on: str | None,
    mend: bool,
    show_diff: bool,
    add_ignores: str | None,
    watch: bool,
    show_statistics: bool,
    through_transformers: bool,
    stdin_filename: str | None,
    jobs: int,
    profile: str | None,
    overrides: tuple[str, ...],
    allow_code: bool,
    color: str,
    quiet: bool,
) -> int:
    """Check configs: files, folders (every *.devmap.yaml below them), or - for standard input.

    Needs neither a GPU nor weights nor torch. Exit status: 0 nothing at or above --fail-on, 1 findings, 2
    could not run.
    """
    if watch:
        return _watched(paths, children=children, writes=mend or show_diff or add_ignores is not None)
    settings = NearestSettings(
        select=select,
        ignore=ignore,
        extend_select=extend_select,
        fail_on=fail_on,
        allow_code=allow_code,
    )
    summary = ""
    paths = _meant(paths, settings, children=children)
    if "-" in paths:
        _refuse_beside_stdin(paths, mends=mend or show_diff or add_ignores is not None)
        result = validate_text(
            sys.stdin.buffer.read(),
            stdin_filename or "stdin.devmap.yaml",
            settings=settings,
            profile=profile,
            overrides=overrides,
            allow_code=allow_code,
            through_transformers=through_transformers,
            locked=locked,
        )
    elif add_ignores is not None:
        result, summary = _with_ignores(
            paths,
            add_ignores,
            settings,
            mends=mend or show_diff,
            profile=profile,
            overrides=overrides,
            allow_code=allow_code,
            locked=locked,
        )
    elif mend or show_diff:
        # Only with --fix and --diff, and every run would load it.
        from devmap.api.checks.fixing import fix  # noqa: PLC0415
        from devmap.report.formats.fixes import fixes_summary, render_diff  # noqa: PLC0415 - as above

        fixes = fix(
            paths,
            settings=settings,
            profile=profile,
            overrides=overrides,
            allow_code=allow_code,
            through_transformers=through_transformers,
            locked=locked,
            write=not show_diff,
        )
        summary = fixes_summary(fixes, written=not show_diff)
        if show_diff:
            click.echo(render_diff(fixes), nl=False)
            click.echo(summary, nl=False, err=True)
            return int(fixes.before.fails)
        result = fixes.after
    else:
        result = validate(
            paths,
            settings=settings,
            profile=profile,
            overrides=overrides,
            allow_code=allow_code,
            through_transformers=through_transformers,
            locked=locked,
            jobs=jobs,
        )
    _tell_of_selectors(select, (*ignore, *extend_select), result)
    show = partial(
        render, result.findings, files=result.files, rules=result.known, width=width(), wraps=wraps()
    )
    if output_file is not None:
        from devmap.cli.files import write_text  # noqa: PLC0415 - as above

        write_text(Path(output_file), show(output_format))
    text = show("text" if output_file is not None else output_format, color=use_color(color))
    if show_statistics:
        text += statistics(result.findings)
    if not (quiet and not result.findings and output_format == "text"):
        click.echo(text, nl=False, color=True)
    if not quiet:
        click.echo(summary, nl=False, err=output_format != "text" and output_file is None)
    return int(result.fails)


def _watched(paths: tuple[str, ...], *, children: bool, writes: bool) -> int:
    """Run the command as it was called, without `--watch`, at once and after each change.

    Until it is interrupted.
    """
    if "-" in paths or writes:
        raise UsageError("--watch stands without '-', --fix, --diff and --add-ignores")
    from devmap.api.checks.watching import changes  # noqa: PLC0415 - only with the option
    from devmap.cli.exits import INTERRUPTED, guarded  # noqa: PLC0415 - as above

    context = click.get_current_context()
    arguments = {**context.params, "watch": False}
    for changed in changes(_meant(paths, NearestSettings(), children=children)):
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            click.echo(f"\n{changed[0]}{more} changed", err=True)
        # A file that cannot be read now may be right after the next change.
        if guarded(lambda: context.invoke(command, **arguments)) == INTERRUPTED:
            return INTERRUPTED
        click.echo("watching for changes; Ctrl-C ends it", err=True)
    return INTERRUPTED


def _meant(paths: tuple[str, ...], settings: NearestSettings, *, children: bool) -> tuple[str, ...]:
    """Return what the command line names, and with `children` the configs that extend it."""
    if not paths:
        raise UsageError(
            "no config was named", help="devmap validate PATH..., for example: devmap validate ."
        )
    if not children or "-" in paths:
        return paths
    from devmap.api.checks.children import with_children  # noqa: PLC0415 - only with the option

    return with_children(paths, settings=settings)


def _with_ignores(
    paths: tuple[str, ...],
    reason: str,
    settings: NearestSettings,
    *,
    mends: bool,
    profile: str | None,
    overrides: tuple[str, ...],
    allow_code: bool,
    locked: bool,
) -> tuple[Validation, str]:
    """Write comments that ignore what is found; return what is left, and what was done in words."""
    from devmap.api.checks.ignoring import add_ignores  # noqa: PLC0415 - only with the option, and every run would load it

    if mends:
        raise UsageError(
            "--add-ignores stands without --fix and --diff", help="mend first, then ignore the rest"
        )
    ignores = add_ignores(
        paths,
        reason,
        settings=settings,
        profile=profile,
        overrides=overrides,
        allow_code=allow_code,
        locked=locked,
    )
    plural = "s" if len(ignores.files) != 1 else ""
    return ignores.after, f"ignored {ignores.added} in {len(ignores.files)} file{plural}\n"


def _tell_of_selectors(select: tuple[str, ...], others: tuple[str, ...], result: Validation) -> None:
    """Say which words of the command line are no rule, neither of a pack nor of a policy.

    What devmap's own files say may be for others.

    Raises:
        UsageError: when it is a word of `--select`: without a rule nothing is checked.
    """
    for ended in result.ended:
        click.echo(f"warning: {ended}", err=True)
    for words, ends in ((select, True), (others, False)):
        selectors = [word.strip() for given in words for word in given.split(",") if word.strip()]
        unknown = without_meaning(selectors, (*result.known, *result.brought))
        if unknown:  # a policy that comes with devmap and that no config names is no slip
            unknown = without_meaning(unknown, (*with_policies(result.known), *result.brought))
        for word, near in unknown.items():
            message = f"no rule is called '{word}', and no policy of these configs has one"
            hint = f"did you mean '{near}'?" if near else "`devmap rules` lists codes and names"
            if ends:
                raise UsageError(message, help=hint)
            click.echo(f"warning: {message}: {hint}", err=True)


def _refuse_beside_stdin(paths: tuple[str, ...], *, mends: bool) -> None:
    if len(paths) > 1:
        raise UsageError("'-' stands alone", help="check standard input and files in two calls")
    if mends:
        raise UsageError(
            "standard input cannot be fixed in place", help="name the file, or leave --fix and --diff out"
        )
