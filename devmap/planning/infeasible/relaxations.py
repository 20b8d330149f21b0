"""Configs that ask for less: a smaller workload, or one constraint fewer.

Each with a sentence and what `--set` takes for it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from devmap.config.values.device import Device, device_name
from devmap.config.values.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.model.placement_config import PlacementConfig, Workload

__all__ = ["Relaxed", "smaller_workloads", "without_one_constraint"]

Relaxed = tuple[str, str, "PlacementConfig"]
"""A sentence, the override, the config with it."""

_DEFAULT_LENGTH = 2048
_SHORTEST = 64


def smaller_workloads(config: PlacementConfig) -> Iterator[Relaxed]:
    """Yield the same workload with half, a quarter, ...

    Of its batch, then of its sequence length; the largest first.
    """
    workload = config.workload
    if workload is None:
        return
    size = workload.batch_size
    while (size := size // 2) >= 1:
        yield _with_workload(config, workload, "batch_size", workload.batch_size, size)
    length = whole = workload.sequence_length or _DEFAULT_LENGTH
    while (length := length // 2) >= _SHORTEST:
        yield _with_workload(config, workload, "sequence_length", whole, length)


def _with_workload(config: PlacementConfig, workload: Workload, key: str, before: int, after: int) -> Relaxed:
    changed = workload.model_copy(update={key: after})
    override = f"workload.{key}={after}"
    if not workload.model_fields_set - {"kind"}:  # written as one word, which holds no keys
        override = f"workload={json.dumps({'kind': workload.kind.value, key: after})}"
    sentence = f"lower workload.{key} from {before:,} to {after:,}"
    return sentence, override, config.model_copy(update={"workload": changed})


def without_one_constraint(config: PlacementConfig) -> Iterator[Relaxed]:
    """Yield the config without one of its wishes, one after the other.

    A wish is a group of `same_device`, an entry of `forbid`, or a pin of the map.
    """
    for place, group in enumerate(config.same_device):
        rest = [other for at, other in enumerate(config.same_device) if at != place]
        changed = config.model_copy(update={"same_device": rest})
        yield f"drop same_device [{', '.join(group)}]", f"same_device={json.dumps(rest)}", changed
    for device, keys in config.forbid.items():
        for key in keys:
            kept = {
                other: [one for one in named if other != device or one != key]
                for other, named in config.forbid.items()
            }
            rest_of = {other: named for other, named in kept.items() if named}
            override = f"forbid={json.dumps({str(other): named for other, named in rest_of.items()})}"
            yield (
                f"drop '{key}' from forbid.{device}",
                override,
                config.model_copy(update={"forbid": rest_of}),
            )
    strategy = next(
        (target for target in config.device_map.values() if not isinstance(target, Device)), Strategy.AUTO
    )
    for key, target in config.device_map.items():
        if isinstance(target, Device):
            override = (
                f"device_map={strategy}"
                if set(config.device_map) == {""}
                else f"device_map[{key}]={strategy}"
            )
            what = f"'{key}'" if key else "the rest"
            sentence = f"place {what} by {strategy} instead of pinning it to {device_name(target)}"
            yield (
                sentence,
                override,
                config.model_copy(update={"device_map": {**config.device_map, key: strategy}}),
            )
