"""Section b: bytes that were planned or simulated, against bytes that the device's allocator counted."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import torch
from configs import write_config
from models import checkpoint, inputs_of

import devmap
from devmap.api.simulation import simulate_config
from devmap.config.values.device import parse_device

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machine import Machine

__all__ = ["run"]

_SHAPES = ((1, 1), (1, 512), (4, 128), (8, 512))
_SMALL_SHAPES = ((1, 1), (1, 16), (2, 8), (4, 16))
_LARGEST_GAP = 0.02
_LEAST_GAP_BYTES = 100_000_000


def run(machine: Machine, root: Path) -> Iterator[dict[str, Any]]:
    """Yield rows: what each device holds after loading, its peak in passes of four shapes.

    And a device that is too small.
    """
    folder = checkpoint("llama", root, real=not machine.is_simulated)
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    for label, memory in (
        ("resident", {0: 2 * total}),
        ("a third streamed", {0: total * 3 // 4, "cpu": 2 * total}),
    ):
        config = write_config(folder, f"truth-{label.replace(' ', '-')}", memory=memory)
        yield from _measured(config, label, machine)
        gc.collect()
        machine.empty_cache()
    yield _out_of_memory(folder, total, machine)


def _measured(config: Path, label: str, machine: Machine) -> Iterator[dict[str, Any]]:
    if machine.is_simulated:
        yield {
            "what": f"{label}: allocator",
            "ok": True,
            "note": "only real devices have an allocator to ask",
        }
        return
    before = machine.module.memory_allocated(machine.device())
    model: Any = devmap.load(config, progress=False)
    ids = inputs_of("llama", model, machine.device(), batch=1, length=8)
    with torch.no_grad():
        model(**ids)
    machine.synchronize()
    held = machine.module.memory_allocated(machine.device()) - before
    use = model.devmap.plan.use_of(parse_device(0))
    planned = use.weight_bytes + sum(charge.nbytes for charge in use.charges if charge.what == "slots")
    yield {
        "what": f"{label}: held",
        "planned_bytes": planned,
        "allocated_bytes": held,
        "ok": _near(planned, held),
    }
    for batch, length in _SHAPES:
        inputs = inputs_of("llama", model, machine.device(), batch=batch, length=length)
        inputs.pop("attention_mask")
        machine.module.reset_peak_memory_stats(machine.device())
        with torch.no_grad():
            model(**inputs)
        machine.synchronize()
        peak = machine.module.max_memory_allocated(machine.device()) - before
        simulated = simulate_config(config, batch_size=batch, sequence_length=length)
        expected = simulated.devices[parse_device(0)].peak_bytes
        yield {
            "what": f"{label}: peak of {batch} x {length}",
            "simulated_bytes": expected,
            "allocated_bytes": peak,
            "ok": _near(expected, peak),
        }
    model.devmap.remove()


def _near(expected: int, found: int) -> bool:
    return abs(expected - found) <= max(_LARGEST_GAP * found, _LEAST_GAP_BYTES)


def _out_of_memory(folder: Path, total: int, machine: Machine) -> dict[str, Any]:
    """Load by a plan that promises more than the device really gives."""
    config = write_config(folder, "too-small", memory={0: 4 * total})
    row: dict[str, Any] = {"what": "a device that is smaller than its budget"}
    if machine.is_simulated:
        hog = torch.empty(int(400_000_000 - total * 0.7), dtype=torch.uint8, device=machine.device())
        hog = torch.nn.Parameter(
            hog, requires_grad=False
        )  # held bytes count against the budget, others do not
        limit = None
    else:
        hog, limit = None, total * 0.7 / machine.module.get_device_properties(0).total_memory
        machine.module.set_per_process_memory_fraction(limit, 0)
    try:
        devmap.load(config, progress=False)
    except devmap.OutOfMemoryError as error:
        return row | {"ok": error.requested_bytes > 0, "message": str(error)[:300]}
    except RuntimeError as error:
        return row | {"ok": False, "message": f"not ours: {type(error).__name__}: {str(error)[:200]}"}
    finally:
        del hog
        if limit is not None:
            machine.module.set_per_process_memory_fraction(1.0, 0)
    return row | {"ok": False, "message": "it loaded"}
