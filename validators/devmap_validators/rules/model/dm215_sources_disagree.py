"""DM215: the manifest and the checkpoint describe different models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import quoted
from devmap_validators.checks.groups import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context
    from devmap.inventory.model import Inventory


def _check(context: Context) -> Iterator[Report]:
    manifest, checkpoint = context.inventory, context.checkpoint_inventory
    if (
        manifest is None
        or checkpoint is None
        or context.document.config is None
        or context.document.config.model.manifest is None
    ):
        return
    if checkpoint.notes:  # its headers alone do not tell what the model calls its tensors: bytes can be told
        yield from _bytes_differ(manifest, checkpoint)
        return
    ours, theirs = _stored(manifest), _stored(checkpoint)
    changed = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    # A checkpoint stores one name of a tied group, and a manifest has them all.
    tied = {name for inventory in (manifest, checkpoint) for name in inventory.owner}
    absent = [name for name in ours if name not in theirs and name not in tied]
    extra = [name for name in theirs if name not in ours and name not in tied]
    hint = _HINT
    if changed:
        name = changed[0]
        message = (
            f"{counted(len(changed), 'tensor')} of the manifest "
            f"{'differs' if len(changed) == 1 else 'differ'} from the checkpoint: "
            f"'{name}' is {_words(ours[name])} there and {_words(theirs[name])} in the checkpoint"
        )
        yield Report(message, ("model", "manifest"), help=hint)
    if absent:
        yield Report(
            f"the checkpoint lacks {counted(len(absent), 'tensor')} of the manifest: {quoted(absent)}",
            ("model", "manifest"),
            help=hint,
        )
    if extra:
        yield Report(
            f"the manifest lacks {counted(len(extra), 'tensor')} of the checkpoint: {quoted(extra)}",
            ("model", "manifest"),
            help=hint,
        )


_HINT = "write the manifest again: devmap inspect CHECKPOINT -o MANIFEST"


def _bytes_differ(manifest: Inventory, checkpoint: Inventory) -> Iterator[Report]:
    """Compare the bytes of all stored tensors: fusing and renaming keep them."""
    ours = sum(
        tensor.nbytes
        for name, tensor in manifest.tensors.items()
        if tensor.persistent and manifest.owner.get(name, name) == name
    )
    theirs = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    tied = sum(
        tensor.nbytes for name, tensor in manifest.tensors.items() if manifest.owner.get(name, name) != name
    )
    # A checkpoint may store a tied tensor once or under each of its names.
    if not ours <= theirs <= ours + tied:
        yield Report(
            f"the manifest has {ours:,} bytes of stored tensors and the checkpoint {theirs:,}",
            ("model", "manifest"),
            help=_HINT,
        )


def _stored(inventory: Inventory) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        name: (tensor.dtype, tensor.shape) for name, tensor in inventory.tensors.items() if tensor.persistent
    }


def _words(kind: tuple[str, tuple[int, ...]]) -> str:
    return f"{kind[0]}{list(kind[1])}"


RULE = Rule(
    code="DM215",
    name="sources-disagree",
    severity=Severity.ERROR,
    summary="The manifest and the checkpoint describe different models",
    why="Checks and plans use the manifest, the load uses the checkpoint. When they differ, what was "
    "checked is not what runs.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml, checkpoint: ./another-model}
max_memory: {0: 2GB}
""",
    check=_check,
)
