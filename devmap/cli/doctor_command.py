"""`devmap doctor`: this machine, measured."""

from __future__ import annotations

from pathlib import Path

import click

from devmap.cli import options
from devmap.cli.files import write_text
from devmap.cli.terminal import wrapped

__all__ = ["command"]


@click.command("doctor")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    show_default=True,
    help="The folder whose disk is measured.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1, max=60),
    default=2.0,
    show_default=True,
    help="Time for each measurement.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    help="Write the machine profile there; a config names it with machine: FILE.",
)
@options.quiet
def command(folder: str, *, seconds: float, output: str | None, quiet: bool) -> int:
    """Measure this machine's devices (memory, floating-point rate, copies) and the disk.

    And print them as a machine profile.

    Takes some seconds. What was done goes to standard error, the profile to standard output or --output.
    """
    # Imports torch, which `--help` does not need.
    from devmap.api.measuring import machine_text, measure  # noqa: PLC0415

    measured = measure(Path(folder), seconds=seconds)
    if not quiet:
        for sentence in measured.sentences:
            click.echo(wrapped(sentence, hanging=2, error=True), err=True)
    text = machine_text(measured.profile)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(Path(output), text)
    return 0
