"""Loading into memory, dispatching many parameters, and hooks.

Devmap beside Accelerate and raw reads, in one run.

Usage: python benchmarks/loading.py [--quick | --full] [--repeat N]
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import accelerate
import torch
import transformers
from checkpoints import LARGE, SMALL, Size, drop_from_cache, files_of, llama
from streaming import disk_bytes_read, head, read_raw, row, seconds
from torch import nn

from devmap.config.values.device import parse_device
from devmap.inventory.atoms import atoms
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.plan.model import Placement, Plan
from devmap.runtime.dispatch import dispatch, load_model
from devmap.runtime.meta_build import build_on_meta
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

    from devmap.inventory.model import Inventory

    Rule = Callable[[str], tuple[Any, Any]]


def plan_of(inventory: Inventory, rule: Rule) -> Plan:
    """A plan by a rule that gives each atom's home and executing device."""
    placements = []
    for atom in atoms(inventory):
        home, executes = rule(atom.path)
        placements.append(Placement(atom.path, parse_device(home), parse_device(executes), atom.nbytes))
    return Plan({}, tuple(placements), (), "manual")


def load(folder: Path, device: int | str, *, dtype: str | None = None) -> Any:
    """The whole checkpoint on one device, converted where a dtype is given."""
    model = build_on_meta(folder)
    inventory = match_checkpoint(read_module(model), read_headers(folder), model)
    return load_model(
        model, dataclasses.replace(plan_of(inventory, lambda _: (device, device)), dtype=dtype), inventory
    )


def simulated(folder: Path) -> None:
    """To a simulated device: memory that is poisoned first, then copied to."""
    with simulated_devices({0: "8GB"}):
        load(folder, 0)


def loading(size: Size, *, rounds: int) -> None:
    """Cold, until every byte is in memory: devmap maps it for the cpu.

    The peer, which maps without reading, then copies.
    """
    folder = llama(size)
    total = sum(path.stat().st_size for path in files_of(folder))
    found: dict[str, list[float]] = {}
    read = []
    calls: dict[str, Callable[[], object]] = {
        "4 raw readers, into one buffer each": lambda: read_raw(folder),
        "devmap, to the cpu": lambda: load(folder, "cpu"),
        "devmap, to the cpu as bfloat16 in memory of its own": lambda: load(folder, "cpu", dtype="bfloat16"),
        "devmap, to a simulated device": lambda: simulated(folder),
        "Transformers, to memory of its own": lambda: copied(folder),
    }
    for _ in range(rounds):
        for name, call in calls.items():
            gc.collect()
            drop_from_cache(folder)
            before = disk_bytes_read()
            found.setdefault(name, []).append(seconds(call))
            if name == "devmap, to the cpu":
                read.append(disk_bytes_read() - before)
    raw = found["4 raw readers, into one buffer each"]
    head(f"load {size.name} cold", "median s", "GB/s", "rate over raw readers (of the best rounds)")
    for name, times in found.items():
        ratio = statistics.median(theirs / mine for mine, theirs in zip(times, raw, strict=True))
        rate = total / statistics.median(times) / 1e9
        row(
            name,
            f"{statistics.median(times):.2f}",
            f"{rate:.2f}",
            f"{ratio:.2f} ({min(raw) / min(times):.2f})",
        )
    print(
        f"\ndevmap read {statistics.median(read) / total:.2f} of the files' bytes from the disk; raw "
        f"{min(raw):.2f} to {max(raw):.2f} s"
    )


def copied(folder: Path) -> Any:
    """from_pretrained, with weights that are no views of the files."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


class Tiny(nn.Module):
    """Two parameters and an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift."""
        return x * self.weight + self.bias


def tree(leaves: int, *, width: int = 90) -> nn.Module:
    """Leaves in blocks of `width`."""
    return nn.Sequential(*(nn.Sequential(*(Tiny() for _ in range(width))) for _ in range(leaves // width)))


def dispatching(leaves: int, *, rounds: int) -> None:
    """A module tree with very many parameters, to the cpu: what hooks and tables cost."""
    found: dict[str, list[float]] = {
        "devmap": [],
        "Accelerate, 100 entries": [],
        "Accelerate, an entry a module": [],
    }
    for _ in range(rounds):
        model = tree(leaves)
        plan = plan_of(read_module(model), lambda _: ("cpu", "cpu"))
        found["devmap"].append(seconds(lambda model=model, plan=plan: dispatch(model, plan)))
        by_block = dict.fromkeys(map(str, range(leaves // 90)), "cpu")
        by_leaf = {path: "cpu" for path, module in tree(leaves).named_modules() if isinstance(module, Tiny)}
        for name, device_map in (
            ("Accelerate, 100 entries", by_block),
            ("Accelerate, an entry a module", by_leaf),
        ):
            model = tree(leaves)
            found[name].append(seconds(lambda model=model, chosen=device_map: hooked(model, chosen)))
    head(f"dispatch of {2 * leaves:,} parameters", "median s", "over devmap (of the best rounds)")
    for name, times in found.items():
        ratio = statistics.median(theirs / mine for mine, theirs in zip(found["devmap"], times, strict=True))
        row(name, f"{statistics.median(times):.3f}", f"{ratio:.1f} ({min(times) / min(found['devmap']):.1f})")


def hooked(model: nn.Module, device_map: dict[str, str]) -> None:
    """Accelerate's dispatch on the cpu, with the hooks that it puts on where there are several devices."""
    accelerate.dispatch_model(model, device_map, main_device="cpu", force_hooks=True)


def hooking(leaves: int, *, rounds: int) -> None:
    """Very many tiny modules with one change of device.

    Forward against the same net without hooks on one device.
    """
    with simulated_devices({0: "1GB", 1: "1GB"}), torch.no_grad():
        plain = tree(leaves).to("sim:0")
        ours = tree(leaves)
        half = len(ours) // 2  # type: ignore[arg-type]  # a Sequential
        inventory = read_module(ours)
        dispatch(ours, plan_of(inventory, lambda path: (0, 0) if int(path.split(".")[0]) < half else (1, 1)))
        x = torch.ones(4, device="sim:0")
        simulated = alternate({"no hooks": lambda: plain(x), "devmap": lambda: ours(x)}, rounds)
    plain, peer = tree(leaves), tree(leaves)
    hooked(peer, dict.fromkeys(map(str, range(leaves // 90)), "cpu"))
    y = torch.ones(4)
    with torch.no_grad():
        on_cpu = alternate({"no hooks": lambda: plain(y), "Accelerate": lambda: peer(y)}, rounds)
    head(f"forward of {leaves:,} tiny modules", "median ms", "over no hooks (of the best rounds)")
    for name, found, key in (
        ("devmap, one device change (simulated devices)", simulated, "devmap"),
        ("Accelerate, all on the cpu", on_cpu, "Accelerate"),
    ):
        ratio = statistics.median(a / b for a, b in zip(found[key], found["no hooks"], strict=True))
        row(
            name,
            f"{statistics.median(found[key]) * 1e3:.1f}",
            f"{ratio:.2f} ({min(found[key]) / min(found['no hooks']):.2f})",
        )


def alternate(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, taking turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(3 * rounds):
        for name, call in calls.items():
            found[name].append(seconds(call))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run what was asked and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="0.1 GB and 1,800 parameters: a try-out")
    kind.add_argument("--full", action="store_true", help="2.2 GB and 18,000 parameters (default)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    print(
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, 1 kernel thread, load "
        f"{os.getloadavg()[0]:.1f}, "
        f"{platform.system()} {platform.release()}, torch {torch.__version__}, accelerate "
        f"{accelerate.__version__}, "
        f"transformers {transformers.__version__}"
    )
    leaves = 900 if chosen.quick else 9000
    dispatching(leaves, rounds=chosen.repeat)
    hooking(min(leaves, 1800), rounds=chosen.repeat)
    loading(SMALL if chosen.quick else LARGE, rounds=chosen.repeat)
    print(f"\nload at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
