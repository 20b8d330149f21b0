"""Configs of several components: planned together, loaded by name, run in a pipeline of diffusers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
from click.testing import CliRunner
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

import devmap
from devmap.cli.main import cli
from devmap.config.document import parse_document
from devmap.errors import CheckpointError, UsageError
from devmap.inventory.reader import read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NAMES = ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae")
IDS = torch.tensor([[3, 5, 9, 11, 2]])


def make_parts() -> dict[str, Any]:
    clip = CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=3, vocab_size=100,
        projection_dim=32, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    t5 = T5Config(d_model=32, d_ff=37, d_kv=8, num_heads=4, num_layers=2, vocab_size=110)
    return {
        "text_encoder": CLIPTextModelWithProjection(clip),
        "text_encoder_2": CLIPTextModelWithProjection(clip),
        "text_encoder_3": T5EncoderModel(t5),
        "transformer": diffusers.SD3Transformer2DModel(
            sample_size=16, patch_size=1, in_channels=4, num_layers=6, attention_head_dim=8,
            num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32,
            pooled_projection_dim=64, out_channels=4, pos_embed_max_size=16,
        ),
        "vae": diffusers.AutoencoderKL(
            sample_size=32, block_out_channels=(4, 8), down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=1, latent_channels=4,
            norm_num_groups=1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06,
            scaling_factor=1.5,
        ),
    }  # fmt: skip


def image(pipeline: Any) -> np.ndarray[Any, Any]:
    """Return what the pipeline paints; the text encoders are called by hand, as there are no tokenizers."""
    with torch.no_grad():
        ids = IDS.to(pipeline._execution_device)
        clips = [
            encoder(ids, output_hidden_states=True)
            for encoder in (pipeline.text_encoder, pipeline.text_encoder_2)
        ]
        embeds = torch.cat([clips[0].hidden_states[-2], pipeline.text_encoder_3(ids)[0]], 1)
        found: np.ndarray[Any, Any] = pipeline(
            prompt_embeds=embeds,
            pooled_prompt_embeds=torch.cat([clip[0] for clip in clips], -1),
            num_inference_steps=2,
            guidance_scale=0,
            height=32,
            width=32,
            generator=torch.Generator("cpu").manual_seed(3),
            output_type="np",
        ).images
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, np.ndarray[Any, Any]]:
    """A random pipeline shaped like Stable Diffusion 3, its bytes, and its image."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pipeline")
    parts = make_parts()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    tokenizers = dict.fromkeys(("tokenizer", "tokenizer_2", "tokenizer_3"))
    pipeline = diffusers.StableDiffusion3Pipeline(scheduler=scheduler, **tokenizers, **parts)
    for part in parts.values():
        part.eval()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    total = sum(tensor.nbytes for part in parts.values() for tensor in part.state_dict().values())
    return folder, total, image(pipeline)


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_3"])
def test_headers_alone_describe_the_text_encoders(
    name: str, saved: tuple[Path, int, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVMAP_CACHE", str(saved[0] / "cache"))
    found = devmap.Inventory.from_checkpoint(saved[0] / name)
    assert found.notes == ()
    assert found == read_checkpoint(saved[0] / name, through_transformers=True)


def write(folder: Path, memory: dict[int | str, int], **keys: object) -> Path:
    path = folder / "x.devmap.yaml"
    sources = {name: {"checkpoint": f"./{name}"} for name in NAMES}
    path.write_text(json.dumps({"version": 1, "components": sources, "max_memory": memory, **keys}))
    return path


def pipeline_of(folder: Path, models: Any) -> Any:
    tokenizers = dict.fromkeys(("tokenizer", "tokenizer_2", "tokenizer_3"))
    found = diffusers.DiffusionPipeline.from_pretrained(folder, **models, **tokenizers)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.mark.parametrize(
    "shares",
    [
        {0: 2.0},
        {0: 0.65, 1: 0.65},
        {0: 0.4, "cpu": 0.5, "disk": 100.0},
        {0: 0.3, 1: 0.3, "disk": 100.0},
    ],
    ids=["one device", "two devices", "streamed", "streamed over two devices"],
)
def test_a_pipeline_of_components_paints_the_plain_pipelines_image(
    saved: tuple[Path, int, np.ndarray[Any, Any]], shares: dict[int | str, float]
) -> None:
    folder, total, want = saved
    memory = {key: int(share * total) for key, share in shares.items()}
    path = write(folder, memory)
    accelerators = {key: size for key, size in memory.items() if isinstance(key, int)}
    with devmap.testing.simulated_devices(accelerators, activations=False):
        found = devmap.load(path, progress=False)
        assert isinstance(found, torch.nn.ModuleDict)
        assert tuple(found) == NAMES
        models: Any = found
        pipeline = pipeline_of(folder, models)
        got = image(pipeline)
        assert abs(got - want).max() < 1e-5
        handle: Any = models["vae"].devmap
        assert handle is models.devmap, "one plan and one engine for all"
        handle.remove()
        assert "devmap" not in models["vae"].__dict__
    if len(memory) > 1:  # wholly on one device they stay there
        assert abs(image(pipeline_of(folder, models)) - want).max() < 1e-5


@pytest.mark.parametrize(
    "shares", [{0: 0.45, 1: 0.45}, {0: 0.4, "cpu": 0.3, "disk": 100.0}], ids=["two devices", "streamed"]
)
def test_components_that_take_turns_need_room_for_one(
    saved: tuple[Path, int, np.ndarray[Any, Any]], shares: dict[int | str, float]
) -> None:
    folder, total, want = saved
    memory = {key: int(share * total) for key, share in shares.items()}
    path = write(folder, memory, residency="by turns")
    accelerators = {key: size for key, size in memory.items() if isinstance(key, int)}
    assert [each for each in devmap.validate(path).findings if each.severity == "error"] == []
    if "disk" not in memory:
        with pytest.raises(devmap.ResolutionError):
            devmap.resolve(devmap.read_config(path, overrides=["residency=together"]))
    with devmap.testing.simulated_devices(accelerators, activations=False):
        models: Any = devmap.load(path, progress=False)
        assert models.devmap.active is None
        assert models.devmap.stats() is None
        pipeline = pipeline_of(folder, models)
        for _ in range(2):
            assert abs(image(pipeline) - want).max() < 1e-5
        assert models["vae"].devmap.active == "vae"
        assert isinstance(models["vae"], diffusers.AutoencoderKL)
        assert models["transformer"].proj_out.weight.is_meta, "it waits in its files"
        assert models.devmap.stats() is not None
        models.devmap.remove()
        assert "devmap" not in models["vae"].__dict__
        assert type(models["vae"]) is diffusers.AutoencoderKL
    assert abs(image(pipeline_of(folder, models)) - want).max() < 1e-5


def test_a_plan_of_turns_can_be_locked_shown_and_explained(
    saved: tuple[Path, int, np.ndarray[Any, Any]],
) -> None:
    folder, total, want = saved
    budget = int(total * 0.8)
    keys = {"transformer": 1, "text_encoder.text_model": 1, "": "auto"}
    path = write(folder, {0: budget, 1: budget}, residency="by turns", device_map=keys)
    plan = devmap.resolve(devmap.read_config(path))
    first = next(use for use in plan.devices if use.device.plain == 1)
    whole = sum(each.nbytes for each in plan.placements if each.path.startswith("transformer"))
    assert first.weight_bytes == whole, "of the turn that takes most of it"
    runner = CliRunner()
    shown = runner.invoke(cli, ["plan", str(path)])
    assert (shown.exit_code, "take turns" in shown.output) == (0, True)
    because = runner.invoke(cli, ["plan", str(path), "--why", "vae.decoder"])
    assert (because.exit_code, "vae.decoder" in because.output) == (0, True)
    assert runner.invoke(cli, ["resolve", str(path), "--lock"]).exit_code == 0
    try:
        with devmap.testing.simulated_devices({0: budget, 1: budget}, activations=False):
            models: Any = devmap.load(path, progress=False)
            assert models.devmap.plan.device_map == plan.device_map
            assert abs(image(pipeline_of(folder, models)) - want).max() < 1e-5
            models.devmap.remove()
    finally:
        path.with_name("x.devmap.lock.yaml").unlink()
    misspelt = devmap.read_config(path, overrides=["device_map.transfomer=1"])
    with pytest.raises(devmap.DeviceMapError):
        devmap.resolve(misspelt)


def test_an_encoding_autoencoder_gives_its_distribution_back_where_its_input_is(
    saved: tuple[Path, int, np.ndarray[Any, Any]],
) -> None:
    folder, total, _ = saved
    path = write(folder, {0: total, 1: total}, device_map={"vae.encoder": 0, "vae.decoder": 1, "": 0})
    picture = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
    with devmap.testing.simulated_devices({0: total, 1: total}, activations=False), torch.no_grad():
        vae: Any = devmap.load(path, progress=False)["vae"]  # type: ignore[index]  # a ModuleDict
        found = vae.encode(picture).latent_dist
        assert found.mean.device.type == "cpu"
        torch.testing.assert_close(found.mean, plain.encode(picture).latent_dist.mean)
        (pair,) = vae.encode(picture, return_dict=False)
        assert pair.std.device.type == "cpu"
        latents = found.mean
        torch.testing.assert_close(vae.decode(latents).sample, plain.decode(latents).sample)
        vae.devmap.remove()


def test_components_have_dtypes_maps_and_locks_of_their_own(
    saved: tuple[Path, int, np.ndarray[Any, Any]],
) -> None:
    folder, total, _ = saved
    path = write(folder, {0: total, 1: total}, device_map={"transformer": 1, "vae": 1, "": 0})
    content = json.loads(path.read_text())
    content["components"]["transformer"]["dtype"] = "bfloat16"
    path.write_text(json.dumps(content))
    plan = devmap.resolve(devmap.read_config(path))
    assert plan.device_map == {
        "text_encoder": 0, "text_encoder_2": 0, "text_encoder_3": 0, "transformer": 1, "vae": 1
    }  # fmt: skip
    whole = devmap.resolve(devmap.read_config(path, overrides=["components.transformer.dtype=float32"]))
    one, two = (each.use_of(devmap.config.values.device.parse_device(1)) for each in (plan, whole))  # type: ignore[attr-defined]  # loaded above
    assert one is not None
    assert two is not None
    assert one.weight_bytes < two.weight_bytes * 3 // 4
    assert plan.config_fingerprint != whole.config_fingerprint
    lock = path.with_name("x.devmap.lock.yaml")
    from devmap.plan.lock import write_lock  # noqa: PLC0415 - beside its use

    write_lock(plan, lock)
    try:
        with devmap.testing.simulated_devices({0: total, 1: total}, activations=False):
            models = devmap.load(path, progress=False)
            assert {tensor.dtype for tensor in models["transformer"].parameters()} == {torch.bfloat16}  # type: ignore[index]  # a ModuleDict
            assert {tensor.dtype for tensor in models["vae"].parameters()} == {torch.float32}  # type: ignore[index]  # as above
            assert models.devmap.plan.device_map == plan.device_map  # type: ignore[union-attr]  # our handle
            models.devmap.remove()  # type: ignore[operator, union-attr]  # as above
    finally:
        lock.unlink()


def test_a_component_that_cannot_be_read_is_named(saved: tuple[Path, int, np.ndarray[Any, Any]]) -> None:
    folder, _, _ = saved
    path = folder / "y.devmap.yaml"
    path.write_text(
        "version: 1\ncomponents: {vae: {checkpoint: ./vae}, unet: {checkpoint: ./no-unet}}\n"
        "max_memory: {0: 1GB}\n"
    )
    (finding,) = (each for each in devmap.validate(path).findings if each.severity == "error")
    assert (finding.code, finding.path) == ("DM216", ("components", "unet", "checkpoint"))
    with pytest.raises(CheckpointError) as caught:
        devmap.load(path, progress=False)
    assert caught.value.component == "unet"


def test_what_takes_one_model_refuses_components(saved: tuple[Path, int, np.ndarray[Any, Any]]) -> None:
    from devmap.api.models.running import run  # noqa: PLC0415 - imports the runtime
    from devmap.api.simulation import simulate_config  # noqa: PLC0415 - as above

    path = write(saved[0], {"cpu": 10**9})
    with pytest.raises(UsageError, match="no one pass to run"):
        run(path)
    with pytest.raises(UsageError, match="no one pass to simulate"):
        simulate_config(path)
    with pytest.raises(UsageError, match="a module was given"):
        devmap.load(path, model=torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("version: 1\ncomponents: {a: {checkpoint: ./a}}\n", []),
        ("version: 1\ncomponents: {}\n", ["DM102"]),
        ("version: 1\nmodel: {checkpoint: ./a}\ncomponents: {b: {checkpoint: ./b}}\n", ["DM101"]),
        ("version: 1\ncomponents: {a.b: {checkpoint: ./a}}\n", ["DM107"]),
        ("version: 1\ncomponents: {a: {chekpoint: ./a}}\n", ["DM101"]),
        ("version: 1\ncomponents: {a: ./a}\n", ["DM103"]),
    ],
)
def test_the_shape_of_components_is_checked(text: str, codes: list[str]) -> None:
    assert [fault.code for fault in parse_document(text.encode(), "x.devmap.yaml").faults] == codes


def test_paths_of_components_follow_a_parent(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "b.devmap.yaml").write_text(
        "version: 1\ncomponents: {vae: {checkpoint: ./vae}, unet: {manifest: u.manifest.yaml}}\n"
    )
    child = tmp_path / "c.devmap.yaml"
    child.write_text("version: 1\nextends: base/b.devmap.yaml\n")
    found = devmap.read_config(child).components
    assert (found["vae"].checkpoint, found["unet"].manifest) == ("base/vae", "base/u.manifest.yaml")
