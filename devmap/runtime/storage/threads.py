"""Pools whose threads all run from the beginning."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from devmap.errors import LoadError

__all__ = ["started_pool"]


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool with so many threads, each of which runs already.

    A pool starts its threads when work comes. A system that refuses one then does so in the middle of a pass,
    after the work has been queued: it may be done later, over memory that has another owner by then. Here it
    is refused while a model is loaded, with nothing queued.

    Raises:
        LoadError: when the system refuses a thread; none is left then.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    meeting = threading.Barrier(threads)  # no thread is free for the next of these before all are there
    try:
        for begun in [pool.submit(meeting.wait) for _ in range(threads)]:
            begun.result()
    except BaseException as error:
        meeting.abort()
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, RuntimeError) and not isinstance(error, threading.BrokenBarrierError):
            raise LoadError(
                f"the system refuses to start a thread: {error}",
                help="raise its limit (ulimit -u, or the container's limit of pids), or end other processes",
            ) from error
        raise
    return pool
