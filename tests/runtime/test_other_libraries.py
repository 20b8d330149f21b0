"""Components of diffusers: described, planned and loaded as the library itself loads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

import devmap
from devmap.errors import LoadError
from devmap.inventory.reader import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@dataclass(frozen=True)
class Example:
    """One small random model: how it is made, its classes that stay whole, an input."""

    make: Callable[[], Any]
    whole: tuple[str, ...]
    inputs: Callable[[], dict[str, torch.Tensor]]


def flux() -> Any:
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
    )


def sd3() -> Any:
    return diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=6,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
        pos_embed_max_size=16,
    )


def unet() -> Any:
    return diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=2,
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
    )


def vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )


EXAMPLES = {
    "flux": Example(
        flux,
        ("FluxSingleTransformerBlock", "FluxTransformerBlock"),
        lambda: {
            "hidden_states": torch.randn(1, 16, 4),
            "encoder_hidden_states": torch.randn(1, 8, 32),
            "pooled_projections": torch.randn(1, 32),
            "timestep": torch.tensor([1.0]),
            "img_ids": torch.zeros(16, 3),
            "txt_ids": torch.zeros(8, 3),
        },
    ),
    "sd3": Example(
        sd3,
        ("JointTransformerBlock",),
        lambda: {
            "hidden_states": torch.randn(1, 4, 16, 16),
            "encoder_hidden_states": torch.randn(1, 8, 32),
            "pooled_projections": torch.randn(1, 64),
            "timestep": torch.tensor([1]),
        },
    ),
    "unet": Example(
        unet,
        ("BasicTransformerBlock", "CrossAttnUpBlock2D", "Downsample2D", "ResnetBlock2D", "UpBlock2D"),
        lambda: {
            "sample": torch.randn(1, 4, 16, 16),
            "timestep": torch.tensor([10]),
            "encoder_hidden_states": torch.randn(1, 4, 32),
        },
    ),
    "vae": Example(
        vae,
        ("Attention", "BasicTransformerBlock", "Downsample2D", "ResnetBlock2D", "Upsample2D"),
        lambda: {"sample": torch.randn(1, 3, 16, 16)},
    ),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVMAP_CACHE", str(tmp_path / "cache"))


def run_over_tiers(
    folder: Path, total: int, run: Callable[[nn.Module], torch.Tensor], want: torch.Tensor
) -> None:
    """Load on two devices, and on one with cpu and disk behind it; hold outputs against `want`."""
    path = folder / "x.devmap.yaml"
    for memory in ({0: total * 3 // 4, 1: total * 3 // 4}, {0: total // 2, "cpu": total // 2, "disk": 10**9}):
        path.write_text(json.dumps({"version": 1, "model": {"checkpoint": "."}, "max_memory": memory}))
        accelerators = {key: size for key, size in memory.items() if isinstance(key, int)}
        with devmap.testing.simulated_devices(accelerators, activations=False), torch.no_grad():
            model = devmap.load(path, progress=False)
            assert len({placement.home for placement in model.devmap.plan.placements}) > 1  # type: ignore[union-attr]  # our handle
            torch.testing.assert_close(run(model).cpu(), want, atol=1e-5, rtol=1e-5)
            model.devmap.remove()  # type: ignore[operator, union-attr]  # as above


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_component_of_diffusers_runs_over_all_tiers_as_diffusers_loads_it(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    example = EXAMPLES[name]
    example.make().save_pretrained(tmp_path)
    guessed = devmap.Inventory.from_checkpoint(tmp_path)
    assert "of diffusers is not in the built-in table" in guessed.notes[0]
    inventory = read_checkpoint(tmp_path, through_transformers="where needed")
    assert inventory.no_split_module_classes == example.whole
    assert inventory.mapping is not None
    assert (inventory.mapping.missing, inventory.mapping.unmapped) == ((), ())
    assert inventory.tensors.keys() == guessed.tensors.keys()
    assert devmap.Inventory.from_checkpoint(tmp_path) == inventory, "what diffusers said is kept"
    plain = type(example.make()).from_pretrained(tmp_path).eval()
    inputs = example.inputs()
    with torch.no_grad():
        want = plain(**inputs).sample
    run_over_tiers(tmp_path, inventory.nbytes, lambda model: model(**inputs).sample, want)


def test_the_old_names_of_attention_weights_are_followed(tmp_path: Path) -> None:
    vae().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, word in old.items():
        tensors = {name.replace(f".{new}.", f".{word}."): tensor for name, tensor in tensors.items()}
    assert any(".query." in name for name in tensors)
    save_file(tensors, file)
    path = tmp_path / "x.devmap.yaml"
    path.write_text("version: 1\nmodel: {checkpoint: .}\nmax_memory: {cpu: 1GB}\n")
    model = devmap.load(path, progress=False)
    plain = diffusers.AutoencoderKL.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.state_dict().items())


def test_a_dtype_is_that_of_weights_and_computed_buffers(tmp_path: Path) -> None:
    flux().save_pretrained(tmp_path)
    path = tmp_path / "x.devmap.yaml"
    path.write_text("version: 1\nmodel: {checkpoint: ., dtype: bfloat16}\nmax_memory: {cpu: 1GB}\n")
    model = devmap.load(path, progress=False)
    plain = diffusers.FluxTransformer2DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.state_dict().items())
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "NoSuchModel", "_diffusers_version": "9.0"}, "diffusers has no model 'NoSuchModel'"),
        ({"_class_name": "DDPMScheduler"}, "diffusers has no model 'DDPMScheduler'"),
        ({"_class_name": "FluxTransformer2DModel", "num_layers": "many"}, "diffusers cannot build Flux"),
    ],
)
def test_what_a_library_cannot_build_is_said(tmp_path: Path, config: dict[str, object], message: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / "x.devmap.yaml"
    path.write_text("version: 1\nmodel: {checkpoint: .}\nmax_memory: {cpu: 1GB}\n")
    with pytest.raises(LoadError, match=message):
        devmap.load(path, progress=False)


def test_a_library_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    monkeypatch.setattr("devmap.inventory.live.other_libraries.find_spec", lambda _: None)
    with pytest.raises(devmap.InventoryError, match="diffusers, which is not installed") as caught:
        read_checkpoint(tmp_path, through_transformers=True)
    assert caught.value.help == "pip install diffusers"


def test_what_diffusers_quantised_is_refused_by_name(tmp_path: Path) -> None:
    flux().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / "x.devmap.yaml"
    path.write_text("version: 1\nmodel: {checkpoint: .}\nmax_memory: {cpu: 1GB}\n")
    with pytest.raises(LoadError, match=r"quantised .* by diffusers") as caught:
        devmap.load(path, progress=False)
    assert "not quantised" in caught.value.help
