"""What is read of a checkpoint while the module is built, by files that fail, are cut short or are gone."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from devmap.errors import LoadError, StreamError
from devmap.runtime.meta_build import build_on_meta
from devmap.runtime.quantized.torchao import settings_in
from devmap.runtime.storage import files
from devmap.runtime.storage.files import read_once

if TYPE_CHECKING:
    from collections.abc import Callable

DEEP = "[" * 100_000


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_part_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(100)))
    before = _descriptors()
    assert read_once(path, 10, 5) == bytes(range(10, 15))
    assert read_once(path, 100, 0) == b""
    assert _descriptors() == before


def _interrupted(real: Callable[..., int]) -> Callable[..., int]:
    """One byte at a time, as a network's file system may give them."""
    return lambda descriptor, parts, offset: real(descriptor, [parts[0][:1]], offset)


def test_short_reads_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(100)))
    monkeypatch.setattr(files, "_read", _interrupted(files._read))
    assert read_once(path, 3, 50) == bytes(range(3, 53))


@pytest.mark.parametrize("fault", ["cut short", "gone", "EIO"])
def test_a_file_that_fails_is_named_and_costs_no_descriptor(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    if fault != "gone":
        path.write_bytes(bytes(20))

    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if fault == "EIO":
        monkeypatch.setattr(files, "_read", fail)
    before = _descriptors()
    with pytest.raises(StreamError, match=str(path)):
        read_once(path, 10, 50)
    assert _descriptors() == before


def test_a_config_or_generation_config_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    config = LlamaConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        vocab_size=8,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(tmp_path)
    assert isinstance(build_on_meta(tmp_path), LlamaForCausalLM)
    for content in ("{", DEEP, "[]", "\0"):
        (tmp_path / "generation_config.json").write_text(content)
        with pytest.raises(LoadError, match=r"generation_config\.json"):
            build_on_meta(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    for content in ("{", DEEP, "[]", "\0"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(LoadError, match=r"config\.json is not"):
            build_on_meta(tmp_path)
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(LoadError, match="FIFO"):
        build_on_meta(tmp_path)


def test_settings_that_are_nested_too_deep_are_refused() -> None:
    with pytest.raises(LoadError, match="torchao"):
        settings_in({"w": DEEP}, "w")
    assert settings_in({"w": json.dumps({"a": 1})}, "w") is None


@pytest.mark.parametrize("key", ["architectures", "model_type"])
@pytest.mark.parametrize("value", [1, True, 1.5, {"a": 1}, [None], [["x"]]])
def test_names_of_classes_that_are_no_text_are_said(key: str, value: object) -> None:
    content = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], key: value}
    with pytest.raises(LoadError, match=f"in config.json '{key}' is "):
        build_on_meta(content)
