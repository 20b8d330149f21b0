"""Signals that wait until a step of the engine is done.

Python runs the handlers of signals between any two instructions of the main thread, and Ctrl-C's raises
there. Inside the standard library's pools and futures that may leave a lock taken for ever
(`Condition.__enter__` is Python code). So the engine's steps, which use them, note a signal and let its
handler run when they are done; the second signal of a kind is not held back, so that a step that waits for a
dead disk can still be broken off.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType, TracebackType

__all__ = ["HeldSignals"]

_WATCHED = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
"""Those whose handlers are known to raise: interrupts, ends, time limits of test runners and job schedulers.
"""


class HeldSignals:
    """Holds signals back between `__enter__` and `__exit__`, in the main thread.

    Elsewhere no handler runs anyway.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._noted: dict[int, FrameType | None] = {}

    def __enter__(self) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            return
        try:
            for number in _WATCHED:
                handler = signal.getsignal(number)
                if callable(handler) and not isinstance(getattr(handler, "__self__", None), HeldSignals):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        except BaseException:
            self._restore()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        while self._noted:
            number, frame = self._noted.popitem()
            self._handlers[number](number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self._noted:
            del self._noted[number]
            self._handlers[number](number, frame)
        else:
            self._noted[number] = frame

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
