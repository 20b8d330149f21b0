"""DM210: the device map does what `same_device` or `forbid` rules out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import assignment_of, device_path
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.values.device import Device
    from devmap.findings.context import Context
    from devmap_validators.checks.assignment import Assignment


def _check(context: Context) -> Iterator[Report]:
    told = set()
    for report in _by_map(context):
        told.add(report.path)
        yield report
    # What the map alone does not show: constraints that leave no device between them, found when a plan was
    # made.
    for problem in context.plan_error.problems if context.plan_error is not None else ():
        path = getattr(problem, "path", ())
        if problem.code == RULE.code and path not in told:
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


RULE = Rule(
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
    check=_check,
)
