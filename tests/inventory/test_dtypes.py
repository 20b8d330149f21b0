from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING

import pytest
import safetensors
import torch

from devmap.errors import InventoryError
from devmap.inventory.dtypes import SAFETENSORS_DTYPES, element_bits, run_dtype, storage_bytes

if TYPE_CHECKING:
    from pathlib import Path

TORCH_DTYPES = sorted(
    {str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)}
)


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_the_size_of_every_dtype_is_torchs_own(name: str) -> None:
    assert element_bits(name) == getattr(torch, name).itemsize * 8


def one_tensor(path: Path, code: str, shape: list[int], nbytes: int) -> Path:
    header = json.dumps({"a": {"dtype": code, "shape": shape, "data_offsets": [0, nbytes]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(nbytes))
    return path


@pytest.mark.parametrize(("code", "dtype"), SAFETENSORS_DTYPES.items())
def test_safetensors_accepts_every_code_with_the_size_we_give_it(
    tmp_path: Path, code: str, dtype: str
) -> None:
    path = one_tensor(tmp_path / "x.safetensors", code, [8], storage_bytes((8,), dtype))
    with safetensors.safe_open(path, framework="pt") as opened:
        assert opened.get_slice("a").get_dtype() == code


def test_no_code_of_safetensors_is_lacking(tmp_path: Path) -> None:
    with (
        pytest.raises(safetensors.SafetensorError) as caught,
        safetensors.safe_open(one_tensor(tmp_path / "x", "?", [], 0), framework="pt"),
    ):
        pass
    listed = set(re.findall(r"`([A-Z0-9_]+)`", str(caught.value)))
    assert listed == set(SAFETENSORS_DTYPES)


def test_sub_byte_elements_are_packed_and_rounded_up() -> None:
    assert storage_bytes((3,), "float4_e2m1fn") == 2
    assert storage_bytes((), "float32") == 4
    assert storage_bytes((0, 5), "float32") == 0


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(InventoryError, match="'float17' is not a torch dtype"):
        element_bits("float17")


def test_a_run_dtype_changes_wide_floating_parameters_alone() -> None:
    assert run_dtype("float32", "bfloat16", kind="parameter") == "bfloat16"
    assert run_dtype("float32", None, kind="parameter") == "float32"
    assert run_dtype("float32", "bfloat16", kind="buffer") == "float32"
    assert run_dtype("int8", "bfloat16", kind="parameter") == "int8"
    assert run_dtype("float8_e4m3fn", "bfloat16", kind="parameter") == "float8_e4m3fn"
