"""A streamed model inside the libraries that people use around theirs.

PEFT, transformers' Trainer and pipelines, Accelerate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    pipeline,
)

from devmap.errors import StreamError, UsageError
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.runtime.conftest import Load

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # PEFT asks transformers so
_IDS = torch.arange(12).view(2, 6)


@pytest.fixture
def streamed(llama_folder: Path, load: Load) -> Any:
    """Its blocks on disk, executed on the CPU."""
    return load(llama_folder, lambda path: ("disk", "cpu") if "layers" in path else ("cpu", "cpu"))


@pytest.fixture
def spread(llama_folder: Path, load: Load) -> Iterator[Any]:
    """Over two accelerators, half of the blocks streamed from the CPU."""

    def place(path: str) -> tuple[int | str, int]:
        number = int(path.split(".")[2]) if "layers" in path else None
        if number is None:
            return (0, 0) if "embed" in path else (1, 1)
        return ("cpu" if number % 2 else number // 3, number // 3)

    with simulated_devices({0: "20MB", 1: "20MB"}):
        yield load(llama_folder, place)


def _plain(folder: Path) -> Any:
    return LlamaForCausalLM.from_pretrained(folder)


def _with_adapter(model: Any, **figures: Any) -> Any:
    torch.manual_seed(3)
    return get_peft_model(
        model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **figures)
    )


def _losses(model: Any, tmp_path: Path) -> list[float]:
    """What transformers' Trainer reports for a few steps."""
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=3,
        logging_steps=1,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    rows = [{"input_ids": _IDS[number % 2], "labels": _IDS[number % 2]} for number in range(6)]
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_trainer_trains_an_adapter_as_on_the_plain_model(
    streamed: Any, llama_folder: Path, tmp_path: Path
) -> None:
    got = _losses(_with_adapter(streamed), tmp_path)
    want = _losses(_with_adapter(_plain(llama_folder)), tmp_path)
    assert len(got) == 3
    assert got == pytest.approx(want, abs=1e-5)
    assert got[2] < got[0]


def test_a_saved_adapter_is_loaded_onto_a_streamed_model(
    streamed: Any, llama_folder: Path, tmp_path: Path
) -> None:
    trained = _with_adapter(_plain(llama_folder), init_lora_weights=False)
    trained.save_pretrained(tmp_path)
    with torch.no_grad():
        want = trained(_IDS).logits
        got = PeftModel.from_pretrained(streamed, tmp_path)(_IDS).logits
    torch.testing.assert_close(got, want)


def test_merging_an_adapter_into_streamed_weights_is_refused_by_name(streamed: Any) -> None:
    with pytest.raises(
        StreamError,
        match=r"'model\.layers\.0\.self_attn\.q_proj\.weight' is streamed and cannot be written to",
    ):
        _with_adapter(streamed).merge_and_unload()


def test_an_adapter_is_on_the_device_of_its_block(spread: Any) -> None:
    model = _with_adapter(spread)
    places = {
        name.split(".layers.")[1][0]: str(weight.device)
        for name, weight in model.named_parameters()
        if "lora_A" in name
    }
    assert places == {"0": "sim:0", "1": "sim:0", "2": "sim:0", "3": "sim:1", "4": "sim:1", "5": "sim:1"}
    with torch.autograd.set_multithreading_enabled(
        False
    ):  # torch starts no threads for the backward of a simulated device
        model(_IDS, labels=_IDS).loss.backward()
    assert all(weight.grad is not None for name, weight in model.named_parameters() if "lora_" in name)


def test_a_pipeline_leaves_the_model_where_it_is(streamed: Any, llama_folder: Path) -> None:
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(100)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
    answers = [
        pipeline("text-generation", model=model, tokenizer=tokenizer)(
            "w1 w2 w3", max_new_tokens=4, do_sample=False
        )
        for model in (streamed, _plain(llama_folder))
    ]
    assert answers[0] == answers[1]


def test_accelerate_prepares_a_streamed_model_without_moving_it(spread: Any, llama_folder: Path) -> None:
    prepared = Accelerator(cpu=True).prepare_model(spread, evaluation_mode=True)
    with torch.no_grad():
        torch.testing.assert_close(
            prepared(_IDS).logits, _plain(llama_folder)(_IDS).logits, atol=1e-5, rtol=1e-4
        )


def test_an_encoder_decoder_generates_and_is_plain_again_afterwards(tmp_path: Path, load: Load) -> None:
    torch.manual_seed(0)
    plain = T5ForConditionalGeneration(
        T5Config(
            d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4, vocab_size=100, decoder_start_token_id=0
        )
    ).eval()
    plain.save_pretrained(tmp_path)
    want = plain.generate(_IDS, max_new_tokens=5)
    model = load(tmp_path, lambda path: ("disk", "cpu") if "block" in path else ("cpu", "cpu"))
    assert torch.equal(model.generate(_IDS, max_new_tokens=5), want)
    assert {str(device) for device in model.hf_device_map.values()} == {"cpu"}
    model = model.devmap.remove()
    assert not hasattr(model, "hf_device_map")
    assert torch.equal(model.generate(_IDS, max_new_tokens=5), want)


def test_a_state_dict_of_what_is_resident_is_loaded_and_one_with_a_streamed_weight_changes_nothing(
    streamed: Any,
) -> None:
    before = streamed.model.embed_tokens.weight.clone()
    with pytest.raises(UsageError, match=r"'model\.layers\.0\.self_attn\.q_proj\.weight' cannot be loaded"):
        streamed.load_state_dict(
            {name: torch.zeros_like(value) for name, value in streamed.state_dict().items()}
        )
    assert torch.equal(streamed.model.embed_tokens.weight, before)
    streamed.load_state_dict({"model.embed_tokens.weight": before + 1}, strict=False)
    assert torch.equal(streamed.model.embed_tokens.weight, before + 1)


def test_the_handle_shows_what_lives_where(spread: Any) -> None:
    assert (
        repr(spread.devmap)
        == "<devmap: 321.5 KB on device 0, 173.9 KB on device 1; 3 blocks streamed, 443.9 KB>"
    )
