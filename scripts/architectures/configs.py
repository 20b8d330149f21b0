"""What a config class adds to a `config.json`.

Defaults, other names of figures, figures worked out from others.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from architectures.expressions import figures_of, layer_kinds, scalar_of
from devmap.inventory.table.figures import FIGURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["config_section"]


def config_section(config: Any, samples: Sequence[Any], used: Iterable[str]) -> dict[str, Any]:
    """The section of a config class: `config` is its default, `samples` are configs with other figures.

    `used` are the figures that expressions read.
    """
    kind = type(config)
    plain = figures_of(config, "")
    declared = {
        field.name: field.default
        for field in (dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ())
    }
    wanted = {*FIGURES, *used, "tie_word_embeddings"}
    derived = _derived(samples or [config], declared)
    defaults: dict[str, Any] = {}
    for key in sorted(wanted & plain.keys() - dict(kind.attribute_map).keys()):
        value = declared.get(key, plain[key])
        value = plain[key] if isinstance(value, dataclasses._MISSING_TYPE) else value  # noqa: SLF001
        if key.rstrip("?*") in {name.rstrip("?*") for name in derived}:
            value = declared.get(key)
        elif value is None:
            value = plain[key]
        if isinstance(value, tuple):
            value = list(value)
        if _is_plain(value):
            defaults[key] = value
    if getattr(config, "tie_word_embeddings", None) is True:  # some classes have it and do not write it down
        defaults.setdefault("tie_word_embeddings", True)
    found: dict[str, Any] = {}
    aliases = dict(kind.attribute_map)
    if aliases:
        found["aliases"] = aliases
    if defaults:
        found["defaults"] = defaults
    if derived:
        found["derived"] = derived
    nested = {key: value for key, value in vars(config).items() if isinstance(value, PreTrainedConfig)}
    if nested:
        found["configs"] = {key: _nested(key, value, samples, used) for key, value in nested.items()}
    return found


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, list):
        return len(value) <= 128 and all(_is_plain(item) or item is None for item in value)
    return isinstance(value, int | float | str | bool)


def _nested(key: str, config: Any, samples: Sequence[Any], used: Iterable[str]) -> dict[str, Any]:
    model_type = str(config.model_type or "")
    kind = CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else None  # noqa: SIM401 - it has no get
    if kind is not type(config):
        inner = [value for each in samples if type(value := getattr(each, key, None)) is type(config)]
        return {"type": model_type, **config_section(config, inner, used)}
    plain, own = figures_of(kind(), ""), figures_of(config, "")
    wanted = {*FIGURES, *used, "tie_word_embeddings"}
    given = {
        name: value
        for name, value in own.items()
        if name in wanted and value != plain.get(name) and _is_plain(value)
    }
    return {"type": model_type, **({"given": given} if given else {})}


def _derived(samples: Sequence[Any], declared: dict[str, Any]) -> dict[str, str]:
    """Figures that a config works out where its file says nothing, as expressions."""
    rows = [figures_of(config, "") for config in samples]
    found: dict[str, str] = {}
    aliases = dict(type(samples[0]).attribute_map)
    for key in FIGURES:
        if aliases.get(key) in samples[0].to_dict():
            continue
        is_written = key in declared or key in samples[0].to_dict()
        if len(rows) < 3 or (is_written and declared.get(key, 0) is not None):
            continue
        given = [n for n, row in enumerate(rows) if row.get(key) is not None]
        if not given:
            continue
        values = [rows[n][key] for n in given]
        if all(type(value) is int for value in values):
            others = [{name: value for name, value in rows[n].items() if name != key} for n in given]
            usual = _usual(values, others)
            if usual:
                found[f"{key}?"] = usual
        elif all(isinstance(value, list) for value in values) and key == "layer_types":
            expression = layer_kinds(values, [rows[n] for n in given])
            if expression:
                found[f"{key}*"] = expression
    return found


def _usual(values: list[int], others: list[dict[str, Any]]) -> str | None:
    """The expression for all samples, or for all but the one in which the figure itself was set."""
    for left_out in (None, *range(len(values))):
        kept = [n for n in range(len(values)) if n != left_out]
        if len(kept) < 2:
            return None
        wanted = np.array([float(values[n]) for n in kept])
        rows = [
            {
                key: row[key]
                for key in (
                    "hidden_size",
                    "num_attention_heads",
                    "num_hidden_layers",
                    "n_embd",
                    "n_head",
                    "d_model",
                    "num_heads",
                    "intermediate_size",
                    "encoder_layers",
                    "num_layers",
                    "n_heads",
                    "n_layers",
                )
                if key in row
            }
            for row in (others[n] for n in kept)
        ]
        expression = scalar_of(wanted, rows)
        if expression:
            return expression
    return None
