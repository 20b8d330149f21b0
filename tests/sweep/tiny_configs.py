"""A tiny config for every class that Transformers' auto mappings name, shrunk by the names of its figures.

No family is written by hand: a config is made with its own defaults, each figure whose name says what it
counts is set small, and nested configs alike. Where a class does not accept the result, the next plan of
`PLANS` is tried, which leaves more of the defaults alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.sweep.narrow_configs import narrow_config

__all__ = ["GROUPS", "PLANS", "Specimen", "specimens", "tiny_config"]

VOCABULARY = 160
"""Token ids 0 to 2 are pad, begin and end; 100 and up are those of images, audio and other marks."""

GROUPS: dict[str, tuple[str, ...]] = {
    "causal": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
    "image-text": (
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
        "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
        "MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES",
        "MODEL_FOR_RETRIEVAL_MAPPING_NAMES",
    ),
    "seq2seq": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",),
    "encoder": (
        "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
        "MODEL_FOR_TABLE_QUESTION_ANSWERING_MAPPING_NAMES",
        "MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING_NAMES",
    ),
    "vision": (
        "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        "MODEL_FOR_CAUSAL_IMAGE_MODELING_MAPPING_NAMES",
        "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",
        "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
        "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
        "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
        "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES",
        "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        "MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES",
        "MODEL_FOR_MASK_GENERATION_MAPPING_NAMES",
        "MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING_NAMES",
        "MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES",
        "MODEL_FOR_KEYPOINT_DETECTION_MAPPING_NAMES",
        "MODEL_FOR_KEYPOINT_MATCHING_MAPPING_NAMES",
        "MODEL_FOR_POSE_ESTIMATION_MAPPING_NAMES",
        "MODEL_FOR_TABLE_RECOGNITION_MAPPING_NAMES",
        "MODEL_FOR_TEXT_RECOGNITION_MAPPING_NAMES",
    ),
    "speech": (
        "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
        "MODEL_FOR_CTC_MAPPING_NAMES",
        "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
        "MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES",
        "MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES",
        "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES",
        "MODEL_FOR_AUDIO_TOKENIZATION_NAMES",
        "MODEL_FOR_RNNT_MAPPING_NAMES",
        "MODEL_FOR_TDT_MAPPING_NAMES",
    ),
    "other": (
        "MODEL_FOR_TIME_SERIES_PREDICTION_MAPPING_NAMES",
        "MODEL_FOR_DECISION_MAPPING_NAMES",
    ),
    "base": ("MODEL_MAPPING_NAMES",),
}
"""The mappings of each group; a class that several name belongs to the first."""


@dataclass(frozen=True)
class Specimen:
    """One class of Transformers that a tiny model is made of."""

    name: str
    group: str
    model_type: str


def specimens() -> list[Specimen]:
    """Every class of the mappings once, group by group, in the mappings' order."""
    found: dict[str, Specimen] = {}
    for group, mappings in GROUPS.items():
        for mapping in mappings:
            for model_type, names in getattr(modeling_auto, mapping).items():
                for name in names if isinstance(names, list | tuple) else [names]:
                    found.setdefault(name, Specimen(name, group, model_type))
    return list(found.values())


_WIDTHS = re.compile(
    r"hidden_size|d_model|n_embd|embed_dim|embedding_dim|hidden_dim|model_dim|dim|width|emb_dim|out_hidden_size|"
    r"(text|vision|audio|decoder|encoder|projector|output|patch_embed|cross_attention|visual|qformer|llm|"
    r"backbone|aligner|fusion|feature|embed|head|context)_(hidden_size|hidden_dim|embed_dim|embedding_dim|dim)|"
    r"word_embed_proj_dim|projection_dim|embedding_size|encoder_hidden_size|fpn_hidden_size|adapter_out_dim|"
    r"hidden_size_per_layer_input|attention_hidden_size|lru_width|attention_dim|output_dim|conditioning_dim|"
    r"projection_hidden_size|entity_emb_size|pooler_hidden_size|output_proj_dims|hidden_size_global|"
    r"connector_hidden_size|mm_hidden_size|text_model_hidden_size|vision_hidden_size|cross_hidden_size"
)
_INNER = re.compile(
    r"(\w+_)?(intermediate_size|ffn_dim|d_ff|mlp_dim|n_inner|ffn_hidden_size|feedforward_dim|mlp_hidden_size|"
    r"ffn_intermediate_size|intermediate_dim|linear_units|feed_forward_size|feed_forward_hidden_size|ff_dim)"
)
_LAYERS = re.compile(
    r"num_hidden_layers|n_layers?|num_layers|(\w+_)?(encoder|decoder)_layers|num_(encoder|decoder)_layers|layers|"
    r"depth|num_blocks|(\w+_)?num_hidden_layers|(\w+_)?depth|n_blocks|num_(?!feat_extract)(\w+_)?layers"
)
_HEADS = re.compile(
    r"num_attention_heads|n_heads?|(\w+_)?attention_heads|num_heads|(\w+_)?num_attention_heads|attention_heads|"
    r"resampler_n_heads|num_decoder_attention_heads|num_encoder_attention_heads|(encoder|decoder)_num_heads"
)
_EXPERTS = re.compile(r"num_experts|n_routed_experts|num_local_experts|moe_num_experts|num_routed_experts")
_MARK = re.compile(r"\w*(token_id|token_index|_token_ids?|_token)$")
_KEPT_MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}

_WIDE, _MODERATE, _SLIGHT, _NARROW = "wide", "moderate", "slight", "narrow"
PLANS = (_WIDE, _MODERATE, _SLIGHT, _NARROW)
"""Shrink everything; everything but widths of vision and audio towers; only depths and vocabularies; sizes by
name."""


def tiny_config(model_class: type, model_type: str, plan: str, layers: int = 2) -> Any:
    """A config of a class with small figures.

    Raises:
        Exception: whatever the family's own config raises for what it does not accept.
    """
    own = getattr(model_class, "config_class", None)
    config_class = own if own is not None and own.model_type else CONFIG_MAPPING[model_type]
    if plan == _NARROW:
        return narrow_config(config_class)
    hints = _HINTS.get(config_class.model_type, {})
    default = config_class(**(hints if config_class.model_type == "lfm2_moe" else {}))
    config = config_class(**{**_shrunk(default, plan, _Marks(), layers), **hints})
    for part in _parts(config):
        for key, mark in _KEPT_MARKS.items():
            if key != "decoder_start_token_id" or getattr(part, "is_encoder_decoder", False):
                _set_if_absent(part, key, mark)
    return config


def _parts(config: Any) -> list[Any]:
    nested = [
        value
        for value in list(vars(config).values())
        if hasattr(value, "to_dict") and hasattr(value, "model_type")
    ]
    return [config, *(part for value in nested for part in _parts(value))]


def _set_if_absent(config: Any, key: str, value: int) -> None:
    if getattr(config, key, None) is None:
        setattr(config, key, value)


_HINTS: dict[str, dict[str, Any]] = {
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "num_hashes": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_hidden_layers": 4},
    "ministral": {"head_dim": 16},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 4},
    "dots1": {"n_routed_experts": 4},
    "mamba2": {
        "num_heads": 8,
        "head_dim": 16,
        "hidden_size": 64,
        "expand": 2,
        "state_size": 16,
        "n_groups": 2,
    },
    "esm": {"vocab_size": 33},
    "esmc": {"num_key_value_heads": 4},
    "autoformer": {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2, 3]},
    "informer": {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2, 3]},
    "time_series_transformer": {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2, 3]},
    "wav2vec2-bert": {"vocab_size": 32},
    "maskformer": {},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "mimi": {"upsample_groups": 64},
}
"""What a family's own defaults lack, or what its figures have to be together."""


class _Marks:
    """Gives each mark of a vocabulary its own small id, the same for the same name everywhere."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def of(self, key: str) -> int:
        """The id of a mark."""
        name = key.replace("_index", "_id")
        kept = _KEPT_MARKS.get(name)
        return self._ids.setdefault(name, 100 + len(self._ids)) if kept is None else kept


def _shrunk(config: Any, plan: str, marks: _Marks, layers: int, path: str = "") -> dict[str, Any]:
    """The keyword arguments for a small config like this one."""
    values: dict[str, Any] = {}
    own = config.to_dict()
    head_dim = 16
    is_tower = bool(re.search(r"vision|audio|image|backbone|speech|codec|encoder_config", path))
    keeps_widths = plan == _SLIGHT or (plan == _MODERATE and (is_tower or not hasattr(config, "vocab_size")))
    count = _layers_of(config, layers)
    for key, value in own.items():
        if key == "per_layer_config":
            continue
        nested = _attribute(config, key)
        if hasattr(nested, "to_dict") and hasattr(nested, "model_type"):
            values[key] = {
                **_shrunk(nested, plan, marks, layers, f"{path}.{key}"),
                "model_type": nested.model_type,
            }
            continue
        small = _small(key, value, keeps_widths=keeps_widths, head_dim=head_dim, count=count, marks=marks)
        if small is not None:
            values[key] = small[0]
    _settle_layer_lists(values, own, count)
    return values


def _attribute(config: Any, key: str) -> Any:
    try:
        return getattr(config, key, None)
    except (ValueError, RuntimeError):  # a figure that differs from layer to layer has no value of its own
        return None


def _layers_of(config: Any, layers: int) -> int:
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    return max(layers, 4) if kinds and len(set(kinds)) > 1 else layers


def _small(  # noqa: C901, PLR0911, PLR0912 - one line for each kind of figure
    key: str, value: Any, *, keeps_widths: bool, head_dim: int, count: int, marks: _Marks
) -> tuple[Any] | None:
    """The small figure in place of a value, in a tuple; None where the default stays."""
    if isinstance(value, bool) or value is None or key == "_name_or_path":
        return None
    if key in {"dtype", "torch_dtype", "transformers_version", "architectures", "model_type"}:
        return None
    if _MARK.match(key) and isinstance(value, int):
        return (marks.of(key),) if value >= 0 else None
    if key == "eos_token_id" and isinstance(value, list):
        return (2,)
    if isinstance(value, int):
        if key == "n_vocab" or (key.endswith("vocab_size") and key != "type_vocab_size"):
            return (min(value, VOCABULARY),)
        if _LAYERS.fullmatch(key):
            return (min(value, count),)
        if _EXPERTS.fullmatch(key):
            return (min(value, 4),)
        if key in {
            "num_experts_per_tok",
            "moe_topk",
            "top_k_experts",
            "moe_k",
            "num_experts_per_token",
            "top_k",
        }:
            return (min(value, 2),)
        if key in {"n_group", "topk_group"}:
            return (1,)
        if key in {"first_k_dense_replace", "moe_layer_start_index"}:
            return (min(value, 1),)
        if key in {
            "max_position_embeddings",
            "n_positions",
            "n_ctx",
            "max_source_positions",
            "max_target_positions",
        }:
            return (min(value, 256),)
        if key in {"num_key_value_heads", "swa_num_key_value_heads", "num_global_key_value_heads"}:
            return None if keeps_widths else (min(value, 2),)
        if key in {"sliding_window", "attention_chunk_size"}:
            return (min(value, 8),)
        if keeps_widths:
            return None
        if key in {"image_size", "img_size"}:
            return (min(value, 64 if value < 1000 else 128),)
        if _HEADS.fullmatch(key):
            return (min(value, 4),)
        if _WIDTHS.fullmatch(key):
            return (min(value, 4 * head_dim),)
        if _INNER.fullmatch(key):
            return (min(value, 64),)
        if key in {
            "head_dim",
            "d_kv",
            "attention_head_dim",
            "kv_channels",
            "qk_nope_head_dim",
            "v_head_dim",
            "swa_head_dim",
        }:
            return (min(value, head_dim),)
        if key in {"qk_rope_head_dim", "rotary_dim"}:
            return (min(value, 8),)
        if key in {
            "kv_lora_rank",
            "q_lora_rank",
            "index_head_dim",
            "mamba_d_state",
            "linear_key_head_dim",
            "linear_value_head_dim",
        }:
            return (min(value, 16),)
        if key in {"linear_num_key_heads", "linear_num_value_heads", "index_n_heads", "mamba_n_heads"}:
            return (min(value, 4),)
        return None
    if isinstance(value, list | tuple) and value and all(type(item) is int for item in value):
        if key in {
            "depths",
            "layer_depths",
            "num_blocks",
            "stage_num_blocks",
            "blocks_per_stage",
            "num_block_repeats",
            "stage_numb_of_layers",
        }:
            return ([min(item, 1) for item in value],)
        return None
    return None


def _settle_layer_lists(values: dict[str, Any], own: dict[str, Any], count: int) -> None:
    """Lists with an entry a layer: as many as there are layers, each kind of the default's among them."""
    total = next(
        (
            own[key]
            for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
            if isinstance(own.get(key), int)
        ),
        None,
    )
    if total is None:
        return
    for key, value in own.items():
        if isinstance(value, list | tuple) and len(value) == total and key != "architectures":
            kinds = list(dict.fromkeys(map(str, value)))
            first = [next(item for item in value if str(item) == kind) for kind in kinds]
            values[key] = (first * count)[:count] if len(kinds) > 1 else list(value)[:count]
        elif (
            isinstance(value, list)
            and value
            and all(type(item) is int for item in value)
            and re.search(r"layers?(_ids?|_idx|_indices)?$|indexe?s$", key)
        ):
            kept = [item for item in value if item < count]
            if len(kept) != len(value):
                values[key] = kept or [count - 1]
    for key in (
        "attn_layer_period",
        "expert_layer_period",
        "full_attention_interval",
        "sliding_window_pattern",
        "interleave_moe_layer_step",
        "attn_type_list",
    ):
        if isinstance(own.get(key), int) and own[key] > 2:
            values[key] = 2
            if key == "attn_layer_period":
                values["attn_layer_offset"] = 1
