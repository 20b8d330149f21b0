"""Ranks on two hosts: network namespaces that a pair of virtual interfaces joins, at 100 Mbit a second."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devmap.distributed.group import interface_to

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ADDRESSES = ("10.203.17.1", "10.203.17.2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces; a test machine without root or without them cannot have any."""
    if os.geteuid() or shutil.which("ip") is None or shutil.which("tc") is None:
        pytest.skip("network namespaces need root, ip and tc; the other tests of ranks run on the loopback")
    names = tuple(f"devmap-{uuid.uuid4().hex[:8]}" for _ in ADDRESSES)
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "dm0", "netns", names[0], "type", "veth", "peer", "name", "dm1", "netns", names[1])
        for number, (name, address) in enumerate(zip(names, ADDRESSES, strict=True)):
            inside = ("netns", "exec", name)
            ip("-n", name, "address", "add", f"{address}/24", "dev", f"dm{number}")
            ip("-n", name, "link", "set", f"dm{number}", "up")
            ip("-n", name, "link", "set", "lo", "up")
            shape = ("tbf", "rate", "100mbit", "burst", "64kb", "latency", "200ms")
            ip(*inside, "tc", "qdisc", "add", "dev", f"dm{number}", "root", *shape)
    except subprocess.CalledProcessError as error:
        _remove(names)
        pytest.skip(f"this kernel makes no namespaces: {error.stderr.decode().strip()}")
    yield (names[0], names[1])
    _remove(names)


def _remove(names: tuple[str, ...]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_ranks_of_two_hosts_find_each_other_over_the_interface_between_them(hosts: tuple[str, str]) -> None:
    """Left to itself gloo connects to the loopback, where the other host is not."""
    ranks = [
        subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                host,
                sys.executable,
                "-m",
                "tests.distributed.rank_program",
                "--rank",
                "group",
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "RANK": str(number),
                "WORLD_SIZE": "2",
                "LOCAL_RANK": "0",
                "MASTER_ADDR": ADDRESSES[0],
                "MASTER_PORT": "29500",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, host in enumerate(hosts)
    ]
    ended = [rank.communicate(timeout=120) for rank in ranks]
    assert [printed for printed, _ in ended] == [
        f"group on dm{number}\ndone: 40 in attempt 0\n" for number in range(2)
    ], [errors[-800:] for _, errors in ended]


def test_the_interface_to_this_machine_is_the_loopback() -> None:
    assert interface_to("127.0.0.1") == "lo"
    assert interface_to("not a host") is None
