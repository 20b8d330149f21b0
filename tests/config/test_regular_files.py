"""Files that a config names: regular ones alone, and never more of one than is allowed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap.config.regular_files import (
    expand_user,
    is_file,
    is_folder,
    is_there,
    open_regular,
    read_regular,
    real_path,
)


def test_a_regular_file_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link", limit_bytes=10) == b"abc"


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_of_a_longer_file_one_byte_more_than_the_limit_is_read(tmp_path: Path, limit: int) -> None:
    (tmp_path / "a").write_bytes(b"abcde")
    assert read_regular(tmp_path / "a", limit_bytes=limit) == b"abcde"[: limit + 1]


def test_a_huge_file_without_blocks_costs_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert len(read_regular(path, limit_bytes=1000)) == 1001


@pytest.mark.parametrize(
    ("kind", "words"),
    [("fifo", "a FIFO"), ("device", "a device"), ("folder", "folder"), ("socket", "regular file")],
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "x"
    held = None
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        held = socket.socket(socket.AF_UNIX)
        held.bind(os.path.relpath(path))  # a whole path may be longer than a socket's name
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    with pytest.raises(OSError, match=words) as caught:
        read_regular(path, limit_bytes=10)
    assert caught.value.strerror
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before
    assert not is_file(path)
    if held is not None:
        held.close()


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "\ud800", "x/" * 3000])
def test_names_that_no_file_has_are_errors_of_the_one_kind(tmp_path: Path, name: str) -> None:
    path = f"{tmp_path}/{name}"
    with pytest.raises(OSError, match=r"[a-z]") as caught:
        open_regular(path)
    assert caught.value.strerror
    assert not (is_there(path))
    assert not (is_file(path))
    assert not (is_folder(path))
    assert str(real_path(path))


def test_links_in_a_circle_have_no_real_path_and_no_content(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert real_path(tmp_path / "a").parent == tmp_path.resolve()
    with pytest.raises(OSError, match="links"):
        read_regular(tmp_path / "a", limit_bytes=1)


def test_a_home_that_there_is_not_stays_as_it_is_written() -> None:
    assert str(expand_user("~no-such-user-here/x")) == "~no-such-user-here/x"
    assert expand_user("~/x").is_absolute()


@given(st.text(max_size=300))
def test_any_text_as_a_name_is_a_file_or_an_error(name: str) -> None:
    path = "/no-such-folder/" + name
    try:
        os.close(open_regular(path))
    except OSError as error:
        assert error.strerror  # noqa: PT017 - either way is right
