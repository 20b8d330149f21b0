"""`devmap plan`: the plan for a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from devmap.api.explaining import explain_file
from devmap.api.resolution import resolved_file
from devmap.cli import options
from devmap.cli.completion import complete_configs, complete_modules
from devmap.cli.files import write_page
from devmap.cli.terminal import speaks_unicode, use_color, width
from devmap.errors import UsageError
from devmap.report.cluster import EXPORTS, render_split, render_torchrun
from devmap.report.plan import render_plan, render_plan_json
from devmap.report.plan_why import render_explanation, render_explanation_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["command"]


@click.command("plan")
@click.argument("config", shell_complete=complete_configs)
@click.option(
    "--why",
    "module",
    metavar="MODULE",
    shell_complete=complete_modules,
    help="Explain one module or tensor: its size, where it is placed and why.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="How the plan is shown; markdown is for a comment on a pull request.",
)
@click.option(
    "--torchrun",
    is_flag=True,
    help="Print the command line of each node instead: for plans over several nodes.",
)
@click.option(
    "--export",
    "engine",
    type=click.Choice(EXPORTS),
    help="Print the layer split for another engine instead: for plans over several nodes.",
)
@options.html
@options.profile
@options.overrides
@options.allow_code
@options.color
def command(
    config: str,
    *,
    module: str | None,
    output_format: str,
    torchrun: bool,
    engine: str | None,
    html: str | None,
    profile: str | None,
    overrides: tuple[str, ...],
    allow_code: bool,
    color: str,
) -> int:
    """Show the plan for CONFIG.

    Bytes per device against its budget, runs of layers, what streams where, and why.

    With --html one page without references, to open in a browser: bars, a map of all modules with search, the
    predicted pass, what validate finds. With --why exit status 1 means that there is no plan.
    """
    as_json = output_format == "json"
    _refuse_several({"--why": module, "--html": html, "--torchrun": torchrun, "--export": engine})
    if html is not None:
        # Checks the config too, and holds a page's style and script: no other form needs them.
        from devmap.api.overview import overview_of  # noqa: PLC0415
        from devmap.report.page.plan_page import render_plan_page  # noqa: PLC0415

        shown = overview_of(config, profile=profile, overrides=overrides, allow_code=allow_code)
        write_page(html, render_plan_page(shown))
        return 0
    if module is not None:
        if output_format == "markdown":
            raise UsageError("--why has no Markdown", help="use --format text or json")
        found = explain_file(config, module, profile=profile, overrides=overrides, allow_code=allow_code)
        text = (
            render_explanation_json(found)
            if as_json
            else render_explanation(found, width=width(), color=use_color(color))
        )
        click.echo(text, nl=False, color=True)
        return 0 if found.fits else 1
    found_plan = resolved_file(config, profile=profile, overrides=overrides, allow_code=allow_code)
    plan, inventory = found_plan.plan, found_plan.inventory
    if torchrun:
        text = render_torchrun(plan, _run_arguments(config, profile, overrides, allow_code=allow_code))
    elif engine is not None:
        text = render_split(plan, inventory, engine)
    elif as_json:
        text = render_plan_json(plan, found_plan.savings)
    elif output_format == "markdown":
        from devmap.report.markdown import render_plan_markdown  # noqa: PLC0415 - only for this format

        text = render_plan_markdown(plan, inventory, found_plan.savings)
    else:
        text = render_plan(
            plan,
            inventory,
            found_plan.savings,
            width=width(),
            color=use_color(color),
            ascii_only=not speaks_unicode(),
        )
    click.echo(text, nl=False, color=True)
    return 0


def _refuse_several(shown: Mapping[str, object]) -> None:
    """Refuse options of which each shows something else than the plan.

    Raises:
        UsageError: when more than one is given.
    """
    given = [name for name, value in shown.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} each show something else", help="leave all but one out")


def _run_arguments(
    config: str, profile: str | None, overrides: Sequence[str], *, allow_code: bool
) -> list[str]:
    """Return what `devmap run` takes to run the same plan."""
    found = [config]
    if profile is not None:
        found += ["--profile", profile]
    for override in overrides:
        found += ["--set", override]
    return [*found, "--allow-code"] if allow_code else found
