"""Ranks that disagree, are absent, die, raise, stop or wait: every other rank ends with the same message."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devmap.distributed.agreement import Launch, Statement
from devmap.errors import UsageError
from tests.distributed.rank_program import RANKS, VICTIM

ROOT = Path(__file__).parents[2]
HOST = socket.gethostname()
ABSENT = "rank 2 (host2): there is no checkpoint at '/data/llama'"
Ended = dict[str, list[dict[str, Any]]]


def test_ranks_that_agree_end_well(ended: Ended) -> None:
    assert [each["printed"] for each in ended["nothing"]] == ["done: 60 in attempt 0\n"] * RANKS


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("other config", "rank 1 (host1): config is ff, rank 0 has aa"),
        ("other version", "rank 1 (host1): torch is 2.11, rank 0 has 2.13"),
        (
            "two faults",
            f"rank 1 (host1): config is ff, rank 0 has aa; {ABSENT}",
        ),
        ("too few", "rank 0 (host0): 3 processes were started, and the plan has 4 stages"),
    ],
)
def test_what_disagrees_is_told_by_every_rank_in_the_same_words(
    ended: Ended, scenario: str, message: str
) -> None:
    for rank in ended[scenario]:
        assert rank == {"status": 1, "printed": f"RankError: {message}\n"}


@pytest.mark.parametrize(
    ("scenario", "cause", "own"),
    [
        ("absent", "rank 1: no word within 3 s", ""),
        ("dies", f"rank 1 ({HOST}): no sign of life for 4 s", ""),
        (
            "raises",
            f"rank 1 ({HOST}): ValueError: tensor of another shape",
            "own: tensor of another shape\nand more\n",
        ),
        ("stops", f"rank 1 ({HOST}): no sign of life for 4 s", ""),
    ],
)
def test_a_rank_that_fails_is_named_by_the_others(ended: Ended, scenario: str, cause: str, own: str) -> None:
    for number, rank in enumerate(ended[scenario]):
        if number == VICTIM:
            assert rank["printed"] == own
            continue
        assert rank == {"status": 1, "printed": f"RankError: {cause}\n"}


def test_ranks_do_not_wait_for_ever_for_one_that_does_something_else(ended: Ended) -> None:
    others = [rank for number, rank in enumerate(ended["waits"]) if number != VICTIM]
    assert len({rank["printed"] for rank in others}) == 1
    assert others[0]["printed"].endswith("waited 5 s for the others\n")
    assert all(rank["status"] == 1 for rank in others)


def test_torchrun_starts_all_ranks_again(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--nproc-per-node=2", "--max-restarts=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    program = ["-m", "tests.distributed.rank_program", "--rank", "recovers"]
    ran = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, *program],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ran.stdout.count("done: 40 in attempt 1") == 2


def test_a_process_that_torchrun_did_not_start_is_told_what_does() -> None:
    with pytest.raises(UsageError, match="RANK is not set") as caught:
        Launch.of({})
    assert "devmap plan CONFIG --torchrun" in caught.value.help
    started = {"RANK": "3", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    with pytest.raises(UsageError, match="RANK is 3, and WORLD_SIZE 2"):
        Launch.of(started)
    with pytest.raises(UsageError, match="not valid"):
        Launch.of({**started, "MASTER_PORT": "x"})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"rank": 2}',
        b'{"rank": 1, "host": 7}',
        b'{"rank": 1, "host": "a", "read": []}',
        b"x" * 70_000,
    ],
)
def test_a_statement_that_is_none_is_not_believed(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Statement.of_bytes(1, content)


def test_a_statement_is_read_as_it_was_written() -> None:
    said = Statement(1, "host", {"config": "sha256:aa"}, {"torch": "2.13"}, "no checkpoint")
    assert Statement.of_bytes(1, said.as_text().encode()) == said
