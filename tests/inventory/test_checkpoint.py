from __future__ import annotations

import json
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from devmap.errors import CheckpointError
from devmap.inventory.stored.checkpoint import read_headers

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def entry(dtype: str, shape: list[int], first: int, last: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def messages(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    return "\n".join(problem.message for problem in error.value.problems)


def test_a_file_gives_shapes_dtypes_and_offsets_of_its_bytes(tmp_path: Path) -> None:
    tensors = {
        "b": torch.arange(6, dtype=torch.int16).reshape(2, 3),
        "a": torch.ones(4, dtype=torch.bfloat16),
        "e": torch.zeros(0, 3),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = read_headers(tmp_path / "x.safetensors")
    assert {name: (stored.shape, stored.dtype, stored.nbytes) for name, stored in found.tensors.items()} == {
        "b": ((2, 3), "int16", 12),
        "a": ((4,), "bfloat16", 8),
        "e": ((0, 3), "float32", 0),
    }
    stored = found.tensors["b"]
    content = stored.file.read_bytes()[stored.offset : stored.offset + stored.nbytes]
    assert torch.frombuffer(bytearray(content), dtype=torch.int16).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("with_index", [True, False])
def test_a_sharded_folder_is_read_whole(tmp_path: Path, *, with_index: bool) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "m-1.safetensors")
    save_file({"b": torch.ones(3)}, tmp_path / "m-2.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    if with_index:
        index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert read_headers(tmp_path / "model.safetensors.index.json") == read_headers(tmp_path)
    found = read_headers(tmp_path)
    assert list(found.tensors) == ["a", "b"]
    assert [file.name for file in found.files] == ["m-1.safetensors", "m-2.safetensors"]
    assert found.config == {"model_type": "x"}


TWO = {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 8, 16)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "truncated"),
        (b"\x05\x00", "truncated"),
        (struct.pack("<Q", 1 << 40) + b"{}", "100,000,000 are allowed"),
        (struct.pack("<Q", 500) + b"{}", "truncated"),
        (struct.pack("<Q", 4) + b"{[}]", "not JSON"),
        (struct.pack("<Q", 4) + b"\xff\xfe{}", "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (struct.pack("<Q", 200_000) + b"[" * 200_000, "header"),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_headers(path)
    assert expected in messages(caught)


@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        (b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', 4, "NaN"),
        (b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}', 4, "Infinity"),
        (b'{"a": {}, "a": {}}', 0, "'a' appears twice"),
        ({"a": {"dtype": "F32"}}, 0, "has no dtype, shape and data_offsets"),
        ({"a": []}, 0, "has no dtype, shape and data_offsets"),
        ({"a": entry("F33", [1], 0, 4)}, 4, "'F33', which safetensors does not know"),
        ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, 4, "does not know"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, 4, "whole numbers"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, 4, "whole numbers"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, 4, "whole numbers"),
        ({"a": entry("F32", [1], 4, 0)}, 4, "the smaller one first"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, 4, "two whole numbers"),
        ({"a": entry("F32", [3], 0, 8)}, 8, "takes 8 bytes in the file, but F32 of shape [3] is 12"),
        (TWO, 12, "truncated: the tensors end at"),
        (TWO, 20, "has 4 bytes after the last tensor"),
        ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, 12, "inside 'a'"),
        ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 12, 20)}, 20, "gap of 4 bytes before 'b'"),
        ({"a": entry("F32", [2], 4, 12)}, 12, "gap of 4 bytes before 'a'"),
    ],
)
def test_a_header_that_disagrees_with_itself_or_its_file_is_refused(
    tmp_path: Path, header: object, body: int, expected: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_headers(write(tmp_path / "x.safetensors", header, bytes(body)))
    assert expected in messages(caught)


def test_all_faults_of_all_files_are_in_one_error(tmp_path: Path) -> None:
    write(
        tmp_path / "m-1.safetensors", {"a": entry("F99", [2], 0, 8), "b": entry("F32", [3], 0, 8)}, bytes(8)
    )
    (tmp_path / "m-2.safetensors").write_bytes(b"123")
    save_file({"c": torch.ones(1)}, tmp_path / "m-3.safetensors")
    save_file({"c": torch.ones(1)}, tmp_path / "m-4.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError) as caught:
        read_headers(tmp_path)
    found = messages(caught)
    for expected in (
        "F99",
        "'b' takes 8 bytes",
        "m-2.safetensors is truncated",
        "'c' is in both m-3.safetensors and m-4.safetensors",
        "config.json is not JSON",
    ):
        assert expected in found
    assert len(caught.value.problems) == 5


def test_an_index_is_compared_with_its_shards(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1), "z": torch.ones(1)}, tmp_path / "m-1.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "m-2.safetensors")
    index = {
        "weight_map": {
            "a": "m-1.safetensors",
            "b": "m-1.safetensors",
            "z": "m-2.safetensors",
            "c": "m-2.safetensors",
            "d": "m-9.safetensors",
            "e": "../x",
        }
    }
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError) as caught:
        read_headers(path)
    found = messages(caught)
    for expected in (
        "names '../x'",
        "'m-9.safetensors', which is not there",
        "'b' is in m-1.safetensors, but it is in m-2",
        "'c' is in m-2.safetensors, which does not have it",
    ):
        assert expected in found
    path.write_text('{"weight_map": [1]}')
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read_headers(path)
    assert "no weight_map" in messages(caught)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model.bin.index.json"])
def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointError, match="pickle") as caught:
            read_headers(path)
        assert caught.value.help.startswith("convert it once: python -c ")


def test_absent_and_empty_checkpoints_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_headers(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        read_headers(tmp_path)


def test_reading_headers_never_imports_torch() -> None:
    code = (
        "import sys; import devmap.inventory.reader, devmap.inventory.manifests.manifest, "
        "devmap.inventory.stored.hub; print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
