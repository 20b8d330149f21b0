"""Files that appear under their names whole or not at all, and what a killed process leaves of one.

A file is written beside its place under a name of its own, brought to the disk, and moved. While it is
written its lock is held: whoever finds one that nobody holds knows that its writer was killed, and removes
it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.regular_files import require_regular
from devmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["sweep", "write_atomically", "write_named", "write_parts", "write_then_name"]

_PREFIX, _SUFFIX = ".devmap-", ".tmp"
_DEVICES = Path("/dev")


def write_named(path: Path, content: bytes) -> None:
    """Write what the user asked for to the file that the user named, whole or not at all.

    What lies in `/dev`, as `/dev/stdout` does, is written to and never replaced.

    Raises:
        UsageError: when it cannot be written.
    """
    try:
        if path.is_absolute() and _DEVICES in path.parents:
            path.write_bytes(content)
        else:
            write_atomically(path, content)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be written: {reason}", help="name another file") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that others may read; it keeps the permissions of the one that it replaces.

    A reader sees the old bytes or the new ones, nothing between. What killed processes left in the folder is
    removed. A link is replaced, not followed.

    Raises:
        OSError: when it cannot be written, or the name is that of a folder, a device or a FIFO; what is there
            is as it was then.
    """
    require_regular(path)
    sweep(path.parent)
    mask = os.umask(0)
    os.umask(mask)
    write_parts(path, [content], mode=path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask)


def write_parts(path: Path, parts: Iterable[bytes | memoryview], *, mode: int = 0o600) -> None:
    """Write a file from parts, one after another.

    Raises:
        OSError: when it cannot be written; nothing is left of it then.
    """
    write_then_name(path.parent, parts, lambda: path, mode=mode)


def write_then_name(
    folder: Path, parts: Iterable[bytes | memoryview], named: Callable[[], Path], *, mode: int = 0o600
) -> Path:
    """Write a file whose name, in the same folder, is asked for when all of its parts are written.

    Raises:
        OSError: when it cannot be written; nothing is left of it then.
    """
    descriptor, temporary = _temporary(folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(mode)
            path = named()
            if sys.platform != "win32":
                # Under its lock: a sweeper must not find it complete, unlocked and not renamed yet.
                temporary.replace(path)
        if sys.platform == "win32":
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _sync_folder(folder)
    return path


def sweep(folder: Path) -> None:
    """Remove temporary files of processes that died while they wrote. Those of living ones stay."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        # Its writer lives, or somebody else was faster, or may do what we may not.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                _lock(descriptor, wait=False)
                if sys.platform != "win32":
                    path.unlink()  # under the lock: its writer, if there is one yet, will see that it is gone
            finally:
                os.close(descriptor)
            if sys.platform == "win32":
                path.unlink()


def _temporary(folder: Path) -> tuple[int, Path]:
    """Return a new file that is ours as long as we live: its lock goes with the process."""
    import tempfile  # noqa: PLC0415 - with what it imports 5 ms, and `devmap validate` writes nothing

    while True:
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=folder)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                _lock(descriptor, wait=True)
            if os.fstat(descriptor).st_nlink:  # else it was swept away between its making and its lock
                return descriptor, Path(name)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        os.close(descriptor)


if sys.platform == "win32":

    def _lock(descriptor: int, *, wait: bool) -> None:
        """Not needed: a file that is open cannot be removed there."""

else:
    import fcntl

    def _lock(descriptor: int, *, wait: bool) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk; systems that cannot open a folder order this by themselves."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
