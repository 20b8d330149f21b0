"""This machine measured, as a profile that a config's `machine` may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.yaml.writer import render_yaml
from devmap.devices.probe import Measurement, measure

if TYPE_CHECKING:
    from devmap.config.model.placement_config import MachineProfile

__all__ = ["Measurement", "machine_text", "measure"]


def machine_text(machine: MachineProfile) -> str:
    """Return the profile as YAML: what a config's `machine` may hold or name.

    Rates are rounded to three digits, they vary more.
    """
    devices = {
        str(device): {
            "memory": int(known.memory),
            **(
                {"flops": {name: _rounded(rate) for name, rate in known.flops.items()}} if known.flops else {}
            ),
            **{
                key: _rounded(rate)
                for key in ("memory_bandwidth", "host_to_device", "disk")
                if (rate := getattr(known, key)) is not None
            },
        }
        for device, known in machine.devices.items()
    }
    return render_yaml({"name": machine.name, "devices": devices})


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
