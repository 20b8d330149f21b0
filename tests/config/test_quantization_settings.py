"""`model.quantization`: words, the fields of Transformers' classes, and what contradicts each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import devmap
from devmap.config.document import parse_document

if TYPE_CHECKING:
    from pathlib import Path


def read(quantization: str) -> Any:
    text = f"version: 1\nmodel:\n  checkpoint: ./x\n  quantization: {quantization}\nmax_memory: {{0: 1GB}}\n"
    return parse_document(text.encode(), "x.devmap.yaml")


AS_SAVED = (
    "{quant_method: bitsandbytes, load_in_8bit: true, load_in_4bit: false, llm_int8_threshold: 6.0, "
    "llm_int8_skip_modules: null, llm_int8_enable_fp32_cpu_offload: false, llm_int8_has_fp16_weight: false, "
    "bnb_4bit_quant_type: fp4, bnb_4bit_use_double_quant: false, bnb_4bit_compute_dtype: float32, "
    "bnb_4bit_quant_storage: uint8}"
)


@pytest.mark.parametrize(
    ("written", "method"),
    [
        ("nf4", "nf4"),
        ("{method: nf4, bnb_4bit_use_double_quant: true}", "nf4"),
        ("{method: nf4, load_in_4bit: true}", "nf4"),
        ("{load_in_4bit: true}", "fp4"),
        ("{load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_compute_dtype: bf16}", "nf4"),
        ("{load_in_8bit: true, llm_int8_skip_modules: [lm_head, q_proj]}", "int8"),
        (AS_SAVED, "int8"),
        ("{quant_type: {default: {_type: Float8WeightOnlyConfig, _version: 2, _data: {}}}}", "fp8"),
        ("{quant_type: {default: {_type: Int4WeightOnlyConfig, _data: {group_size: 64}}}}", "int4"),
    ],
)
def test_words_and_mappings_name_a_method(written: str, method: str) -> None:
    document = read(written)
    assert document.faults == ()
    assert document.config.model.quantization.chosen == method


@pytest.mark.parametrize(
    ("written", "code", "says", "label"),
    [
        ("nf5", "DM106", "expects one of nf4, fp4, int8, int4, fp8", "did you mean 'nf4'?"),
        ("true", "DM103", "nf4, fp4, int8, int4, fp8, or a mapping", ""),
        ("{bnb_4bit_quant_typ: nf4, load_in_4bit: true}", "DM101", "not a key",
         "did you mean 'bnb_4bit_quant_type'?"),
        ("{}", "DM106", "no key says how: add 'method'", ""),
        ("{load_in_8bit: true, load_in_4bit: true}", "DM106", "these keys name fp4 and int8", ""),
        ("{method: nf4, bnb_4bit_quant_type: fp4}", "DM106", "these keys name fp4 and nf4", ""),
        ("{method: fp8, llm_int8_threshold: 3.0}", "DM106", "'llm_int8_threshold' is no key of torchao", ""),
        ("{method: fp8, quant_method: bitsandbytes}", "DM106", "a method of torchao", ""),
        ("{method: nf4, llm_int8_skip_modules: ['(a+)+']}", "DM107", "expects names of modules", ""),
        ("{method: nf4, llm_int8_has_fp16_weight: true}", "DM106", "only false", ""),
        ("{method: nf4, bnb_4bit_compute_dtype: int8}", "DM107", "compute in float16, bfloat16", ""),
        ("{quant_type: {default: {_type: Int4WeightOnlyConfig, _data: {group_sise: 32}}}}", "DM101",
         "not a key", "did you mean 'group_size'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(written: str, code: str, says: str, label: str) -> None:
    document = read(written)
    assert document.config is None
    (fault,) = document.faults
    assert (fault.code, fault.label, fault.position.start.line) == (code, label, 4)
    assert says in fault.message
    assert fault.path[:2] == ("model", "quantization")


def test_parents_profiles_and_overrides_change_it(tmp_path: Path) -> None:
    (tmp_path / "base.devmap.yaml").write_text(
        "version: 1\nmodel: {checkpoint: ./x, quantization: {method: nf4, bnb_4bit_use_double_quant: true}}\n"
        "max_memory: {0: 1GB}\n"
    )
    path = tmp_path / "x.devmap.yaml"
    path.write_text(
        "version: 1\nextends: base.devmap.yaml\nmodel: {quantization: {bnb_4bit_compute_dtype: float16}}\n"
        "profiles: {eight: {model: {quantization: int8}}, whole: {model: {quantization: null}}}\n"
    )

    def quantization(profile: str | None = None, *overrides: str) -> Any:
        return devmap.read_config(path, profile, overrides=overrides).model.quantization

    found = quantization()
    assert (found.chosen, found.bnb_4bit_use_double_quant, found.bnb_4bit_compute_dtype) == (
        "nf4",
        True,
        "float16",
    )
    assert quantization("eight").chosen == "int8"
    assert quantization("whole") is None
    assert quantization(None, "model.quantization=fp4").chosen == "fp4"
    assert quantization(None, "model.quantization.method=fp4").bnb_4bit_use_double_quant
