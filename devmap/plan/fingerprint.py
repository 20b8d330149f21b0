"""A short name for what a config asks of the planner."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from devmap.config.values.fields import as_plain

if TYPE_CHECKING:
    from devmap.config.model.placement_config import PlacementConfig

__all__ = ["config_fingerprint"]

_NOT_FOR_PLANNING = {"version", "extends", "abstract", "profiles", "policies"}


def config_fingerprint(config: PlacementConfig) -> str:
    """`sha256:` and the digest of everything in a config that can change its plan.

    Where the model's files lie, which policies hold and where a value was written (in a parent, in a profile)
    do not count; neither does the order of mappings, but for `device_map`, where it decides between keys that
    are equally exact.
    """
    plain = {name: as_plain(value) for name, value in config if name not in _NOT_FOR_PLANNING}
    plain["model"] = _of_source(plain["model"])
    components, residency = plain.pop("components"), plain.pop("residency")
    if components:
        plain["residency"] = residency
        plain["components"] = [
            [name, source["dtype"]] if source["quantization"] is None else [name, _of_source(source)]
            for name, source in components.items()
        ]
    if plain["parallel"] is None:
        del plain["parallel"]
    machine = plain["machine"]
    if machine is not None and not machine["nodes"]:
        del machine["nodes"], machine["network"]
    plain["device_map"] = list(plain["device_map"].items())
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), default=str)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _of_source(source: dict[str, object]) -> dict[str, object]:
    """Return what of a model's source can change the plan: its dtype, and how it is quantised on the way."""
    counts = {"dtype": source["dtype"], "quantization": source["quantization"]}
    return {key: value for key, value in counts.items() if key == "dtype" or value is not None}
