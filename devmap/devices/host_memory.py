"""The host's memory as this process may use it: /proc/meminfo, bounded by control groups."""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.devices.backend import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["host_memory", "return_freed"]

_UNLIMITED = 1 << 60
"""Version 1 of control groups writes "no limit" as a number near 2**63."""


def host_memory(*, root: Path = Path("/")) -> Memory:
    """Total and available host memory in bytes.

    Available is what can be allocated without swapping, caches that the kernel would give back included
    (`MemAvailable`). A limit of the process's control group, or of one above it, bounds both figures. `root`
    is where `proc` and `sys` are.

    Source: Documentation/filesystems/proc.rst and admin-guide/cgroup-v2.rst of the Linux kernel.
    """
    total, free = _system_memory(root)
    for limit, used in _group_limits(root):
        total = min(total, limit)
        free = min(free, max(0, limit - used))
    return Memory(total_bytes=total, free_bytes=min(free, total))


def return_freed() -> None:
    """Give back to the system what was freed and the C library keeps, where it is glibc.

    It keeps blocks of up to 32 MiB for the next one who asks; after a hundred tensors of a few megabytes that
    is several times what is held at once. Source: `malloc_trim(3)`.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or none to look into
        return None
    return found


def _system_memory(root: Path) -> tuple[int, int]:
    figures: dict[str, str] = dict(
        re.findall(r"^(\w+):\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    )
    if "MemTotal" in figures:
        total = int(figures["MemTotal"]) * 1024
        return total, int(figures.get("MemAvailable", figures.get("MemFree", 0))) * 1024
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free_pages = (
        os.sysconf("SC_AVPHYS_PAGES")
        if "SC_AVPHYS_PAGES" in os.sysconf_names
        else os.sysconf("SC_PHYS_PAGES")
    )
    return total, os.sysconf("SC_PAGE_SIZE") * free_pages


def _group_limits(root: Path) -> list[tuple[int, int]]:
    """Limit and use of every memory control group that this process is in, in bytes.

    Use without caches that can be given back.
    """
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            found += _walk(root / "sys/fs/cgroup", group, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            found += _walk(
                root / "sys/fs/cgroup/memory",
                group,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
    return found


def _walk(mount: Path, group: str, limit_name: str, used_name: str, cache_name: str) -> list[tuple[int, int]]:
    """Return a group and its parents.

    Inside a container the group's own path is often not mounted: then the mount itself is the group.
    """
    found = []
    parts = [part for part in group.split("/") if part not in {"", ".."}]
    for depth in range(len(parts), -1, -1):
        folder = mount.joinpath(*parts[:depth])
        limit = _read(folder / limit_name).strip()
        if not limit.isdigit() or int(limit) >= _UNLIMITED:
            continue
        used = _read(folder / used_name).strip()
        cached = re.search(rf"^{cache_name} (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
        found.append((int(limit), max(0, int(used or 0) - int(cached[1] if cached else 0))))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
