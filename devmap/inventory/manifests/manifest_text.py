"""An inventory as the text of a manifest.

YAML with one module or tensor on a line, repeated layers folded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devmap.config.yaml.writer import render_yaml
from devmap.errors import ManifestError
from devmap.inventory.manifests.folding import fold, join, names_in

if TYPE_CHECKING:
    from devmap.inventory.model import Architecture, Inventory, Tensor

__all__ = ["render_manifest"]

_HEAD = "# What the model is made of, without its weights. Written by `devmap inspect CHECKPOINT -o FILE`.\n"


def render_manifest(inventory: Inventory) -> str:
    """Return the manifest; the same text for equal inventories.

    And `read_manifest` gives an equal inventory back.

    Raises:
        ManifestError: for a name with control characters, which no manifest can hold.
    """
    parts = list(names_in(fold(inventory)))
    document: dict[str, object] = {"version": 1}
    if inventory.architecture is not None:
        document["architecture"] = _architecture(inventory.architecture)
    document["modules"] = {key: node.class_name for key, node in parts}
    leaves = {join(key, name): _tensor(leaf) for key, node in parts for name, leaf in node.leaves}
    if leaves:
        document["tensors"] = leaves
    if inventory.ties:
        document["ties"] = inventory.ties
    if inventory.no_split_module_classes:
        document["no_split_module_classes"] = inventory.no_split_module_classes
    _refuse_controls(inventory)
    return _HEAD + render_yaml(document)


def _architecture(architecture: Architecture) -> dict[str, object]:
    figures = dict(sorted(architecture.figures.items()))
    return {"model_type": architecture.model_type, "class_name": architecture.class_name, **figures}


def _tensor(tensor: Tensor) -> str:
    shape = ", ".join(map(str, tensor.shape))
    words = "" if tensor.kind == "parameter" else f" {tensor.kind}"
    words += "" if tensor.persistent else ", not saved"
    return f"{tensor.dtype}[{shape}]{words}"


_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
"""What the YAML reader does not let through, written out or escaped."""


def _refuse_controls(inventory: Inventory) -> None:
    architecture = inventory.architecture
    texts = [*inventory.modules, *inventory.modules.values(), *inventory.tensors]
    texts += inventory.no_split_module_classes
    if architecture is not None:
        texts += [architecture.model_type, architecture.class_name, *map(str, architecture.figures.values())]
        texts += architecture.figures
    found = _FORBIDDEN.search(" ".join(texts))
    if found is not None:
        message = f"the character U+{ord(found[0]):04X} in a name or figure cannot stand in a manifest"
        raise ManifestError(message, help="rename the module, or remove it from config.json")
