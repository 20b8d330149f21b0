"""The inventory of a checkpoint.

Headers and `config.json` with the built-in table, or through transformers on meta.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from devmap.inventory.bulk import collector_paused
from devmap.inventory.checkpoint import read_headers
from devmap.inventory.conversion import convert, mapping_of
from devmap.inventory.figures import architecture_of, completed
from devmap.inventory.generic import guess_modules, plain_tensors
from devmap.inventory.instance import instantiate
from devmap.inventory.mapping import Piece, WeightMapping
from devmap.inventory.model import Inventory
from devmap.inventory.quantization import quantization_of, restore, split
from devmap.inventory.repeated_blocks import repeated_blocks
from devmap.inventory.skeleton import family_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from devmap.inventory.assembly import Assembled
    from devmap.inventory.checkpoint import Checkpoint
    from devmap.inventory.skeleton import Family, ModelClass

__all__ = ["read_checkpoint"]

_ASK_TRANSFORMERS = (
    "`devmap inspect CHECKPOINT --through-transformers -o FILE` writes a manifest that knows them exactly"
)


@collector_paused()
def read_checkpoint(path: str | PathLike[str], *, through_transformers: bool = False) -> Inventory:
    """Describe a checkpoint (folder, file or index), with its files and the mapping to the model's tensors.

    By default from headers, `config.json` and the built-in table, without torch; `through_transformers`
    builds the model on the meta device instead, and is exact for every architecture that the installed
    transformers has.

    Raises:
        CheckpointError: when it is absent, damaged or no safetensors.
        InventoryError: when transformers is asked for and is absent, or cannot build the model.
    """
    checkpoint = read_headers(path)
    quantization = quantization_of(checkpoint.config)
    if quantization is None:
        return _described(checkpoint, through_transformers=through_transformers)
    whole, parts = split(checkpoint, quantization)
    return restore(_described(whole, through_transformers=through_transformers), checkpoint, parts)


def _described(checkpoint: Checkpoint, *, through_transformers: bool) -> Inventory:
    if through_transformers:
        # Imports torch.
        from devmap.inventory.through_transformers import read_through_transformers  # noqa: PLC0415

        return read_through_transformers(checkpoint)
    config = checkpoint.config
    family = family_of(str(config.get("model_type") or ""))
    if family is None:
        return _unknown(checkpoint)
    model_class = family.classes.get(_class_name(config) or family.base_class)
    return _unknown(checkpoint, family) if model_class is None else _known(checkpoint, family, model_class)


def _class_name(config: Mapping[str, object]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _known(checkpoint: Checkpoint, family: Family, model_class: ModelClass) -> Inventory:
    config = completed(
        checkpoint.config, aliases=family.aliases, defaults=family.defaults, derived=family.derived
    )

    def persistence(name: str) -> bool | None:
        template = model_class.template(name)
        return None if template is None else template.persistent

    converted = convert(
        checkpoint.tensors,
        model_class.rules,
        knows=lambda name: persistence(name) is True,
        is_computed=lambda name: persistence(name) is False,
    )
    made = instantiate(model_class, config, converted.tensors, dtype=_build_dtype(checkpoint))
    _drop_surplus(converted.tensors, made.tensors, converted.unmapped, converted.ignored, model_class)
    inventory = Inventory(
        made.modules,
        made.tensors,
        made.ties,
        tuple(sorted({*model_class.no_split, *repeated_blocks(made.modules, model_class.no_split)})),
        architecture_of(config, model_class.name),
        checkpoint,
    )
    loaded = [name for name, tensor in made.tensors.items() if tensor.persistent]
    mapping = mapping_of(converted, loaded, owner=inventory.owner)
    mapping = dataclasses.replace(mapping, missing=(*mapping.missing, *made.missing))
    return dataclasses.replace(inventory, mapping=mapping, notes=(*converted.notes, *_mapping_notes(mapping)))


def _drop_surplus(
    made: Mapping[str, Assembled],
    kept: Mapping[str, object],
    unmapped: list[str],
    ignored: list[str],
    model_class: ModelClass,
) -> None:
    """Tensors of layers that the config does not have: DeepSeek's checkpoints hold one that only predicts."""
    for name, tensor in made.items():
        if name not in kept:
            places = ignored if model_class.rules.ignored_pattern.search(name) else unmapped
            places += [part.source.name for part in tensor.parts]


def _build_dtype(checkpoint: Checkpoint) -> str:
    """The dtype that transformers builds the model in.

    Config.json's, else the most frequent of the checkpoint's floats.
    """
    config = checkpoint.config
    named = config.get("dtype") or config.get("torch_dtype")
    if isinstance(named, str):
        return named.removeprefix("torch.")
    floats = Counter(tensor.dtype for tensor in checkpoint.tensors.values() if "float" in tensor.dtype)
    return floats.most_common(1)[0][0] if floats else "float32"


def _mapping_notes(mapping: WeightMapping) -> list[str]:
    notes: list[str] = []
    if mapping.unmapped:
        notes.append(
            f"{len(mapping.unmapped)} stored tensors belong to no tensor of the model, such as "
            f"'{mapping.unmapped[0]}'"
        )
    if mapping.missing:
        notes.append(
            f"{len(mapping.missing)} tensors of the model are not in the checkpoint, such as "
            f"'{mapping.missing[0]}'"
        )
    return notes


def _unknown(checkpoint: Checkpoint, family: Family | None = None) -> Inventory:
    config = (
        checkpoint.config
        if family is None
        else completed(
            checkpoint.config, aliases=family.aliases, defaults=family.defaults, derived=family.derived
        )
    )
    tensors = plain_tensors(checkpoint.tensors)
    modules, whole = guess_modules(tensors)
    class_name = _class_name(config)
    modules[""] = class_name
    what = class_name or str(config.get("model_type") or "") or "a model without a config.json"
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
