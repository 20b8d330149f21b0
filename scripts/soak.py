"""Soak: thousands of passes and hundreds of loads of a small streamed model; what it holds has to stay flat.

`python scripts/soak.py [--passes N] [--loads N]`, as `make soak` runs it. Asserts that outputs are right
throughout, and that resident memory, descriptors and threads end where they were after the first tenth.
Linux: it reads /proc.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from devmap.testing import simulated_devices
from tests.runtime.streamed_nets import BLOCKS, WIDTH, load_net, plain_net, save_net

TIERS: list[tuple[int | str, int | str]] = [("disk", "cpu"), ("disk", 0), ("cpu", 0)]
MOST_GROWTH_BYTES = 16 << 20
"""Far below what a slot or a file kept for each load would add up to, far above an allocator's play."""


def held() -> tuple[int, int, int]:
    """Resident bytes, open descriptors and threads of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def require_flat(what: str, before: tuple[int, int, int], *, slack: int = 0) -> None:
    """Compare what is held with what was held before."""
    memory, descriptors, threads = held()
    grown = memory - before[0]
    print(
        f"{what}: {grown / 1e6:+.1f} MB, {descriptors - before[1]:+d} "
        f"descriptors, {threads - before[2]:+d} threads",
        flush=True,
    )
    assert grown < MOST_GROWTH_BYTES, what
    assert descriptors <= before[1] + slack, what
    assert threads <= before[2] + slack, what


def passes(folder: Path, tier: tuple[int | str, int | str], count: int) -> None:
    """Passes in orders drawn at random, with and without gradients, by one thread and by two.

    And trims between.
    """
    draw, plain = random.Random(7), plain_net()
    model: Any = load_net(folder, *tier)
    x = torch.randn(3, WIDTH)
    wanted = {
        order: plain(x, order).detach()
        for order in [tuple(draw.choices(range(BLOCKS), k=5)) for _ in range(50)]
    }

    def run(order: tuple[int, ...], *, grad: bool) -> None:
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(model(x, order).cpu().detach(), wanted[order])

    before = held()
    for number in range(count):
        order = draw.choice(list(wanted))
        if number % 50 == 0:
            other = threading.Thread(target=run, args=(draw.choice(list(wanted)),), kwargs={"grad": False})
            other.start()
            run(order, grad=False)
            other.join()
        else:
            run(order, grad=number % 5 == 0)
        if number % 997 == 0:
            model.devmap.trim()
        if number == count // 10:
            before = held()
    require_flat(f"{count:,} passes, {tier[0]} -> {tier[1]}", before)
    model.devmap.remove()


def loads(folder: Path, count: int) -> None:
    """Models loaded and let go of, by `remove()` and by being forgotten."""
    x = torch.randn(3, WIDTH)
    wanted = plain_net()(x).detach()
    before = held()
    for number in range(count):
        model: Any = load_net(folder, *TIERS[number % len(TIERS)])
        with torch.no_grad():
            torch.testing.assert_close(model(x).cpu(), wanted)
        if number % 2:
            torch.testing.assert_close(model.devmap.remove()(x).detach(), wanted)
        del model
        if number == count // 10:
            before = held()
    require_flat(f"{count:,} loads, every second one removed", before)


def main() -> None:
    """Soak, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=20_000)
    parser.add_argument("--loads", type=int, default=300)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, simulated_devices({0: "1MB"}):
        folder = save_net(Path(name) / "net")
        for tier in TIERS:
            passes(folder, tier, chosen.passes // len(TIERS))
        loads(folder, chosen.loads)
    print(f"flat, and right throughout; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
