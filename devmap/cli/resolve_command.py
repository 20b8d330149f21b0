"""`devmap resolve`: print the concrete device map, or write it as a lock."""

from __future__ import annotations

import json
from pathlib import Path

import click

from devmap.api.resolution import resolve_file
from devmap.cli import options
from devmap.cli.completion import complete_configs
from devmap.config.yaml.writer import render_yaml
from devmap.plan.lock import lock_path, write_lock

__all__ = ["command"]


@click.command("resolve")
@click.argument("config", shell_complete=complete_configs)
@click.option(
    "--lock",
    is_flag=True,
    help="Write the plan beside the config: x.devmap.lock.yaml, with a profile x.NAME.devmap.lock.yaml.",
)
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the lock there instead.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How the map is printed.",
)
@options.profile
@options.overrides
@options.allow_code
@options.quiet
def command(
    config: str,
    *,
    lock: bool,
    output: str | None,
    output_format: str,
    profile: str | None,
    overrides: tuple[str, ...],
    allow_code: bool,
    quiet: bool,
) -> int:
    """Resolve CONFIG to a concrete device map and print it; nothing is printed when a lock is written.

    The map is a mapping from module paths to devices, as accelerate and transformers take it.
    """
    plan, _ = resolve_file(config, profile=profile, overrides=overrides, allow_code=allow_code)
    if lock or output:
        path = Path(output) if output else lock_path(Path(config), profile)
        write_lock(plan, path)
        if not quiet:
            click.echo(f"wrote {path}", err=True)
        return 0
    device_map = dict(plan.device_map)
    click.echo(
        json.dumps(device_map, indent=2) if output_format == "json" else render_yaml(device_map),
        nl=output_format == "json",
    )
    return 0
