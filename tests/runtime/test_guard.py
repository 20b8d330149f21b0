"""A streamed weight that is used without its block's forward works, or raises with its name.

Never silent garbage.
"""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from devmap.errors import StreamError, UsageError
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.runtime.conftest import Load

_IDS = torch.arange(12).view(1, 12)
_NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(params=["cpu", "sim"])
def streamed(request: pytest.FixtureRequest, llama_folder: Path, load: Load) -> Iterator[Any]:
    """A Llama whose blocks are on disk and execute on the CPU, or on a simulated device."""
    if request.param == "cpu":
        yield load(llama_folder, lambda path: ("disk", "cpu") if "layers" in path else ("cpu", "cpu"))
        return
    with simulated_devices({0: "20MB"}):
        yield load(
            llama_folder,
            lambda path: ("disk", 0) if "layers.1" in path else ("cpu", 0) if "layers" in path else (0, 0),
        )


@pytest.fixture
def plain(llama_folder: Path) -> Any:
    return LlamaForCausalLM.from_pretrained(llama_folder)


def _weight(model: Any) -> Any:
    return model.model.layers[1].mlp.up_proj.weight


def test_reading_a_parameter_gives_its_own_numbers_not_those_of_the_block_in_the_slot(
    streamed: Any, plain: Any
) -> None:
    with torch.no_grad():
        streamed(_IDS)
    for index, block in enumerate(plain.model.layers):
        for name, parameter in block.named_parameters():
            placeholder = streamed.model.layers[index].get_parameter(name)
            assert placeholder.shape == parameter.shape
            assert torch.equal((placeholder * 1).cpu(), parameter)


@pytest.mark.parametrize(
    "use",
    [
        lambda weight, x: functional.linear(x, weight),
        lambda weight, x: x @ weight.t(),
        lambda weight, x: torch.cat([weight, weight]) + x.sum(),
        lambda weight, x: weight[3:5].reshape(-1)[None] + x.sum(),
        lambda weight, x: torch.stack([part.sum() for part in weight.chunk(2)]) + x.sum(),
        lambda weight, x: weight.float().cpu().to(x.device) + x.sum(),
        lambda weight, x: (x.sum() + weight.detach()).T,
        lambda weight, x: torch.einsum("bi,oi->bo", x, weight.data),
    ],
)
def test_functions_of_a_parameter_work_outside_of_its_block(
    streamed: Any, plain: Any, use: Callable[[Any, Any], torch.Tensor]
) -> None:
    x = torch.ones(2, 64)
    got = use(_weight(streamed), x.to(_weight(streamed).device))
    torch.testing.assert_close(got.cpu(), use(_weight(plain), x), atol=1e-6, rtol=1e-6)


def test_a_patched_forward_that_goes_round_the_hooks_is_right(streamed: Any, plain: Any) -> None:
    x = torch.randn(2, 64)
    block = streamed.model.layers[1].mlp
    with torch.no_grad():
        got = block.forward(x.to(_weight(streamed).device)).cpu()
        torch.testing.assert_close(got, plain.model.layers[1].mlp(x), atol=1e-6, rtol=1e-6)
    assert streamed.devmap.stats().fetched_bytes > 0


@pytest.mark.parametrize(
    "write",
    [
        lambda weight: weight.add_(1),
        lambda weight: weight.data.zero_(),
        lambda weight: weight.t().fill_(2),
        lambda weight: weight[0].copy_(torch.zeros(64)),
        nn.init.zeros_,
        lambda weight: weight.__setitem__(0, 1.0),
        lambda weight: torch.add(weight, 1, out=weight),
        lambda weight: weight.requires_grad_(),
        lambda weight: setattr(weight, "requires_grad", True),
        lambda weight: setattr(weight, "data", torch.zeros(128, 64)),
        lambda weight: weight.data_ptr(),
    ],
)
def test_writing_to_a_parameter_raises_with_its_name(streamed: Any, write: Callable[[Any], object]) -> None:
    with torch.no_grad(), pytest.raises(StreamError, match=_NAME):
        write(_weight(streamed))
    with torch.no_grad():
        assert (_weight(streamed) * 1).abs().sum() > 0


def test_a_forward_that_writes_to_its_weight_raises_and_the_model_works_again(
    streamed: Any, plain: Any
) -> None:
    handle = streamed.model.layers[1].mlp.register_forward_pre_hook(
        lambda module, _: module.up_proj.weight.mul_(2) is None or None
    )
    with torch.no_grad(), pytest.raises(StreamError, match=r"model\.layers\.1.*wrote"):
        streamed(_IDS)
    handle.remove()
    with torch.no_grad():
        torch.testing.assert_close(streamed(_IDS).logits, plain(_IDS).logits, atol=1e-6, rtol=1e-6)


def test_metadata_costs_no_read(streamed: Any, plain: Any) -> None:
    weight = _weight(streamed)
    assert (weight.shape, weight.dtype, weight.ndim, weight.numel()) == ((128, 64), torch.float32, 2, 8192)
    assert weight.nbytes == 32768
    assert isinstance(weight, nn.Parameter)
    assert _NAME in repr(weight)
    assert not weight.requires_grad
    assert weight.grad is None
    assert streamed.num_parameters() == plain.num_parameters()
    assert streamed.get_memory_footprint() == plain.get_memory_footprint()
    assert streamed.dtype == torch.float32
    streamed.zero_grad()
    streamed.eval()
    assert streamed.devmap.stats().fetched_bytes == 0


@pytest.mark.parametrize(
    "move",
    [
        lambda model: model.to("cpu"),
        lambda model: model.half(),
        lambda model: model.float(),
        lambda model: model.model.to(torch.bfloat16),
        lambda model: model.model.layers[1].double(),
    ],
)
def test_moving_or_converting_raises_with_the_way_out(streamed: Any, move: Callable[[Any], object]) -> None:
    with pytest.raises(UsageError, match="remove"):
        move(streamed)


def test_converting_a_part_of_a_streamed_block_raises_with_the_weights_name(streamed: Any) -> None:
    with pytest.raises(StreamError, match=_NAME):
        streamed.model.layers[1].mlp.up_proj.double()


def test_copies_and_pickles_are_refused(streamed: Any) -> None:
    for refused in (copy.deepcopy, pickle.dumps):
        with pytest.raises(UsageError, match="cannot be copied"):
            refused(streamed)
        with pytest.raises(UsageError, match="cannot be"):
            refused(streamed.model.layers[1].mlp.up_proj)


def test_a_state_dict_cannot_be_loaded_over_it(streamed: Any) -> None:
    with pytest.raises(UsageError, match="state dict"):
        streamed.load_state_dict(streamed.state_dict())


def test_state_dict_has_the_true_weights_also_of_a_part(streamed: Any, plain: Any) -> None:
    with torch.no_grad():
        streamed(_IDS)
    stored = streamed.state_dict()
    assert list(stored) == list(plain.state_dict())
    assert all(torch.equal(stored[name].cpu(), value) for name, value in plain.state_dict().items())
    part = streamed.model.layers[1].mlp.state_dict()
    assert torch.equal(part["up_proj.weight"], _weight(plain))


def test_save_pretrained_writes_the_true_weights(streamed: Any, plain: Any, tmp_path: Path) -> None:
    streamed.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in plain.state_dict().items())
