"""What a loaded model counted, for a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.duration import format_duration
from devmap.config.values.size import format_bytes
from devmap.config.values.words import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devmap.api.models.running import DeviceLedger, Run
    from devmap.runtime.streaming.counters import Stats

__all__ = ["render_ledgers", "render_run", "render_stats"]


def render_run(run: Run) -> str:
    """Return where the plan came from, loading, each pass, what moved, and what simulated devices held."""
    passes = ", ".join(format_duration(seconds) for seconds in run.pass_seconds)
    lines = [
        *_origin(run),
        (
            f"loaded in {format_duration(run.load_seconds)}; passes took "
            f"{passes}; output {list(run.output_shape)}"
        ),
    ]
    return (
        "\n".join(lines)
        + "\n"
        + (_render_ranks(run) or render_stats(run.stats) + render_ledgers(run.ledgers))
    )


def _render_ranks(run: Run) -> str:
    """Return a line a rank of a run over several nodes; empty on one machine."""
    return "".join(
        f"rank {rank.rank}:    {rank.device} on {escaped(rank.host)}: {format_bytes(rank.held_bytes)} of "
        f"weights, {format_bytes(rank.streamed_bytes)} of them streamed; "
        f"{format_bytes(rank.sent_bytes)} sent to other ranks\n"
        for rank in run.ranks
    )


def _origin(run: Run) -> Iterator[str]:
    if run.lock is not None:
        yield f"plan:      the lock's, {escaped(str(run.lock))}"
    elif run.lock_passed_over is not None:
        passed_over = escaped(str(run.lock_passed_over))
        yield f"plan:      made anew; what was set for this run differs from {passed_over}"


def render_stats(stats: Stats) -> str:
    """Return the counters of a model, a line each for what stays, what streams and what waited."""
    return "\n".join(_stats_lines(stats)) + "\n"


def render_ledgers(ledgers: Mapping[str, DeviceLedger]) -> str:
    """Return what simulated devices held against their budgets, a line each; empty for none."""
    return "".join(
        f"{name}: {format_bytes(ledger.held_peak_bytes)} of {format_bytes(ledger.budget_bytes)} held at "
        f"most (weights and slots), "
        f"{format_bytes(ledger.transient_peak_bytes)} of activations beside them\n"
        for name, ledger in ledgers.items()
    )


def _stats_lines(stats: Stats) -> Iterator[str]:
    yield f"stay:      {_by_device(stats.resident_bytes)}"
    if not stats.streamed_home_bytes:
        yield "streamed:  nothing"
        return
    ways = [f"slots of {_by_device(stats.slot_bytes)}"] if stats.slot_bytes else []
    ways += [f"host slots of {format_bytes(stats.host_slot_bytes)}"] if stats.host_slot_bytes else []
    ways += [f"mapped pages of up to {format_bytes(stats.mapped_bytes)}"] if stats.mapped_bytes else []
    yield f"streamed:  from {_by_device(stats.streamed_home_bytes)}, into {', '.join(ways) or 'nothing yet'}"
    files = f", {format_bytes(stats.file_bytes)} read from files" if stats.file_bytes else ""
    disk = (
        f", of which disks gave {format_bytes(stats.disk_bytes)}"
        if files and stats.disk_bytes is not None
        else ""
    )
    yield f"moved:     {format_bytes(stats.streamed_bytes)} in {stats.passes} passes{files}{disk}"
    waited = (
        f"{stats.stalls} calls waited {format_duration(stats.stall_seconds)}{_causes(stats)}"
        if stats.stalls
        else "no call waited"
    )
    yield f"prefetch:  {stats.hits:,} blocks were there or on the way, {stats.misses:,} were not; {waited}"
    if stats.order_misses:
        yield f"order:     {stats.order_misses:,} calls came in another order than recorded"
    if stats.bound_seconds is not None and stats.last_pass_seconds is not None:
        ratio = stats.last_pass_seconds / stats.bound_seconds if stats.bound_seconds else float("inf")
        bound, last = format_duration(stats.bound_seconds), format_duration(stats.last_pass_seconds)
        yield f"bound:     {bound} a pass; the last took {last} ({ratio:.2f}x)"


_CAUSES = {"disk": "for reads", "host": "for copies into pinned memory", "copy": "for copies to a device"}


def _causes(stats: Stats) -> str:
    found = [
        f"{format_duration(seconds)} {_CAUSES[cause]}"
        for cause, seconds in stats.stall_seconds_by_cause.items()
        if seconds > 0
    ]
    return f" ({', '.join(found)})" if found else ""


def _by_device(figures: Mapping[int | str, int]) -> str:
    return (
        ", ".join(f"{format_bytes(nbytes)} on {device_name(device)}" for device, nbytes in figures.items())
        or "nothing"
    )
