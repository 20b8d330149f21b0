"""Builds of Transformers' classes on the meta device.

From default configs, and with one figure changed at a time.

No family is written by hand. The default config of a class is its first build; further ones change one
figure each, so that what depends on it shows. On the meta device even the largest model takes a fraction of
a second.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import signal
import typing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, model_type_to_module_name

from tests.sweep.tiny_configs import PLANS, specimens, tiny_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = [
    "AUTOS",
    "Build",
    "build",
    "builds_of",
    "class_names",
    "config_type",
    "default_build",
    "model_types",
]

AUTOS = {
    "base": "MODEL_MAPPING_NAMES",
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "backbone": "MODEL_FOR_BACKBONE_MAPPING_NAMES",
    "multimodal": "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
}
"""The mappings by which a model builds a part from a nested config."""


@dataclass
class Build:
    """One model on the meta device, and the arguments that its config was made with."""

    changed: tuple[tuple[str, ...], Any] | None
    """The figure that was changed, and its new value; None for the defaults."""
    config: Any
    model: nn.Module


@cache
def model_types() -> tuple[str, ...]:
    """Every type of config that Transformers has."""
    return tuple(sorted(CONFIG_MAPPING.keys()))


_IN_NO_MAPPING = {
    "clip_text_model": ("CLIPTextModelWithProjection",),
    "clip_vision_model": ("CLIPVisionModelWithProjection",),
}
"""Classes that pipelines of diffusers are made of, and that none of Transformers' mappings names."""


@cache
def _by_type() -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    tables = [AUTOS["base"], AUTOS["causal"]]
    tables += [
        name
        for name in dir(modeling_auto)
        if name.startswith("MODEL") and name.endswith("NAMES") and name not in tables
    ]
    for table in tables:
        for model_type, names in getattr(modeling_auto, table).items():
            for name in (names,) if isinstance(names, str) else names:
                found.setdefault(model_type, {}).setdefault(name)
    for model_type, others in _IN_NO_MAPPING.items():
        found.setdefault(model_type, {}).update(dict.fromkeys(others))
    return {model_type: tuple(names) for model_type, names in found.items()}


@cache
def class_names(model_type: str) -> tuple[str, ...]:
    """The classes that are built from one type of config: the base class first, then the heads.

    A mapping may name a class under the type of a model whose nested config it takes: it belongs to the
    latter.
    """
    module = model_type_to_module_name(model_type)
    candidates = dict.fromkeys(_by_type().get(model_type, ()))
    for other, names in _by_type().items():
        if other != model_type and model_type_to_module_name(other) == module:
            candidates |= dict.fromkeys(names)
    return tuple(name for name in candidates if _type_of(name, model_type) == model_type)


def _type_of(class_name: str, model_type: str) -> str:
    """The type of the config that a class takes; the one it was named under where its own has none."""
    try:
        kind = getattr(getattr(transformers, class_name, None), "config_class", None)
    except ImportError:  # of a library that is not here
        kind = None
    own = str(getattr(kind, "model_type", "") or "")
    if own in CONFIG_MAPPING and CONFIG_MAPPING[own] is kind:
        return own
    return model_type if class_name in _by_type().get(model_type, ()) else ""


def auto_classes(model_type: str) -> dict[str, str]:
    """What each of Transformers' mappings builds for a type of config."""
    found: dict[str, str] = {}
    for auto, table in AUTOS.items():
        names = getattr(modeling_auto, table).get(model_type)
        if names:
            found[auto] = names if isinstance(names, str) else names[0]
    return found


def config_type(model_type: str, class_name: str | None = None) -> type:
    """The config class of a type, or the one that a model class asks for."""
    wanted = None
    if class_name is not None:
        with contextlib.suppress(ImportError):  # of a library that is not here
            wanted = getattr(getattr(transformers, class_name, None), "config_class", None)
    found: type = wanted or CONFIG_MAPPING[model_type]
    return found


# --- arguments that a class accepts where its defaults alone do not do
_FILLS: tuple[dict[str, Any], ...] = (
    {},
    {"head_dim": 128},
    {"vocab_size": 32},
    {"prediction_length": 24},
    {"is_decoder": True},
    {"is_encoder_decoder": False},
    {"num_key_value_heads": 4},
    {"head_dim": 128, "num_key_value_heads": 4},
    {"out_indices": [3, 5, 7, 11]},
    {"pad_token_id": 0},
)


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def expire(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def build(
    class_name: str, config_class: type, arguments: dict[str, Any], dtype: torch.dtype
) -> tuple[Any, Any]:
    """The config of these arguments and its model on meta.

    Raises:
        Exception: whatever the class raises for what it does not accept.
    """
    with _time_limit(60), _weights_left_alone():
        config = config_class(**copy.deepcopy(arguments))
        with torch.device("meta"):
            # The entry that takes a dtype.
            model = getattr(transformers, class_name)._from_config(config, dtype=dtype)  # noqa: SLF001
    return model.config, model


@contextlib.contextmanager
def _weights_left_alone() -> Iterator[None]:
    """Initialisation skipped: what has no numbers needs none, and it is a third of the time."""
    names = [name for name in vars(torch.nn.init) if name.endswith("_") and not name.startswith("_")]
    known = {name: getattr(torch.nn.init, name) for name in names}
    try:
        for name in names:
            setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
        yield
    finally:
        for name, function in known.items():
            setattr(torch.nn.init, name, function)


_LAYERS = re.compile(r"(num_.*layers|n_layers?|.*_layers|depth|num_blocks)$")
_NOT_LAYERS = re.compile(
    r"first|skip|interval|period|every|dense|feat_extract|num_.*_per_|proj|mlp_layers|extract|conv_layers"
)


def default_build(class_name: str, config_class: type, *, is_shallow: bool) -> tuple[dict[str, Any], Build]:
    """The class in bfloat16 from its defaults, and the arguments that it needs beside them, as few as do.

    Raises:
        Exception: what the class raised for its defaults, where nothing helps.
    """
    first: BaseException | None = None
    for fill in _FILLS:
        try:
            small = _shallow_if_it_can(config_class, fill) if is_shallow else fill
            config, model = build(class_name, config_class, small, torch.bfloat16)
        except ImportError:
            raise
        except Exception as error:  # noqa: BLE001 - the next fill may do
            first = first or error
            continue
        return dict(fill), Build(None, config, model)
    assert first is not None
    for small in _tiny(class_name):
        with contextlib.suppress(Exception):  # its defaults are the better thing to tell of
            config, model = build(class_name, config_class, small, torch.bfloat16)
            return small, Build(None, config, model)
    raise first


def _tiny(class_name: str) -> Iterator[dict[str, Any]]:
    """The figures of the class's tiny models in the sweep of the tests."""
    model_class = getattr(transformers, class_name)
    specimen = next((each for each in specimens() if each.name == class_name), None)
    if specimen is None:
        return
    for plan in reversed(PLANS):  # the one that leaves most of the defaults alone comes first
        try:
            figures: dict[str, Any] = tiny_config(model_class, specimen.model_type, plan).to_dict()
        except Exception:  # noqa: BLE001 - the next plan may do
            continue
        yield {
            key: value
            for key, value in figures.items()
            if key not in {"architectures", "transformers_version", "dtype", "model_type"}
            and not key.startswith("_")
        }


def _shallow_if_it_can(config_class: type, arguments: dict[str, Any]) -> dict[str, Any]:
    small = shallow(config_class, arguments)
    try:
        config_class(**copy.deepcopy(small))
    except Exception:  # noqa: BLE001 - a class that wants its depth
        return arguments
    return small


def shallow(config_class: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with fewer layers, in nested configs too."""
    return _shallow(config_class(**copy.deepcopy(arguments)), arguments)


def _shallow(config: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    found = dict(arguments)
    kinds = list(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ())
    count = max([3, *(kinds.index(kind) + 1 for kind in set(kinds))])
    is_cut = False
    for key, value in vars(config).items():
        if hasattr(value, "to_diff_dict") and hasattr(value, "model_type"):
            own = _declared(value)
            found[key] = {
                **_shallow(value, own),
                **({"model_type": value.model_type} if value.model_type else {}),
            }
        elif type(value) is int and value > count and _LAYERS.fullmatch(key) and not _NOT_LAYERS.search(key):
            found[key] = count
            is_cut = True
    if is_cut:
        found |= _layers_within(config, count)
    return found


_LAYER_NUMBERS = re.compile(r"layers?(_ids?|_idx|_indices)?$|indexe?s$")


def _layers_within(config: Any, count: int) -> dict[str, list[int]]:
    """Lists of the numbers of layers, of which none is left: the last layer stands for them."""
    return {
        key: [count - 1]
        for key, value in vars(config).items()
        if isinstance(value, list)
        and value
        and all(type(item) is int and item >= count for item in value)
        and _LAYER_NUMBERS.search(key)
    }


def _attribute(config: Any, key: str) -> Any:
    """A figure of a config; None for one that differs by layer, which a config refuses to give as one."""
    try:
        return getattr(config, key, None)
    except Exception:  # noqa: BLE001 - its own class, which is no AttributeError
        return None


def _declared(config: Any) -> dict[str, Any]:
    """What a nested config was given that its class's defaults are not."""
    plain = type(config)().to_dict()
    return {
        key: value
        for key, value in config.to_dict().items()
        if key in plain
        and plain[key] != value
        and key not in {"transformers_version", "dtype", "architectures"}
        and not hasattr(_attribute(config, key), "to_diff_dict")
    }


# --- one figure changed at a time
_IDLE = re.compile(
    r"_id$|_ids$|_index$|token|dropout|initializer|init_|_eps|epsilon|_prob|loss|_cost|cost_|problem_type|return_|output_|use_cache|"
    r"dtype|transformers_version|architectures|label|_std|coef|penalty|threshold|gradient|chunk_size_feed|pretraining_tp|"
    r"temperature|jitter|drop|scale_factor_|alpha|beta|gamma|momentum|mask_|_mask|apply_spec|noise|ctc_|beam|_path$|aux|"
    r"(?<!in)_weight$|scaling_factor|scale$|soft_?cap|clamp|limit|seed|temperature"
)
_WORDS: dict[str, tuple[str, ...]] = {
    "feed_forward_proj": ("gated-gelu", "relu"),
    "position_embedding_type": ("relative_key", "relative_key_query", "rotary", "absolute"),
    "position_embeddings_type": ("rotary", "relative", "relative_key"),
    "feat_extract_norm": ("layer", "group"),
    "norm_type": ("layer_norm", "batch_norm"),
    "attention_type": ("block_sparse", "original_full"),
    "encoder_layer_type": ("dit", "gvit"),
    "hidden_act": ("swiglu",),
    "projector_hidden_act": (),
    "pos_embed_type": ("absolute",),
    "conditional_layer_norm": (),
}


def _new_values(key: str, value: Any, hint: Any) -> Iterator[Any]:
    """Values to try in place of one."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int) and value > 0:
        yield from (value * 2, value // 2, value + 1) if value > 1 else (2,)
    elif isinstance(value, int):
        yield 1
    elif isinstance(value, str):
        literals = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        yield from (
            word for word in (*literals, *_WORDS.get(key, ())) if isinstance(word, str) and word != value
        )
    elif (
        isinstance(value, list | tuple)
        and value
        and all(type(item) is int for item in value)
        and len(value) <= 4
    ):
        yield type(value)(item * 2 for item in value)
    elif value is None:
        names = str(hint)
        if "bool" in names:
            yield True
        if "int" in names:
            yield from (64, 2)
    elif isinstance(value, dict) and key == "rope_parameters":
        if "rope_theta" in value:
            yield {**value, "partial_rotary_factor": value.get("partial_rotary_factor", 1.0) * 0.5}
        elif all(isinstance(item, dict) for item in value.values()):
            for kind, item in value.items():
                share = item.get("partial_rotary_factor", 1.0) * 0.5
                yield {**value, kind: {**item, "partial_rotary_factor": share}}
    elif isinstance(value, float) and ("rotary" in key or "ratio" in key or "factor" in key):
        yield value * 0.5


def _figures(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    hints = (
        {field.name: field.type for field in dataclasses.fields(config)}
        if dataclasses.is_dataclass(config)
        else {}
    )
    for key, value in config.to_dict().items():
        nested = _attribute(config, key)
        if hasattr(nested, "to_diff_dict") and hasattr(nested, "model_type"):
            yield from _figures(nested, (*path, key))
        elif key == "pad_token_id" or not (key.startswith("_") or _IDLE.search(key) or key == "model_type"):
            yield (*path, key), value, hints.get(key)


def _with(arguments: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    found = dict(arguments)
    key, *rest = path
    found[key] = _with(dict(found.get(key) or {}), tuple(rest), value) if rest else value
    return found


def builds_of(
    class_name: str,
    config_class: type,
    arguments: dict[str, Any],
    *,
    skipped: tuple[tuple[str, ...], ...] = (),
    is_shallow: bool = True,
) -> Iterator[Build]:
    """A build, shallow where that shows all there is, and one for each figure that can be changed.

    `arguments` are those of the default build, `skipped` are paths of nested configs whose figures stay.
    """
    try:
        small = shallow(config_class, arguments) if is_shallow else arguments
        config, model = build(class_name, config_class, small, torch.float32)
    except Exception:  # noqa: BLE001 - a class that wants its depth
        small = arguments
        config, model = build(class_name, config_class, small, torch.float32)
    yield Build((), config, model)  # type: ignore[arg-type]
    for path, value, hint in list(_figures(config)):
        if any(path[: len(prefix)] == prefix for prefix in skipped):
            continue
        for new in _new_values(path[-1], value, hint):
            try:
                other, model = build(class_name, config_class, _with(small, path, new), torch.float32)
            except Exception:  # noqa: BLE001 - a value that the class refuses says nothing
                continue
            yield Build((path, new), other, model)
            if not isinstance(
                new, str | dict
            ):  # each word and each kind of layer, of numbers the first that fits
                break
