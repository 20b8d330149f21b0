"""Runs of three ranks that go wrong, each in processes of its own.

`python -m tests.distributed.rank_program FOLDER` imports what it needs once, forks the ranks of every
scenario, and writes what each printed and how it ended to FOLDER/ended.json. As `python -m
tests.distributed.rank_program --rank SCENARIO` it is one rank, which torchrun starts.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from devmap.distributed.agreement import Launch, Statement, agree, open_store
from devmap.distributed.failures import Watch
from devmap.distributed.group import start_group
from devmap.errors import DevmapError

VICTIM = 1
VERSIONS = {"torch": "2.13"}


def statement_of(scenario: str, launch: Launch) -> Statement:
    read = {"config": "sha256:aa", "lock": "sha256:bb", "model": "sha256:cc"}
    versions, error = dict(VERSIONS), ""
    if launch.rank == VICTIM:
        if scenario in {"other config", "two faults"}:
            read["config"] = "sha256:ff"
        elif scenario == "other version":
            versions["torch"] = "2.11"
    if launch.rank == 2 and scenario == "two faults":
        error = "there is no checkpoint at '/data/llama'"
    return Statement(launch.rank, f"host{launch.rank}", read, versions, error)


def run(scenario: str, launch: Launch, watch: Watch) -> int:
    """Add up numbers over all ranks, again and again, until something goes wrong."""
    total = torch.zeros(1)
    for number in range(20 if scenario in {"nothing", "recovers", "group"} else 400):
        if launch.rank == VICTIM and number == 5 and launch.attempt == 0:
            if scenario == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if scenario in {"raises", "recovers"}:
                msg = "tensor of another shape\nand more"
                raise ValueError(msg)
            if scenario == "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
            if scenario == "waits":
                time.sleep(600)
        one = torch.ones(1)
        watch.wait(partial(dist.all_reduce, one))
        total += one
        time.sleep(0.01)
    return int(total)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def rank(scenario: str) -> int:
    launch = Launch.of()
    if scenario == "absent" and launch.rank == VICTIM:
        return 0
    try:
        store = open_store(launch, timeout_seconds=20)
        agree(
            store,
            launch,
            statement_of(scenario, launch),
            stages=4 if scenario == "too few" else launch.size,
            timeout_seconds=3 if scenario == "absent" else 30,
        )
        watch = Watch(store, launch.rank, launch.size, timeout_seconds=5, silence_seconds=4)
        with watch.guard():
            start_group(store, launch, torch.device("cpu"))
            if scenario == "group":
                say(f"group on {os.environ['GLOO_SOCKET_IFNAME']}")
            total = run(scenario, launch, watch)
        watch.close()
        dist.destroy_process_group()
    except DevmapError as error:
        say(f"{type(error).__name__}: {error.message}")
        return 1
    except ValueError as error:
        say(f"own: {error}")
        return 1
    say(f"done: {total} in attempt {launch.attempt}")
    return 0


SCENARIOS = (
    "nothing",
    "other config",
    "other version",
    "two faults",
    "too few",
    "absent",
    "dies",
    "raises",
    "stops",
    "waits",
)
RANKS = 3


def forked(scenario: str, folder: Path) -> list[int]:
    """Fork the ranks of a scenario; each writes to a file of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = []
    for number in range(RANKS):
        pid = os.fork()
        if pid:
            found.append(pid)
            continue
        os.environ.update(
            RANK=str(number),
            WORLD_SIZE=str(RANKS),
            LOCAL_RANK=str(number),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        with (folder / f"{scenario}-{number}").open("w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            status = rank(scenario)
            sys.stdout.flush()
            os._exit(status)
    return found


def all_scenarios(folder: Path) -> int:
    """Run every scenario at once, most of which wait, and write down how they ended."""
    pids = {scenario: forked(scenario, folder) for scenario in SCENARIOS}
    victims = {pids[scenario][VICTIM] for scenario in ("stops", "waits")}
    ended: dict[int, int] = {}
    waited = [pid for own in pids.values() for pid in own if pid not in victims]
    for pid in waited:
        ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
        ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    found = {
        scenario: [
            {"status": ended[pid], "printed": (folder / f"{scenario}-{number}").read_text(encoding="utf-8")}
            for number, pid in enumerate(own)
        ]
        for scenario, own in pids.items()
    }
    (folder / "ended.json").write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(rank(sys.argv[2]) if sys.argv[1] == "--rank" else all_scenarios(Path(sys.argv[1])))
