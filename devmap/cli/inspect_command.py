"""`devmap inspect`: what a checkpoint is made of."""

from __future__ import annotations

from pathlib import Path

import click

from devmap.api.inspection import inspect, write_manifest
from devmap.cli import options
from devmap.cli.completion import complete_paths
from devmap.cli.terminal import use_color, width
from devmap.config.values.words import escaped
from devmap.report.inventory import render_inventory

__all__ = ["command"]


@click.command("inspect")
@click.argument("checkpoint", shell_complete=complete_paths)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    help="Write the manifest there: the model without its weights, for CI.",
)
@click.option(
    "--depth", type=click.IntRange(min=1), default=3, show_default=True, help="How deep the tree is shown."
)
@click.option(
    "--through-transformers",
    is_flag=True,
    help="Learn the modules from transformers (imports torch) instead of the built-in table.",
)
@click.option(
    "--dequantize",
    is_flag=True,
    help="Describe quantised weights whole, as a config with model.dequantize loads them.",
)
@options.color
@options.quiet
def command(
    checkpoint: str,
    *,
    output: str | None,
    depth: int,
    through_transformers: bool,
    dequantize: bool,
    color: str,
    quiet: bool,
) -> int:
    """Show what CHECKPOINT is made of.

    A folder or file of safetensors, a hub id in the local cache, or a manifest.

    Reads headers only, never weights.
    """
    inventory = inspect(checkpoint, through_transformers=through_transformers, dequantize=dequantize)
    if output is not None:
        size = write_manifest(inventory, Path(output))
        if not quiet:
            click.echo(f"wrote {escaped(output)} ({size:,} bytes)", err=True)
        return 0
    click.echo(
        render_inventory(inventory, depth=depth, width=width(), color=use_color(color)), nl=False, color=True
    )
    return 0
