"""The header of one safetensors file.

Names, shapes and offsets, checked against each other and against the file's size.

Layout of the format: 8 bytes that hold N as an unsigned little-endian integer, N bytes of JSON, then the
tensors' bytes without gaps. An entry gives `dtype`, `shape` and `data_offsets`, counted from the end of the
JSON.
"""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from devmap.config.regular_files import open_regular
from devmap.config.values.words import shown
from devmap.inventory.dtypes import SAFETENSORS_DTYPES, is_addressable, storage_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["HEADER_LIMIT_BYTES", "StoredTensor", "read_header"]

HEADER_LIMIT_BYTES = 100_000_000
"""The limit that safetensors itself sets."""

_LENGTH_BYTES = 8
_MOST_SHOWN = 16
_LONGEST_SHOWN = 400


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a safetensors file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """torch's name of the dtype."""
    file: Path
    offset: int
    """Of its first byte from the start of the file, in bytes."""
    nbytes: int


def read_header(path: Path) -> tuple[list[StoredTensor], list[str]]:
    """Return the tensors of one file in the order of its header, and everything that is wrong with it.

    Reads the header alone, never a weight. n log n in the number of tensors.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            prefix = file.read(_LENGTH_BYTES)
            size = file.seek(0, 2)
            fault = _length_fault(prefix, size)
            if fault:
                return [], [fault]
            (length,) = struct.unpack("<Q", prefix)
            file.seek(_LENGTH_BYTES)
            text = file.read(length)
    except OSError as error:
        return [], [f"cannot be read: {error.strerror or error}"]
    entries, fault = _entries(text)
    if fault:
        return [], [fault]
    return _tensors(path, entries, start=_LENGTH_BYTES + length, size=size)


def _length_fault(prefix: bytes, size: int) -> str:
    if len(prefix) < _LENGTH_BYTES:
        return f"is truncated: {size} bytes, less than the 8 that say how long the header is"
    (length,) = struct.unpack("<Q", prefix)
    if length > HEADER_LIMIT_BYTES:
        return (
            f"says that its header has {length:,} bytes; {HEADER_LIMIT_BYTES:,} "
            "are allowed. It may be no safetensors file"
        )
    if _LENGTH_BYTES + length > size:
        return f"is truncated: its header ends at byte {_LENGTH_BYTES + length:,} and the file at {size:,}"
    return ""


class _BadConstantError(ValueError):
    """NaN or an infinity, which JSON does not have."""


def _refuse_constant(word: str) -> None:
    raise _BadConstantError(word)


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {shown(twice)} appears twice")
    return found


def _entries(text: bytes) -> tuple[dict[str, object], str]:
    try:
        entries = json.loads(text.decode(), parse_constant=_refuse_constant, object_pairs_hook=_no_duplicates)
    except _BadConstantError as error:
        return {}, f"has {error} in its header, which is not valid JSON"
    except RecursionError:
        return {}, "has a header that is nested too deep"
    except ValueError as error:
        return {}, f"has a header that is not JSON: {error}"
    if not isinstance(entries, dict):
        return {}, "has a header that is not a JSON object"
    entries.pop("__metadata__", None)
    return entries, ""


def _tensors(
    path: Path, entries: dict[str, object], *, start: int, size: int
) -> tuple[list[StoredTensor], list[str]]:
    tensors: list[StoredTensor] = []
    faults: list[str] = []
    for name, entry in entries.items():
        found = _tensor(path, name, entry, start)
        if isinstance(found, StoredTensor):
            tensors.append(found)
        else:
            faults.append(f"{shown(name)} {found}")
    if not faults:
        faults += _layout_faults(tensors, start=start, size=size)
    return tensors, faults


def _tensor(path: Path, name: str, entry: object, start: int) -> StoredTensor | str:
    """Return the tensor, or what is wrong with its entry."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        return "has no dtype, shape and data_offsets"
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in SAFETENSORS_DTYPES:
        return f"has the dtype {shown(code)}, which safetensors does not know"
    fault = _shape_fault(shape)
    if fault:
        return fault
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"has the data_offsets {_cut(offsets)}, expected two whole numbers, the smaller one first"
    first, last = offsets
    dtype = SAFETENSORS_DTYPES[code]
    nbytes = storage_bytes(shape, dtype)
    if last - first != nbytes:
        return f"takes {last - first:,} bytes in the file, but {code} of shape {_cut(shape)} is {nbytes:,}"
    return StoredTensor(name, tuple(shape), dtype, path, start + first, nbytes)


def _shape_fault(shape: object) -> str:
    if not _counts(shape):
        return f"has the shape {_cut(shape)}, expected a list of whole numbers from 0"
    if not is_addressable(shape):
        return f"has the shape {_cut(shape)}, which is more than any file holds"
    return ""


def _counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _cut(value: object) -> str:
    """Return a value of a header's entry as Python writes it, cut where it is long."""
    if isinstance(value, list) and len(value) > _MOST_SHOWN:
        return f"[{', '.join(_cut(item) for item in value[:_MOST_SHOWN])}, ... {len(value):,} in all]"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _layout_faults(tensors: list[StoredTensor], *, start: int, size: int) -> Iterator[str]:
    """Overlaps, gaps, and bytes that are missing or left over at the end."""
    end, before = start, ""
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset < end:
            yield (
                f"{shown(tensor.name)} begins at byte {tensor.offset:,}, inside "
                f"{shown(before)}, which ends at {end:,}"
            )
        elif tensor.offset > end:
            yield f"has a gap of {tensor.offset - end:,} bytes before {shown(tensor.name)}"
        end = max(end, tensor.offset + tensor.nbytes)
        before = tensor.name
    if end > size:
        yield f"is truncated: the tensors end at byte {end:,} and the file at {size:,}"
    elif end < size:
        yield f"has {size - end:,} bytes after the last tensor that belong to none"
