"""Files checked by several processes at once, for what one process would say about them.

Each worker has every n-th file and sends back what it found, file by file. It waits for nothing, so that it
ends with its share, or at its next file where the process that started it is gone. What a worker cannot check
is left to the caller.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

from devmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkContext, SpawnContext
    from multiprocessing.process import BaseProcess

__all__ = ["in_workers", "workers_for"]

Found = TypeVar("Found")

_SHARE_OF_A_FORK = 32
"""Files from which a copy of this process pays: it costs what two or three files do."""
_SHARE_OF_A_START = 256
"""The same for a process that imports everything anew."""


def workers_for(files: int, *, jobs: int) -> int:
    """Return how many processes check that many files.

    `jobs`, or with 0 as many as there are cores and as pay.

    1 is this one alone.
    """
    if jobs:
        return max(1, min(jobs, files))
    share = _SHARE_OF_A_FORK if _forks() else _SHARE_OF_A_START
    return max(1, min(_cores(), files // share))


def in_workers(files: Sequence[str], check: Callable[[str], Found], *, count: int) -> dict[str, Found]:
    """Return what `check` says of each file, found by `count` processes.

    Absent are a file at which a worker failed and the rest of its share.

    `check` is pickled where this process cannot be copied. No worker is left when this returns or raises.

    Raises:
        UsageError: when a worker was killed or died.
    """
    import multiprocessing  # noqa: PLC0415 - with its sockets 10 ms, and most runs are over one file
    import signal  # noqa: PLC0415 - as above

    found: dict[str, Found] = {}
    context: ForkContext | SpawnContext
    if _forks():
        context = multiprocessing.get_context("fork")
        found[files[0]] = check(files[0])  # so that every copy has what all need: the rules, the model
        files = files[1:]
    else:
        context = multiprocessing.get_context("spawn")
    workers: dict[Connection, BaseProcess] = {}
    gc.freeze()  # collecting would write to every page that the workers share with us
    try:
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGINT}
        )  # workers inherit it: interrupts are ours to answer
        try:
            for number in range(count):
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work, args=(files[number::count], check, writer, reader), daemon=True
                )
                process.start()
                writer.close()
                workers[reader] = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return found | _gathered(workers)
    finally:
        gc.unfreeze()
        for reader, worker in workers.items():
            worker.terminate()
            worker.join()
            reader.close()


def _gathered(workers: dict[Connection, BaseProcess]) -> dict[str, Any]:
    """Return what the workers send, until each has said that it is done."""
    from multiprocessing.connection import wait  # noqa: PLC0415 - as above

    found: dict[str, Any] = {}
    pending = set(workers)
    while pending:
        for reader in cast("list[Connection]", wait(list(pending))):
            try:
                message = reader.recv()
            except (EOFError, OSError):  # OSError: it died while it was sending
                raise _death(workers[reader]) from None
            if message is None:
                pending.discard(reader)
            else:
                found[message[0]] = message[1]
    return found


def _death(worker: BaseProcess) -> UsageError:
    worker.join()
    code = worker.exitcode or 0
    end = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
    hint = "it may have run out of memory; --jobs 1 checks the files one by one and shows which one fails"
    return UsageError(f"a worker process {end}", help=hint)


def _work(
    files: Sequence[str], check: Callable[[str], object], writer: Connection, reader: Connection
) -> None:
    """Check the share of files, send the results, end."""
    reader.close()  # a fork's copy, with which writing would never fail
    try:
        for file in files:
            try:
                found = check(file)
            # Whatever it is cannot be told from here: the caller checks what is absent itself, and raises it.
            except Exception:  # noqa: BLE001
                break
            writer.send((file, found))
        writer.send(None)
        writer.close()
    except BrokenPipeError:
        return  # nobody listens any more


def _forks() -> bool:
    """Return whether a copy of this process is safe: on Linux, with no thread that may hold a lock."""
    return sys.platform == "linux" and threading.active_count() == 1


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
