"""What a simulated pass took of each device, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.size import format_bytes

if TYPE_CHECKING:
    from devmap.simulate.fake import SimulatedUse, Simulation

__all__ = ["render_simulation"]

_HEAD = ("device", "weights", "slots", "activations", "peak", "limit", "")


def render_simulation(simulation: Simulation, *, width: int = 100) -> str:
    """Return a row per device; the last column says where the limit is passed, and by how much."""
    rows = [_HEAD, *(_row(use) for use in simulation.devices.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "  ".join(
            f"{cell:>{size}}" if at else f"{cell:<{size}}"
            for at, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    verdict = (
        "one pass fits on every device"
        if simulation.fits
        else "a device runs out of memory: see the last column"
    )
    return "\n".join(line.rstrip()[:width] for line in lines) + f"\n{verdict}\n"


def _row(use: SimulatedUse) -> tuple[str, ...]:
    limit = "none" if use.capacity_bytes is None else format_bytes(use.capacity_bytes)
    over = (
        ""
        if use.fits or use.capacity_bytes is None
        else f"{format_bytes(use.peak_bytes - use.capacity_bytes)} too much"
    )
    figures = (use.weight_bytes, use.slot_bytes, use.activation_bytes, use.peak_bytes)
    return (str(use.device), *(format_bytes(figure) for figure in figures), limit, over)
