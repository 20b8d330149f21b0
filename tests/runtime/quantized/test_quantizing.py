"""Models that are quantised while they are loaded: weights and outputs are those of `from_pretrained`."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchao.quantization import Float8WeightOnlyConfig
from transformers import (
    BitsAndBytesConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    TorchAoConfig,
)
from transformers.integrations.bitsandbytes import Bnb4bitQuantize

import devmap
from devmap.api.resolution import resolve_file
from devmap.devices.host_memory import return_freed
from devmap.errors import LoadError, QuantizationError
from devmap.plan.lock import lock_path, write_lock
from tests.runtime.quantized.small_llama import IDS, small_llama

STATUS = Path("/proc/self/status")
KINDS: dict[str, tuple[str, Any]] = {
    "nf4": ("nf4", BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
    "nf4 doubled": (
        "{method: nf4, bnb_4bit_use_double_quant: true, bnb_4bit_compute_dtype: bfloat16}",
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    ),
    "fp4": ("fp4", BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4")),
    "int8": ("int8", BitsAndBytesConfig(load_in_8bit=True)),
    "int8 but some": (
        (
            "{load_in_8bit: true, llm_int8_threshold: 0.5, "
            "llm_int8_skip_modules: [lm_head, q_proj, model.layers.2]}"
        ),
        BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=0.5,
            llm_int8_skip_modules=["lm_head", "q_proj", "model.layers.2"],
        ),
    ),
    "fp8": ("fp8", TorchAoConfig(Float8WeightOnlyConfig())),
}
MEMORY = {
    "resident": "{0: 10MB}",
    "on the cpu": "{cpu: 10MB}",
    "from cpu": "{0: 75KB, cpu: 10MB}",
    "from disk": "{0: 75KB, disk: 10MB}",
    "from disk, executed on the cpu": "{cpu: 60KB, disk: 10MB}",
    "all tiers": "{0: 60KB, 1: 60KB, cpu: 30KB, disk: 10MB}",
}

Plain = dict[str, tuple[dict[str, Any], torch.Tensor, LlamaForCausalLM]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    small_llama(attention_bias=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(whole: Path) -> Plain:
    """The state, logits and model of `from_pretrained`; a forward of bitsandbytes may change its biases."""
    found = {}
    for kind, (_, config) in KINDS.items():
        model = LlamaForCausalLM.from_pretrained(whole, quantization_config=config).eval()
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):  # as in _stored_layout
                module.support_avx512bf16_for_cpu = False
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            found[kind] = state, model(IDS).logits, model
    return found


@pytest.fixture(autouse=True)
def _stored_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep to the kernels that take the stored layout, as streamed modules do, on CPUs that have others."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


def config_of(folder: Path, tmp_path: Path, quantization: str, memory: str, more: str = "") -> Path:
    path = tmp_path / "x.devmap.yaml"
    path.write_text(
        f"version: 1\nmodel:\n  checkpoint: {folder}\n  quantization: {quantization}\n{more}"
        f"max_memory: {memory}\noffload: {{folder: {tmp_path / 'offload'}}}\n",
        encoding="utf-8",
    )
    return path


def loaded(path: Path) -> Any:
    return devmap.load(path, progress=False)


def flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu().contiguous().view(-1).view(torch.uint8)


def assert_same_state(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert type(found[name]).__name__ != "Parameter"
        inner = getattr(tensor, "tensor_data_names", None)
        for one, other in (
            [(getattr(found[name], key), getattr(tensor, key)) for key in inner]
            if inner
            else [(found[name], tensor)]
        ):
            assert one.dtype == other.dtype, name
            assert torch.equal(flat(one), flat(other)), name


@pytest.mark.parametrize(
    ("kind", "memory"),
    [
        *((kind, memory) for kind in ("nf4 doubled", "int8", "fp8") for memory in MEMORY),
        *(
            (kind, memory)
            for kind in ("nf4", "fp4", "int8 but some")
            for memory in ("from disk", "all tiers")
        ),
    ],
)
def test_weights_and_outputs_are_those_of_from_pretrained(
    kind: str, memory: str, whole: Path, plain: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if memory != "resident":  # weights of 2,048 to 8,192 numbers, in stretches
        monkeypatch.setattr("devmap.runtime.quantized.quantizing.STRETCH", 1000)
    expected_state, expected, _ = plain[kind]
    with devmap.testing.simulated_devices({0: "10MB", 1: "10MB"}, activations=False):
        model = loaded(config_of(whole, tmp_path, KINDS[kind][0], MEMORY[memory]))
        assert_same_state(model.state_dict(), expected_state)
        with torch.no_grad():
            ids = IDS.to(0) if memory == "resident" else IDS
            first, again = model(ids).logits.cpu(), model(ids).logits.cpu()
    assert torch.equal(first, expected)
    assert torch.equal(again, expected)


def test_a_load_leaves_no_thread(whole: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    loaded(config_of(whole, tmp_path, "nf4", "{cpu: 10MB}"))
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_has_the_bytes_that_the_loaded_model_holds(kind: str, whole: Path, tmp_path: Path) -> None:
    path = config_of(whole, tmp_path, KINDS[kind][0], "{0: 10MB}")
    with devmap.testing.simulated_devices({0: "10MB"}, activations=False):
        model = loaded(path)
        assert held_bytes(model) == sum(placement.nbytes for placement in model.devmap.plan.placements)


def held_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of every tensor that a model holds, those inside the libraries' parameters too."""
    found: dict[int, torch.Tensor] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        parts: list[torch.Tensor | None] = [tensor]
        if hasattr(tensor, "quant_state"):
            state = tensor.quant_state
            parts += [state.absmax, state.code, state.offset]
            parts += [state.state2.absmax, state.state2.code] if state.nested else []
        elif hasattr(tensor, "SCB"):
            parts.append(tensor.SCB)
        elif hasattr(tensor, "tensor_data_names"):
            parts = [getattr(tensor, name) for name in tensor.tensor_data_names]
        found |= {id(part): part for part in parts if part is not None}
    return sum(part.nbytes for part in found.values())


@pytest.mark.parametrize("kind", ["nf4", "nf4 doubled", "int8"])
@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_other_linear_classes_and_modules_that_stay_wide(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devmap.runtime.quantized.quantizing.STRETCH", 100)
    torch.manual_seed(0)
    model: Any
    if name == "gpt2":  # its `Conv1D` is stored with its inputs first
        model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=16))
    else:  # keeps the `wo` of each block in a wide dtype
        model = T5ForConditionalGeneration(
            T5Config(vocab_size=64, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4)
        )
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    quantization, settings = KINDS[kind]
    expected = type(model).from_pretrained(tmp_path / "model", quantization_config=settings).eval()
    inputs = {"input_ids": IDS} | ({"decoder_input_ids": IDS} if name == "t5" else {})
    with devmap.testing.simulated_devices({0: "10MB"}, activations=False):
        path = config_of(tmp_path / "model", tmp_path, quantization, "{0: 18KB, cpu: 10MB}")
        found = loaded(path)
        assert_same_state(found.state_dict(), expected.state_dict())
        with torch.no_grad():
            assert torch.equal(found(**inputs).logits.cpu(), expected(**inputs).logits)


def test_a_run_dtype_is_what_weights_are_converted_from(whole: Path, tmp_path: Path) -> None:
    config = KINDS["nf4"][1]
    expected = LlamaForCausalLM.from_pretrained(whole, quantization_config=config, dtype=torch.float32).eval()
    path = config_of(whole, tmp_path, "nf4", "{cpu: 10MB}", "  dtype: float32\n")
    model = loaded(path)
    assert_same_state(model.state_dict(), expected.state_dict())
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, expected(IDS).logits)
    assert model(IDS).logits.dtype == torch.float32


@pytest.mark.parametrize("kind", ["nf4 doubled", "int8", "fp8"])
def test_it_is_saved_as_transformers_saves_it(kind: str, whole: Path, plain: Plain, tmp_path: Path) -> None:
    model = loaded(config_of(whole, tmp_path, KINDS[kind][0], "{cpu: 10MB}"))
    model.save_pretrained(tmp_path / "saved")
    plain[kind][2].save_pretrained(tmp_path / "expected")
    found, expected = (load_file(tmp_path / each / "model.safetensors") for each in ("saved", "expected"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(flat(found[name]), flat(tensor)), name
    assert model.hf_quantizer.quantization_config.to_dict() == KINDS[kind][1].to_dict()
    again = devmap.Inventory.from_checkpoint(tmp_path / "saved")
    assert again.architecture is not None
    assert "quantization" in again.architecture.figures


def test_what_streams_is_written_to_the_offload_folder_once(whole: Path, tmp_path: Path) -> None:
    written: list[dict[str, int]] = []
    for quantization in ("nf4", "nf4", "fp4"):
        path = config_of(whole, tmp_path, quantization, "{0: 75KB, disk: 10MB}")
        with devmap.testing.simulated_devices({0: "10MB"}, activations=False):
            loaded(path)
        written.append({each.name: each.stat().st_mtime_ns for each in (tmp_path / "offload").iterdir()})
    first, again, other = written
    assert first == again
    assert first.items() < other.items()  # another quantization has files of its own
    parts = [name for each in first for name in load_file(tmp_path / "offload" / each)]
    assert any(name.endswith("q_proj.weight_absmax") for name in parts)
    assert not any("lm_head" in name for name in parts)  # stays in the checkpoint's own file


def test_each_weight_is_converted_once_a_load(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config_of(whole, tmp_path, "nf4", "{0: 75KB, disk: 10MB}")
    converted: list[str] = []
    convert = Bnb4bitQuantize.convert

    def counted(self: Any, weights: dict[str, Any], **settings: Any) -> Any:
        converted.extend(weights)
        return convert(self, weights, **settings)

    monkeypatch.setattr(Bnb4bitQuantize, "convert", counted)
    for _ in range(2):  # the first writes the offload folder, the second finds its files
        with devmap.testing.simulated_devices({0: "10MB"}, activations=False):
            loaded(path)
        assert sorted(converted) == sorted(set(converted))
        assert len(converted) == 4 * 7
        converted.clear()


def test_a_lock_holds_the_quantised_model(whole: Path, tmp_path: Path) -> None:
    path = config_of(whole, tmp_path, "nf4", "{0: 75KB, cpu: 10MB}")
    write_lock(resolve_file(path)[0], lock_path(path))
    with devmap.testing.simulated_devices({0: "10MB"}, activations=False):
        model = loaded(path)
        assert model.devmap.plan.streamed
        path.write_text(path.read_text().replace("quantization: nf4", "quantization: fp4"))
        with pytest.raises(devmap.LockError, match="stale"):
            loaded(path)


@pytest.mark.parametrize("kind", ["nf4", "int8", "fp8"])
def test_host_memory_that_is_too_small_to_convert_a_weight_is_told_before_anything_is_read(
    kind: str, whole: Path, tmp_path: Path
) -> None:
    path = config_of(whole, tmp_path, kind, "{cpu: 10MB}")
    path.write_text(path.read_text().replace("offload: {", "offload: {host_memory: 100KB, "))
    with pytest.raises(devmap.DevmapError, match=r"to quantise 'model\.layers\.0\.mlp\.") as caught:
        loaded(path)
    assert "DM409" in str(caught.value)
    with pytest.raises(LoadError, match=r"to quantise 'model\.layers\.0\.mlp\.") as again:
        devmap.load(path, plan=devmap.resolve(devmap.read_config(path)), progress=False)
    assert "offload.host_memory" in again.value.help


@pytest.mark.skipif(not STATUS.exists(), reason="reads what Linux says of this process")
@pytest.mark.parametrize(("kind", "megabytes"), [("nf4 doubled", 64), ("nf4", 44), ("int8", 44), ("fp8", 44)])
def test_loading_stays_within_host_memory(
    kind: str, megabytes: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("devmap.inventory.quantizing", "devmap.runtime.quantized.quantizing"):
        monkeypatch.setattr(f"{place}.STRETCH", 1 << 18)  # an eighth of the largest weight
    config = LlamaConfig(
        vocab_size=64, hidden_size=512, intermediate_size=4096, num_hidden_layers=3, num_attention_heads=4,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    loaded(config_of(whole, tmp_path, KINDS[kind][0], "{cpu: 10MB}"))  # what libraries set up once
    path = config_of(tmp_path / "model", tmp_path, KINDS[kind][0], "{cpu: 12MB, disk: 100MB}")
    path.write_text(path.read_text().replace("offload: {", f"offload: {{host_memory: {megabytes}MB, "))
    gc.collect()
    return_freed()
    before, highest = anonymous_bytes(), 0
    loading = True

    def watch() -> None:
        nonlocal highest
        while loading:
            highest = max(highest, anonymous_bytes())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        plan = loaded(path).devmap.plan
    finally:
        loading = False
        watching.join()
    on_cpu = next(use.weight_bytes for use in plan.devices if use.device.plain == "cpu")
    assert plan.host_memory_bytes == megabytes * 1_000_000
    assert (
        highest - before <= on_cpu + plan.host_memory_bytes + 8_000_000
    )  # threads, and Python's own objects


def anonymous_bytes() -> int:
    """Return what this process holds beside files that it maps."""
    line = next(each for each in STATUS.read_text().splitlines() if each.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def test_what_a_library_raises_is_an_error_with_the_weights_name(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_settings: object) -> None:
        msg = "no kernel for this"
        raise NotImplementedError(msg)

    threads = set(threading.enumerate())
    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", fail)
    with pytest.raises(LoadError, match=r"proj.weight' could not be quantised: .*no kernel") as caught:
        loaded(config_of(whole, tmp_path, "nf4", "{cpu: 10MB}"))
    assert caught.value.help
    assert set(threading.enumerate()) <= threads


def test_a_plan_that_counts_too_few_bytes_is_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config_of(whole, tmp_path, "nf4", "{cpu: 10MB}")
    # as if the planner knew no head: it counts one in 4 bits, which Transformers leaves whole
    monkeypatch.setattr("devmap.inventory.quantizing._kept_by_default", lambda _: iter(()))
    write_lock(resolve_file(path)[0], lock_path(path))
    with pytest.raises(LoadError, match="the plan counts") as caught:
        loaded(path)
    assert "--no-lock" in caught.value.help
    devmap.load(path, use_lock=False, progress=False)


def test_int4_is_planned_and_refused_by_name(whole: Path, tmp_path: Path) -> None:
    path = config_of(whole, tmp_path, "int4", "{cpu: 10MB}")
    with pytest.raises(LoadError, match="int4 on accelerators alone") as caught:
        loaded(path)
    assert "nf4" in caught.value.help


def test_a_library_that_is_not_installed_is_named(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_4bit.is_bitsandbytes_available", lambda: False)
    path = config_of(whole, tmp_path, "nf4", "{cpu: 10MB}")
    with pytest.raises(LoadError, match="cannot be quantised to nf4 here") as caught:
        loaded(path)
    assert "torch-devmap[quantized]" in caught.value.help


@pytest.mark.parametrize("more", ["  dequantize: true\n", "  factory: mine:build\n"])
def test_two_ways_to_load_at_once_are_refused(more: str, whole: Path, tmp_path: Path) -> None:
    path = config_of(whole, tmp_path, "nf4", "{cpu: 10MB}", more)
    with pytest.raises(QuantizationError) as caught:
        devmap.load(path, progress=False, allow_code=True)
    assert caught.value.help


def test_a_checkpoint_that_is_quantised_already_is_refused(plain: Plain, tmp_path: Path) -> None:
    plain["int8"][2].save_pretrained(tmp_path / "model")
    path = config_of(tmp_path / "model", tmp_path, "nf4", "{cpu: 10MB}")
    with pytest.raises(QuantizationError, match=r"quantised already \(8-bit bitsandbytes int8\)"):
        loaded(path)
    (finding,) = (each for each in devmap.validate(path).findings if each.code == "DM229")
    assert finding.position is not None
    assert finding.position.start.line == 4


def test_a_file_that_is_cut_short_is_told_before_anything_is_converted(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for each in whole.iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    path = config_of(folder, tmp_path, "nf4", "{cpu: 10MB}")
    plan = devmap.resolve(devmap.read_config(path))
    stored = folder / "model.safetensors"
    stored.write_bytes(stored.read_bytes()[:-5_000])
    with pytest.raises(devmap.DevmapError, match=r"cut|problem|ends"):
        devmap.load(path, plan=plan, progress=False)


def test_components_are_quantised_each_for_itself(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.devmap.yaml"
    path.write_text(
        "version: 1\ncomponents:\n"
        f"  draft: {{checkpoint: {whole}, quantization: nf4}}\n  main: {{checkpoint: {whole}}}\n"
        "max_memory: {cpu: 10MB}\n",
        encoding="utf-8",
    )
    parts = loaded(path)
    assert type(parts["draft"].model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert type(parts["main"].model.layers[0].mlp.up_proj).__name__ == "Linear"
    expected = LlamaForCausalLM.from_pretrained(whole, quantization_config=KINDS["nf4"][1]).eval()
    with torch.no_grad():
        assert torch.equal(parts["draft"](IDS).logits, expected(IDS).logits)
    path.write_text(path.read_text() + "residency: by turns\n")
    with pytest.raises(devmap.DevmapError, match="take turns"):
        loaded(path)
    (finding,) = (each for each in devmap.validate(path).findings if each.code == "DM229")
    assert finding.path == ("components", "draft", "quantization")
