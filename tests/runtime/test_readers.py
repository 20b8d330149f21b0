"""Slabs filled from files: pieces, transposes, other dtypes, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from devmap.errors import StreamError
from devmap.inventory.stored.checkpoint import read_headers
from devmap.inventory.stored.mapping import Piece
from devmap.runtime.storage.homes import mapped, read_weight
from devmap.runtime.storage.read_requests import recipe_of
from devmap.runtime.storage.readers import Readers
from devmap.runtime.storage.weights import Weight, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def readers() -> Iterator[Readers]:
    found = Readers(scratch_bytes=64)
    yield found
    found.close()


def _weights(
    path: Path, *wanted: tuple[str, tuple[int, ...], torch.dtype, tuple[Piece, ...]]
) -> list[Weight]:
    stored = read_headers(path).tensors
    return [
        Weight(name, shape, dtype, "parameter", tuple((stored[piece.stored], piece) for piece in pieces))
        for name, shape, dtype, pieces in wanted
    ]


def test_experts_are_fused_and_transposed_slice_by_slice_into_their_place(
    tmp_path: Path, readers: Readers
) -> None:
    torch.manual_seed(0)
    gates = [torch.randn(3, 4) for _ in range(2)]
    ups = [torch.randn(3, 4) for _ in range(2)]
    downs = [torch.randn(5, 3) for _ in range(2)]
    path = tmp_path / "m.safetensors"
    save_file(
        {f"{kind}{e}": t[e] for kind, t in (("g", gates), ("u", ups), ("d", downs)) for e in range(2)}, path
    )
    fused = tuple(Piece(f"g{e}", put=((e, e + 1), (0, 3), (0, 4))) for e in range(2)) + tuple(
        Piece(f"u{e}", put=((e, e + 1), (3, 6), (0, 4))) for e in range(2)
    )
    turned = tuple(Piece(f"d{e}", put=((e, e + 1), (0, 3), (0, 5)), permute=(1, 0)) for e in range(2))
    half = (Piece("g0", take=((1, 3), (1, 3))),)
    weights = _weights(
        path,
        ("fused", (2, 6, 4), torch.float32, fused),
        ("turned", (2, 3, 5), torch.float32, turned),
        ("half", (2, 2), torch.bfloat16, half),
        ("wide", (3, 4), torch.float64, (Piece("u1"),)),
    )
    layout = lay_out(weights)
    slab = torch.empty(layout.nbytes, dtype=torch.uint8)
    readers.start(recipe_of(layout), slab).wait()
    views = layout.views(slab)
    assert torch.equal(views["fused"], torch.stack([torch.cat([gates[e], ups[e]]) for e in range(2)]))
    assert torch.equal(views["turned"], torch.stack([downs[e].T for e in range(2)]))
    assert torch.equal(views["half"], gates[0][1:, 1:3].to(torch.bfloat16))
    assert torch.equal(views["wide"], ups[1].double())


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool]
)
def test_every_dtype_comes_back_as_it_was_stored(
    dtype: torch.dtype, tmp_path: Path, readers: Readers
) -> None:
    tensor = torch.arange(-6, 6).view(3, 4).to(dtype)
    path = tmp_path / "m.safetensors"
    save_file({"w": tensor, "scalar": tensor[0, 0].clone()}, path)
    weight, scalar = _weights(
        path, ("w", (3, 4), dtype, (Piece("w"),)), ("scalar", (), dtype, (Piece("scalar"),))
    )
    assert torch.equal(read_weight(readers, weight).view(torch.uint8), tensor.view(torch.uint8))
    assert read_weight(readers, scalar).shape == ()


def test_a_weight_that_stays_on_the_cpu_is_a_view_of_the_mapped_file(
    tmp_path: Path, readers: Readers
) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.randn(8), "b": torch.randn(8)}, path)
    a, b = _weights(
        path, ("a", (8,), torch.float32, (Piece("a"),)), ("b", (8,), torch.float32, (Piece("b"),))
    )
    first, second = mapped(a, readers.files), mapped(b, readers.files)
    assert first is not None
    assert second is not None
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    first.zero_()
    assert not torch.equal(read_weight(readers, a), first)


def test_a_failed_read_names_file_and_offset_and_the_next_one_works(tmp_path: Path, readers: Readers) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.arange(1000.0)}, path)
    (weight,) = _weights(path, ("w", (1000,), torch.float32, (Piece("w"),)))
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(StreamError, match=rf"{path}.*1,000"):
        read_weight(readers, weight)
    path.write_bytes(content)
    assert torch.equal(read_weight(readers, weight), torch.arange(1000.0))
