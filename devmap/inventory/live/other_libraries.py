"""Models of diffusers and timm, made by these libraries from a checkpoint's `config.json`."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from devmap.errors import InventoryError
from devmap.inventory.conversions.conversion import ConversionRules, NameConversion
from devmap.inventory.table.libraries import class_of, library_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

__all__ = ["constructor_of", "rules_of_diffusers"]


def constructor_of(config: Mapping[str, object]) -> Callable[[], nn.Module]:
    """Return what makes the module of a config that diffusers or timm wrote, with weights of its own code.

    Never runs the checkpoint's own code, and downloads nothing.

    Raises:
        InventoryError: when the library is not installed, or has no such class.
    """
    library, name = library_of(config), class_of(config)
    if find_spec(library) is None:
        raise InventoryError(
            f"'{name}' is a model of {library}, which is not installed", help=f"pip install {library}"
        )
    if library == "diffusers":
        found: Any = getattr(import_module("diffusers"), name, None)
        if not hasattr(found, "_repeated_blocks"):  # a scheduler, or none
            raise InventoryError(
                f"diffusers has no model '{name}'",
                help="compare the version that config.json names under '_diffusers_version' with the one "
                "that is installed",
            )
        return partial(found.from_config, dict(config))
    timm = import_module("timm")
    if not timm.is_model(name):
        raise InventoryError(f"timm has no model '{name}'", help="a newer version may have it")
    return partial(timm.create_model, name, pretrained=False, **_timm_arguments(config))


def _timm_arguments(config: Mapping[str, object]) -> dict[str, object]:
    """Return what timm itself would give to the constructor: saved arguments, else what the head needs."""
    saved = config.get("model_args")
    if isinstance(saved, dict) and saved:
        found: dict[str, object] = {key: value for key, value in saved.items() if isinstance(key, str)}
    else:
        found = {key: config[key] for key in ("num_classes", "global_pool") if config.get(key) is not None}
    given = config.get("pretrained_cfg")
    if isinstance(given, dict):
        found.setdefault("pretrained_cfg", given)
    return found


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of attention weights before diffusers 0.16, as most of the older VAEs are stored."""


def rules_of_diffusers(model: nn.Module) -> ConversionRules:
    """Return how diffusers reads a checkpoint into this model."""
    has_old = any(getattr(module, "_from_deprecated_attn_block", False) for module in model.modules())
    conversions = tuple(
        NameConversion.from_row({"from": [rf"\.{old}\."], "to": [f".{new}."]}, None)
        for old, new in (_OLD_ATTENTION.items() if has_old else ())
    )
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return ConversionRules(conversions, "", tuple(sorted(ignored)))
