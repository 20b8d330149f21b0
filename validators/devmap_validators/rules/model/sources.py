"""DM214 to DM219: where the model's description and weights come from."""

from __future__ import annotations

import os.path
from pathlib import PurePath
from typing import TYPE_CHECKING

from devmap.config.values.words import shown
from devmap.errors import CheckpointError, QuantizationError
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import quoted
from devmap_validators.checks.sources import place_of, placed_sources
from devmap_validators.checks.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context
    from devmap.inventory.model import Inventory

__all__ = ["RULES"]


def _no_model_source(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None:
        return
    for path, model in placed_sources(config):
        if model.checkpoint is None and model.manifest is None and model.factory is None:
            hint = "add 'manifest:' (devmap inspect -o writes one), 'checkpoint:' or 'factory:'"
            yield Report(
                f"'{'.'.join(map(str, path))}' names neither checkpoint, manifest nor factory",
                path,
                on_key=True,
                help=hint,
            )


DM214 = Rule(
    code="DM214",
    name="no-model-source",
    severity=Severity.ERROR,
    summary="The config names no checkpoint, manifest or factory",
    why=(
        "Without one of them nothing is known of the model, and nothing of the map can be checked. A "
        "manifest is the one that "
        "CI can read: small, and checked in beside the config."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {dtype: bfloat16}
max_memory: {0: 2GB}
""",
    check=_no_model_source,
)


def _sources_disagree(context: Context) -> Iterator[Report]:
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


DM215 = Rule(
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
    check=_sources_disagree,
)


def _unreadable_checkpoint(context: Context) -> Iterator[Report]:
    error = context.inventory_error
    if isinstance(error, CheckpointError):
        hint = (
            error.help
            or "give a folder with safetensors files, or check in a manifest (devmap inspect -o) for "
            "machines without it"
        )
        yield Report(error.message, (*place_of(error), "checkpoint"), help=hint)


DM216 = Rule(
    code="DM216",
    name="unreadable-checkpoint",
    severity=Severity.ERROR,
    summary="The checkpoint is not there, or damaged",
    why=(
        "The model's headers cannot be read, so nothing of the map can be checked, and the load would "
        "fail. Shards that are "
        "missing and headers that reach past a file's end are found here, before a machine with "
        "accelerators is rented."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./no-such-folder}
max_memory: {0: 2GB}
""",
    check=_unreadable_checkpoint,
)


def _unreadable_manifest(context: Context) -> Iterator[Report]:
    error, config = context.inventory_error, context.document.config
    if error is None or isinstance(error, CheckpointError | QuantizationError) or config is None:
        return
    model = config.components[error.component] if error.component else config.model
    if model.manifest is None and model.factory is None:
        return  # DM214 says that the config names no model
    key = "manifest" if model.manifest is not None else "factory"
    yield Report(
        error.message,
        (*place_of(error), key),
        help=error.help or "write it anew: devmap inspect CHECKPOINT -o MANIFEST",
    )


DM217 = Rule(
    code="DM217",
    name="unreadable-manifest",
    severity=Severity.ERROR,
    summary="The manifest is not there, or wrong",
    why="The manifest is the model as far as checks and plans know it. Without it nothing of the map can "
    "be checked.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: no-such.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=_unreadable_manifest,
)


def _path_outside_repository(context: Context) -> Iterator[Report]:
    for text, path in _paths(context):
        if text.startswith("~") or PurePath(text).is_absolute():
            message = f"{shown(text)} is an absolute path, which only this machine has"
            yield Report(
                message,
                path,
                help="keep the file in the repository, and write its path from this config's folder",
            )
        elif context.repository is not None:
            target = os.path.abspath(context.document.folder / text)  # noqa: PTH100 - resolve() would follow links
            if not PurePath(target).is_relative_to(os.path.abspath(context.repository)):  # noqa: PTH100 - as above
                message = f"{shown(text)} leads out of the repository"
                yield Report(
                    message, path, help="keep the file in the repository, so that every checkout has it"
                )


def _paths(context: Context) -> Iterator[tuple[str, DocumentPath]]:
    """Yield the files that belong beside a config; what is no text is another rule's affair."""
    document = context.document.data or {}
    model = document.get("model")
    named: list[tuple[object, DocumentPath]] = [(document.get("extends"), ("extends",))]
    components = document.get("components")
    placed: list[tuple[object, DocumentPath]] = [(model, ("model",))]
    if isinstance(components, dict):
        placed += [(source, ("components", name)) for name, source in components.items()]
    named += [
        (source.get("manifest"), (*path, "manifest")) for source, path in placed if isinstance(source, dict)
    ]
    policies = document.get("policies")
    if isinstance(policies, list):
        named += [(policy, ("policies", place)) for place, policy in enumerate(policies)]
    named.append((document.get("machine"), ("machine",)))
    yield from ((text, path) for text, path in named if isinstance(text, str))


DM218 = Rule(
    code="DM218",
    name="path-outside-repository",
    severity=Severity.WARNING,
    summary="A path leads out of the repository",
    why=(
        "A config is checked in to be the same for everyone. A manifest, parent, policy or machine file "
        "that lies outside the "
        "repository, or on an absolute path, is there on one machine only. Checkpoints and offload "
        "folders may lie anywhere."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
extends: /etc/devmap/base.devmap.yaml
max_memory: {0: 2GB}
""",
    check=_path_outside_repository,
)


def _factory_needs_code(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or context.allow_code:
        return
    for path, model in placed_sources(config):
        if model.factory is not None and model.manifest is None and model.checkpoint is None:
            message = f"the factory {shown(model.factory)} was not run, so nothing is known of the model"
            yield Report(
                message,
                (*path, "factory"),
                help="add a manifest (devmap inspect -o), or pass --allow-code if you trust the code",
            )


DM219 = Rule(
    code="DM219",
    name="factory-needs-code",
    severity=Severity.ERROR,
    summary="Only a factory describes the model, and code may not run",
    why=(
        "A factory is code of the repository that a checker would have to run. No command does that "
        "unasked: a pull request "
        "could change the code. A manifest beside it makes the config checkable everywhere."
    ),
    good="""\
version: 1
model: {factory: 'mypackage.models:build', manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {factory: 'mypackage.models:build'}
max_memory: {0: 2GB}
""",
    check=_factory_needs_code,
)


RULES = (DM214, DM215, DM216, DM217, DM218, DM219)
