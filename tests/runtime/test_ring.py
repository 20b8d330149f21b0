"""The ring and the readers when something ends early: no byte is written to memory that is gone."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from devmap.config.values.device import parse_device
from devmap.inventory.stored.checkpoint import read_headers
from devmap.inventory.stored.mapping import Piece
from devmap.runtime.storage.files import Files
from devmap.runtime.storage.homes import disk_home
from devmap.runtime.storage.readers import Readers
from devmap.runtime.storage.weights import Weight, lay_out
from devmap.runtime.streaming.ring import Ring, Staged
from devmap.runtime.streaming.streamed_block import StreamedBlock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Reads go on when it is set."""
    event, read = threading.Event(), Files.read_into

    def wait(*arguments: object, **figures: object) -> None:
        event.wait(30)
        read(*arguments, **figures)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(Files, "read_into", wait)
    yield event
    event.set()


def _units(folder: Path, readers: Readers, count: int) -> list[StreamedBlock]:
    save_file(
        {f"w{number}": torch.full((100,), float(number)) for number in range(count)}, folder / "m.safetensors"
    )
    stored = read_headers(folder).tensors
    blocks = []
    for number in range(count):
        name = f"w{number}"
        layout = lay_out([Weight(name, (100,), torch.float32, "parameter", ((stored[name], Piece(name)),))])
        home = disk_home(layout, readers, request_bytes=1 << 20)
        blocks.append(StreamedBlock(number, name, parse_device(0), home, (), tier="disk"))
    return blocks


def _settle(slabs: list[Staged]) -> None:
    for staged in slabs:
        assert staged.reading is not None
        staged.reading.settle()


def test_a_slab_lives_as_long_as_somebody_reads_into_it(tmp_path: Path, gate: threading.Event) -> None:
    readers = Readers()
    (block,) = _units(tmp_path, readers, 1)
    slab = torch.empty(400, dtype=torch.uint8)
    storage = weakref.ref(slab.untyped_storage())
    reading = block.start(slab)
    del slab
    gc.collect()
    assert storage() is not None
    gate.set()
    reading.wait()
    readers.close()


def test_a_ring_that_is_closed_waits_for_what_is_being_read(tmp_path: Path, gate: threading.Event) -> None:
    readers = Readers()
    blocks = _units(tmp_path, readers, 3)
    slabs = [Staged(torch.empty(400, dtype=torch.uint8)) for _ in range(2)]
    ring = Ring(slabs, blocks, is_pinned=False)
    ring.read_ahead()
    assert [staged.content for staged in slabs] == [(blocks[0], 0), (blocks[1], 0)]
    closing = threading.Thread(target=ring.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    gate.set()
    closing.join(30)
    assert not closing.is_alive()
    assert all(staged.slab.view(torch.float32).eq(number).all() for number, staged in enumerate(slabs))
    readers.close()


def test_a_part_that_is_needed_at_once_takes_the_slab_of_what_is_needed_last(
    tmp_path: Path, gate: threading.Event
) -> None:
    gate.set()
    readers = Readers()
    blocks = _units(tmp_path, readers, 5)
    slabs = [Staged(torch.empty(400, dtype=torch.uint8)) for _ in range(2)]
    ring = Ring(slabs, blocks, is_pinned=False)
    ring.read_ahead()
    _settle(slabs)  # a slab that is still being read into is not taken from its part
    assert [ring.is_near(block) for block in blocks] == [True, True, False, False, False]
    ring.begin(blocks[4])
    staged = ring.take(blocks[4], 0)
    assert staged.reading is not None
    staged.reading.wait()
    assert staged.slab.view(torch.float32).eq(4).all()
    assert {each.content for each in slabs} == {(blocks[4], 0), (blocks[0], 0)}
    ring.end(blocks[4])
    ring.release(staged)
    assert {each.content for each in slabs} == {(blocks[0], 0), (blocks[1], 0)}
    ring.close()
    readers.close()
