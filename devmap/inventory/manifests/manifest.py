"""Manifests: inventories as files that are checked in.

So that CI needs neither weights nor torch nor transformers.

    version: 1
    architecture: {model_type: llama, class_name: LlamaForCausalLM, hidden_size: 8192, ...}
    modules:
      "": LlamaForCausalLM
      model.layers: ModuleList
      model.layers[0-79]: LlamaDecoderLayer
    tensors:
      model.layers[0-79].mlp.up_proj.weight: bfloat16[28672, 8192]
      model.rotary_emb.inv_freq: float32[64] buffer, not saved
    ties: [[model.embed_tokens.weight, lm_head.weight]]
    no_split_module_classes: [LlamaDecoderLayer]

`layers[0-79]` stands for `layers.0` to `layers.79`, all alike. Order is the model's order of registration.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devmap.config.regular_files import expand_user, read_regular
from devmap.config.values.words import shown, shown_path
from devmap.config.yaml.reader import Limits, read_yaml
from devmap.errors import InventoryError, ManifestError
from devmap.inventory.dtypes import element_bits, is_addressable
from devmap.inventory.manifests.folding import Fold, Segment, expand, split_path
from devmap.inventory.model import Architecture, Inventory, Tensor
from devmap.inventory.tree import with_ancestors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from devmap.config.yaml.faults import DocumentPath
    from devmap.config.yaml.reader import ParsedYaml, Plain
    from devmap.config.yaml.source import Position
    from devmap.inventory.model import TensorKind

__all__ = ["LIMITS", "ManifestFault", "parse_manifest", "read_manifest"]

LIMITS = Limits(size_bytes=4 << 20, depth=8, nodes=400_000)
"""What the file may cost. A 70B model takes some 3 KB, one whose layers all differ some 100 bytes a tensor.
"""

_EXPANDED_LIMIT = 5_000_000
"""Modules and tensors that the ranges of a manifest may stand for."""


_MOST_FAULTS = 1_000
"""Faults of one file that are told; nobody reads more, and each has its place looked up."""


@dataclass(frozen=True, slots=True)
class ManifestFault:
    """One thing that is wrong with a manifest; `message` begins with file, line and column."""

    code: str
    message: str
    position: Position


def read_manifest(path: str | PathLike[str]) -> Inventory:
    """Read a manifest file.

    Raises:
        ManifestError: when it cannot be read or is wrong; `problems` lists every fault with its place.
    """
    path = expand_user(os.fspath(path))
    try:
        content = read_regular(path, limit_bytes=LIMITS.size_bytes)
    except OSError as error:
        message = f"the manifest {shown_path(path)} cannot be read: {error.strerror or error}"
        raise ManifestError(message, help="write one with: devmap inspect CHECKPOINT -o FILE") from error
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, name: str) -> Inventory:
    """Return the inventory that a manifest's bytes describe; `name` stands in the messages.

    Time and memory are bounded by the file's size and by what its ranges may stand for.

    Raises:
        ManifestError: as `read_manifest`.
    """
    reading = _ManifestReader(read_yaml(content, name, limits=LIMITS))
    found = reading.inventory()
    if found is None:
        faults = sorted(reading.faults, key=lambda fault: fault.position.sort_key())
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        hint = "write it again with: devmap inspect CHECKPOINT -o FILE"
        raise ManifestError(f"the manifest '{name}' is wrong: {count}", help=hint, problems=faults)
    return found


_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,8})\Z")
_TENSOR = re.compile(
    r"(?P<dtype>\w+)\[(?P<shape>[0-9, ]*)\](?: (?P<kind>part|buffer(?P<computed>, not saved)?))?\Z", re.ASCII
)
_KEYS = ("version", "architecture", "modules", "tensors", "ties", "no_split_module_classes")


class _ManifestReader:
    """One manifest on its way to an inventory; a class because every step adds faults to one list."""

    def __init__(self, parsed: ParsedYaml) -> None:
        self.parsed = parsed
        self.faults: list[ManifestFault] = []
        for fault in parsed.faults:
            self._add(fault.code, fault.message, fault.position)

    def inventory(self) -> Inventory | None:
        """Return the inventory, None where there are faults."""
        document = self.parsed.data
        if document is None:
            return None
        for key in document:
            if key not in _KEYS:
                self._fault(
                    (key,),
                    f"the key {shown(key)} is not known; a manifest has {', '.join(_KEYS)}",
                    at_key=True,
                )
        if document.get("version") != 1:
            path: DocumentPath = ("version",) if "version" in document else ()
            self._fault(path, f"expected 'version: 1', found {shown(document.get('version'))}")
        root = self._tree(self._mapping(document, "modules"), self._mapping(document, "tensors"))
        whole = self._names(document.get("no_split_module_classes"), ("no_split_module_classes",))
        architecture = self._architecture(document)
        if self.faults or root is None:
            return None
        modules, tensors = expand(root)
        ties = self._ties(document.get("ties"), tensors)
        if self.faults:
            return None
        return Inventory(
            with_ancestors(modules, tensors), tensors, ties, tuple(sorted(set(whole))), architecture
        )

    # --- parts ---

    def _tree(self, modules: dict[str, Plain], tensors: dict[str, Plain]) -> Fold | None:
        if "" not in modules:
            self._fault(("modules",), 'expected the root module, whose path is ""')
            return None
        nodes: dict[str, _OpenModule] = {}
        for key, class_name in modules.items():
            self._module(key, class_name, nodes)
        for key, value in tensors.items():
            self._tensor(key, value, nodes)
        for path in (path for node in nodes.values() for path in node.overlaps()):
            self._fault(path, f"{shown(path[-1])} names a child that another entry names too", at_key=True)
        self._refuse_too_many(nodes)
        return None if self.faults else nodes[""].fold()

    def _refuse_too_many(self, nodes: dict[str, _OpenModule]) -> None:
        total = 0
        for key, node in nodes.items():
            total += node.times * (1 + len(node.leaves))
            if total > _EXPANDED_LIMIT:
                message = (
                    f"up to here the ranges stand for {total:,} modules and "
                    f"tensors; {_EXPANDED_LIMIT:,} are allowed"
                )
                self._fault(("modules", key), message, at_key=True)
                return

    def _module(self, key: str, class_name: Plain, nodes: dict[str, _OpenModule]) -> None:
        path = ("modules", key)
        if not isinstance(class_name, str):
            self._fault(path, f"expected the name of a class, found {shown(class_name)}")
            class_name = ""
        if not key:
            nodes[key] = _OpenModule("", class_name)
            return
        try:
            parent_key, segment = split_path(key)
        except ValueError as error:
            self._fault(path, f"{shown(key)} is not a valid path: {error}", at_key=True)
            return
        parent = nodes.get(parent_key)
        if parent is None:
            self._fault(
                path, f"{shown(key)} has no parent: expected {shown(parent_key)} above it", at_key=True
            )
            return
        times = parent.times * (len(segment) if isinstance(segment, range) else 1)
        nodes[key] = node = _OpenModule(segment, class_name, times=min(times, _EXPANDED_LIMIT + 1))
        parent.children.append(node)
        parent.keys.append((segment, path))

    def _tensor(self, key: str, value: Plain, nodes: dict[str, _OpenModule]) -> None:
        path = ("tensors", key)
        tensor = self._tensor_value(value, path)
        try:
            parent_key, segment = split_path(key)
        except ValueError as error:
            self._fault(path, f"{shown(key)} is not a valid path: {error}", at_key=True)
            return
        parent = nodes.get(parent_key)
        if isinstance(segment, range):
            self._fault(path, f"{shown(key)} ends in a range; a range stands for modules", at_key=True)
        elif parent is None:
            self._fault(
                path, f"{shown(key)} has no module: expected {shown(parent_key)} in modules", at_key=True
            )
        else:
            parent.keys.append((segment, path))
            parent.leaves += [(segment, tensor)] if tensor is not None else []

    def _tensor_value(self, value: Plain, path: DocumentPath) -> Tensor | None:
        match = _TENSOR.match(value) if isinstance(value, str) else None
        if match is None:
            self._fault(
                path, f"expected a dtype and a shape such as 'bfloat16[8192, 8192]', found {shown(value)}"
            )
            return None
        sizes = [size.strip() for size in match["shape"].split(",")] if match["shape"] else []
        if not all(size.isdecimal() and len(size) < 19 for size in sizes) or not is_addressable(
            [int(size) for size in sizes]
        ):
            self._fault(path, f"expected a shape of whole numbers, found {shown(match['shape'])}")
            return None
        try:
            element_bits(match["dtype"])
        except InventoryError as error:
            self._fault(path, error.message)
            return None
        named = (match["kind"] or "parameter").partition(",")[0]
        kind: TensorKind = "part" if named == "part" else "buffer" if named == "buffer" else "parameter"
        return Tensor("", tuple(map(int, sizes)), match["dtype"], kind, persistent=not match["computed"])

    def _ties(self, value: Plain, tensors: dict[str, Tensor]) -> tuple[tuple[str, ...], ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self._fault(("ties",), f"expected a list of lists of tensor names, found {shown(value)}")
            return ()
        order = {name: number for number, name in enumerate(tensors)}
        seen: set[str] = set()
        groups: list[tuple[str, ...]] = []
        for number, group in enumerate(value):
            path = ("ties", number)
            names = self._names(group, path)
            wrong: list[str] = []
            for name in names:
                if name not in order or name in seen:
                    wrong.append(name)
                    self._fault(
                        path,
                        f"{shown(name)} is {'tied twice' if name in seen else 'no tensor of this model'}",
                    )
                seen.add(name)
            if not wrong and len(names) < 2:
                self._fault(path, "a tie has two names or more")
            elif not wrong and len({(tensors[name].shape, tensors[name].dtype) for name in names}) > 1:
                self._fault(path, "tied tensors have one shape and one dtype")
            elif not wrong:
                groups.append(tuple(sorted(names, key=order.__getitem__)))
        return tuple(sorted(groups, key=lambda group: order[group[0]]))

    def _architecture(self, document: dict[str, Plain]) -> Architecture | None:
        if document.get("architecture") is None:
            return None
        figures: dict[str, int | float | str | bool | list[int | str] | None] = {}
        for key, value in self._mapping(document, "architecture").items():
            if isinstance(value, dict):
                self._fault(
                    ("architecture", key), f"expected a figure or a list of figures, found {shown(value)}"
                )
            elif isinstance(value, list):
                items = [item for item in value if isinstance(item, int | str)]
                if len(items) < len(value):
                    self._fault(("architecture", key), "expected a list of whole numbers or of words")
                figures[key] = items
            else:
                figures[key] = value
        model_type, class_name = (str(figures.pop(key, "") or "") for key in ("model_type", "class_name"))
        return Architecture(model_type, class_name, figures)

    # --- small things ---

    def _mapping(self, document: dict[str, Plain], key: str) -> dict[str, Plain]:
        value = document.get(key)
        if isinstance(value, dict):
            return value
        if value is not None or key == "modules":
            self._fault(
                (key,) if key in document else (), f"expected a mapping of {key}, found {shown(value)}"
            )
        return {}

    def _names(self, value: Plain, path: DocumentPath) -> list[str]:
        if value is None:
            return []
        names = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
        if not isinstance(value, list) or len(names) < len(value):
            self._fault(path, f"expected a list of names, found {shown(value)}")
        return names

    def _fault(self, path: DocumentPath, message: str, *, at_key: bool = False) -> None:
        if len(self.faults) >= _MOST_FAULTS:
            return
        positions = self.parsed.positions
        node = positions.get(path) or positions[()]
        self._add("DM020", message, node.key if at_key and node.key is not None else node.value)

    def _add(self, code: str, message: str, position: Position) -> None:
        place = f"{position.file}:{position.start.line}:{position.start.column}"
        self.faults.append(ManifestFault(code, f"{place}: {message}", position))


@dataclass(slots=True)
class _OpenModule:
    """A module of the file, before its children are known."""

    segment: Segment
    class_name: str
    times: int = 1
    """How many modules it stands for."""
    leaves: list[tuple[str, Tensor]] = field(default_factory=list)
    children: list[_OpenModule] = field(default_factory=list)
    keys: list[tuple[Segment, DocumentPath]] = field(default_factory=list)
    """All modules and tensors directly below, and where the file says so."""

    def overlaps(self) -> Iterator[DocumentPath]:
        """Yield the entries that stand for something that another one stands for already. n log n."""
        seen: set[Segment] = set()
        numbered: list[tuple[int, int, DocumentPath]] = []
        for segment, path in self.keys:
            if isinstance(segment, range):
                numbered.append((segment.start, segment.stop, path))
            elif segment in seen:
                yield path
            elif _NUMBER.match(segment):
                numbered.append((int(segment), int(segment) + 1, path))
            seen.add(segment)
        end = 0
        for start, stop, path in sorted(numbered, key=lambda entry: entry[:2]):
            if start < end:
                yield path
            end = max(end, stop)

    def fold(self) -> Fold:
        """Return the tree below, without recursion: a chain of modules may be longer than Python's stack."""
        root = Fold(self.class_name, tuple(self.leaves))
        pending = [(self, root)]
        while pending:
            node, made = pending.pop()
            for child in node.children:
                below = Fold(child.class_name, tuple(child.leaves))
                made.children.append((child.segment, below))
                pending.append((child, below))
        return root
