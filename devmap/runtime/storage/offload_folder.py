"""The offload folder: weights that have no safetensors file behind them, written once.

One file a block, in safetensors format. Its name is the digest of its content, so a file of another model, or
of other weights of the same model, is never taken for it; what is there already is read and compared before
it is trusted. A file appears under its name only when it is complete and on the disk, so a process that dies,
and two that write at once, do no harm. What a process leaves behind that is killed while it writes is removed
when the folder is used the next time.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.atomic_files import write_parts, write_then_name
from devmap.errors import LoadError
from devmap.inventory.dtypes import SAFETENSORS_DTYPES
from devmap.inventory.stored.checkpoint import StoredTensor
from devmap.inventory.stored.mapping import Piece
from devmap.runtime.storage.files import memory_of
from devmap.runtime.storage.weights import flat_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch

    from devmap.runtime.storage.weights import Weight

__all__ = ["write_block"]

_CODES = {name: code for code, name in SAFETENSORS_DTYPES.items()}
_CHUNK = 8 << 20


def write_block(weights: Sequence[Weight], folder: str) -> tuple[Weight, ...]:
    """Return the same weights with a file behind them.

    Nothing is written where the file is there already, and right.

    Raises:
        LoadError: when the folder cannot be written to, or the disk is full.
    """
    header, offsets = _header(weights)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = _written(Path(folder), header, weights)
    except OSError as error:
        raise LoadError(
            f"the offload folder '{folder}' cannot be written to: {error.strerror or error}",
            help="name another folder in offload.folder, or free space there",
        ) from error
    return tuple(
        replace(
            weight,
            live=None,
            maker=None,
            stored=((_stored(weight, path, len(header) + offset), Piece(weight.name)),),
        )
        for weight, offset in zip(weights, offsets, strict=True)
    )


def _stored(weight: Weight, path: Path, offset: int) -> StoredTensor:
    return StoredTensor(weight.name, weight.shape, _dtype_name(weight), path, offset, weight.nbytes)


def _dtype_name(weight: Weight) -> str:
    return str(weight.dtype).removeprefix("torch.")


def _header(weights: Sequence[Weight]) -> tuple[bytes, list[int]]:
    entries = {}
    offsets = []
    end = 0
    for weight in weights:
        code = _CODES.get(_dtype_name(weight))
        if code is None:
            raise LoadError(
                f"'{weight.name}' has dtype {weight.dtype}, which safetensors cannot hold",
                help="keep it on a device or on cpu",
            )
        offsets.append(end)
        entries[weight.name] = {
            "dtype": code,
            "shape": list(weight.shape),
            "data_offsets": [end, end + weight.nbytes],
        }
        end += weight.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 64)
    return len(text).to_bytes(8, "little") + text, offsets


def _flat(weight: Weight) -> torch.Tensor:
    return flat_bytes(weight.value())


def _written(folder: Path, header: bytes, weights: Sequence[Weight]) -> Path:
    """Return the file of these weights, which is written unless it is there.

    A weight that has to be made is made once where no file looks like theirs: it is written while it is
    digested. Where one does, it most likely is theirs, and nothing is written.
    """
    nbytes = len(header) + sum(weight.nbytes for weight in weights)
    if any(weight.maker is not None for weight in weights) and not _is_known(folder, header, nbytes):
        digest = hashlib.sha256()
        content = _digested(_content(header, weights), digest)
        return write_then_name(folder, content, lambda: folder / _name(digest))
    digest = hashlib.sha256()
    for _ in _digested(_content(header, weights), digest):
        pass
    path = folder / _name(digest)
    if not _is_right(path):
        write_parts(path, _content(header, weights))
    return path


def _name(digest: hashlib._Hash) -> str:
    return f"{digest.hexdigest()[:40]}.safetensors"


def _digested(parts: Iterable[bytes | memoryview], digest: hashlib._Hash) -> Iterator[bytes | memoryview]:
    for part in parts:
        digest.update(part)
        yield part


def _is_known(folder: Path, header: bytes, nbytes: int) -> bool:
    """Return whether a file of the folder has this header and size."""
    for path in folder.glob("*.safetensors"):
        if path.stat().st_size == nbytes:
            with path.open("rb") as file:
                if file.read(len(header)) == header:
                    return True
    return False


def _is_right(path: Path) -> bool:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        return False
    return path.name == _name(digest)


def _content(header: bytes, weights: Sequence[Weight]) -> Iterator[bytes | memoryview]:
    yield header
    for weight in weights:
        flat = _flat(weight)  # has a name, so that it lives until its bytes are written
        yield memory_of(flat)
