"""DM208 to DM212: classes that stay whole, constraints, and what is trained."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.strategy import WorkloadKind
from devmap.config.values.words import shown, sure_word
from devmap.config.yaml.edits import rename
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import assignment_of, device_path
from devmap_validators.checks.suggestion import explain_miss, near_path, near_word, sure_path
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.values.device import Device
    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context
    from devmap_validators.checks.assignment import Assignment

__all__ = ["RULES"]


def _unknown_no_split_class(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None or config.no_split_module_classes is None:
        return
    classes = dict.fromkeys(name for name in inventory.modules.values() if name)
    for place, name in enumerate(config.no_split_module_classes):
        if name in classes:
            continue
        path = ("no_split_module_classes", place)
        near = near_word(name, [*inventory.no_split_module_classes, *classes])
        if near is not None:
            sure = sure_word(name, classes) == near
            edit = rename(context.document.position(path), name, near) if sure else None
            yield Report(
                f"no module of this model is a {shown(name)}",
                path,
                label=f"did you mean '{near}'?",
                edit=edit,
            )
            continue
        own = ", ".join(inventory.no_split_module_classes)
        hint = (
            f"the model's own code says {own}; leave the key out to use that"
            if own
            else "leave it out, or name the class of the blocks"
        )
        yield Report(f"no module of this model is a {shown(name)}", path, help=hint)


DM208 = Rule(
    code="DM208",
    name="unknown-no-split-class",
    severity=Severity.ERROR,
    summary="A class in `no_split_module_classes` that the model does not have",
    why=(
        "The list protects blocks from being torn apart. A name that no module has protects nothing, and "
        "the split it should "
        "prevent happens without a word."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
no_split_module_classes: [LlamaDecoderLayer]
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
no_split_module_classes: [LlamaDecoderLayers]
max_memory: {0: 2GB}
""",
    check=_unknown_no_split_class,
)


def _unmatched_constraint(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None:
        return
    named: list[tuple[str, DocumentPath]] = []
    for place, group in enumerate(config.same_device):
        named += [(key, ("same_device", place, item)) for item, key in enumerate(group)]
    for device, keys in config.forbid.items():
        here = device_path(context, ("forbid",), device)
        named += [(key, (*here, item)) for item, key in enumerate(keys)]
    for key, path in named:
        if not inventory.index.match(key):
            near = near_path(key, inventory.index)
            label = f"did you mean '{near}'?" if near else ""
            hint = "" if near else explain_miss(key, inventory.index)
            sure = sure_path(key, inventory.index)
            edit = (
                rename(context.document.position(path), key, sure)
                if sure is not None and sure == near
                else None
            )
            yield Report(
                f"{shown(key)} in {path[0]} is not a module of this model",
                path,
                label=label,
                help=hint,
                edit=edit,
            )


DM209 = Rule(
    code="DM209",
    name="unmatched-constraint",
    severity=Severity.ERROR,
    summary="A path in `same_device` or `forbid` names nothing",
    why="A constraint on a module that is not there constrains nothing, so what it should prevent can "
    "happen.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, cpu: 2GB}
forbid: {cpu: [lm_head]}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, cpu: 2GB}
forbid: {cpu: [lm_heads]}
""",
    check=_unmatched_constraint,
)


def _contradicted_constraint(context: Context) -> Iterator[Report]:
    told = set()
    for report in _by_map(context):
        told.add(report.path)
        yield report
    # What the map alone does not show: constraints that leave no device between them, found when a plan was
    # made.
    for problem in context.plan_error.problems if context.plan_error is not None else ():
        path = getattr(problem, "path", ())
        if problem.code == DM210.code and path not in told:
            yield Report(problem.message, path, help="remove one of these constraints")


def _by_map(context: Context) -> Iterator[Report]:
    config, assignment = context.document.config, assignment_of(context)
    if config is None or assignment is None:
        return
    pinned = partial(_pinned, assignment)
    for device, keys in config.forbid.items():
        here = device_path(context, ("forbid",), device)
        for item, key in enumerate(keys):
            if device in (places := pinned(key)):
                message = (
                    f"'{key}' is forbidden on {device_name(device)}, and the device "
                    f"map puts '{places[device]}' there"
                )
                yield Report(message, (*here, item), help="change the map, or drop the constraint")
    for place, group in enumerate(config.same_device):
        devices = {device for key in group for device in pinned(key)}
        if len(devices) > 1:
            names = " and ".join(f"'{key}'" for key in group[:3])
            message = (
                f"{names} must share a device, and the device map puts them on {devices_in_words(devices)}"
            )
            yield Report(
                message,
                ("same_device", place),
                help="give them one device in the map, or drop the constraint",
            )


def _pinned(assignment: Assignment, key: str) -> dict[Device, str]:
    """Return the devices that the map gives to what a key names, each with the first tensor there."""
    found: dict[Device, str] = {}
    for root in assignment.inventory.index.match(key):
        found = {**assignment.devices_within(*assignment.inventory.flat_index.span(root)), **found}
    return found


DM210 = Rule(
    code="DM210",
    name="contradicted-constraint",
    severity=Severity.ERROR,
    summary="The device map does what `same_device` or `forbid` rules out",
    why=(
        "The map pins a module to a device, and a constraint says that it must not be there, or must be "
        "where another module "
        "is. One of the two was changed without the other."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, lm_head: 1, model.embed_tokens: 1}
max_memory: {0: 2GB, 1: 2GB}
forbid: {0: [lm_head]}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0}
max_memory: {0: 2GB, 1: 2GB}
forbid: {0: [lm_head]}
""",
    check=_contradicted_constraint,
)


def _unmatched_trainable(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None or config.workload is None:
        return
    for place, key in enumerate(config.workload.trainable or ()):
        if not inventory.index.match(key):
            near = near_path(key, inventory.index)
            label = f"did you mean '{near}'?" if near else ""
            hint = "" if near else explain_miss(key, inventory.index)
            path = ("workload", "trainable", place)
            sure = sure_path(key, inventory.index)
            edit = (
                rename(context.document.position(path), key, sure)
                if sure is not None and sure == near
                else None
            )
            yield Report(
                f"{shown(key)} in trainable is not a module of this model",
                path,
                label=label,
                help=hint,
                edit=edit,
            )


DM211 = Rule(
    code="DM211",
    name="unmatched-trainable",
    severity=Severity.ERROR,
    summary="A path in `workload.trainable` names nothing",
    why=(
        "Only what is trained gets gradients and optimizer states. A path that names nothing leaves out "
        "their bytes, and "
        "training runs out of memory in its first step."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20GB}
workload: {kind: training, trainable: [lm_head]}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20GB}
workload: {kind: training, trainable: ['model.layers[4-7]']}
""",
    check=_unmatched_trainable,
)


def _training_key_without_training(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.workload is None or config.workload.kind is WorkloadKind.TRAINING:
        return
    for key in ("optimizer", "trainable"):
        if getattr(config.workload, key) is not None:
            message = f"'{key}' has no effect: the workload is {config.workload.kind}"
            yield Report(
                message, ("workload", key), on_key=True, help="write kind: training, or remove the key"
            )


DM212 = Rule(
    code="DM212",
    name="training-key-without-training",
    severity=Severity.WARNING,
    summary="A key of training in a workload that does not train",
    why=(
        "`optimizer` and `trainable` count only where `kind` is `training`. Elsewhere no room is kept for "
        "gradients, which is "
        "probably not what was meant."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20GB}
workload: {kind: training, optimizer: adamw}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20GB}
workload: {kind: inference, optimizer: adamw}
""",
    check=_training_key_without_training,
)


RULES = (DM208, DM209, DM210, DM211, DM212)
