"""Real architectures at tiny size: the same numbers as the plainly loaded model, wherever the blocks are."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from devmap.runtime.meta_build import build_on_meta
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime.conftest import Load

_SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}

CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": (
        "LlamaConfig",
        "LlamaForCausalLM",
        _SMALL | {"num_key_value_heads": 2, "max_position_embeddings": 64},
    ),
    "llama-scaled-rope": (
        "LlamaConfig",
        "LlamaForCausalLM",
        _SMALL
        | {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "bert": ("BertConfig", "BertModel", _SMALL | {"max_position_embeddings": 64}),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": 99, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64},
    ),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {
            "vocab_size": 99,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 3,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
    "mixtral": (
        "MixtralConfig",
        "MixtralForCausalLM",
        _SMALL | {"num_key_value_heads": 2, "num_local_experts": 4, "max_position_embeddings": 64},
    ),
    "whisper": (
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        {
            "vocab_size": 99,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 32,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
    ),
    "gemma": (
        "GemmaConfig",
        "GemmaForCausalLM",
        _SMALL | {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        _SMALL
        | {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "sliding_window": 8},
    ),
    "bloom": (
        "BloomConfig",
        "BloomForCausalLM",
        {"vocab_size": 99, "hidden_size": 32, "n_layer": 4, "n_head": 4},
    ),
    "gptj": (
        "GPTJConfig",
        "GPTJForCausalLM",
        {"vocab_size": 99, "n_embd": 32, "n_layer": 4, "n_head": 4, "rotary_dim": 4},
    ),
}


@cache
def _saved(name: str, root: Path) -> Path:
    config_class, model_class, figures = CONFIGS[name]
    torch.manual_seed(3)
    config = getattr(transformers, config_class)(**figures)
    model = getattr(transformers, model_class)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(root / name)
    return root / name


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


def _plain(folder: Path, name: str) -> Any:
    return getattr(transformers, CONFIGS[name][1]).from_pretrained(folder)


def _inputs(name: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 99, (2, 10), generator=torch.Generator().manual_seed(1))
    if name == "whisper":
        return {
            "input_features": torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(2)),
            "decoder_input_ids": ids[:, :4],
        }
    if name == "t5":
        return {"input_ids": ids, "decoder_input_ids": ids[:, :4]}
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _output(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        tensor = model(**inputs)[0]
    assert isinstance(tensor, torch.Tensor)
    return tensor


def _is_block(path: str) -> bool:
    return any(part.isdecimal() for part in path.split("."))


def _number(path: str) -> int:
    return next((int(part) for part in path.split(".") if part.isdecimal()), -1)


@pytest.mark.parametrize("name", CONFIGS)
def test_computed_buffers_are_those_of_the_plainly_loaded_model(name: str, root: Path) -> None:
    folder = _saved(name, root)
    plain = dict(_plain(folder, name).named_buffers())
    built = build_on_meta(folder)
    computed = {key: value for key, value in built.named_buffers() if not value.is_meta}
    assert all(torch.equal(value, plain[key]) for key, value in computed.items())
    assert set(plain) - set(computed) <= set(built.state_dict())
    assert all(parameter.is_meta for parameter in built.parameters())
    assert not built.training


@pytest.mark.parametrize("name", CONFIGS)
def test_streamed_from_disk_on_the_cpu_equals_the_plain_model_bit_for_bit(
    name: str, root: Path, load: Load
) -> None:
    folder = _saved(name, root)
    want = _output(_plain(folder, name), _inputs(name))
    model = load(folder, lambda path: ("disk", "cpu") if _is_block(path) else ("cpu", "cpu"))
    for _ in range(3):
        assert torch.equal(_output(model, _inputs(name)), want)
    stats = model.devmap.stats()
    assert stats.streamed_home_bytes["disk"] > 0
    assert stats.fetched_bytes == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_all_tiers_at_once_equal_the_plain_model(name: str, root: Path, load: Load) -> None:
    folder = _saved(name, root)
    want = _output(_plain(folder, name), _inputs(name))

    def rule(path: str) -> tuple[Any, Any]:
        return (
            [(0, 0), ("disk", 0), ("cpu", 0), (1, 1), ("disk", 1)][_number(path) + 1]
            if _is_block(path)
            else (0, 0)
        )

    with simulated_devices({0: "50MB", 1: "50MB"}) as devices:
        model = load(folder, rule)
        for _ in range(2):
            got = _output(model, _inputs(name))
            assert got.device.type == "cpu"
            torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-5)
        assert devices[0].used_bytes > 0
        stored = model.state_dict()
        plain = _plain(folder, name)
        assert stored.keys() == plain.state_dict().keys()
        assert all(torch.equal(stored[key].cpu(), value) for key, value in plain.state_dict().items())
        model.devmap.remove()
        assert torch.equal(_output(model, _inputs(name)), want)
        assert [key for key, _ in model.named_parameters()] == [key for key, _ in plain.named_parameters()]


@pytest.mark.parametrize("name", ["llama", "llama-scaled-rope", "gpt2", "t5"])
def test_generate_gives_the_same_tokens_as_the_plain_model(name: str, root: Path, load: Load) -> None:
    folder = _saved(name, root)
    ids = _inputs(name)["input_ids"]
    options = {
        "max_new_tokens": 8,
        "do_sample": False,
        "attention_mask": torch.ones_like(ids),
        "pad_token_id": 0,
    }
    want = _plain(folder, name).generate(ids, **options)

    def rule(path: str) -> tuple[Any, Any]:
        if not _is_block(path):
            return (1, 1) if any(word in path for word in ("norm", "ln_f", "lm_head")) else (0, 0)
        return [("disk", 0), (0, 0), ("cpu", 1), ("disk", 1)][_number(path)]

    with simulated_devices({0: "50MB", 1: "50MB"}):
        model = load(folder, rule)
        assert torch.equal(model.generate(ids, **options), want)
        assert torch.equal(
            model.generate(ids, num_beams=2, **options),
            _plain(folder, name).generate(ids, num_beams=2, **options),
        )


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_generate_works_where_all_blocks_stream_to_one_device(name: str, root: Path, load: Load) -> None:
    folder = _saved(name, root)
    ids = _inputs(name)["input_ids"]
    options = {
        "max_new_tokens": 6,
        "do_sample": False,
        "attention_mask": torch.ones_like(ids),
        "pad_token_id": 0,
    }
    with simulated_devices({0: "50MB"}):
        model = load(folder, lambda path: ("disk", 0) if _is_block(path) else (0, 0))
        assert torch.equal(model.generate(ids, **options), _plain(folder, name).generate(ids, **options))


def test_embeddings_and_head_that_are_tied_and_streamed_stay_right(root: Path, load: Load) -> None:
    folder = _saved("llama-scaled-rope", root)
    want = _output(_plain(folder, "llama-scaled-rope"), _inputs("llama"))
    with simulated_devices({0: "50MB"}):
        model = load(folder, lambda path: ("disk", 0) if "embed" in path or path == "lm_head" else (0, 0))
        torch.testing.assert_close(_output(model, _inputs("llama")), want, atol=2e-6, rtol=1e-5)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        hidden = torch.ones(1, 32)
        direct = torch.nn.functional.linear(hidden.to("sim:0"), model.lm_head.weight).cpu()
        torch.testing.assert_close(
            direct,
            hidden @ _plain(folder, "llama-scaled-rope").lm_head.weight.detach().T,
            atol=2e-6,
            rtol=1e-5,
        )


def test_build_says_what_is_missing(tmp_path: Path) -> None:
    from devmap.errors import LoadError  # noqa: PLC0415 - beside its use

    with pytest.raises(LoadError, match=r"config\.json"):
        build_on_meta(tmp_path)
    with pytest.raises(LoadError, match="no class 'NoSuchModel'"):
        build_on_meta({"architectures": ["NoSuchModel"]})
