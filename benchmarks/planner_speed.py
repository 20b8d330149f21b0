"""How long planners take, and how that grows."""

from __future__ import annotations

import dataclasses
import gc
import math
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import accelerate.utils as accelerate_planner
from planner_models import expert_tree
from planner_optimum import total_bytes
from planner_peers import PLANNERS, bounded

import devmap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from planner_peers import Planner
    from torch import nn

__all__ = ["checking", "planning", "whole_process"]

_CONFIG = Path(__file__).parent.parent / "examples" / "llama-3-70b.2xa100.devmap.yaml"
_DEVICES = 16


def _median(call: Callable[[], object], runs: int, bound: float = 600) -> float | None:
    """The median of the CPU seconds of so many calls.

    None when one took longer than `bound` seconds on the wall.
    """
    found = []
    for _ in range(runs):
        gc.collect()
        gc.freeze()  # what the benchmark itself holds is nobody's garbage to look through
        start = time.process_time()
        try:
            with bounded(bound):
                call()
        except TimeoutError:
            return None
        finally:
            gc.unfreeze()
        found.append(time.process_time() - start)
    return statistics.median(found)


def _cell(seconds: float | None) -> str:
    return "not ended" if seconds is None else f"{seconds:.3f}"


def planning(*, runs: int, scales: tuple[int, ...], peer_scales: tuple[int, ...], bound: float) -> None:
    """Print the seconds that a balanced plan takes for a model with one module per expert.

    Experts splittable.
    """
    print(
        f"\n(d) CPU seconds for a balanced plan, one module per expert, no class kept whole, {_DEVICES} "
        f"devices"
    )
    print(
        f"    devmap: medians of {runs} runs of resolve, and of reading the inventory from the nn.Module; "
        f"peers: one run, stopped"
    )
    print(
        f"    after {bound:g} s; the ratios are accelerate's seconds over devmap's, without and with reading"
    )
    header = ("resolve", "reading", "accelerate", "transformers", "ratio", "with reading")
    print(f"{'size':>5}{'tensors':>9}" + "".join(f"{column:>{len(column) + 4}}" for column in header))
    resolving: dict[int, float | None] = {}
    reading: dict[int, float | None] = {}
    for scale in scales:
        model = expert_tree(61 * scale)
        inventory = devmap.Inventory.from_module(model)
        budgets: dict[int | str, int] = dict.fromkeys(range(_DEVICES), total_bytes(model))
        calls = {
            name: partial(_plan, planner, model, inventory, budgets) for name, planner in PLANNERS.items()
        }
        resolving[scale] = _median(calls["devmap"], runs)
        reading[scale] = _median(partial(devmap.Inventory.from_module, model), runs)
        ours = (resolving[scale] or 0) + (reading[scale] or 0)
        if scale in peer_scales:
            peer = _median(calls["accelerate"], 1, bound)
            other = _median(calls["transformers"], 1, bound)
            cells = [
                _cell(peer),
                _cell(other),
                _ratio(peer, bound, resolving[scale]),
                _ratio(peer, bound, ours),
            ]
        else:
            cells = ["not run", "not run", "", ""]
        row = [_cell(resolving[scale]), _cell(reading[scale]), *cells]
        print(
            f"{scale:>4}x{len(inventory.tensors):>9,}"
            + "".join(f"{cell:>{len(column) + 4}}" for cell, column in zip(row, header, strict=True)),
            flush=True,
        )
    _print_growth("resolve", list(resolving.items()))
    _print_growth("reading", list(reading.items()))


def _plan(
    planner: Planner, model: nn.Module, inventory: devmap.Inventory, budgets: dict[int | str, int]
) -> object:
    """A balanced plan from an inventory that remembers nothing of the run before."""
    return planner(model, dataclasses.replace(inventory), budgets, [], "balanced")


def _ratio(peer: float | None, bound: float, ours: float | None) -> str:
    assert ours is not None
    return f"over {bound / ours:.0f}" if peer is None else f"{peer / ours:.1f}"


def checking(*, runs: int, scales: tuple[float, ...], whole_peer: bool) -> None:
    """Print the seconds that `check_device_map` takes for a map with a key for every tensor's module."""
    print("\n(e) CPU seconds of check_device_map, a map with one key a leaf")
    print(f"    devmap: median of {runs} runs, from the nn.Module; accelerate: one run")
    print(
        f"{'size':>7}{'tensors':>9}{'devmap':>10}{'devmap, inventory read':>24}{'accelerate':>12}{'ratio':>8}"
    )
    ours: dict[float, float | None] = {}
    theirs: dict[float, float | None] = {}
    peer_scales = (0.125, 0.25, 1.0) if whole_peer else (0.125, 0.25)
    for scale in sorted({*peer_scales, *scales}):
        model = expert_tree(round(31 * scale))
        device_map = {name.removesuffix(".weight"): at % 2 for at, name in enumerate(model.state_dict())}
        inventory = devmap.Inventory.from_module(model)
        # Called at once.
        ours[scale] = _median(lambda: devmap.check_device_map(model, device_map), runs)  # noqa: B023
        # As above.
        read = _median(lambda: devmap.check_device_map(dataclasses.replace(inventory), device_map), runs)  # noqa: B023
        if scale in peer_scales:
            # As above.
            theirs[scale] = _median(lambda: accelerate_planner.check_device_map(model, device_map), 1)  # noqa: B023
        mine, peer = ours[scale], theirs.get(scale)
        assert mine is not None
        cell = "not run" if scale not in peer_scales else _cell(peer)
        ratio = "" if peer is None else f"{peer / mine:.0f}"
        print(f"{scale:>6g}x{len(device_map):>9,}{_cell(mine):>10}{_cell(read):>24}{cell:>12}{ratio:>8}")
    _print_growth("devmap", [(scale, ours[scale]) for scale in scales])
    small, large = theirs[0.125], theirs[0.25]
    if small and large and not whole_peer:
        exponent = math.log2(large / small)
        guess = large * 4**exponent
        mine = ours[1.0]
        assert mine is not None
        print(f"    EXTRAPOLATED, not measured: accelerate grows by n^{exponent:.2f} from 1/8x to 1/4x, "
              f"which makes {guess:.0f} s at 1x, "
              f"{guess / mine:.0f} times devmap's (--full measures it)")  # fmt: skip


def whole_process(*, runs: int) -> None:
    """Print the seconds of `devmap resolve` as a process against an import of torch, in alternation."""
    commands = {
        "devmap resolve": [str(Path(sys.executable).parent / "devmap"), "resolve", str(_CONFIG)],
        "import torch": [sys.executable, "-c", "import torch"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    wall: dict[str, list[float]] = {name: [] for name in commands}
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if turn:  # the first turn warms the file cache
                wall[name].append(seconds)
                cpu[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(
        f"\n(f) Whole process, {_CONFIG.name} from its manifest, median (least) of {runs} alternating "
        f"runs after one to warm up"
    )
    print(f"{'':16}{'wall s':>18}{'cpu s':>18}")
    for name in commands:
        cells = [
            f"{statistics.median(figures[name]):.3f} ({min(figures[name]):.3f})" for figures in (wall, cpu)
        ]
        print(f"{name:16}" + "".join(f"{cell:>18}" for cell in cells))
    for label, figures in (("wall", wall), ("cpu", cpu)):
        share = statistics.median(figures["devmap resolve"]) / statistics.median(figures["import torch"])
        print(f"    devmap resolve / import torch, {label}: {share:.2f}")


def _print_growth(name: str, points: Sequence[tuple[float, float | None]]) -> None:
    first, last = points[0], points[-1]
    if first[1] and last[1] and last[0] > first[0]:
        exponent = math.log(last[1] / first[1]) / math.log(last[0] / first[0])
        print(f"    {name}: grows by n^{exponent:.2f} from {first[0]:g}x to {last[0]:g}x")
