"""The rules of torch's caching allocator and streams.

Held against the calls that the runtime really makes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import devmap
from devmap.config.values.device import parse_device
from devmap.devices.simulated import SimulatedBackend
from devmap.plan.model import Placement, Plan
from devmap.runtime.dispatch import dispatch
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Iterator

Call = tuple[str, int, int | None]
"""Operation, slab or event, and the stream; None is the compute stream."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What was asked of the backends, in order; slabs by the address of their storage."""
    made: list[Call] = []
    real = {name: getattr(SimulatedBackend, name) for name in ("allocate", "record", "wait", "copy")}
    kept: list[object] = []  # so that no id comes twice

    def allocate(backend: SimulatedBackend, nbytes: int) -> torch.Tensor:
        slab: torch.Tensor = real["allocate"](backend, nbytes)
        kept.append(slab)
        made.append(("allocate", _slab(backend, slab), None))
        return slab

    def marked(name: str) -> Any:
        def call(backend: SimulatedBackend, event: object, stream: object = None) -> None:
            kept.append(event)
            made.append((name, id(event), None if stream is None else id(stream)))
            real[name](backend, event, stream)

        return call

    def copy(
        backend: SimulatedBackend, to: torch.Tensor, source: torch.Tensor, *, stream: Any = None
    ) -> None:
        if stream is not None:
            made.append(("copy", _slab(backend, to), id(stream)))
        real["copy"](backend, to, source, stream=stream)

    for name, call in (
        ("allocate", allocate),
        ("record", marked("record")),
        ("wait", marked("wait")),
        ("copy", copy),
    ):
        monkeypatch.setattr(SimulatedBackend, name, call)
    return made


def _slab(backend: SimulatedBackend, slab: torch.Tensor) -> int:
    return backend.storage(slab).data_ptr()


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(x))


@pytest.fixture
def streamed() -> Iterator[Any]:
    with simulated_devices({0: "10MB"}):
        model = nn.Sequential(*(_Block() for _ in range(5)))
        placements = tuple(
            Placement(str(number), parse_device("cpu"), parse_device(0), 0) for number in range(5)
        )
        yield dispatch(model, Plan(device_map={}, placements=placements, devices=(), strategy="manual"))


def test_the_first_copy_into_a_new_slot_waits_for_kernels_that_may_still_read_its_bytes(
    calls: list[Call], streamed: Any
) -> None:
    for _ in range(2):
        streamed(torch.ones(1, 64, device="sim:0"))
    marks: dict[int, int] = {}
    waited: defaultdict[int, set[int]] = defaultdict(set)
    """By stream, the places in `calls` of the marks that it has waited for."""
    born: dict[int, int] = {}
    copied = 0
    for place, (what, subject, stream) in enumerate(calls):
        if what == "allocate":
            born[subject] = place
        elif what == "record" and stream is None:
            marks[subject] = place
        elif what == "wait" and stream is not None and subject in marks:
            waited[stream].add(marks[subject])
        elif what == "copy":
            assert stream is not None
            copied += 1
            assert any(mark > born[subject] for mark in waited[stream]), "the copy waits for nothing since"
    assert copied >= 10


def test_a_block_that_comes_back_on_another_stream_keeps_the_mark_of_the_stream_before(
    calls: list[Call], streamed: Any
) -> None:
    streamed(torch.ones(1, 64, device="sim:0"))
    calls.clear()
    streamed(torch.ones(1, 64, device="sim:0"))
    compute = [(what, subject) for what, subject, stream in calls if stream is None and what != "allocate"]
    recorded: set[int] = set()
    for place, (what, subject) in enumerate(compute):
        if what == "record" and subject not in recorded:
            recorded.add(subject)
            before = [each for each in compute[:place] if each == ("wait", subject)]
            assert before, "a mark is overwritten that nobody on this stream stands behind"
    assert recorded


def test_closing_waits_for_copies_on_the_device(streamed: Any) -> None:
    engine = streamed.devmap.engine
    (lane,) = engine.lanes.values()
    synchronized: list[bool] = []

    class Watched:
        def __init__(self, real: Any) -> None:
            self._real = real

        def synchronize(self) -> None:
            synchronized.append(bool(lane.slots))
            self._real.synchronize()

    uploader = lane._uploader
    uploader.stream = Watched(uploader.stream)
    streamed.devmap.remove()
    assert synchronized == [True]


def test_a_streamed_block_is_not_captured_in_a_graph(streamed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedBackend, "is_capturing", True)
    with pytest.raises(
        devmap.StreamError, match=r"the block '0' is streamed and cannot be captured"
    ) as caught:
        streamed(torch.ones(1, 64, device="sim:0"))
    assert "device map" in caught.value.help
    monkeypatch.undo()
    assert streamed(torch.ones(1, 64, device="sim:0")).shape == (1, 64)
