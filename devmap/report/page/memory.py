"""The bytes that a simulated pass holds on each device, module after module, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.size import format_bytes
from devmap.report.page.frame import text
from devmap.report.plan_bars import device_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.plan.model import Plan
    from devmap.simulate.fake import SimulatedUse, Simulation

__all__ = ["memory_lanes"]

_WIDTH, _HEIGHT = 1000, 100
_MOST_POINTS = 1000


def memory_lanes(simulation: Simulation, plan: Plan) -> Iterator[str]:
    """Yield a curve for each device that computes: what stays at the bottom, activations on it, its limit."""
    for use in simulation.devices.values():
        curve = simulation.activation_curves.get(use.device, ())
        if not curve:
            continue
        yield _lane(use, curve, device_name(use.device, plan))
    if simulation.modules:
        first, last = simulation.modules[0], simulation.modules[-1]
        yield (
            f'<div class="lane"><span></span><div class="axis"><span class="path">{text(first)}</span>'
            f'<span class="path">{text(last)}</span></div></div>'
        )


def _lane(use: SimulatedUse, curve: Sequence[int], name: str) -> str:
    held = use.weight_bytes + use.slot_bytes
    top = max(use.peak_bytes, use.capacity_bytes or 0) or 1

    def height(nbytes: int) -> float:
        return _HEIGHT - nbytes / top * _HEIGHT

    peaks = _thinned(curve)
    step = _WIDTH / len(peaks)
    outline = " ".join(
        f"{at * step:.1f},{height(held + peak):.2f} {(at + 1) * step:.1f},{height(held + peak):.2f}"
        for at, peak in enumerate(peaks)
    )
    limit = ""
    if use.capacity_bytes is not None:
        limit = (
            f'<line class="limit" x1="0" x2="{_WIDTH}" y1="{height(use.capacity_bytes):.2f}" '
            f'y2="{height(use.capacity_bytes):.2f}"/>'
        )
    figures = f"{format_bytes(use.peak_bytes)} at most" + (
        f", of {format_bytes(use.capacity_bytes)}" if use.capacity_bytes is not None else ""
    )
    return (
        f'<div class="lane tall"><span>{text(name)} <span class="soft share">{figures}; '
        f"{format_bytes(held)} of weights and slots</span></span>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(name)}: {figures}">'
        f'<polygon class="area-activations" points="0,{_HEIGHT} {outline} {_WIDTH},{_HEIGHT}"/>'
        f'<rect class="area-held" x="0" width="{_WIDTH}" y="{height(held):.2f}" '
        f'height="{_HEIGHT - height(held):.2f}"/>'
        f"{limit}</svg></div>"
    )


def _thinned(curve: Sequence[int]) -> list[int]:
    """At most 1,000 points, each the largest of those it stands for: a peak is never lost."""
    share = -(-len(curve) // _MOST_POINTS)
    return [max(curve[at : at + share]) for at in range(0, len(curve), share)]
