"""What the processes of a run say of themselves before any process group is made, and whether it agrees.

A process group tells little of what is wrong: a rank that is absent, or read another config, shows as a
timeout or as tensors of a wrong shape somewhere else. So each rank first states in the store of the run who
it is and what it read. Rank 0 compares, and all ranks end with the same message, which names every rank that
disagrees and why.

torchrun gives a rank its number and the store's address in the environment. The agent's store outlives the
workers that it restarts, so that every attempt has keys of its own.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed import DistNetworkError, DistStoreError

from devmap.errors import RankError, RankFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from devmap.distributed.failures import Watch

__all__ = ["Launch", "Statement", "agree", "open_store"]

_LARGEST_STATEMENT = 1 << 16
"""Bytes of one rank's statement that are read."""
_POLL_SECONDS = 0.02
_LAST_WORDS_SECONDS = 5.0
"""How long a rank waits until the others have read why the run ends."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What torchrun tells a process in its environment."""

    rank: int
    size: int
    """Processes in all, torchrun's `WORLD_SIZE`."""
    local_rank: int
    address: str
    port: int
    attempt: int = 0
    """How often torchrun has restarted the workers."""
    has_agent_store: bool = False
    """Whether torchrun's agent serves the store; otherwise rank 0 does."""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """Return what the environment says.

        Raises:
            UsageError: it was not made by torchrun, or a value is not valid.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        absent = [name for name in names if not environment.get(name)]
        if absent:
            raise UsageError(
                f"this plan is for several processes, and torchrun did not start this one: {absent[0]} "
                "is not set",
                help="`devmap plan CONFIG --torchrun` prints the command line of each node",
            )
        try:
            found = cls(
                int(environment["RANK"]),
                int(environment["WORLD_SIZE"]),
                int(environment["LOCAL_RANK"]),
                environment["MASTER_ADDR"],
                int(environment["MASTER_PORT"]),
                int(environment.get("TORCHELASTIC_RESTART_COUNT") or 0),
                environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            )
        except ValueError as error:
            raise UsageError(
                f"torchrun's environment is not valid: {error}", help="start the processes with torchrun"
            ) from None
        if not 0 <= found.rank < found.size:
            raise UsageError(
                f"RANK is {found.rank}, and WORLD_SIZE {found.size}", help="start the processes with torchrun"
            )
        return found

    @staticmethod
    def is_there(environment: Mapping[str, str] = os.environ) -> bool:
        """Return whether torchrun started this process."""
        return "RANK" in environment and "WORLD_SIZE" in environment


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - once in a process

    found = {"python": platform.python_version()}
    for name in ("devmap", "torch", "transformers"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class Statement:
    """What one rank says of itself."""

    rank: int
    host: str = field(default_factory=socket.gethostname)
    read: Mapping[str, str] = field(default_factory=dict)
    """What has to be equal everywhere, by a word for messages: fingerprints of `config`, `lock`, `model`."""
    versions: Mapping[str, str] = field(default_factory=_versions)
    error: str = ""
    """Why this rank cannot go on; empty where it can."""

    def as_text(self) -> str:
        """Return the statement as it is stored."""
        short = {**asdict(self), "error": self.error[:4096]}
        return json.dumps(short)

    @classmethod
    def of_bytes(cls, rank: int, content: bytes) -> Statement:
        """Return what a rank stored.

        Raises:
            ValueError: it is no statement of that rank.
        """
        if len(content) > _LARGEST_STATEMENT:
            msg = f"a statement of {len(content):,} bytes"
            raise ValueError(msg)
        found = json.loads(content)
        if not isinstance(found, dict) or found.get("rank") != rank:
            msg = "not a statement of this rank"
            raise ValueError(msg)
        return cls(
            rank,
            _text(found.get("host")),
            _words(found.get("read")),
            _words(found.get("versions")),
            _text(found.get("error")),
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        msg = "not text where text belongs"
        raise ValueError(msg)  # noqa: TRY004 - what the reader of a statement handles
    return value


def _words(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        msg = "not a mapping where one belongs"
        raise ValueError(msg)  # noqa: TRY004 - as above
    return {_text(key): _text(word) for key, word in value.items()}


def open_store(launch: Launch, *, timeout_seconds: float = 60.0) -> PrefixStore:
    """Return the store of this run's attempt, once its server answers.

    Raises:
        RankError: nobody serves it within the timeout.
    """
    serves = launch.rank == 0 and not launch.has_agent_store
    try:
        store = TCPStore(
            launch.address,
            launch.port,
            is_master=serves,
            timeout=timedelta(seconds=timeout_seconds),
            wait_for_workers=False,
        )
    except (DistNetworkError, DistStoreError, RuntimeError) as error:
        words = str(error).splitlines()[0]
        raise RankError(
            [RankFault(0, launch.address, f"nobody answers at port {launch.port} ({words})")],
            help="start rank 0's node, and let its port be reached from the others",
        ) from error
    return PrefixStore(f"devmap/attempt{launch.attempt}", store)


def agree(
    store: Store,
    launch: Launch,
    statement: Statement,
    *,
    stages: int,
    phase: str = "start",
    timeout_seconds: float = 60.0,
    watch: Watch | None = None,
) -> None:
    """Compare what all ranks say of themselves; return where they agree.

    Collective: every rank calls it, with a `phase` of its own for each time. `stages` is how many processes
    the plan is for.

    Raises:
        RankError: on every rank the same, naming each rank that disagrees, cannot go on, or said nothing
        within
            the timeout.
    """
    keys = PrefixStore(f"agree/{phase}", store)
    keys.set(f"statement/{launch.rank}", statement.as_text())
    if launch.rank == 0:
        said = dict(_collect(keys, launch.size, timeout_seconds, watch))
        faults = list(_compare(said, statement, launch.size, stages))
        keys.set("verdict", json.dumps([asdict(fault) for fault in faults]))
    else:
        faults = _verdict(keys, launch, 2 * timeout_seconds, watch)
    if faults:
        _wait_for_readers(keys, launch)
        raise RankError(faults, help=_HELP)


_HELP = "every rank needs the same config, lock, checkpoint and versions; the plan has a stage for each rank"


def _collect(
    keys: Store, size: int, seconds: float, watch: Watch | None
) -> Iterator[tuple[int, Statement | str]]:
    """Yield each rank's statement, or what is wrong with it."""
    missing = list(range(size))
    end = time.monotonic() + seconds
    while missing:
        for rank in [rank for rank in missing if keys.check([f"statement/{rank}"])]:
            missing.remove(rank)
            try:
                yield rank, Statement.of_bytes(rank, keys.get(f"statement/{rank}"))
            except (ValueError, RecursionError) as error:
                yield rank, f"its statement cannot be read: {error}"
        if time.monotonic() > end:
            break
        if watch is not None:
            watch.look()
        if missing:
            time.sleep(_POLL_SECONDS)
    for rank in missing:
        yield rank, f"no word within {seconds:g} s"


def _compare(
    said: Mapping[int, Statement | str], own: Statement, size: int, stages: int
) -> Iterator[RankFault]:
    if size != stages:
        yield RankFault(
            0,
            own.host,
            f"{size} process{'es were' if size > 1 else ' was'} started, and the plan has {stages} stages",
        )
    for rank in range(size):
        other = said[rank]
        if isinstance(other, str):
            yield RankFault(rank, "", other)
        elif other.error:
            yield RankFault(rank, other.host, other.error)
        else:
            for cause in _differences(other, own):
                yield RankFault(rank, other.host, cause)


def _differences(other: Statement, own: Statement) -> Iterator[str]:
    for here, there in ((own.read, other.read), (own.versions, other.versions)):
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                yield f"{name} is {_shown(there.get(name))}, rank 0 has {_shown(here.get(name))}"


def _shown(word: str | None) -> str:
    if word is None:
        return "absent"
    return word.removeprefix("sha256:")[:12] if word.startswith("sha256:") else word


def _verdict(keys: Store, launch: Launch, seconds: float, watch: Watch | None) -> list[RankFault]:
    """Return what rank 0 found; that it says nothing, where it does not within the time."""
    end = time.monotonic() + seconds
    try:
        while not keys.check(["verdict"]):
            if time.monotonic() > end:
                return [RankFault(0, launch.address, f"no word within {seconds:g} s")]
            if watch is not None:
                watch.look()
            time.sleep(_POLL_SECONDS)
        return [
            RankFault(int(each["rank"]), each["host"], each["cause"]) for each in _list(keys.get("verdict"))
        ]
    except (DistNetworkError, DistStoreError, ValueError, KeyError, TypeError) as error:
        return [RankFault(0, launch.address, f"its store is gone ({str(error).splitlines()[0]})")]


def _list(content: bytes) -> Iterable[dict[str, Any]]:
    found = json.loads(content)
    if not isinstance(found, list):
        msg = "not a verdict"
        raise ValueError(msg)  # noqa: TRY004 - as in `Statement`
    return found


def _wait_for_readers(keys: Store, launch: Launch) -> None:
    """Wait until the ranks that spoke have read the verdict, and let rank 0 speak first.

    The first process that ends makes torchrun's agents end the others, which then say nothing.
    """
    with suppress(DistNetworkError, DistStoreError):
        keys.set(f"read/{launch.rank}", "")
        spoke = [rank for rank in range(launch.size) if keys.check([f"statement/{rank}"])]
        end = time.monotonic() + _LAST_WORDS_SECONDS
        while time.monotonic() < end and not all(keys.check([f"read/{rank}"]) for rank in spoke):
            time.sleep(_POLL_SECONDS)
    if launch.rank:
        time.sleep(10 * _POLL_SECONDS)
