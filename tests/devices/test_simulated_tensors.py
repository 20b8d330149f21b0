"""Tensors on simulated devices behave as on real ones, with the CPU's numbers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import nn

import devmap
from devmap.devices.simulated_tensor import SimulatedTensor
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devmap.testing import SimulatedDevice

Operation = "Callable[..., torch.Tensor]"


@pytest.fixture
def devices() -> Iterator[Mapping[int, SimulatedDevice]]:
    with simulated_devices({0: "10MB", 1: "10MB", 4: "10MB"}) as opened:
        yield opened


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


pytestmark = pytest.mark.usefixtures("devices")


@pytest.mark.parametrize("device", ["sim:4", "sim:4 parsed", 4])
def test_to_takes_every_way_to_name_a_device(device: str | int) -> None:
    there = numbers(2, 3).to(torch.device("sim", 4) if device == "sim:4 parsed" else device)
    assert there.device == torch.device("sim:4")
    assert torch.equal(there.cpu(), numbers(2, 3))
    assert torch.equal(there.to("sim:0").to("cpu"), numbers(2, 3))
    assert there.to("sim:4") is there


FACTORIES: dict[str, Callable[[str], torch.Tensor]] = {
    "zeros": lambda device: torch.zeros(2, 3, device=device),
    "ones": lambda device: torch.ones(2, dtype=torch.float16, device=device),
    "full": lambda device: torch.full((2, 2), 3.5, device=device),
    "arange": lambda device: torch.arange(2, 9, 2, device=device),
    "linspace": lambda device: torch.linspace(0, 1, 5, device=device),
    "eye": lambda device: torch.eye(3, device=device),
    "tensor": lambda device: torch.tensor([[1.0, 2.0]], device=device),
    "number": lambda device: torch.tensor(7, device=device),
    "scalar_tensor": lambda device: torch.scalar_tensor(2.0, device=device),
    "as_tensor": lambda device: torch.as_tensor([1, 2, 3], device=device),
    "tril_indices": lambda device: torch.tril_indices(3, 3, device=device),
    "zeros_like": lambda device: torch.zeros_like(torch.ones(2, 2), device=device),
    "ones_like": lambda device: torch.ones_like(torch.zeros(2, 2, device=device)),
    "full_like": lambda device: torch.full_like(torch.zeros(2, 2, device=device), 3),
    "new_zeros": lambda device: torch.ones(1, device=device).new_zeros(3),
    "new_tensor": lambda device: torch.ones(1, device=device).new_tensor([1.0, 2.0]),
    "empty_strided": lambda device: torch.empty_strided((2, 3), (1, 2), device=device).zero_(),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_factories_make_what_they_make_on_the_cpu(name: str) -> None:
    made, expected = FACTORIES[name]("sim:1"), FACTORIES[name]("cpu")
    assert isinstance(made, SimulatedTensor)
    assert made.device == torch.device("sim:1")
    assert (made.shape, made.stride(), made.dtype) == (expected.shape, expected.stride(), expected.dtype)
    assert torch.equal(made.cpu(), expected)


@pytest.mark.parametrize("factory", [torch.empty, torch.rand, torch.randn])
def test_factories_without_known_numbers_have_the_shape(factory: Callable[..., torch.Tensor]) -> None:
    made = factory((2, 3), device="sim:1")
    assert (made.shape, made.device.index) == ((2, 3), 1)
    assert factory(2, 3, device="sim").device == torch.device("sim:0")


def test_a_device_context_places_what_is_made_inside() -> None:
    with torch.device("sim:1"):
        made = [torch.zeros(3), torch.tensor([1]), torch.arange(4), nn.Linear(2, 2).weight]
    assert [tensor.device.index for tensor in made] == [1, 1, 1, 1]
    assert torch.zeros(1).device.type == "cpu"


def histogram(x: torch.Tensor) -> torch.Tensor:
    """Accelerators count integers; the CPU does not."""
    return torch.histc(x if x.device.type == "sim" else x.float(), bins=4, min=0, max=3).int()


OPERATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "matmul": lambda x: x @ x.transpose(-1, -2),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
    "masked attention": lambda x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=(x @ x.transpose(1, 2)) > 0
    ),
    "layer norm": lambda x: F.layer_norm(x, (8,)),
    "conv1d": lambda x: F.conv1d(x, x[:, :, :3].contiguous()[:, :6], padding=1),
    "conv2d": lambda x: F.conv2d(x[None], x[:2, None, :3, :3].expand(2, 4, 3, 3)),
    "softmax": lambda x: x.softmax(-1, dtype=torch.float64),
    "slice": lambda x: x[1:, ::2, -3:],
    "index": lambda x: x[torch.tensor([1, 0]).to(x.device), :, 2],
    "index from the host": lambda x: x[torch.tensor([1, 0])],
    "mask": lambda x: x[x > 0],
    "None and ellipsis": lambda x: x[None, ..., 0],
    "where": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    "masked_fill": lambda x: x.masked_fill(x > 0, torch.finfo(x.dtype).min),
    "gather": lambda x: x.gather(1, torch.zeros(4, 2, 8, dtype=torch.long, device=x.device)),
    "topk": lambda x: x.topk(3).values,
    "sort": lambda x: x.sort(descending=True).indices,
    "cat": lambda x: torch.cat([x, x], dim=1),
    "stack": lambda x: torch.stack([x, x * 2]),
    "split": lambda x: torch.tensor_split(x, 3, dim=1)[1],
    "chunk": lambda x: torch.chunk(x, 3, dim=-1)[2],
    "cumsum": lambda x: x.cumsum(1),
    "promotion by a number": lambda x: x.half() * 2.5 + torch.tensor(3.0, dtype=torch.float64),
    "a number of the host first": lambda x: torch.tensor(2.0) * x,
    "dtype": lambda x: x.to(torch.bfloat16).float(),
    "one hot": lambda x: F.one_hot((x > 0).long(), 3),
    "histogram of integers": lambda x: histogram((x * 3).int()),
    "interpolate": lambda x: F.interpolate(x[None], scale_factor=2),
    "pad": lambda x: F.pad(x, (1, 2)),
    "dropout off": lambda x: F.dropout(x, training=False),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1),
    "bool arithmetic": lambda x: ((x > 0) & (x < 1)).sum(-1),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "embedding bag": lambda x: F.embedding_bag(torch.tensor([[0, 1], [2, 3]]).to(x.device), x[0]),
    "embedding": lambda x: F.embedding(torch.tensor([[0, 1], [2, 3]]).to(x.device), x[0]),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("guard", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_operations_give_the_cpu_s_numbers(name: str, guard: Callable[[], torch.no_grad]) -> None:
    with guard():
        result = OPERATIONS[name](numbers(4, 6, 8).to("sim:1"))
        expected = OPERATIONS[name](numbers(4, 6, 8))
    assert result.device == torch.device("sim:1")
    assert result.shape == expected.shape
    assert torch.equal(result.cpu(), expected)


IN_PLACE: dict[str, Callable[[torch.Tensor], object]] = {
    "add": lambda x: x.add_(1),
    "set a slice": lambda x: x.__setitem__((slice(1, 3), 0), 5.0),
    "set by mask": lambda x: x.__setitem__(x > 0, 0.0),
    "set by index": lambda x: x.__setitem__(torch.tensor([0, 2]).to(x.device), x[1].clone()),
    "index_put": lambda x: x.index_put_(
        (torch.tensor([0]).to(x.device),), torch.ones(6, 8).to(x.device), accumulate=True
    ),
    "index_copy": lambda x: x.index_copy_(
        1, torch.tensor([0]).to(x.device), torch.ones(4, 1, 8).to(x.device)
    ),
    "scatter": lambda x: x.scatter_(1, torch.zeros(4, 1, 8, dtype=torch.long, device=x.device), 9.0),
    "copy from the host": lambda x: x.copy_(torch.ones(4, 6, 8)),
    "a view of it": lambda x: x[:, 1].mul_(3),
    "transpose": lambda x: x.transpose_(0, 1),
    "unsqueeze": lambda x: x.unsqueeze_(0),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_changes_in_place_reach_every_view(name: str) -> None:
    there, here = numbers(4, 6, 8).to("sim:0"), numbers(4, 6, 8)
    flat, expected_flat = there.view(-1), here.view(-1)
    IN_PLACE[name](there)
    IN_PLACE[name](here)
    assert (there.shape, there.stride()) == (here.shape, here.stride())
    assert torch.equal(there.cpu(), here)
    assert torch.equal(flat.cpu(), expected_flat)


def test_copies_cross_devices_both_ways() -> None:
    here = torch.zeros(3)
    there = torch.arange(3.0, device="sim:0")
    other = torch.zeros(3, device="sim:1")
    assert here.copy_(there) is here
    other.copy_(there)
    assert here.tolist() == other.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x.to("sim:0") + x.to("sim:1"),
        lambda x: x.to("sim:0") + x,
        lambda x: x @ x.T.to("sim:0"),
        lambda x: torch.cat([x.to("sim:0"), x.to("sim:1")]),
        lambda x: torch.tensor(2.0, device="sim:1") * x.to("sim:0"),
        lambda x: F.linear(x.to("sim:0"), x),
        lambda x: F.embedding(torch.tensor([1]), x.to("sim:0")),
        lambda x: x[torch.tensor([0]).to("sim:0")],
        lambda x: x.to("sim:0").masked_fill_((x > 0).to("sim:1"), 0.0),
        lambda x: x.to("sim:0").add_(x.to("sim:1")),
    ],
)
def test_tensors_of_two_devices_do_not_mix(mix: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(
        RuntimeError,
        match=r"Expected all tensors to be on the same device, but found at least two devices, .*, in aten\.",
    ):
        mix(numbers(3, 3))


def test_numbers_come_out() -> None:
    there = torch.tensor([[1.5, 2.0]], device="sim:1")
    assert there[0, 0].item() == 1.5
    assert float(there.sum()) == 3.5
    assert there.tolist() == [[1.5, 2.0]]
    assert bool((there > 0).all())
    assert len(there) == 1
    assert [row.device.index for row in there] == [1]
    assert repr(there) == "tensor([[1.5000, 2.0000]]) on sim:1"


def test_numpy_is_refused_as_on_every_accelerator() -> None:
    there = torch.ones(2, device="sim:0")
    with pytest.raises(TypeError, match=r"can't convert sim:0 device type tensor to numpy"):
        there.numpy()
    assert there.numpy(force=True).tolist() == [1.0, 1.0]


def test_a_slab_s_views_see_later_copies() -> None:
    slab = torch.zeros(64, dtype=torch.uint8, device="sim:1")
    parameter = nn.Parameter(slab[:32].view(torch.float32).view(2, 4), requires_grad=False)
    strided = slab.view(torch.float32).as_strided((2,), (1,), 8)
    half = slab.narrow(0, 32, 32).view(torch.float16)
    source = torch.arange(16, dtype=torch.float32)
    slab.copy_(source.view(torch.uint8))
    assert parameter.tolist() == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
    assert strided.tolist() == [8.0, 9.0]
    assert torch.equal(half.cpu(), source[8:].view(torch.float16))
    assert parameter.data_ptr() == slab.data_ptr()
    assert parameter.untyped_storage() is strided.untyped_storage()


def test_modules_move_there_between_devices_and_back() -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    expected = layer(numbers(2, 4))
    for device in ("sim:1", "sim:0", "cpu", "sim:4"):
        layer.to(device)
        assert {tensor.device for tensor in layer.state_dict().values()} == {torch.device(device)}
        assert all(isinstance(parameter, nn.Parameter) for parameter in layer.parameters())
        assert torch.equal(layer(numbers(2, 4).to(device)).cpu(), expected)


def test_modules_move_in_inference_mode_too() -> None:
    with torch.inference_mode():
        layer = nn.Linear(4, 4).to("sim:1")
        assert layer(numbers(2, 4).to("sim:1")).device.index == 1


def test_setting_the_data_of_a_parameter_takes_the_numbers_along() -> None:
    parameter = nn.Parameter(torch.zeros(2, device="sim:0"))
    parameter.data = torch.ones(3, device="sim:1")
    assert parameter.device == torch.device("sim:1")
    assert parameter.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(TypeError, match="make a new parameter"):
        parameter.data = torch.ones(3)


def test_state_dicts_load_across_devices() -> None:
    here, there = nn.Linear(3, 3), nn.Linear(3, 3).to("sim:1")
    there.load_state_dict(here.state_dict())
    assert torch.equal(there.weight.cpu(), here.weight)
    here.load_state_dict(there.state_dict())


def test_deep_copies_keep_device_kind_and_ties() -> None:
    layer = nn.Linear(3, 3).to("sim:1")
    pair = nn.ModuleList([layer, nn.Linear(3, 3)])
    pair[1].weight = layer.weight
    other = copy.deepcopy(pair)
    assert other[0].weight is other[1].weight
    assert isinstance(other[0].weight, nn.Parameter)
    assert other[0].weight.requires_grad
    assert torch.equal(other[0].weight.cpu(), layer.weight.cpu())
    with pytest.raises(RuntimeError, match="results of operations"):
        copy.deepcopy(layer.weight * 2)


@pytest.mark.parametrize("device", ["sim:0", "sim:1", "sim:4"])
def test_gradients_equal_the_cpu_s(device: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    there = copy.deepcopy(layer).to(device)
    layer(numbers(2, 5, 8)).pow(2).sum().backward()
    there(numbers(2, 5, 8).to(device)).pow(2).sum().backward()
    for mine, theirs in zip(there.parameters(), layer.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert mine.grad.device == torch.device(device)
        assert torch.allclose(mine.grad.cpu(), theirs.grad, atol=1e-5)


def test_gradients_cross_devices() -> None:
    first = numbers(3).requires_grad_()
    second = first.to("sim:0").pow(2).to("sim:1")
    torch.autograd.backward(second.sum())
    assert first.grad is not None
    assert torch.allclose(first.grad, 2 * first.detach())


def test_training_changes_the_weights() -> None:
    torch.manual_seed(0)
    layer, there = nn.Linear(3, 1), nn.Linear(3, 1)
    there.load_state_dict(layer.state_dict())
    there.to("sim:1")
    for model, device in ((layer, "cpu"), (there, "sim:1")):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(numbers(4, 3).to(device)).pow(2).mean().backward()
            optimizer.step()
    assert torch.allclose(there.weight.cpu(), layer.weight, atol=1e-6)


def test_a_device_that_is_not_offered_is_named(devices: Mapping[int, SimulatedDevice]) -> None:
    assert sorted(devices) == [0, 1, 4]
    with pytest.raises(devmap.DeviceError, match="no simulated device sim:2") as caught:
        torch.zeros(1, device="sim:2")
    assert "sim:0, sim:1, sim:4" in str(caught.value)


def test_torch_knows_the_devices() -> None:
    assert torch.accelerator.current_accelerator() == torch.device("sim")
    assert torch.accelerator.is_available()
    module = torch.get_device_module("sim")
    assert module.device_count() == 5
    assert module.current_device() == 0
    module.set_device(4)
    assert torch.zeros(1, device="sim").device == torch.device("sim:4")
