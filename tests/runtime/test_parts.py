"""Slabs in parts: whatever a block is made of, its parts together are the block.

And each can be read by itself.
"""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from devmap.inventory.stored.checkpoint import read_headers
from devmap.inventory.stored.mapping import Piece
from devmap.runtime.storage.chunks import boxes, least_part_bytes, parts_of
from devmap.runtime.storage.read_requests import recipe_of
from devmap.runtime.storage.readers import Readers
from devmap.runtime.storage.weights import SlabLayout, Weight, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator

_fixtures = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def readers() -> Iterator[Readers]:
    found = Readers(scratch_bytes=64)
    yield found
    found.close()


def _weight(path: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype, *pieces: Piece) -> Weight:
    stored = read_headers(path).tensors
    return Weight(name, shape, dtype, "parameter", tuple((stored[piece.stored], piece) for piece in pieces))


def _fill(readers: Readers, layout: SlabLayout, part_bytes: int) -> torch.Tensor:
    slab = torch.full((layout.nbytes,), 0xAB, dtype=torch.uint8)
    end = 0
    for part in parts_of(layout, part_bytes):
        assert part.offset == end
        assert 0 < part.nbytes <= max(part_bytes, least_part_bytes(layout))
        host = torch.empty(part.nbytes, dtype=torch.uint8)
        readers.start(part.recipe, host).wait()
        slab[end : end + part.nbytes] = host
        end += part.nbytes
    assert end == layout.nbytes
    return slab


@_fixtures
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_boxes_are_the_elements_in_their_order_without_gap_or_overlap(
    shape: list[int], data: st.DataObject
) -> None:
    size = math.prod(shape)
    first = data.draw(st.integers(0, size))
    last = data.draw(st.integers(first, size))
    numbers = torch.arange(size).view(shape)
    found = [numbers[tuple(slice(*side) for side in box)].reshape(-1) for box in boxes(shape, first, last)]
    assert torch.equal(torch.cat([torch.empty(0, dtype=torch.long), *found]), torch.arange(first, last))
    assert len(found) <= 2 * len(shape)


@_fixtures
@given(part_bytes=st.integers(64, 700), scratch=st.integers(1, 90), seed=st.integers(0, 3))
def test_parts_of_plain_fused_transposed_and_converted_weights_are_the_whole_block(
    part_bytes: int, scratch: int, seed: int, tmp_path: Path
) -> None:
    torch.manual_seed(seed)
    path = Path(mkdtemp(dir=tmp_path)) / "m.safetensors"
    gates = [torch.randn(3, 4) for _ in range(3)]
    ups = [torch.randn(3, 4) for _ in range(3)]
    cube = torch.randn(3, 5, 4)
    plain, odd = torch.randn(16, 8), torch.randn(7).to(torch.bfloat16)
    tensors = {"cube": cube, "plain": plain, "odd": odd, "one": torch.randn(())}
    save_file(
        tensors | {f"{kind}{e}": t[e] for kind, t in (("g", gates), ("u", ups)) for e in range(3)}, path
    )
    fused = [Piece(f"g{e}", put=((e, e + 1), (0, 3), (0, 4))) for e in range(3)] + [
        Piece(f"u{e}", put=((e, e + 1), (3, 6), (0, 4))) for e in range(3)
    ]
    layout = lay_out(
        [
            _weight(path, "fused", (3, 6, 4), torch.float32, *fused),
            _weight(path, "turned", (3, 4, 5), torch.float64, Piece("cube", permute=(0, 2, 1))),
            _weight(
                path, "columns", (8, 4), torch.float32, Piece("plain", take=((2, 6), (0, 8)), permute=(1, 0))
            ),
            _weight(path, "plain", (16, 8), torch.float32, Piece("plain")),
            _weight(path, "odd", (7,), torch.bfloat16, Piece("odd")),
            _weight(path, "one", (), torch.float32, Piece("one")),
            _weight(path, "empty", (0, 3), torch.float32),
        ]
    )
    readers = Readers(scratch_bytes=scratch)
    try:
        views = layout.views(_fill(readers, layout, part_bytes))
    finally:
        readers.close()
    assert torch.equal(views["fused"], torch.stack([torch.cat([gates[e], ups[e]]) for e in range(3)]))
    assert torch.equal(views["turned"], cube.permute(0, 2, 1).double())
    assert torch.equal(views["columns"], plain[2:6].T)
    assert torch.equal(views["plain"], plain)
    assert torch.equal(views["odd"], odd)
    assert views["one"] == tensors["one"]


def test_a_weight_that_is_reshaped_on_its_way_is_one_part(tmp_path: Path, readers: Readers) -> None:
    path = tmp_path / "m.safetensors"
    tensor = torch.randn(6, 4)
    save_file({"w": tensor, "v": tensor.clone()}, path)
    layout = lay_out(
        [
            _weight(path, "w", (4, 6), torch.float32, Piece("w")),
            _weight(path, "v", (6, 4), torch.float32, Piece("v")),
        ]
    )
    assert least_part_bytes(layout) == 96
    assert torch.equal(layout.views(_fill(readers, layout, 32))["w"], tensor.reshape(4, 6))


def test_large_weights_are_cut_into_few_even_requests(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(1000, 256), "b": torch.zeros(1000, 256)}, path)
    layout = lay_out([_weight(path, name, (1000, 256), torch.float32, Piece(name)) for name in "ab"])
    parts = parts_of(layout, 512 << 10)
    assert len(parts) == 4
    assert all(len(part.recipe.requests) == 1 and not part.recipe.conversions for part in parts)
    assert sum(part.recipe.nbytes for part in parts) == recipe_of(layout).nbytes == 2_048_000
