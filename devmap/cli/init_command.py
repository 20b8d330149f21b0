"""`devmap init`: a commented config to start from."""

from __future__ import annotations

from pathlib import Path

import click

from devmap.api.starter import SCHEMA_NAME, starter_config, write_starter
from devmap.cli import options
from devmap.cli.completion import complete_machines, complete_paths
from devmap.config.values.words import escaped

__all__ = ["command"]


@click.command("init")
@click.argument("checkpoint", shell_complete=complete_paths)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    help="The config to write.  [default: NAME.devmap.yaml here]",
)
@click.option(
    "--machine",
    metavar="PRESET",
    shell_complete=complete_machines,
    help="Write the budgets for a machine such as 2x4090 instead of this one.",
)
@click.option("--force", is_flag=True, help="Replace a config that exists.")
@options.quiet
def command(checkpoint: str, *, output: str | None, machine: str | None, force: bool, quiet: bool) -> int:
    """Write a commented config for CHECKPOINT.

    CHECKPOINT is a folder or file of safetensors, or a hub id in the local cache.

    Nothing is asked. The budgets are the whole memory of each device less some headroom, not what is free at
    the moment, so that the config is the same from run to run. The JSON Schema that its first lines name is
    written beside it, so that editors complete and check the config.
    """
    name = (
        Path(checkpoint).resolve().name.removesuffix(".safetensors")
        if Path(checkpoint).exists()
        else checkpoint.rpartition("/")[2]
    )
    path = Path(output) if output else Path(f"{name}.devmap.yaml")
    starter = starter_config(checkpoint, folder=path.parent, machine_name=machine)
    write_starter(path, starter.text, force=force)
    if not quiet:
        click.echo(escaped(f"found {starter.model}"), err=True)
        click.echo(
            escaped(
                f"wrote {path} and {path.with_name(SCHEMA_NAME).name} for editors; "
                f"next: devmap validate {path}"
            ),
            err=True,
        )
    return 0
