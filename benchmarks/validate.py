"""`devmap validate` against check-jsonschema with our schema, in one run.

Time of whole processes, growth, peak memory.

python benchmarks/validate.py            # about half a minute (the same as --quick)
python benchmarks/validate.py --full     # more runs: about three minutes

Two rows a comparison: processor time, user and system and of all processes, which is much the same on a busy
machine; and the wall clock, which is what a user waits for. For one config the two are the same thing but for
the machine's load, and processor time is held to the goal. A thousand are shared by as many processes as
there are cores, so there the wall clock is. The two commands take turns, both with byte code on disk as after
an installation. check-jsonschema looks at shapes alone; devmap resolves each config and runs every rule on
it. Peak memory is that of all processes together (Linux: their proportional set sizes, looked at every 20
ms), elsewhere that of the largest.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "llama-3-70b.2x4090.devmap.yaml"
MANIFEST = ROOT / "examples" / "llama-3-70b.manifest.yaml"
SCHEMA = ROOT / "schema" / "devmap.schema.json"
LINES = 85
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Run:
    """One process."""

    seconds: float
    """Of a processor, user and system."""
    wall_seconds: float
    peak_bytes: int


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="devmap validate against check-jsonschema.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="few runs (the default)")
    length.add_argument("--full", action="store_true", help="more runs")
    full = parser.parse_args().full
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch-devmap", "check-jsonschema")
    )
    now = dt.datetime.now(tz=dt.UTC)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    print(f"validate benchmark, {'full' if full else 'quick'}, {now:%Y-%m-%d %H:%M} UTC")
    print(
        f"{os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}, {platform.machine()}; "
        f"Python {platform.python_version()}, {versions}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(MANIFEST, folder)
        _print_table(folder, singles=31 if full else 9, pairs=5 if full else 1, fours=3 if full else 1)
    return 0


def _print_table(folder: Path, *, singles: int, pairs: int, fours: int) -> None:
    shutil.copy(EXAMPLE, folder)
    _alternate([EXAMPLE.name], folder, 1)  # files into the page cache, byte code onto the disk
    ours, peers = _alternate([EXAMPLE.name], folder, singles)
    print(f"\n{'what':<58} {'devmap':>10} {'check-js.':>10} {'ratio':>8}  goal")
    what = f"one config against a 70B manifest ({singles} runs)"
    _print_row(f"{what}, processor", _seconds(ours), _seconds(peers), 0.8)
    _print_row(f"{what}, wall", _wall_seconds(ours), _wall_seconds(peers))
    for number in range(4_000):
        (folder / f"{number:04}.devmap.yaml").write_text(config(number), encoding="utf-8")
    thousand = [f"{number:04}.devmap.yaml" for number in range(1_000)]
    ours, peers = _alternate(thousand, folder, pairs)
    all_of_them = [f"{number:04}.devmap.yaml" for number in range(4_000)]
    grown = []
    for _ in range(fours):  # between runs of a thousand, for the growth
        grown.append(_run(_devmap(all_of_them), folder))
        ours.append(_run(_devmap(thousand), folder))
    what = f"1,000 configs of {LINES} lines ({pairs} run{'s' if pairs > 1 else ''})"
    _print_row(f"{what}, processor", _seconds(ours), _seconds(peers))
    _print_row(f"{what}, wall", _wall_seconds(ours), _wall_seconds(peers), 0.2)
    growth = _seconds(grown) / _seconds(ours) / 4
    print(
        f"{'4,000 configs, over 4 times that of 1,000, processor':<58} {_seconds(grown):>8.2f} s {'':>10} "
        f"{growth:>8.2f}"
        f"  at most 1.10{_verdict(met=growth <= 1.1)}"
    )
    peak, limit = _peak(ours), _peak(peers) + 50 * MEGABYTE
    above = (peak - _peak(peers)) / MEGABYTE
    what = "peak memory with 1,000 configs, all processes"
    print(
        f"{what:<58} {peak / MEGABYTE:>7.1f} MB {_peak(peers) / MEGABYTE:>7.1f} MB {above:>+5.1f} MB"
        f"  at most +50 MB{_verdict(met=peak <= limit)}"
    )
    print(f"{'peak memory with 4,000 configs, all processes':<58} {_peak(grown) / MEGABYTE:>7.1f} MB")


def config(number: int) -> str:
    """A config of 85 lines that is right: each of 70 layers in a line.

    Where the devices part depends on the number.
    """
    part = 38 + number % 4
    layers = [f"  model.layers.{layer}: {int(layer >= part)}" for layer in range(70)]
    lines = [
        f"# Llama-3-70B on the machine that team {number} has",
        "version: 1",
        "model:",
        f"  manifest: {MANIFEST.name}",
        "  dtype: bfloat16",
        "device_map:",
        "  model.embed_tokens: 0",
        *layers,
        "  model.layers[70-79]: 1",
        "  model.norm: 1",
        "  model.rotary_emb: 1",
        "  lm_head: 1",
        "max_memory:",
        f"  0: {78_000 + number} MB",
        f"  1: {79_000 + number} MB",
        "headroom: 2%",
    ]
    assert len(lines) == LINES, len(lines)
    return "\n".join(lines) + "\n"


def _devmap(names: list[str]) -> list[str]:
    return [str(Path(sys.executable).with_name("devmap")), "validate", *names]


def _check_jsonschema(names: list[str]) -> list[str]:
    return [str(Path(sys.executable).with_name("check-jsonschema")), "--schemafile", str(SCHEMA), *names]


def _alternate(names: list[str], folder: Path, count: int) -> tuple[list[Run], list[Run]]:
    """Runs of devmap and of check-jsonschema by turns."""
    ours, peers = [], []
    for _ in range(count):
        ours.append(_run(_devmap(names), folder))
        peers.append(_run(_check_jsonschema(names), folder))
    return ours, peers


def _run(command: list[str], folder: Path) -> Run:
    """Run a command that must find nothing wrong, and measure it with the system's own accounts."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONDONTWRITEBYTECODE", "DEVMAP_JOBS"}
    }
    with tempfile.TemporaryFile() as shown:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=shown, stderr=subprocess.STDOUT, env=environment
        )
        sampled: list[int] = []
        watch = threading.Thread(target=_watch, args=(process.pid, sampled))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.join()
        if process.returncode:
            shown.seek(0)
            raise SystemExit(
                f"{command[0]} ended with {process.returncode}:\n{shown.read().decode()[-2_000:]}"
            )
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(usage.ru_utime + usage.ru_stime, wall_seconds, max(usage.ru_maxrss * unit, *sampled, 0))


def _watch(process: int, sampled: list[int]) -> None:
    """Add up the memory of a process and its children until it ends; pages that they share count once."""
    while True:
        try:
            children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
        except OSError:
            return
        sampled.append(sum(_proportional_bytes(member) for member in (str(process), *children)))
        time.sleep(0.02)


def _proportional_bytes(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0  # it has ended
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _seconds(runs: list[Run]) -> float:
    return median(run.seconds for run in runs)


def _wall_seconds(runs: list[Run]) -> float:
    return median(run.wall_seconds for run in runs)


def _peak(runs: list[Run]) -> int:
    return max(run.peak_bytes for run in runs)


def _print_row(what: str, ours: float, peers: float, goal: float | None = None) -> None:
    ratio = ours / peers
    aim = "" if goal is None else f"  at most {goal}{_verdict(met=ratio <= goal)}"
    print(f"{what:<58} {ours:>8.3f} s {peers:>8.3f} s {ratio:>8.2f}{aim}")


def _verdict(*, met: bool) -> str:
    return "" if met else "  MISSED"


if __name__ == "__main__":
    raise SystemExit(main())
