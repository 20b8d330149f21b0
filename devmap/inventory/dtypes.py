"""Element sizes of torch's dtypes and the names that safetensors gives them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from devmap.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SAFETENSORS_DTYPES", "element_bits", "is_addressable", "run_dtype", "storage_bytes"]

_BITS = {
    "float64": 64,
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "float8_e4m3fn": 8,
    "float8_e4m3fnuz": 8,
    "float8_e5m2": 8,
    "float8_e5m2fnuz": 8,
    "float8_e8m0fnu": 8,
    "float4_e2m1fn_x2": 8,
    "complex128": 128,
    "complex64": 64,
    "complex32": 32,
    "int64": 64,
    "int32": 32,
    "int16": 16,
    "int8": 8,
    "uint64": 64,
    "uint32": 32,
    "uint16": 16,
    "uint8": 8,
    "bool": 8,
    **{f"{sign}int{bits}": 8 for sign in ("", "u") for bits in range(1, 8)},
    "qint8": 8,
    "quint8": 8,
    "qint32": 32,
    "quint4x2": 8,
    "quint2x4": 8,
    "bits1x8": 8,
    "bits2x4": 8,
    "bits4x2": 8,
    "bits8": 8,
    "bits16": 16,
    "float4_e2m1fn": 4,
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
    "packed_int4": 4,
    "packed_int2": 2,
}
"""Bits that one element takes in memory. torch stores its sub-byte dtypes in whole bytes
(`torch.int4.itemsize` is 1); the rows with fewer bits are of safetensors alone, which packs them, and, the
last two, of plans for weights that somebody will quantise."""

SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
"""safetensors' dtype codes and torch's names for them."""


def element_bits(dtype: str) -> int:
    """Bits that one element of a dtype takes in memory.

    Raises:
        InventoryError: for a dtype that torch does not have.
    """
    try:
        return _BITS[dtype]
    except KeyError:
        raise InventoryError(f"'{dtype}' is not a torch dtype", help=f"known: {', '.join(_BITS)}") from None


def is_addressable(shape: Sequence[int]) -> bool:
    """Return whether a tensor of this shape has fewer than 2**62 elements.

    Told without multiplying further than that.
    """
    if 0 in shape:
        return True
    elements = 1
    for length in shape:
        elements *= length
        if elements >= 1 << 62:
            return False
    return True


def storage_bytes(shape: Sequence[int], dtype: str) -> int:
    """Return the bytes that a contiguous tensor takes, rounded up to a whole byte."""
    return (math.prod(shape) * element_bits(dtype) + 7) // 8


def run_dtype(stored: str, asked: str | None, *, kind: str) -> str:
    """Return the dtype that a tensor has in the running model.

    As in transformers, a dtype that is asked for changes parameters of the wide floating types (float64,
    float32, float16, bfloat16) and leaves everything else as it is: integers, quantised weights with their
    scales, and buffers, which models compute in a dtype of their own.
    """
    if asked is None or kind != "parameter" or stored not in {"float64", "float32", "float16", "bfloat16"}:
        return stored
    return asked
