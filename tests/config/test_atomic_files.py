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

from devmap.config.atomic_files import sweep, write_atomically, write_named, write_parts
from devmap.errors import UsageError

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


@pytest.mark.parametrize("kind", ["folder", "FIFO", "link to a FIFO", "link to a device"])
def test_what_is_no_regular_file_is_never_replaced(kind: str, tmp_path: Path) -> None:
    path, other = tmp_path / "x.lock", tmp_path / "other"
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "link to a FIFO":
        os.mkfifo(other)
        path.symlink_to(other)
    else:
        path.symlink_to("/dev/null")
    before = path.lstat()
    with pytest.raises(OSError, match=r"it is a (folder|FIFO|device)"):
        write_atomically(path, NEW)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    with pytest.raises(UsageError, match=r"cannot be written: it is a (folder|FIFO|device)"):
        write_named(path, NEW)


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(OLD)
    for name, target in (("link", "other"), ("to nothing", "nowhere")):
        (tmp_path / name).symlink_to(target)
        write_atomically(tmp_path / name, NEW)
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == NEW
    assert (tmp_path / "other").read_bytes() == OLD


def test_a_device_that_the_user_names_is_written_to(capfd: pytest.CaptureFixture[str]) -> None:
    write_named(Path("/dev/stdout"), b"words")
    assert capfd.readouterr().out == "words"
    write_named(Path("/dev/null"), b"words")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(UsageError, match="No space left on device"):
        write_named(Path("/dev/full"), b"words")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("name", ["nowhere/x", "x" * 300, "a\0b", ""])
def test_a_name_that_cannot_be_written_is_an_error_of_ours(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_named(Path(f"{tmp_path}/{name}"), NEW)
    assert list(tmp_path.iterdir()) == []
