"""Ranks that fail while a model runs: found by all the others, and told by all in the same words.

When a process dies, its peers hear "connection closed by peer" from the process group, if they were about to
talk to it, and nothing otherwise; torchrun then ends those that know the cause. So each rank here

- says in the store of the run that it lives, once a second, from a thread of its own;
- writes what it raised into the store before it leaves (`Watch.guard`);
- waits for others in another thread, while the one that called looks for faults (`Watch.wait`).

A rank that computes for long goes on saying that it lives. One that is stopped, or whose machine is gone,
falls silent. One that waits for others longer than the timeout says so itself.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from torch.distributed import DistNetworkError, DistStoreError

from devmap.errors import RankError, RankFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch._C._distributed_c10d import Store

__all__ = ["Watch"]

T = TypeVar("T")

_BEAT_SECONDS = 1.0
_POLL_SECONDS = 0.2
_LARGEST_FAULT = 1 << 14
_GATHERING_SECONDS = 1.0
"""How long a rank whose connection broke waits for the word of the one that broke it, before it looks at who
fell silent."""
_LAST_WORDS_SECONDS = 5.0
"""How long rank 0 waits at most until the others know why the run ends."""
_HELP = "look at the first rank's own output; `torchrun --max-restarts=N` starts all ranks again"

_LOST = (RuntimeError, DistNetworkError, DistStoreError)
"""What a process group raises when a peer is gone."""


class Watch:
    """One rank's eyes on the others, from the start of a run to `close`.

    Args:
        store: the store of this run's attempt; the watch makes its own connection of it.
        rank: this rank.
        size: how many ranks there are.
        timeout_seconds: how long `wait` waits for others at most.
        silence_seconds: after how long without a sign of life a rank counts as dead.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        *,
        timeout_seconds: float = 600.0,
        silence_seconds: float = 15.0,
    ) -> None:
        self.rank = rank
        self.size = size
        self.timeout_seconds = timeout_seconds
        self.silence_seconds = silence_seconds
        self._store: Store = store.clone()  # type: ignore[attr-defined]  # newer than the stubs
        self._host = socket.gethostname()
        self._fault: RankFault | None = None
        self._hosts: dict[int, str] = {}
        self._beats: dict[int, tuple[bytes, float]] = {}
        """The last sign of life of each other rank, and when it was first seen."""
        self._closed = threading.Event()
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._say(f"host/{rank}", self._host)
        self._say(f"beat/{rank}", "0")
        self._threads = (
            threading.Thread(target=self._look, name="devmap-watch", daemon=True),
            threading.Thread(target=self._serve, name="devmap-waits", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    @property
    def fault(self) -> RankFault | None:
        """The first rank that failed, as far as this rank knows."""
        return self._fault

    def look(self) -> None:
        """Raise what is known of the others' faults.

        Raises:
            RankError: a rank failed.
        """
        if self._fault is not None:
            raise self._error()

    def wait(self, call: Callable[[], T]) -> T:
        """Make a call that blocks until other ranks do their part, and return what it returns.

        Raises:
            RankError: another rank failed meanwhile, or none did its part within the timeout.
        """
        box: list[tuple[bool, Any]] = []
        done = threading.Event()

        def run() -> None:
            try:
                box.append((True, call()))
            except BaseException as error:  # noqa: BLE001 - raised again by whoever called
                box.append((False, error))
            done.set()

        self._calls.put(run)
        end = time.monotonic() + self.timeout_seconds
        while not done.wait(_POLL_SECONDS):
            self.look()
            if time.monotonic() > end:
                self._publish(
                    RankFault(self.rank, self._host, f"waited {self.timeout_seconds:g} s for the others")
                )
                raise self._error()
        succeeded, found = box[0]
        if succeeded:
            result: T = found
            return result
        if isinstance(found, _LOST):
            raise self._lost(found) from found
        raise found

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Tell the others what this rank raises inside, and raise what another rank told before.

        Raises:
            RankError: another rank failed; on all ranks the same.
        """
        try:
            yield
        except RankError:
            raise
        except _LOST as error:
            if self._fault is None and not _is_of_connection(error):
                self._publish(self._own(error))
                self._speak_last()
                raise
            raise self._lost(error) from error
        except BaseException as error:
            self._publish(self._own(error))
            self._speak_last()
            raise

    def close(self) -> None:
        """End the watch; the others do not take this rank's silence for a fault any more."""
        self._say(f"left/{self.rank}", "")
        self._closed.set()
        self._calls.put(None)
        self._threads[0].join()

    # --- what is known of others

    def _own(self, error: BaseException) -> RankFault:
        words = str(error).splitlines()[0] if str(error) else ""
        kind = type(error).__name__
        return RankFault(self.rank, self._host, f"{kind}: {words}" if words else kind)

    def _error(self) -> RankError:
        assert self._fault is not None
        self._speak_last()
        return RankError([self._fault], help=_HELP)

    def _speak_last(self) -> None:
        """Say that this rank knows of the fault; on rank 0, which may serve the store, wait until all do."""
        with suppress(*_LOST):
            self._store.set(f"heard/{self.rank}", "")
            failed = self._fault.rank if self._fault is not None else self.rank
            others = [rank for rank in range(self.size) if rank not in {0, failed}] if self.rank == 0 else []
            end = time.monotonic() + _LAST_WORDS_SECONDS
            while time.monotonic() < end and not all(self._store.check([f"heard/{rank}"]) for rank in others):
                time.sleep(_POLL_SECONDS / 4)

    def _lost(self, error: Exception) -> RankError:
        """Return the error of a broken connection: what broke it, once somebody says so or falls silent."""
        end = time.monotonic() + _GATHERING_SECONDS + self.silence_seconds + 2 * _BEAT_SECONDS
        while self._fault is None and time.monotonic() < end:
            time.sleep(_POLL_SECONDS / 4)
        if self._fault is None:
            words = str(error).splitlines()[0]
            self._publish(RankFault(self.rank, self._host, f"lost its connection to another rank ({words})"))
        return self._error()

    def _publish(self, fault: RankFault) -> None:
        """Tell the others of a fault; the first one that is told counts on every rank."""
        text = json.dumps(asdict(fault))
        with suppress(*_LOST):
            kept = self._store.compare_set("fault", "", text)
            self._fault = self._fault or _fault_of(kept)
        self._fault = self._fault or fault

    def _say(self, key: str, value: str) -> None:
        with suppress(*_LOST):
            self._store.set(key, value)

    def _look(self) -> None:
        """Say that this rank lives, and look for faults and for ranks that fell silent, until the end."""
        beat = 0
        while not self._closed.wait(_BEAT_SECONDS if self._fault is None else _BEAT_SECONDS * 2):
            beat += 1
            try:
                self._store.set(f"beat/{self.rank}", str(beat))
                if self._fault is None and self._store.check(["fault"]):
                    self._fault = _fault_of(self._store.get("fault"))
                if self._fault is None:
                    self._look_for_silence()
            except _LOST as error:
                if self._fault is None and not self._closed.is_set():
                    words = str(error).splitlines()[0]
                    self._fault = RankFault(0, "", f"the store of the run is gone ({words})")

    def _look_for_silence(self) -> None:
        now = time.monotonic()
        for rank in range(self.size):
            if rank == self.rank or not self._store.check([f"beat/{rank}"]):
                continue
            seen = self._store.get(f"beat/{rank}")
            before = self._beats.get(rank)
            if before is None or before[0] != seen:
                self._beats[rank] = (seen, now)
            elif now - before[1] > self.silence_seconds and not self._store.check([f"left/{rank}"]):
                host = self._store.get(f"host/{rank}").decode(errors="replace")
                self._publish(RankFault(rank, host, f"no sign of life for {self.silence_seconds:g} s"))

    def _serve(self) -> None:
        """Make the calls of `wait`, one after another."""
        while (call := self._calls.get()) is not None:
            call()


def _fault_of(content: bytes) -> RankFault:
    """Return the fault that a rank told; a word on what it told where that cannot be read."""
    try:
        found = json.loads(content[:_LARGEST_FAULT])
        return RankFault(int(found["rank"]), str(found["host"]), str(found["cause"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return RankFault(0, "", f"a rank failed, and its word cannot be read ({error!r})")


def _is_of_connection(error: BaseException) -> bool:
    """Return whether an error looks like one of a process group whose peer is gone, not like a model's."""
    words = str(error).lower()
    return isinstance(error, DistNetworkError | DistStoreError) or any(
        sign in words
        for sign in ("connection closed by peer", "connection reset", "gloo", "nccl", "timed out waiting")
    )
