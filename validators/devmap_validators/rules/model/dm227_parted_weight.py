"""DM227: parts of one quantised weight lie on different devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import Device, device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import assignment_of
from devmap_validators.checks.quantized import label_of, method_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    inventory, assignment = context.inventory, assignment_of(context)
    if inventory is None or assignment is None or method_of(inventory) is None:
        return
    parted = {name.rpartition(".")[0] for name in assignment.by_path if name in inventory.tensors}
    for module in sorted(parted):  # only keys that name tensors can part what lies on one module
        parts = [name for name, tensor in inventory.tensors.items() if tensor.module == module]
        placed = {
            name: device
            for name in parts
            if inventory.tensors[name].kind == "part"
            and isinstance(device := assignment.target_of(name), Device)
        }
        if len(set(placed.values())) > 1:
            (first, one), (second, other) = _two_apart(placed)
            yield Report(
                f"the parts of '{module}' lie apart: '{first}' on {device_name(one)}, '{second}' on "
                f"{device_name(other)}",
                ("device_map",),
                help=f"one kernel reads them together ({label_of(inventory)}): give '{module}' one device",
            )


def _two_apart(parts: dict[str, Device]) -> tuple[tuple[str, Device], tuple[str, Device]]:
    first, *rest = parts.items()
    return first, next(each for each in rest if each[1] != first[1])


RULE = Rule(
    code="DM227",
    name="parted-weight",
    severity=Severity.ERROR,
    summary="Parts of one quantised weight lie on different devices",
    why=(
        "A quantised weight is stored as packed numbers, scales and tables, "
        "which one kernel reads together. Keys that "
        "name single tensors can part them, and then nothing can run the module."
    ),
    good="""\
version: 1
model: {manifest: quantized.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: quantized.manifest.yaml}
device_map: {layers.0.q_proj.scales: 1, '': 0}
no_split_module_classes: []
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_check,
)
