"""`devmap simulate`: the plan over fake tensors."""

from __future__ import annotations

import click

from devmap.cli import options
from devmap.cli.completion import complete_configs
from devmap.cli.files import write_page
from devmap.cli.terminal import width

__all__ = ["command"]


@click.command("simulate")
@click.argument("config", shell_complete=complete_configs)
@click.option("--devices", metavar="NxSIZE", help="Accelerators in place of those of the config: 4x24GiB.")
@click.option(
    "--model-config",
    type=click.Path(exists=True),
    help="A config.json to build the model from, where the checkpoint is not here.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences in the pass."
)
@click.option(
    "--tokens", type=click.IntRange(min=1), default=2048, show_default=True, help="Tokens in a sequence."
)
@options.html
@options.profile
@options.overrides
@options.allow_code
def command(
    config: str,
    *,
    devices: str | None,
    model_config: str | None,
    batch_size: int,
    tokens: int,
    html: str | None,
    profile: str | None,
    overrides: tuple[str, ...],
    allow_code: bool,
) -> int:
    """Run the plan of CONFIG over fake tensors and show the peak bytes of each device.

    Weights, slots, activations, KV cache.

    Needs neither weights nor accelerators. With --html also the page of `devmap plan --html`, with the
    memory of each device from module to module. Exit status 1 when a device would run out of memory.
    """
    # Imports torch, which `devmap simulate --help` does not need.
    from devmap.api.simulation import simulated_overview  # noqa: PLC0415

    # Shows what the line above returns.
    from devmap.report.simulation import render_simulation  # noqa: PLC0415

    found = simulated_overview(
        config,
        devices=devices,
        model_config=model_config,
        profile=profile,
        overrides=overrides,
        batch_size=batch_size,
        sequence_length=tokens,
        allow_code=allow_code,
    )
    if html is not None:
        from devmap.report.page.plan_page import render_plan_page  # noqa: PLC0415 - only for a page

        write_page(html, render_plan_page(found.shown, found.simulation))
    if html != "-":
        click.echo(render_simulation(found.simulation, width=width()), nl=False)
    return 0 if found.simulation.fits else 1
