"""DM204, DM213: tied weights on several devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.assignment import run_bytes, split_ties
from devmap_validators.checks.config_map import anchors_of, assignment_of, map_path, nodes_of
from devmap_validators.checks.wording import exact_bytes, split_tie

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.findings.context import Context
    from devmap.inventory.model import Inventory

__all__ = ["RULES", "head_of", "is_head_and_embedding"]


_HEADS = frozenset({"lm_head", "embed_out", "proj_out", "output", "head", "score", "decoder"})
_EMBEDDINGS = ("embed", "wte", "shared", "tok_")


def is_head_and_embedding(inventory: Inventory, names: Sequence[str]) -> bool:
    """Return whether tied tensors are those of an output head and an input embedding, by class or by name."""
    others = [name for name in names if name != head_of(names)]
    return _is_head(head_of(names)) and any(_is_embedding(inventory, name) for name in others)


def head_of(names: Sequence[str]) -> str:
    """Return the name that looks most like an output head's; the last where none does."""
    return next((name for name in names if _is_head(name)), names[-1])


def _is_head(name: str) -> bool:
    return bool(_HEADS.intersection(name.split(".")[-2:-1]))


def _is_embedding(inventory: Inventory, name: str) -> bool:
    module = name.rpartition(".")[0]
    return inventory.modules.get(module, "").endswith("Embedding") or module.rpartition(".")[2].startswith(
        _EMBEDDINGS
    )


def _split_ties(context: Context) -> Iterator[Report]:
    assignment, inventory, config = assignment_of(context), context.inventory, context.document.config
    if assignment is None or inventory is None or config is None:
        return
    if nodes_of(context) is not None:
        return  # stages of several nodes each have a copy; DM703 says what that means in training
    for placed in split_ties(assignment):
        names = [name for name, _ in placed]
        if is_head_and_embedding(inventory, names):
            continue  # DM213 says it with the names that people know
        key = max(anchors_of(context, names), key=lambda key: (key.count("."), len(key)))
        hint = "give all of them the same device, or list them in same_device"
        yield Report(split_tie(inventory, placed, config.model.dtype), map_path(context, key), help=hint)


DM204 = Rule(
    code="DM204",
    name="split-ties",
    severity=Severity.WARNING,
    summary="Weights that are tied lie on several devices",
    why=(
        "Tied tensors are one storage under several names. On two devices they are two copies: each costs "
        "memory, and a trained"
        " one drifts away from the other. A config may ask for it, and its plan says which copy costs "
        "what; a device map that a "
        "program hands over is refused."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 1, 'model.layers.3': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_split_ties,
)


def _tied_head_apart(context: Context) -> Iterator[Report]:
    assignment, inventory, config = assignment_of(context), context.inventory, context.document.config
    if assignment is None or inventory is None or config is None:
        return
    if nodes_of(context) is not None:
        return  # stages of several nodes each have a copy; DM703 says what that means in training
    for placed in split_ties(assignment):
        names = [name for name, _ in placed]
        if not is_head_and_embedding(inventory, names):
            continue
        head = head_of(names)
        devices = dict(placed)
        other = next(name for name in names if devices[name] != devices[head])
        here, there = device_name(devices[head]), device_name(devices[other])
        nbytes = exact_bytes(run_bytes(inventory, [head], config.model.dtype))
        message = (
            f"the output head '{head.rpartition('.')[0]}' is on {here}, and the embedding "
            f"'{other.rpartition('.')[0]}' "
            f"that it is tied to on {there}; the copy costs {nbytes}"
        )
        key = max(anchors_of(context, [head, other]), key=len)
        yield Report(message, map_path(context, key), help="give both the same device")


DM213 = Rule(
    code="DM213",
    name="tied-head-apart",
    severity=Severity.WARNING,
    summary="The output head lies on another device than the embedding it is tied to",
    why=(
        "Many models use one matrix both to look tokens up and to score them. Apart, it is copied: "
        "hundreds of megabytes twice,"
        " and two different matrices after the first training step."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, lm_head: 1, model.embed_tokens: 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, lm_head: 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_tied_head_apart,
)


RULES = (DM204, DM213)
