"""The ledger: every storage once, from its construction to its collection, against the budget."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import devmap
from devmap.config.values.device import parse_device
from devmap.devices.registry import backend_for
from devmap.testing import simulated_devices


def test_a_storage_counts_until_it_is_collected() -> None:
    with simulated_devices({0: "1MB"}) as devices:
        tensor = torch.zeros(1000, device="sim:0")
        assert devices[0].used_bytes == 4000
        del tensor
        gc.collect()
        assert (devices[0].used_bytes, devices[0].peak_bytes) == (0, 4000)


def test_views_count_once_and_keep_their_storage_alive() -> None:
    with simulated_devices({0: "1MB"}) as devices:
        tensor = torch.zeros(10, 10, device="sim:0")
        views = [tensor[2:], tensor.t(), tensor.view(-1), tensor.as_strided((2,), (1,)), tensor.detach()]
        assert devices[0].used_bytes == 400
        del tensor
        gc.collect()
        assert devices[0].used_bytes == 400
        views.clear()
        gc.collect()
        assert devices[0].used_bytes == 0


def test_an_allocation_past_the_budget_raises_with_the_figures_and_does_not_count() -> None:
    with simulated_devices({0: 1000, 1: "1MB"}) as devices:
        kept = torch.zeros(100, device="sim:0")
        with pytest.raises(devmap.OutOfMemoryError) as caught:
            torch.zeros(200, device="sim:0")
        error = caught.value
        assert (error.device, error.requested_bytes, error.used_bytes, error.budget_bytes) == (
            "sim:0",
            800,
            400,
            1000,
        )
        assert isinstance(error, MemoryError)
        assert devices[0].used_bytes == 400
        assert torch.zeros(150, device="sim:0").shape == (150,)
        assert kept.sum().item() == 0


def test_the_last_byte_of_a_budget_can_be_used() -> None:
    with simulated_devices({0: 400}) as devices:
        tensor = torch.zeros(100, device="sim:0")
        assert devices[0].used_bytes == tensor.nbytes == devices[0].budget_bytes


def test_without_activations_the_budget_bounds_slabs_and_parameters_alone() -> None:
    with simulated_devices({0: 2000}, activations=False) as devices:
        backend = backend_for(parse_device(0))
        slab = backend.allocate(1000)
        layer = nn.Linear(10, 20, bias=False).to("sim:0")
        result = torch.zeros(10_000, device="sim:0")
        ledger = devices[0].ledger
        assert (ledger.held_bytes, ledger.transient_bytes) == (1800, 40_000)
        assert (ledger.held_peak_bytes, ledger.budget_bytes) == (1800, 2000)
        assert backend.memory().free_bytes == 200
        with pytest.raises(devmap.OutOfMemoryError):
            backend.allocate(201)
        with pytest.raises(devmap.OutOfMemoryError):
            nn.Linear(10, 20).to("sim:0")
        assert slab.nbytes == 1000
        assert layer.weight.device == result.device


def test_a_parameter_in_a_slab_counts_once() -> None:
    with simulated_devices({0: "1MB"}) as devices:
        slab = backend_for(parse_device(0)).allocate(400)
        parameter = nn.Parameter(slab.view(torch.float32), requires_grad=False)
        assert devices[0].ledger.held_bytes == devices[0].used_bytes == 400
        assert parameter.shape == (100,)


def test_a_deep_copied_parameter_is_held_too() -> None:
    import copy  # noqa: PLC0415 - used here alone

    with simulated_devices({0: "1MB"}) as devices:
        layer = nn.Linear(10, 10, bias=False).to("sim:0")
        other = copy.deepcopy(layer)
        assert devices[0].ledger.held_bytes == 800
        assert torch.equal(other.weight.cpu(), layer.weight.cpu())
        assert other.weight.data_ptr() != layer.weight.data_ptr()


def test_peaks_can_start_anew() -> None:
    with simulated_devices({0: "1MB"}) as devices:
        torch.zeros(1000, device="sim:0")
        gc.collect()
        devices[0].ledger.reset_peaks()
        assert devices[0].peak_bytes == 0
        torch.zeros(10, device="sim:0")
        assert devices[0].peak_bytes == 40


def test_an_out_argument_that_grows_counts_what_it_became() -> None:
    with simulated_devices({0: "1MB"}) as devices:
        ones = torch.ones(100, device="sim:0")
        grown = torch.empty(0, device="sim:0")
        torch.add(ones, ones, out=grown)
        assert grown.shape == (100,)
        assert devices[0].used_bytes == 800
        del grown
        gc.collect()
        assert devices[0].used_bytes == 400


def test_a_handle_says_what_its_device_held() -> None:
    with simulated_devices({0: "60MB"}) as devices:
        backend_for(parse_device(0)).allocate(1_500_000)
        assert (
            str(devices[0])
            == "sim:0: at most 1.5 MB of weights and slots, 0 B of activations; budget 60.0 MB"
        )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=30), st.integers(100, 1000))
def test_the_ledger_equals_the_live_bytes_and_never_passes_the_budget(
    steps: list[tuple[bool, int]], budget: int
) -> None:
    with simulated_devices({0: budget}) as devices:
        live: list[torch.Tensor] = []
        peak = 0
        for allocate, count in steps:
            if allocate:
                expected = sum(tensor.nbytes for tensor in live) + count * 4
                if expected > budget:
                    with pytest.raises(devmap.OutOfMemoryError):
                        torch.empty(count, device="sim:0")
                else:
                    live.append(torch.empty(count, device="sim:0"))
                    peak = max(peak, expected)
            elif live:
                live.pop(count % len(live))
            assert devices[0].used_bytes == sum(tensor.nbytes for tensor in live)
        assert devices[0].peak_bytes == peak <= budget
