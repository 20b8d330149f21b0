"""`devmap run`: load a model by its config, run it, print counters."""

from __future__ import annotations

import click

from devmap.cli import options
from devmap.cli.completion import complete_configs

__all__ = ["command"]


@click.command("run")
@click.argument("config", shell_complete=complete_configs)
@click.option(
    "--simulated",
    is_flag=True,
    help="Simulate the plan's accelerators on this machine: real numbers, unreal speed.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences in a pass."
)
@click.option(
    "--tokens", type=click.IntRange(min=1), default=8, show_default=True, help="Tokens in a sequence."
)
@click.option(
    "--passes",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Forward passes; the first records the order of blocks.",
)
@click.option("--no-lock", is_flag=True, help="Plan again and ignore the lock beside CONFIG.")
@options.profile
@options.overrides
@options.allow_code
@options.quiet
def command(
    config: str,
    *,
    simulated: bool,
    batch_size: int,
    tokens: int,
    passes: int,
    no_lock: bool,
    profile: str | None,
    overrides: tuple[str, ...],
    allow_code: bool,
    quiet: bool,
) -> int:
    """Load the model of CONFIG by its plan, run forward passes over made-up input.

    And print what moved and how long it took.

    The plan is that of the lock beside CONFIG, if there is one. A lock that is stale, edited or of another
    model is an error. For a config with nodes this is one rank: torchrun starts them, and
    `devmap plan CONFIG --torchrun` prints how.
    """
    # Imports torch, which `devmap run --help` does not need.
    from devmap.api.models.running import run  # noqa: PLC0415
    from devmap.report.run import render_run  # noqa: PLC0415 - shows what the line above returns

    result = run(
        config,
        profile=profile,
        overrides=overrides,
        use_lock=not no_lock,
        simulated=simulated,
        batch_size=batch_size,
        tokens=tokens,
        passes=passes,
        allow_code=allow_code,
        progress=False if quiet else None,
    )
    if result.rank == 0:  # the others would say the same
        click.echo(render_run(result), nl=False)
    return 0
