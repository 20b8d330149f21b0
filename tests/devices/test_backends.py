"""Backends: slabs, streams and events; late copies and poison on simulated devices.

Errors that say what to do.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

import devmap
from devmap.config.values.device import CPU, DISK, parse_device
from devmap.devices import accelerator, registry
from devmap.devices.accelerator import AcceleratorBackend
from devmap.devices.cpu import CpuBackend
from devmap.devices.registry import backend_for
from devmap.devices.simulated import SimulatedBackend
from devmap.testing import POISON, poison, simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devmap.devices.backend import Backend


@pytest.fixture
def backend() -> Iterator[Backend]:
    with simulated_devices({0: "1MB", 1: 1000}, cpu=5000, host_to_device=100.0):
        yield backend_for(parse_device(0))


def source(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32).view(torch.uint8)


def floats(slab: torch.Tensor) -> list[float]:
    found: list[float] = slab.view(torch.float32).tolist()
    return found


@pytest.mark.parametrize("simulated", [False, True])
def test_every_backend_keeps_the_protocol(simulated: bool) -> None:
    with simulated_devices({0: "1MB"}):
        backend = backend_for(parse_device(0) if simulated else CPU)
        slab, host = backend.allocate(8), backend.pinned_allocate(8)
        assert (slab.dtype, slab.shape, slab.device) == (torch.uint8, (8,), backend.torch_device)
        assert (host.tensor.dtype, host.tensor.shape, host.tensor.device) == (
            torch.uint8,
            (8,),
            torch.device("cpu"),
        )
        assert host.is_pinned is simulated
        assert bool(host.reason) is not simulated
        stream, event = backend.stream(), backend.event()
        backend.wait(event)
        host.tensor.copy_(source(1, 2))
        backend.copy(slab, host.tensor)
        assert floats(slab) == [1, 2]
        host.tensor.copy_(source(3, 4))
        computed = backend.event()
        backend.record(computed)
        backend.wait(computed, stream)
        backend.copy(slab, host.tensor, stream=stream)
        backend.record(event, stream)
        backend.wait(event)
        assert floats(slab) == [3, 4]
        backend.copy(host.tensor, slab)
        event.synchronize()
        stream.synchronize()
        backend.synchronize()
        assert floats(host.tensor) == [3, 4]
        memory = backend.memory()
        assert 0 < memory.free_bytes <= memory.total_bytes


def test_a_fresh_slab_is_poison(backend: Backend) -> None:
    slab = backend.allocate(16)
    assert slab.tolist() == [POISON] * 16
    assert slab.view(torch.float32).isnan().all()
    assert slab.view(torch.bfloat16).isnan().all()
    assert slab.view(torch.float16).isnan().all()
    assert slab.view(torch.float8_e4m3fn).float().isnan().all()


def test_a_missing_wait_shows_as_poison(backend: Backend) -> None:
    slab, stream, event = backend.allocate(8), backend.stream(), backend.event()
    backend.copy(slab, source(1, 2))
    backend.synchronize()
    backend.copy(slab, source(3, 4), stream=stream)
    backend.record(event, stream)
    assert slab.view(torch.float32).sum().isnan()
    backend.wait(event)
    assert floats(slab) == [3, 4]


def test_a_source_that_changes_too_early_shows(backend: Backend) -> None:
    slab, stream, event, host = backend.allocate(8), backend.stream(), backend.event(), source(1, 2)
    backend.copy(slab, host, stream=stream)
    backend.record(event, stream)
    host.copy_(source(8, 9))
    backend.wait(event)
    assert floats(slab) == [8, 9]


def test_copies_wait_for_the_event_that_they_were_told_to_wait_for(backend: Backend) -> None:
    first, second, event = backend.stream(), backend.stream(), backend.event()
    slabs = [backend.allocate(8) for _ in range(2)]
    backend.copy(slabs[0], source(1, 2), stream=first)
    backend.record(event, first)
    backend.wait(event, second)
    backend.copy(slabs[1], slabs[0], stream=second)
    last = backend.event()
    backend.record(last, second)
    last.synchronize()
    assert floats(slabs[1]) == [1, 2]


def test_an_event_recorded_anew_forgets_its_earlier_mark(backend: Backend) -> None:
    stream, event = backend.stream(), backend.event()
    first, second = backend.allocate(4), backend.allocate(4)
    backend.copy(first, source(1), stream=stream)
    backend.record(event, stream)
    backend.copy(second, source(2), stream=stream)
    backend.record(event, stream)
    backend.wait(event)
    assert (floats(first), floats(second)) == ([1], [2])


def used_slab(backend: Backend) -> torch.Tensor:
    slab = backend.allocate(8)
    backend.copy(slab, source(1, 2))
    assert (slab.view(torch.float32) * 2).sum().item() == 6
    return slab


def test_a_copy_that_could_overtake_kernels_is_refused(backend: Backend) -> None:
    slab, stream, event = used_slab(backend), backend.stream(), backend.event()
    early = backend.event()
    backend.record(early)
    assert slab.view(torch.float32).sum().item() == 3
    backend.wait(early, stream)
    with pytest.raises(devmap.DeviceError, match="may overtake kernels") as caught:
        backend.copy(slab, source(3, 4), stream=stream)
    assert "let the copy's stream wait" in caught.value.help
    backend.record(event)
    backend.wait(event, stream)
    backend.copy(slab, source(3, 4), stream=stream)
    backend.synchronize()
    assert floats(slab) == [3, 4]


@pytest.mark.parametrize("how", ["device", "event", "through another stream"])
def test_a_copy_after_any_wait_for_the_kernels_is_fine(backend: Backend, how: str) -> None:
    slab, stream, other, event = used_slab(backend), backend.stream(), backend.stream(), backend.event()
    backend.record(event)
    if how == "device":
        backend.synchronize()
    elif how == "event":
        event.synchronize()
    else:
        backend.wait(event, other)
        passed_on = backend.event()
        backend.record(passed_on, other)
        backend.wait(passed_on, stream)
    backend.copy(slab, source(3, 4), stream=stream)
    stream.synchronize()
    assert floats(slab) == [3, 4]


def test_views_of_a_slab_are_no_kernels(backend: Backend) -> None:
    slab, stream = backend.allocate(8), backend.stream()
    parameter = torch.nn.Parameter(slab.view(torch.float32)[:1], requires_grad=False)
    backend.copy(slab, source(3, 4), stream=stream)
    stream.synchronize()
    assert parameter.item() == 3


def test_discarding_a_slot_poisons_it(backend: Backend) -> None:
    slab = backend.allocate(8)
    backend.copy(slab, source(1, 2))
    backend.discard(slab)
    assert slab.view(torch.float32).isnan().all()
    tensor = torch.ones(2)
    poison(tensor)
    assert tensor.isnan().all()


def test_copies_take_virtual_time_by_the_rate(backend: Backend) -> None:
    assert isinstance(backend, SimulatedBackend)
    slab, stream, event = backend.allocate(200), backend.stream(), backend.event()
    backend.copy(slab, torch.zeros(200, dtype=torch.uint8), stream=stream)
    backend.record(event, stream)
    backend.simulated.spend(1.5)
    backend.wait(event)
    backend.simulated.spend(1.0)
    assert backend.simulated.clock.now_seconds == 3.0
    assert backend.simulated.compute.busy_seconds == 2.5


def test_slabs_past_the_budget_are_refused(backend: Backend) -> None:
    assert backend.memory().total_bytes == 1_000_000
    with pytest.raises(
        devmap.OutOfMemoryError, match="sim:1: out of memory: 1,001 bytes asked, 1,000 of 1,000 free"
    ):
        backend_for(parse_device(1)).allocate(1001)
    host = [backend.pinned_allocate(3000), backend_for(CPU).pinned_allocate(2000)]
    assert backend_for(CPU).memory().free_bytes == 0
    with pytest.raises(devmap.OutOfMemoryError, match="cpu: out of memory"):
        backend_for(CPU).allocate(1)
    assert sum(slab.tensor.nbytes for slab in host) == 5000


def test_a_machine_without_accelerators_says_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "accelerator_type", lambda: None)
    with pytest.raises(devmap.DeviceError, match="this machine has no accelerators") as caught:
        backend_for(parse_device(0))
    assert "devmap run --simulated" in caught.value.help
    assert isinstance(backend_for(CPU), CpuBackend)


def test_a_kind_or_an_index_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(devmap.DeviceError, match="xpu:1 is not there: this machine has 0 xpu devices"):
        backend_for(parse_device("xpu:1"))
    with pytest.raises(devmap.DeviceError, match="nosuch:0 is not there"):
        backend_for(parse_device("nosuch:0"))
    monkeypatch.setattr(registry, "device_count", lambda kind: 2)  # noqa: ARG005 - the function's parameter
    with pytest.raises(
        devmap.DeviceError, match="cuda:2 is not there: this machine has 2 cuda devices"
    ) as caught:
        backend_for(parse_device("cuda:2"))
    assert caught.value.help == "use indices 0 to 1"


def test_the_disk_computes_nothing() -> None:
    with pytest.raises(devmap.DeviceError, match="the disk cannot compute"):
        backend_for(DISK)


def test_devices_that_are_there_get_their_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "device_count", lambda kind: 2)  # noqa: ARG005 - the function's parameter
    assert backend_for(parse_device("cuda:1")).torch_device == torch.device("cuda:1")
    found = backend_for(parse_device("xpu:1"))
    assert isinstance(found, AcceleratorBackend)
    assert (str(found.torch_device), found.device) == ("xpu:1", parse_device(1))


def test_simulated_devices_take_precedence_and_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated_devices({0: 1000}):
        assert isinstance(backend_for(parse_device("cuda:0")), SimulatedBackend)
        with pytest.raises(devmap.DeviceError, match="no simulated device sim:1"):
            backend_for(parse_device(1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert accelerator.accelerator_type() is None
    with pytest.raises(devmap.DeviceError, match="no accelerators"):
        backend_for(parse_device(0))


def test_cuda_falls_back_to_pageable_memory_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", refusing_to_pin(torch.empty))
    for module in (torch.cuda, torch.xpu):
        monkeypatch.setattr(module, "get_device_properties", lambda _: SimpleNamespace(is_integrated=0))
    for backend in (AcceleratorBackend(torch.device("cuda:0")), AcceleratorBackend(torch.device("xpu:0"))):
        slab = backend.pinned_allocate(100)
        assert not slab.is_pinned
        assert slab.reason == "the system refused to pin 100 bytes: pinning is not possible"
        assert slab.tensor.shape == (100,)


def refusing_to_pin(empty: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def allocate(*size: int, pin_memory: bool = False, **options: object) -> torch.Tensor:
        if pin_memory:
            raise RuntimeError("pinning is not possible\nand a long trace")
        return empty(*size, **options)

    return allocate


def test_unified_memory_is_never_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    slab = AcceleratorBackend(torch.device("mps", 0)).pinned_allocate(10)
    assert (slab.is_pinned, slab.reason) == (False, "mps shares the host's memory")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(is_integrated=1))
    monkeypatch.setattr(torch, "empty", refusing_to_pin(torch.empty))
    slab = AcceleratorBackend(torch.device("cuda:0")).pinned_allocate(10)
    assert (slab.is_pinned, slab.reason) == (False, "the device shares the host's memory")


def test_pinned_memory_is_counted_as_torch_hands_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (torch.cuda, torch.xpu):
        monkeypatch.setattr(module, "get_device_properties", lambda _: SimpleNamespace(is_integrated=0))
    for backend in (AcceleratorBackend(torch.device("cuda:0")), AcceleratorBackend(torch.device("xpu:0"))):
        assert backend.pins
        assert [backend.pinned_bytes(nbytes) for nbytes in (1, 2, 3, 64 << 20, (64 << 20) + 1)] == [
            1,
            2,
            4,
            64 << 20,
            128 << 20,
        ]
    assert not AcceleratorBackend(torch.device("mps", 0)).pins
    assert not CpuBackend().pins


def test_what_shares_the_bytes_of_a_slab_is_found_through_its_storage() -> None:
    with simulated_devices({0: 1000}) as devices:
        for backend in (CpuBackend(), SimulatedBackend(devices[0])):
            slab, other = backend.allocate(64), backend.allocate(64)
            view = slab[8:16].view(torch.float32)
            assert backend.storage(slab) is backend.storage(view)
            assert backend.storage(slab) is not backend.storage(other)


def test_cuda_memory_counts_what_the_allocator_keeps_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(
        mem_get_info=lambda _: (300, 1000),
        memory_reserved=lambda _: 500,
        memory_allocated=lambda _: 400,
        OutOfMemoryError=torch.OutOfMemoryError,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda _: fake)
    backend = AcceleratorBackend(torch.device("cuda:0"))
    assert (backend.memory().total_bytes, backend.memory().free_bytes) == (1000, 400)

    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(devmap.OutOfMemoryError) as caught:
        backend.allocate(600)
    assert (caught.value.requested_bytes, caught.value.used_bytes, caught.value.budget_bytes) == (
        600,
        600,
        1000,
    )


def test_cuda_streams_and_events_are_driven_as_torch_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, object]] = []
    stream = SimpleNamespace(wait_event=lambda event: calls.append(("wait", event)))
    event = SimpleNamespace(record=lambda on: calls.append(("record", on)), synchronize=lambda: None)

    def current_stream(device: torch.device) -> SimpleNamespace:
        calls.append(("current", str(device)))
        return stream

    fake = SimpleNamespace(current_stream=current_stream)
    monkeypatch.setattr(torch, "get_device_module", lambda _: fake)
    backend = AcceleratorBackend(torch.device("cuda:1"))
    backend.record(event)
    backend.wait(event)
    assert calls == [("current", "cuda:1"), ("record", stream), ("current", "cuda:1"), ("wait", event)]
