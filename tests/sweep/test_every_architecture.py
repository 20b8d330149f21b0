"""A sample of Transformers' classes, of every group: loaded, the whole state dict compared, run.

`make sweep` tries all of them, generation and the inventory from headers too.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch

from tests.sweep.tiny_configs import GROUPS, specimens
from tests.sweep.trial import attempt
from tests.sweep.zoo import Zoo

SAMPLE = (
    # causal
    "AfmoeForCausalLM",
    "ApertusForCausalLM",
    "BitNetForCausalLM",
    "BioGptForCausalLM",
    "BlenderbotForCausalLM",
    "Cohere2ForCausalLM",
    "CTRLLMHeadModel",
    "DiffLlamaForCausalLM",
    "FalconH1ForCausalLM",
    "Gemma3ForCausalLM",
    "Glm4ForCausalLM",
    "GptOssForCausalLM",
    "FalconMambaForCausalLM",
    "JambaForCausalLM",
    "MambaForCausalLM",
    "MarianForCausalLM",
    "NemotronHForCausalLM",
    "OlmoeForCausalLM",
    "OPTForCausalLM",
    "PegasusForCausalLM",
    "PhimoeForCausalLM",
    "ProphetNetForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen3NextForCausalLM",
    "XLMWithLMHeadModel",
    "Starcoder2ForCausalLM",
    # image-text
    "AyaVisionForConditionalGeneration",
    "Gemma3ForConditionalGeneration",
    "GitForCausalLM",
    "InternVLForConditionalGeneration",
    "LlavaForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "PaliGemmaForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
    "UdopForConditionalGeneration",
    # seq2seq
    "BartForConditionalGeneration",
    "BlenderbotForConditionalGeneration",
    "FSMTForConditionalGeneration",
    "MvpForConditionalGeneration",
    "PegasusXForConditionalGeneration",
    "SwitchTransformersForConditionalGeneration",
    # encoder
    "BigBirdForMaskedLM",
    "DebertaV2ForMaskedLM",
    "ElectraForMaskedLM",
    "FNetForMaskedLM",
    "FunnelForMaskedLM",
    "ModernBertForMaskedLM",
    "MPNetForMaskedLM",
    "RoCBertForMaskedLM",
    "TapasForMaskedLM",
    # vision
    "BeitForImageClassification",
    "ConvNextV2ForImageClassification",
    "Dinov2ForImageClassification",
    "ImageGPTForCausalImageModeling",
    "SegformerForSemanticSegmentation",
    "SiglipForImageClassification",
    "ViTForImageClassification",
    # speech
    "HubertForCTC",
    "WhisperForAudioClassification",
    "Wav2Vec2ForCTC",
    "WavLMForCTC",
    "WhisperForConditionalGeneration",
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """The zoo of `DEVMAP_ZOO`, which keeps what it builds, or one for this run."""
    kept = os.environ.get("DEVMAP_ZOO")
    return Zoo(Path(kept) if kept else tmp_path_factory.mktemp("zoo"))


def test_the_sample_is_of_every_group() -> None:
    group = {each.name: each.group for each in specimens()}
    assert {group[name] for name in SAMPLE} == set(GROUPS) - {"base", "other"}
    assert len(set(SAMPLE)) >= 60


@pytest.mark.parametrize("name", SAMPLE)
def test_it_loads_with_every_stored_bit_and_runs_as_the_plain_model(name: str, zoo: Zoo) -> None:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own, of tiny and untrained models
        built = zoo.built(next(each for each in specimens() if each.name == name))
        assert not built.reason
        assert built.inputs, built.no_forward
        found = attempt(built, checks=("loads", "state", "outputs"))
    assert found == {"loads": "ok", "state": "ok", "outputs": "ok" if built.repeats else "-"}


@pytest.mark.parametrize(
    "name",
    [
        "GraniteMoeHybridForCausalLM",
        "HunYuanMoEV1ForCausalLM",
        "Inkling2ForCausalLM",
        "Kimi_K25ForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Step3p7ForConditionalGeneration",
    ],
)
def test_what_needs_conversions_or_decoding_of_its_own_gives_the_plain_state_dict(
    name: str, zoo: Zoo
) -> None:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        built = zoo.built(next(each for each in specimens() if each.name == name))
        assert not built.reason
        found = attempt(built, checks=("loads", "state"))
    assert found == {"loads": "ok", "state": "ok"}
