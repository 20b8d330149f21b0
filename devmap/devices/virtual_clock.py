"""Virtual time for simulated devices.

Streams are queues of work with durations, and nothing runs before somebody needs it.

Work that is queued on a stream runs when a mark behind it is waited for, and not before: what a real device
does "some time later" happens here as late as it may, so a missing wait shows each time and not once in a
thousand runs. Each piece of work starts when its stream is free, what it waits for is done, and the host has
queued it; the host itself takes no time.
Deterministic: no thread, no real clock.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ClockMark", "VirtualClock", "VirtualStream"]


@dataclass(frozen=True, slots=True)
class ClockMark:
    """A place in a stream's queue: behind its first `position` pieces of work."""

    stream: VirtualStream
    position: int


@dataclass(slots=True)
class VirtualClock:
    """What the streams of one simulation share: the host's time, in seconds from its start."""

    host_seconds: float = 0.0
    streams: list[VirtualStream] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while work is queued or run; reader threads may queue too."""

    def stream(self, name: str) -> VirtualStream:
        """Return a new stream that belongs to this clock."""
        with self.lock:
            stream = VirtualStream(name, self)
            self.streams.append(stream)
            return stream

    @property
    def now_seconds(self) -> float:
        """When everything that has run so far, on any stream and on the host, is done."""
        return max([self.host_seconds, *(stream.ready_seconds for stream in self.streams)])

    def synchronize(self) -> None:
        """Run everything that is queued; the host waits for it."""
        for stream in list(self.streams):
            stream.synchronize()


@dataclass(slots=True)
class _QueuedWork:
    action: Callable[[], object] | None
    seconds: float
    earliest_seconds: float
    after: ClockMark | None


@dataclass(eq=False)
class VirtualStream:
    """A queue of work, each piece with a duration in seconds."""

    name: str
    clock: VirtualClock
    ready_seconds: float = 0.0
    """When the work that has run is done."""
    busy_seconds: float = 0.0
    """The sum of the durations of the work that has run: the bound that no schedule can beat on this stream.
    """
    _queue: deque[_QueuedWork] = field(default_factory=deque)
    _finished: list[float] = field(default_factory=lambda: [0.0])
    """When the first n pieces of work were done."""

    @property
    def outstanding(self) -> int:
        """Pieces of work that are queued and have not run."""
        return len(self._queue)

    def enqueue(self, action: Callable[[], object] | None, *, seconds: float = 0.0) -> None:
        """Queue work. It runs when a mark behind it is waited for."""
        with self.clock.lock:
            self._queue.append(_QueuedWork(action, seconds, self.clock.host_seconds, None))

    def run(self, action: Callable[[], object] | None = None, *, seconds: float = 0.0) -> None:
        """Run work now, after everything that is queued here.

        The host does not wait for it in virtual time.
        """
        with self.clock.lock:
            self.enqueue(action, seconds=seconds)
            self._run_until(len(self._finished) - 1 + len(self._queue))

    def mark(self) -> ClockMark:
        """Return the place behind everything that is queued here now."""
        with self.clock.lock:
            return ClockMark(self, len(self._finished) - 1 + len(self._queue))

    def wait(self, mark: ClockMark) -> None:
        """Make what is queued from now on start after the mark is reached."""
        with self.clock.lock:
            if mark.stream is not self:
                self._queue.append(_QueuedWork(None, 0.0, self.clock.host_seconds, mark))

    def wait_now(self, mark: ClockMark) -> None:
        """Wait as `wait` does, for a stream whose work is run at once.

        Brings the mark about before anything follows.
        """
        self.wait(mark)
        self.run()

    def synchronize(self) -> None:
        """Run everything that is queued here; the host waits for it."""
        self.reach(self.mark())

    def reach(self, mark: ClockMark) -> None:
        """Run what stands before a mark of this or another stream; the host waits for it."""
        with self.clock.lock:
            # A stream of the same clock.
            self.clock.host_seconds = max(self.clock.host_seconds, mark.stream._run_until(mark.position))  # noqa: SLF001

    def _run_until(self, position: int) -> float:
        while len(self._finished) <= position:
            work = self._queue[0]
            start = max(self.ready_seconds, work.earliest_seconds)
            if work.after is not None:
                # A stream of the same clock.
                start = max(start, work.after.stream._run_until(work.after.position))  # noqa: SLF001
            self._queue.popleft()
            if work.action is not None:
                work.action()
            self.ready_seconds = start + work.seconds
            self.busy_seconds += work.seconds
            self._finished.append(self.ready_seconds)
        return self._finished[position]
