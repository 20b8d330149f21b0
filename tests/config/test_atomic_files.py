"""Files that are written whole or not at all, whatever fails and whenever the process is killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devmap.config.atomic_files import sweep, write_atomically, write_parts

if TYPE_CHECKING:
    from collections.abc import Callable

OLD, NEW = b"old\n", b"new\n" * 1000

STEPS: dict[str, tuple[Any, str]] = {
    "make": (tempfile, "mkstemp"),
    "open": (os, "fdopen"),
    "flush": (os, "fsync"),
    "permit": (Path, "chmod"),
    "move": (Path, "replace"),
}
FAILURES: dict[str, Callable[[], BaseException]] = {
    "ENOSPC": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "EIO": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "EDQUOT": lambda: OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "interrupt": KeyboardInterrupt,
    "memory": MemoryError,
}


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_leaves_the_old_file_and_nothing_else(
    step: str, failure: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.lock"
    if existing:
        path.write_bytes(OLD)

    def fail(*arguments: Any, **_: Any) -> Any:
        if step == "open":
            os.close(arguments[0])  # as fdopen does, which has taken the descriptor over
        error = FAILURES[failure]()
        raise error

    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr(*STEPS[step], fail)
        with pytest.raises((OSError, KeyboardInterrupt, MemoryError)):
            write_atomically(path, NEW)
    assert [each.name for each in tmp_path.iterdir()] == (["x.lock"] if existing else [])
    assert not existing or path.read_bytes() == OLD
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    write_atomically(path, NEW)
    assert path.read_bytes() == NEW


KILLED = """
import os, signal, sys, tempfile
from pathlib import Path
from devmap.config.atomic_files import write_atomically
owner, name = {"make": (tempfile, "mkstemp"), "open": (os, "fdopen"), "flush": (os, "fsync"),
               "permit": (Path, "chmod"), "move": (Path, "replace")}[sys.argv[2]]
call = getattr(owner, name)
def killed(*arguments, **named):
    if sys.argv[3] == "after":
        call(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, killed)
write_atomically(Path(sys.argv[1]), b"new\\n" * 1000)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_writer_leaves_the_old_file_or_the_new_one(step: str, moment: str, tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_bytes(OLD)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), step, moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == (NEW if (step, moment) == ("move", "after") else OLD)
    write_atomically(path, NEW)  # the next run tidies up
    assert [each.name for each in tmp_path.iterdir()] == ["x.lock"]
    assert path.read_bytes() == NEW


def test_permissions_are_those_of_the_file_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(OLD)
    path.chmod(0o640)
    write_atomically(path, NEW)
    assert path.stat().st_mode & 0o777 == 0o640
    write_parts(tmp_path / "own", [OLD, memoryview(NEW)])
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "own").read_bytes() == OLD + NEW


def test_what_is_being_written_is_not_swept(tmp_path: Path) -> None:
    def parts() -> Any:
        yield OLD
        sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        yield NEW

    write_parts(tmp_path / "x", parts())
    assert (tmp_path / "x").read_bytes() == OLD + NEW
