"""An inventory as the text of a manifest.

YAML with one module or tensor on a line, repeated layers folded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devmap.errors import ManifestError
from devmap.inventory.manifests.folding import fold, join, names_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devmap.inventory.model import Architecture, Inventory, Tensor

__all__ = ["render_manifest"]


def render_manifest(inventory: Inventory) -> str:
    """Return the manifest; the same text for equal inventories.

    And `read_manifest` gives an equal inventory back.

    Raises:
        ManifestError: for a name with control characters, which no manifest can hold.
    """
    return "".join(f"{line}\n" for line in _lines(inventory))


def _lines(inventory: Inventory) -> Iterator[str]:
    yield "# What the model is made of, without its weights. Written by `devmap inspect CHECKPOINT -o FILE`."
    yield "version: 1"
    if inventory.architecture is not None:
        yield from _architecture(inventory.architecture)
    parts = list(names_in(fold(inventory)))
    yield "modules:"
    for key, node in parts:
        yield from _entry(key, _text(node.class_name))
    leaves = [(join(key, name), leaf) for key, node in parts for name, leaf in node.leaves]
    if leaves:
        yield "tensors:"
    for key, leaf in leaves:
        yield from _entry(key, _tensor(leaf))
    if inventory.ties:
        yield "ties:"
        yield from (f"  - {_list(group)}" for group in inventory.ties)
    if inventory.no_split_module_classes:
        yield f"no_split_module_classes: {_list(inventory.no_split_module_classes)}"


def _architecture(architecture: Architecture) -> Iterator[str]:
    yield "architecture:"
    named: Mapping[str, object] = {
        "model_type": architecture.model_type,
        "class_name": architecture.class_name,
        **dict(sorted(architecture.figures.items())),
    }
    for key, value in named.items():
        yield f"  {_text(key)}: {_list(value) if isinstance(value, list) else _plain(value)}"


def _tensor(tensor: Tensor) -> str:
    shape = ", ".join(map(str, tensor.shape))
    words = "" if tensor.kind == "parameter" else f" {tensor.kind}"
    words += "" if tensor.persistent else ", not saved"
    return f"{tensor.dtype}[{shape}]{words}"


def _entry(key: str, value: str) -> Iterator[str]:
    """Yield a line of a mapping.

    YAML allows 1,024 characters to a key; a longer one needs a question mark.
    """
    text = _text(key)
    if len(text) <= _LONGEST_KEY:
        yield f"  {text}: {value}"
    else:
        yield f"  ? {text}"
        yield f"  : {value}"


_LONGEST_KEY = 1000
_SAFE = re.compile(r"[A-Za-z_](?:[\w.\[\]-]*[\w\]])?\Z", re.ASCII)
_SAFE_IN_LIST = re.compile(r"[A-Za-z_](?:[\w.-]*\w)?\Z", re.ASCII)
_ALLOWED = re.compile(
    "[\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
"""What the YAML reader lets through, written out or escaped."""
_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"})


def _list(items: object) -> str:
    assert isinstance(items, list | tuple)
    return f"[{', '.join(_plain(item, safe=_SAFE_IN_LIST) for item in items)}]"


def _plain(value: object, *, safe: re.Pattern[str] = _SAFE) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    return _text(str(value), safe=safe)


def _text(value: str, *, safe: re.Pattern[str] = _SAFE) -> str:
    if safe.match(value) and value.lower() not in _YAML_WORDS:
        return value
    return '"' + "".join(_escaped(character) for character in value) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    if not _ALLOWED.match(character):
        message = f"the character U+{ord(character):04X} in a name or figure cannot stand in a manifest"
        raise ManifestError(message, help="rename the module, or remove it from config.json")
    return f"\\U{ord(character):08X}"
