"""Options that several commands share."""

from __future__ import annotations

import click

from devmap.cli.completion import complete_profiles

__all__ = ["allow_code", "color", "html", "overrides", "profile", "quiet"]

Decorator = "Callable[[Callable[..., Any]], Callable[..., Any]]"


profile = click.option(
    "--profile",
    metavar="NAME",
    shell_complete=complete_profiles,
    help="Pick one of the config's profiles.",
)
html = click.option(
    "--html",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write it as one HTML page for a browser instead; - prints the page.",
)
overrides = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a key for this run: --set max_memory.cpu=64GB. May be given again.",
)
allow_code = click.option(
    "--allow-code", is_flag=True, help="Let model.factory and rule packs of this folder run their code."
)
quiet = click.option("--quiet", "-q", is_flag=True, help="Say nothing but results and errors.")
color = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colours; auto follows the terminal, NO_COLOR and FORCE_COLOR.",
)
