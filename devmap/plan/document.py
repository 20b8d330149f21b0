"""A plan as a plain mapping, for JSON.

What `devmap plan --format json` prints, and what `devmap diff` reads back.

Keys are stable: later versions add keys and change none. All sizes are bytes. `docs/plan.md` describes every
key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import parse_device
from devmap.config.values.words import shown
from devmap.errors import LockError
from devmap.plan.lock import Lock, LockedDevice, lock_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.plan.model import DeviceUse, Pipeline, Placement, Plan

__all__ = ["lock_of_document", "plan_document"]

_VERSION = 1


def plan_document(plan: Plan) -> dict[str, object]:
    """Everything that a plan says, in plain values."""
    lock = lock_of(plan)
    return {
        "version": _VERSION,
        "kind": "devmap plan",
        "strategy": plan.strategy,
        "dtype": plan.dtype,
        "inventory": plan.inventory_fingerprint,
        "config": plan.config_fingerprint,
        "device_map": dict(plan.device_map),
        "executes_on": dict(lock.executes_on),
        "devices": [_device(use) for use in plan.devices],
        "placements": [_placement(placement) for placement in plan.placements],
        "no_split_module_classes": list(plan.no_split_module_classes),
        "ties": [list(group) for group in plan.ties],
        "tied_copies": [
            {
                "tensor": copy.tensor,
                "original": copy.original,
                "device": copy.device.plain,
                "bytes": copy.nbytes,
            }
            for copy in plan.tied_copies
        ],
        "streamed_bytes": sum(placement.home_bytes for placement in plan.streamed),
        "predicted_seconds": plan.predicted_seconds,
        "bound_seconds": plan.bound_seconds,
        "reasons": list(plan.reasons),
        **({} if plan.pipeline is None else {"pipeline": _pipeline(plan.pipeline)}),
    }


def _pipeline(pipeline: Pipeline) -> dict[str, object]:
    return {
        "schedule": pipeline.schedule,
        "microbatches": pipeline.microbatches,
        "bubble": pipeline.bubble,
        "tokens": pipeline.tokens,
        "step_seconds": pipeline.step_seconds,
        "tokens_per_second": pipeline.tokens_per_second,
        "stages": [
            {
                "stage": stage.index,
                "node": stage.node,
                "device": stage.device.plain,
                "placements": [list(span) for span in stage.spans],
                "border_bytes": stage.border_bytes,
                "seconds": stage.seconds,
                "transfer_seconds": stage.transfer_seconds,
            }
            for stage in pipeline.stages
        ],
    }


def lock_of_document(document: Mapping[str, object], name: str) -> Lock:
    """Return what a lock of the same plan would say; `name` is the file's name for messages.

    Raises:
        LockError: when the mapping is no plan document.
    """
    if document.get("kind") != "devmap plan" or document.get("version") != _VERSION:
        kind = f"kind {shown(document.get('kind'))} of version {shown(document.get('version'))}"
        raise LockError(
            f"{name}: expected what `devmap plan --format json` prints, found {kind}", help="write it again"
        )
    try:
        return Lock(
            inventory_fingerprint=str(document["inventory"]),
            config_fingerprint=str(document["config"]),
            strategy=str(document["strategy"]),
            dtype=None if document["dtype"] is None else str(document["dtype"]),
            device_map=_map(document["device_map"]),
            executes_on=_map(document["executes_on"]),
            devices=tuple(map(_locked_device, _list(document["devices"]))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LockError(
            f"{name}: not a complete plan document: {error!r}",
            help="write it again with `devmap plan --format json`",
        ) from None


def _device(use: DeviceUse) -> dict[str, object]:
    return {
        "device": use.device.plain,
        "capacity": use.capacity_bytes,
        "weights": use.weight_bytes,
        "reserved": use.reserved_bytes,
        "free": use.free_bytes,
        "charges": [
            {"what": charge.what, "bytes": charge.nbytes, "arithmetic": charge.arithmetic}
            for charge in use.charges
        ],
    }


def _placement(placement: Placement) -> dict[str, object]:
    return {
        "path": placement.path,
        "home": placement.home.plain,
        "executes_on": placement.executes_on.plain,
        "bytes": placement.nbytes,
        "resident_buffers": placement.resident_buffer_bytes,
    }


def _map(value: object) -> dict[str, int | str]:
    if not isinstance(value, dict):
        msg = f"expected a mapping, found {shown(value)}"
        raise TypeError(msg)
    return {str(key): parse_device(target).plain for key, target in value.items()}


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        msg = f"expected a list, found {shown(value)}"
        raise TypeError(msg)
    return value


def _locked_device(value: object) -> LockedDevice:
    if not isinstance(value, dict):
        msg = f"expected a mapping, found {shown(value)}"
        raise TypeError(msg)
    capacity = value["capacity"]
    return LockedDevice(
        parse_device(value["device"]),
        None if capacity is None else int(capacity),
        int(value["weights"]),
        int(value["reserved"]),
    )
