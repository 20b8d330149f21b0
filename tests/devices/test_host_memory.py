"""Host memory: the system's figures, bounded by control groups of both versions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from devmap.devices.host_memory import host_memory

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = (
    f"MemTotal: {16 * GIB // 1024} kB\nMemFree: {2 * GIB // 1024} kB\nMemAvailable: {12 * GIB // 1024} kB\n"
)


@pytest.mark.parametrize(
    ("files", "total", "free"),
    [
        ({}, 16, 12),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 16, 12),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
                "sys/fs/cgroup/memory.current": f"{GIB}\n",
            },
            4,
            3,
        ),
        (
            {
                "proc/self/cgroup": "0::/app/job\n",
                "sys/fs/cgroup/app/memory.max": f"{8 * GIB}",
                "sys/fs/cgroup/app/memory.current": f"{7 * GIB}",
                "sys/fs/cgroup/app/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
                "sys/fs/cgroup/app/job/memory.max": "max",
            },
            8,
            3,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/\n4:hugetlb,memory:/job\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2 * GIB}",
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{GIB}",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            2,
            1,
        ),
        ({"proc/self/cgroup": "0::/gone\n", "sys/fs/cgroup/memory.max": f"{3 * GIB}"}, 3, 3),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": f"{GIB}",
                "sys/fs/cgroup/memory.current": f"{2 * GIB}",
            },
            1,
            0,
        ),
    ],
    ids=[
        "no group",
        "no limit",
        "version 2",
        "a parent's limit, caches given back",
        "version 1",
        "inside a container",
        "over its limit",
    ],
)
def test_the_lowest_limit_holds(tmp_path: Path, files: dict[str, str], total: int, free: int) -> None:
    memory = host_memory(root=write(tmp_path, {"proc/meminfo": MEMINFO, **files}))
    assert (memory.total_bytes, memory.free_bytes) == (total * GIB, free * GIB)


def test_without_proc_the_system_is_asked(tmp_path: Path) -> None:
    memory = host_memory(root=tmp_path)
    assert memory.total_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.free_bytes <= memory.total_bytes


def test_this_machine_has_memory() -> None:
    memory = host_memory()
    assert 0 < memory.free_bytes <= memory.total_bytes
