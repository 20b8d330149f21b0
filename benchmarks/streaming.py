"""Llama blocks on disk that execute on the CPU.

Devmap beside its bound, Accelerate and Transformers, in one run.

Usage: python benchmarks/streaming.py [--quick | --full] [--repeat N] [--threads N]

The bound of a pass is the larger of the same model's pass with all weights in memory, and four parallel
readers that read the same bytes. In each round all contestants take turns, so that what else the machine does
meets all of them; the tables give medians of the rounds, and ratios that are medians of the rounds' own
ratios. Cold rounds drop the files from the page cache before each turn, and the bytes that then came from the
disk are counted.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import accelerate
import torch
import transformers
from checkpoints import LARGE, MEDIUM, SMALL, Size, drop_from_cache, files_of, llama, warm_up

import devmap

if TYPE_CHECKING:
    from collections.abc import Callable

IDS = torch.arange(8).view(1, 8)
READERS = 4
REQUEST = 8 << 20


def read_raw(folder: Path) -> None:
    """Every byte of the shards through four threads with buffers of their own.

    As fast as this machine can.
    """
    parts = [(path, offset) for path in files_of(folder) for offset in range(0, path.stat().st_size, REQUEST)]
    turn = count()
    descriptors = {path: os.open(path, os.O_RDONLY) for path in files_of(folder)}

    def work() -> None:
        buffer = bytearray(REQUEST)
        while (index := next(turn)) < len(parts):
            path, offset = parts[index]
            os.preadv(descriptors[path], [buffer], offset)

    with ThreadPoolExecutor(READERS) as pool:
        for done in [pool.submit(work) for _ in range(READERS)]:
            done.result()
    for descriptor in descriptors.values():
        os.close(descriptor)


def disk_bytes_read() -> int:
    """What the disk has given to this process, read-ahead included."""
    return next(
        int(line.split()[1])
        for line in Path("/proc/self/io").read_text().splitlines()
        if line.startswith("read_bytes")
    )


def bytes_in(scratch: Path) -> int:
    """What lies in the offload folders: weights that were written a second time."""
    return sum(path.stat().st_size for path in scratch.rglob("*") if path.suffix in {".dat", ".safetensors"})


def resident_bytes() -> int:
    """This process's memory now, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The most memory of this process while it is entered, above what it was; sampled each millisecond."""

    def __enter__(self) -> Self:
        self.before_bytes = self._most = resident_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def above_bytes(self) -> int:
        """Peak less start."""
        return self._most - self.before_bytes

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self._most = max(self._most, resident_bytes())


def config(
    folder: Path,
    scratch: Path,
    *,
    host_memory: str = "4GB",
    cpu: str = "12GB",
    device_map: str = "{model.layers: disk, '': cpu}",
) -> Path:
    """A config with the blocks on disk."""
    path = scratch / f"{host_memory}-{cpu}.devmap.yaml"
    path.write_text(
        f"version: 1\nmodel: {{checkpoint: {folder}}}\ndevice_map: {device_map}\n"
        f"max_memory: {{cpu: {cpu}, disk: 100GB}}\noffload: {{folder: {scratch / 'devmap-offload'}, "
        f"host_memory: {host_memory}}}\n",
        encoding="utf-8",
    )
    return path


DEVICE_MAP = {
    "model.embed_tokens": "cpu",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
    "model.layers": "disk",
}
"""The same placement in the peers' words."""


def with_devmap(folder: Path, scratch: Path) -> Any:
    """devmap.load of the config."""
    return devmap.load(config(folder, scratch), progress=False)


def with_accelerate(folder: Path, scratch: Path) -> Any:
    """load_checkpoint_and_dispatch, as its documentation has it."""
    with accelerate.init_empty_weights():
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.from_pretrained(folder), dtype=torch.float32
        )
    return accelerate.load_checkpoint_and_dispatch(
        model,
        folder,
        device_map=DEVICE_MAP,
        offload_folder=scratch / "accelerate-offload",
        no_split_module_classes=["LlamaDecoderLayer"],
    )


def with_transformers(folder: Path, scratch: Path) -> Any:
    """from_pretrained with a device map."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, device_map=DEVICE_MAP, offload_folder=scratch / "transformers-offload", dtype=torch.float32
    )


def resident(folder: Path) -> Any:
    """All weights in memory of their own: what the same kernels take when nothing moves."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model.eval()


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@dataclass
class Rounds:
    """Seconds by contestant and round.

    Ratios are taken within a round: what else the machine does meets both sides.
    """

    turns: dict[str, list[float]] = field(default_factory=dict)
    disk: dict[str, list[int]] = field(default_factory=dict)

    def add(self, name: str, call: Callable[[], object]) -> None:
        """One turn."""
        before = disk_bytes_read()
        self.turns.setdefault(name, []).append(seconds(call))
        self.disk.setdefault(name, []).append(disk_bytes_read() - before)

    def median(self, name: str) -> float:
        """Over the rounds."""
        return statistics.median(self.turns[name])

    def bound(self) -> list[float]:
        """Of each round: the larger of compute and reading."""
        return [max(both) for both in zip(self.turns["resident"], self.turns["raw read"], strict=True)]

    def over(self, name: str, other: list[float]) -> str:
        """The median of the rounds' ratios, and the ratio of the two shortest rounds.

        It the least noise is in.
        """
        ratios = [mine / theirs for mine, theirs in zip(self.turns[name], other, strict=True)]
        return f"{statistics.median(ratios):.2f} ({min(self.turns[name]) / min(other):.2f})"

    def spread(self) -> str:
        """How noisy the rounds were."""
        return ", ".join(
            f"{name} {min(values):.2f} to {max(values):.2f} s" for name, values in self.turns.items()
        )


def play(folder: Path, contestants: dict[str, Any], plain: Any, *, rounds: int, cold: bool) -> Rounds:
    """All take turns, `rounds` times."""
    found = Rounds()

    def prepare() -> None:
        for model in contestants.values():
            if hasattr(model, "devmap"):
                model.devmap.trim()  # mapped pages would stay
        if cold:
            drop_from_cache(folder.parent)

    if not cold:
        warm_up(folder)
        for model in (plain, *contestants.values()):
            model(IDS)
    turns: list[tuple[str, Callable[[], object]]] = [
        ("resident", lambda: plain(IDS)),
        ("raw read", lambda: read_raw(folder)),
    ]
    turns += [(name, lambda model=model: model(IDS)) for name, model in contestants.items()]  # type: ignore[misc]
    for number in range(rounds):
        for name, call in turns[number % len(turns) :] + turns[: number % len(turns)]:
            if cold and name != "resident":
                prepare()
            found.add(name, call)
    return found


def row(*cells: object) -> None:
    """One row of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells: str) -> None:
    """A table's head."""
    print()
    row(*cells)
    row(*("---" for _ in cells))


def passes(folder: Path, scratch: Path, size: Size, *, rounds: int) -> None:
    """Start-up, warm and cold passes, with the peers."""
    plain = resident(folder)
    with torch.no_grad():
        want = plain(IDS).logits
        head(
            f"{size.name}: start-up",
            "seconds to a model that can run",
            "through its first pass",
            "weights written again, bytes",
            "same",
        )
        contestants: dict[str, Any] = {}
        for name, make in (
            ("devmap", with_devmap),
            ("Accelerate", with_accelerate),
            ("Transformers", with_transformers),
        ):
            gc.collect()
            warm_up(folder)
            written, started = bytes_in(scratch), time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()):  # progress bars
                contestants[name] = make(folder, scratch)
            ready = time.perf_counter() - started
            got = contestants[name](IDS).logits
            through = time.perf_counter() - started
            row(
                name,
                f"{ready:.2f}",
                f"{through:.2f}",
                f"{bytes_in(scratch) - written:,}",
                torch.equal(got, want),
            )
        for cold in (False, True):
            found = play(folder, contestants, plain, rounds=rounds, cold=cold)
            head(
                f"{size.name}: one pass of 8 tokens, {'cold' if cold else 'warm'}",
                "median s",
                "over the bound (of the best rounds)",
                "over devmap (of the best rounds)",
                "MB from the disk",
            )
            for name in found.turns:
                row(
                    name,
                    f"{found.median(name):.3f}",
                    "" if name in {"resident", "raw read"} else found.over(name, found.bound()),
                    found.over(name, found.turns["devmap"]),
                    f"{statistics.median(found.disk[name]) / 1e6:,.0f}",
                )
            print(f"\nspread over {rounds} rounds: {found.spread()}")
        half(folder, scratch, size, plain, rounds=rounds)
    for model in contestants.values():
        if hasattr(model, "devmap"):
            model.devmap.remove()


def half(folder: Path, scratch: Path, size: Size, plain: Any, *, rounds: int) -> None:
    """Half of the blocks live in memory, by budget.

    The bound is the larger of all compute and half of the reading.

    Warm as in `passes`, with what host memory has room for still mapped, and once more with the pages given
    back before each pass.
    """
    rest = sum(path.stat().st_size for path in files_of(folder)) - size.blocks * size.block_bytes
    # two slots are charged
    budget = f"{rest + size.block_bytes * (size.blocks // 2 + 2) + size.block_bytes // 2}B"
    model: Any = devmap.load(config(folder, scratch, cpu=budget, device_map="auto"), progress=False)
    homes = model.devmap.stats().streamed_home_bytes
    share = homes.get("disk", 0) / (size.blocks * size.block_bytes)
    head(
        f"{size.name}: {1 - share:.0%} of the blocks resident by budget",
        "median s",
        "bound s",
        "over the bound",
        "CPU s, over all compute's",
    )
    for kind in ("warm", "warm, after trim()", "cold"):
        cold, worked, plain_worked = kind == "cold", [], []
        compute, reading, ours = [], [], []
        model(IDS)
        for _ in range(rounds):
            started = time.process_time()
            compute.append(seconds(lambda: plain(IDS)))
            plain_worked.append(time.process_time() - started)
            if kind != "warm":
                model.devmap.trim()
            if cold:
                drop_from_cache(folder)
            # the resident half is mapped, so it stays in memory: what is read is the streamed half
            before = disk_bytes_read()
            reading.append(seconds(lambda: read_raw(folder)) * (1 if cold else share))
            read = disk_bytes_read() - before
            if cold:
                drop_from_cache(folder)
            started = time.process_time()
            ours.append(seconds(lambda: model(IDS)))
            worked.append(time.process_time() - started)
        bound = max(statistics.median(compute), statistics.median(reading))
        middle = statistics.median(ours)
        note = f" ({read / 1e6:,.0f} MB read raw)" if cold else ""
        share_of_compute = statistics.median(worked) / statistics.median(plain_worked)
        row(
            kind,
            f"{middle:.3f}",
            f"{bound:.3f}",
            f"{middle / bound:.2f}{note}",
            f"{statistics.median(worked):.2f}, {share_of_compute:.2f}",
        )
    model.devmap.remove()


def memory(scratch: Path, sizes: list[Size]) -> None:
    """Peak memory above the resident weights against `offload.host_memory`."""
    head("peak memory above resident weights", "offload.host_memory", "load", "three passes", "within")
    for size in sizes:
        folder = llama(size)
        limit = int(2.5 * size.block_bytes)
        path = config(folder, scratch, host_memory=f"{limit}B")
        devmap.load(path, progress=False)(IDS)  # kernels' own buffers and imports are no weights
        gc.collect()
        with Peak() as loading:
            model: Any = devmap.load(path, progress=False)
        model.devmap.trim()
        with Peak() as passing, torch.no_grad():
            for _ in range(3):
                model(IDS)
        kept = sum(model.devmap.stats().resident_bytes.values())
        above = max(0, loading.above_bytes)
        row(
            size.name,
            f"{limit / 1e6:,.0f} MB",
            f"{above / 1e6:,.0f} MB ({kept / 1e6:,.0f} MB of it resident weights)",
            f"{passing.above_bytes / 1e6:,.0f} MB",
            passing.above_bytes <= limit,
        )
        model.devmap.remove()
        del model
        gc.collect()


def main(arguments: list[str] | None = None) -> None:
    """Run what was asked and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="0.1 GB: a try-out, its ratios mean little")
    kind.add_argument("--full", action="store_true", help="2.2 GB and 1.1 GB (default)")
    parser.add_argument("--repeat", type=int, default=7, help="rounds")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of torch's kernels")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    print(
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, {chosen.threads} kernel threads, "
        f"load {os.getloadavg()[0]:.1f}, "
        f"{platform.system()} {platform.release()}, torch {torch.__version__}, accelerate "
        f"{accelerate.__version__}, "
        f"transformers {transformers.__version__}"
    )
    scratch = Path(tempfile.mkdtemp(prefix="devmap-streaming-", dir=llama(SMALL).parent))
    try:
        for size in [SMALL] if chosen.quick else [LARGE]:
            passes(llama(size), scratch, size, rounds=chosen.repeat)
        memory(scratch, [SMALL] if chosen.quick else [MEDIUM, LARGE])
        print(f"\nload at the end: {os.getloadavg()[0]:.1f}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
