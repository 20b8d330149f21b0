"""The inventory of a checkpoint.

Headers and `config.json` with the built-in table, or through transformers on meta.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from devmap.errors import InventoryError
from devmap.inventory.bulk import collector_paused
from devmap.inventory.conversions.conversion import convert, mapping_of
from devmap.inventory.live.cache import kept
from devmap.inventory.model import Inventory
from devmap.inventory.quantization import as_whole, quantization_of, restore, split, with_whole_weights
from devmap.inventory.repeated_blocks import repeated_blocks
from devmap.inventory.stored.checkpoint import read_headers
from devmap.inventory.stored.mapping import Piece, WeightMapping
from devmap.inventory.table.figures import architecture_of
from devmap.inventory.table.generic import guess_modules, plain_tensors
from devmap.inventory.table.instance import Lookup, instantiate, rules_of_tree
from devmap.inventory.table.libraries import class_of, library_of
from devmap.inventory.table.skeleton import assemble, family_of
from devmap.lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from devmap.inventory.conversions.assembly import Assembled
    from devmap.inventory.conversions.conversion import ConversionRules
    from devmap.inventory.stored.checkpoint import Checkpoint
    from devmap.inventory.table.skeleton import Module

__all__ = ["Library", "read_checkpoint"]

_ASK_TRANSFORMERS = (
    "`devmap inspect CHECKPOINT --through-transformers -o FILE` writes a manifest that knows them exactly"
)


Library = Literal["never", "where needed", "always"]
"""When Transformers is asked: it takes seconds and imports torch."""


@collector_paused()
def read_checkpoint(
    path: str | PathLike[str],
    *,
    through_transformers: Library | bool = "never",
    variant: str | None = None,
    dequantize: bool = False,
) -> Inventory:
    """Describe a checkpoint (folder, file or index), with its files and the mapping to the model's tensors.

    From headers, `config.json` and the built-in table, without torch. Transformers builds the model on the
    meta device instead (diffusers and timm those of their own folders), which is exact for every architecture
    that it has: `"always"` (or True), or `"where needed"`, which is where the table does not settle the model
    and the library is installed. What it found is kept, and taken from there the next time.

    Quantised weights are described as they are stored, or, with `dequantize`, whole in the model's dtype.

    Raises:
        CheckpointError: when it is absent, damaged or no safetensors.
        InventoryError: when Transformers has to be asked and is absent, or cannot build the model.
    """
    checkpoint = read_headers(path, variant=variant)
    quantization = quantization_of(checkpoint.config)
    if quantization is None:
        return _described(checkpoint, through_transformers=through_transformers)
    if dequantize:
        whole, names = with_whole_weights(checkpoint, quantization)
        found = _described(whole, through_transformers=through_transformers)
        return as_whole(found, checkpoint, names, quantization)
    whole, parts = split(checkpoint, quantization)
    return restore(_described(whole, through_transformers=through_transformers), checkpoint, parts)


def _described(checkpoint: Checkpoint, *, through_transformers: Library | bool) -> Inventory:
    if through_transformers in ("always", True):
        return _ask_transformers(checkpoint)
    found = _from_table(checkpoint)
    if found is not None and not found.notes:
        return found
    known = kept(checkpoint)
    if known is not None:
        return known
    library = library_of(checkpoint.config)
    if through_transformers == "where needed" and checkpoint.config and find_spec(library) is not None:
        try:
            return _ask_transformers(checkpoint)
        except InventoryError:  # of code of its own, or newer than Transformers: what is guessed is said
            return found or _unknown(checkpoint)
    return found or _unknown(checkpoint)


def _ask_transformers(checkpoint: Checkpoint) -> Inventory:
    """Transformers' own word.

    Raises:
        InventoryError: when it is not installed, or cannot build the model.
    """
    if find_spec("torch") is None:
        raise InventoryError("torch is not installed", help="pip install 'torch-devmap[transformers]'")
    found: Inventory = lazy("devmap.inventory.live.through_transformers", "read_through_transformers")(
        checkpoint
    )
    return found


def _from_table(checkpoint: Checkpoint) -> Inventory | None:
    """Return what the built-in table makes of the headers; None where it lacks the class or a part of it."""
    family = family_of(str(checkpoint.config.get("model_type") or ""))
    if family is None:
        return None
    config = family.completed(checkpoint.config)
    class_name = class_of(checkpoint.config) or family.base_class or ""
    root = assemble(family, class_name, config)
    return None if root is None else _known(checkpoint, root, config)


def _known(checkpoint: Checkpoint, root: Module, config: Mapping[str, object]) -> Inventory:
    lookup = Lookup(root)

    def persistence(name: str) -> bool | None:
        template = lookup.template(name)
        return None if template is None else template.persistent

    rules = rules_of_tree(root)
    converted = convert(
        checkpoint.tensors,
        rules,
        knows=lambda name: persistence(name) is True,
        is_computed=lambda name: persistence(name) is False,
        figures=config,
    )
    made = instantiate(root, converted.tensors, dtype=_build_dtype(checkpoint))
    _drop_surplus(converted.tensors, made.tensors, converted.unmapped, converted.ignored, rules)
    inventory = Inventory(
        made.modules,
        made.tensors,
        made.ties,
        tuple(sorted({*made.whole, *repeated_blocks(made.modules, made.whole)})),
        architecture_of(config, root.class_name),
        checkpoint,
    )
    loaded = [name for name, tensor in made.tensors.items() if tensor.persistent]
    mapping = mapping_of(converted, loaded, owner=inventory.owner)
    mapping = dataclasses.replace(mapping, missing=(*mapping.missing, *made.missing))
    notes = [*converted.notes]
    if made.doubts:
        notes.append(f"the built-in table does not settle {'; '.join(made.doubts)}: {_ASK_TRANSFORMERS}")
    return dataclasses.replace(inventory, mapping=mapping, notes=tuple(notes))


def _drop_surplus(
    made: Mapping[str, Assembled],
    kept: Mapping[str, object],
    unmapped: list[str],
    ignored: list[str],
    rules: ConversionRules,
) -> None:
    """Tensors of layers that the config does not have: DeepSeek's checkpoints hold one that only predicts."""
    for name, tensor in made.items():
        if name not in kept:
            places = ignored if rules.ignored_pattern.search(name) else unmapped
            places += [part.source.name for part in tensor.parts]


def _build_dtype(checkpoint: Checkpoint) -> str:
    """Return the dtype that transformers builds the model in.

    Config.json's, else the most frequent of the checkpoint's floats.
    """
    config = checkpoint.config
    named = config.get("dtype") or config.get("torch_dtype")
    if isinstance(named, str):
        return named.removeprefix("torch.")
    floats = Counter(tensor.dtype for tensor in checkpoint.tensors.values() if "float" in tensor.dtype)
    return floats.most_common(1)[0][0] if floats else "float32"


def _unknown(checkpoint: Checkpoint) -> Inventory:
    family = family_of(str(checkpoint.config.get("model_type") or ""))
    config = checkpoint.config if family is None else family.completed(checkpoint.config)
    tensors = plain_tensors(checkpoint.tensors)
    modules, whole = guess_modules(tensors)
    class_name = class_of(config)
    modules[""] = class_name
    library = library_of(config)
    what = class_name or str(config.get("model_type") or "") or "a model without a config.json"
    if library != "transformers":
        what = f"{what} of {library}"
    blocks = f"its repeated blocks are kept whole as {', '.join(whole)}" if whole else "nothing in it repeats"
    return Inventory(
        modules,
        tensors,
        no_split_module_classes=whole,
        architecture=architecture_of(config, class_name) if config else None,
        checkpoint=checkpoint,
        mapping=WeightMapping({name: (Piece(name),) for name in tensors}),
        notes=(
            (
                f"{what} is not in the built-in table: module classes, ties and buffers are not known, "
                f"{blocks}; {_ASK_TRANSFORMERS}"
            ),
        ),
    )
