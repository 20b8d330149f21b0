"""What the schemas of a policy see: the config, its plan or its lock as plain data.

And the way back to the document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import Tier, parse_device
from devmap.plan.fingerprint import config_fingerprint
from devmap_validators.checks.capacity import machine_memory

if TYPE_CHECKING:
    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context
    from devmap.plan.model import DeviceUse, Plan

__all__ = ["document_path", "subject"]


def subject(over: str, context: Context) -> dict[str, object] | None:
    """Plain data of the `config`, the `plan` or the `lock`; None where it is not there to be judged.

    The config has its long form: `device_map` is a mapping, sizes are bytes, shares are text. The plan has
    bytes per device with `kept_free_percent` of what the device holds, and where weights lie. The lock says
    whether it is `present`, `fresh` and `edited`.
    """
    config = context.document.config
    if config is None:
        return None
    if over == "config":
        return {str(key): value for key, value in config.model_dump(mode="json").items()}
    if over == "plan":
        return None if context.plan is None else _plan(context.plan, context)
    return _lock(config, context) if context.judges_lock else None


def document_path(over: str, path: tuple[str | int, ...], context: Context) -> DocumentPath:
    """Return the part of the document that a schema's error is about.

    The nearest node that somebody wrote.
    """
    if over == "lock":
        return ()
    if over == "plan":
        in_devices = len(path) > 1 and path[0] in {"devices", "accelerators"}
        return _walked(("max_memory", path[1]) if in_devices else ("device_map",), context)
    return _walked(path, context)


def _walked(path: tuple[str | int, ...], context: Context) -> DocumentPath:
    node: object = context.document.data
    walked: list[str | int] = []
    for part in path:
        if isinstance(node, dict):
            key = (
                str(part)
                if str(part) in node
                else next((key for key in node if _same_device(key, part)), None)
            )
            if key is None:
                break
            walked.append(key)
            node = node[key]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            walked.append(part)
            node = node[part]
        else:
            break
    return tuple(walked)


def _same_device(key: object, part: object) -> bool:
    try:
        return parse_device(key) == parse_device(part)
    except ValueError:
        return False


def _plan(plan: Plan, context: Context) -> dict[str, object]:
    accelerators = [use for use in plan.devices if use.device.is_accelerator]
    on_tier = dict.fromkeys(Tier, 0)
    for use in plan.devices:
        on_tier[use.device.tier] += use.weight_bytes
    lightest = min(accelerators, key=lambda use: use.weight_bytes, default=None)
    return {
        "strategy": plan.strategy,
        "dtype": plan.dtype,
        "devices": {str(use.device): _device(use, context) for use in plan.devices},
        "accelerators": {str(use.device): _device(use, context) for use in accelerators},
        "accelerator_bytes": on_tier[Tier.ACCELERATOR],
        "cpu_bytes": on_tier[Tier.CPU],
        "disk_bytes": on_tier[Tier.DISK],
        "streamed_bytes": sum(placement.nbytes for placement in plan.streamed),
        "first_accelerator_is_lightest": lightest is None
        or accelerators[0].weight_bytes <= lightest.weight_bytes,
    }


def _device(use: DeviceUse, context: Context) -> dict[str, object]:
    kept = sum(charge.nbytes for charge in use.charges if charge.what == "headroom")
    capacity = use.capacity_bytes
    memory = machine_memory(context, use.device) or capacity
    share = 100.0 if not memory or capacity is None else round(100 * (memory - capacity + kept) / memory, 2)
    return {
        "capacity_bytes": capacity,
        "weight_bytes": use.weight_bytes,
        "reserved_bytes": use.reserved_bytes,
        "free_bytes": use.free_bytes,
        "kept_free_percent": share,
    }


def _lock(config: PlacementConfig, context: Context) -> dict[str, object]:
    lock = context.lock
    now = context.plan.config_fingerprint if context.plan is not None else ""
    fresh = lock is not None and lock.config_fingerprint == (now or config_fingerprint(config))
    return {"present": lock is not None, "fresh": fresh, "edited": lock is not None and lock.is_hand_edited}
