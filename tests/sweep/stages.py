"""The sweep over two processes: `python -m tests.sweep.stages`, every class that generates.

Each rank loads one stage of a tiny checkpoint and calls `generate` in each way that the plain model knows;
the tokens must be the plain model's on both ranks, or the class is refused by name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import transformers
from torch._C._distributed_c10d import TCPStore

from devmap.errors import DevmapError
from tests.distributed.stage_runs import free_port, loaded
from tests.sweep.tiny_configs import GROUPS, Specimen, specimens
from tests.sweep.zoo import Zoo, generations

if TYPE_CHECKING:
    from tests.sweep.zoo import Built

_SIZE = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; 1 where a class gives other tokens or fails without being refused by name."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweep.stages", description=__doc__)
    parser.add_argument("--zoo", type=Path, default=os.environ.get("DEVMAP_ZOO"), help="kept checkpoints")
    parser.add_argument("--groups", default=",".join(group for group in GROUPS if group != "base"))
    parser.add_argument("--only", default="", help="an expression for class names")
    parser.add_argument("--seconds", type=float, default=60, help="a specimen's limit")
    parser.add_argument(
        "--out", type=Path, default=None, help="results as JSON lines; goes on after its last"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    groups, only = options.groups.split(","), re.compile(options.only)
    known = options.out.read_text(encoding="utf-8") if options.out and options.out.exists() else ""
    rows = [json.loads(line) for line in known.splitlines()]
    found = Counter(row["said"].partition(":")[0] for row in rows)
    done = {row["name"] for row in rows}
    chosen = [each for each in specimens() if each.group in groups and only.search(each.name)]
    with tempfile.TemporaryDirectory() as scratch:
        zoo = Zoo(Path(options.zoo or scratch))
        for specimen in (each for each in chosen if each.name not in done):
            said = _tried(specimen, zoo, options.seconds)
            if said == "-":
                continue
            found[said.partition(":")[0]] += 1
            print(specimen.group, specimen.name, said, flush=True)  # noqa: T201 - a command
            if options.out:
                with options.out.open("a", encoding="utf-8") as out:
                    out.write(
                        json.dumps({"name": specimen.name, "group": specimen.group, "said": said}) + "\n"
                    )
    print(dict(found))  # noqa: T201 - a command
    return int(any(word not in {"ok", "refused"} for word in found))


def _tried(specimen: Specimen, zoo: Zoo, seconds: float) -> str:
    """Return what both ranks say: `ok`, `refused`, `differs` or `failed`; `-` where nothing generates."""
    built = zoo.built(specimen) if _is_here(zoo, specimen) else _built_apart(specimen, zoo, seconds)
    if built is None or built.reason or not built.generates:
        return "-"
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        ranks = [_fork(rank, port, built, Path(scratch)) for rank in range(_SIZE)]
        end = time.monotonic() + seconds
        texts = [_heard(readable, end) for _, readable in ranks]
        for child, _ in ranks:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    said = [text or f"failed: silent for {seconds:g} s" for text in texts]
    order = ("differs", "failed", "refused", "ok")
    return min(said, key=lambda each: order.index(each.partition(":")[0]))


def _is_here(zoo: Zoo, specimen: Specimen) -> bool:
    return any(zoo.root.glob(f"*/{specimen.group}-{specimen.name}/built.json"))


def _built_apart(specimen: Specimen, zoo: Zoo, seconds: float) -> Built | None:
    """Build in a child, since some classes crash or take all memory."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        warnings.simplefilter("ignore")
        zoo.built(specimen)
        os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return zoo.built(specimen) if _is_here(zoo, specimen) else None
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _fork(rank: int, port: int, built: Built, scratch: Path) -> tuple[int, int]:
    readable, writable = os.pipe()
    child = os.fork()
    if child:
        os.close(writable)
        return child, readable
    os.close(readable)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    os.write(writable, _said(rank, port, built, scratch).encode())
    time.sleep(1)  # so that the other rank's reason is its own, not that this one is gone
    os._exit(0)


def _heard(readable: int, end: float) -> str:
    text = b""
    while (left := end - time.monotonic()) > 0 and select.select([readable], [], [], left)[0]:
        part = os.read(readable, 1 << 16)
        if not part:
            break
        text += part
        if len(part) < 1 << 16:
            break
    os.close(readable)
    return text.decode()


def _said(rank: int, port: int, built: Built, scratch: Path) -> str:
    try:
        limit = timedelta(seconds=20)
        store = TCPStore("127.0.0.1", port, _SIZE, is_master=rank == 0, timeout=limit)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=_SIZE, timeout=limit)
        model: Any = loaded(built.folder, scratch, _SIZE).model
        expected: dict[str, Any] = torch.load(built.folder / "tokens.pt")
        inputs = torch.load(built.folder / "inputs.pt")
        different = []
        for way, options in generations(inputs).items():
            if way in built.generates:
                torch.manual_seed(7)
                if not torch.equal(model.generate(**options), expected[way]):
                    different.append(way)
    except DevmapError as error:
        return f"refused: {error.message}"
    except Exception as error:  # noqa: BLE001 - whatever is raised is what was wrong
        return f"failed: {type(error).__name__}: {(str(error) or '?').strip().splitlines()[0][:200]}"
    return f"differs: {', '.join(different)}" if different else "ok"


if __name__ == "__main__":
    sys.exit(main())
