"""The one place that opens the files which a config names.

Regular files alone, and never more of one than is allowed.

A config may come from a stranger. A FIFO would keep its reader waiting for ever, a device such as /dev/zero
has no end, and a name may hold what no path can. Each of these becomes an `OSError` here, whose `strerror`
says what is wrong, so that whoever reads a file has one kind of error to turn into a finding.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = [
    "expand_user",
    "is_file",
    "is_folder",
    "is_there",
    "open_regular",
    "read_regular",
    "real_path",
    "require_regular",
]

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""A FIFO opens at once then, and a terminal does not become ours; on a regular file they change nothing."""

_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "it is a folder"),
    (stat.S_ISFIFO, errno.EINVAL, "it is a FIFO, not a regular file"),
    (stat.S_ISCHR, errno.EINVAL, "it is a device, not a regular file"),
    (stat.S_ISBLK, errno.EINVAL, "it is a device, not a regular file"),
    (stat.S_ISSOCK, errno.EINVAL, "it is a socket, not a regular file"),
)


def open_regular(path: str | os.PathLike[str], *, flags: int = 0) -> int:
    """Open a file for reading, whatever links lead to it, and return its descriptor.

    `flags` are added to those of a plain read.

    Raises:
        OSError: when it cannot be opened, is no regular file, or its name is none that a file can have.
    """
    name = os.fspath(path)
    try:
        descriptor = os.open(name, _READ | _WITHOUT_WAITING | flags)
    except ValueError as error:  # a NUL, or a character that the file system's encoding does not have
        raise OSError(errno.EINVAL, f"this cannot be a file name: {error}", name) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # how a socket, or a FIFO of some systems, refuses to be opened
            raise OSError(errno.EINVAL, "it is not a regular file", name) from None
        raise
    is_regular = False
    try:
        fault = _kind_fault(os.fstat(descriptor).st_mode)
        is_regular = fault is None
    finally:
        if not is_regular:
            os.close(descriptor)
    if fault is not None:
        raise OSError(*fault, name)
    return descriptor


def require_regular(path: str | os.PathLike[str]) -> None:
    """Make sure that what has a name, after links, is a regular file, or that nothing has it.

    Raises:
        OSError: when it is something else, or its name is none that a file can have.
    """
    try:
        fault = _kind_fault(os.stat(path).st_mode)  # noqa: PTH116 - of what an open would find
    except FileNotFoundError:
        return
    except ValueError as error:
        raise OSError(errno.EINVAL, f"this cannot be a file name: {error}", os.fspath(path)) from None
    if fault is not None:
        raise OSError(*fault, os.fspath(path))


def read_regular(path: str | os.PathLike[str], *, limit_bytes: int) -> bytes:
    """Return a file's content, of a longer one the first `limit_bytes + 1` bytes.

    Enough to see that it is too long.

    Raises:
        OSError: as `open_regular`.
    """
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        parts: list[bytes] = []
        left = limit_bytes + 1
        while left > 0:
            part = file.read(min(left, 1 << 24))
            if not part:  # None where a file of /proc has nothing to say yet
                break
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def is_there(path: str | os.PathLike[str]) -> bool:
    """Return whether anything is at a path; False for names that no file can have."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for names that are too long


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a regular file is at a path, after links; False for names that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - as above


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder is at a path, after links; False for names that no file can have."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return a path without links; one that no file can have, or whose links run in a circle, as it is."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(path)


def expand_user(name: str) -> Path:
    """Return the path with its `~` or `~user` replaced by that home.

    Where there is no such user, as it is.
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises where there is no such user


def _kind_fault(mode: int) -> tuple[int, str] | None:
    if stat.S_ISREG(mode):
        return None
    return next(
        ((number, words) for is_kind, number, words in _KINDS if is_kind(mode)),
        (errno.EINVAL, "it is not a regular file"),
    )
