"""Sections c and d: passes against the machine's own bound and against peers.

And what was predicted of them.
"""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import torch
import transformers
from configs import write_config
from machine import host_peak_bytes
from models import SHAPES, checkpoint, drop_from_cache, inputs_of, plain, stored_bytes

import devmap
from devmap.config.values.device import parse_device
from devmap.devices.probe import measure
from devmap.devices.registry import backend_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from machine import Machine

__all__ = ["run"]

_PASSES = 5


def run(machine: Machine, root: Path) -> Iterator[dict[str, Any]]:
    """Yield the machine's rates, then devmap's passes, then the peers', then predictions."""
    real = not machine.is_simulated
    folder = checkpoint("large", root, real=real)
    rates = _rates(machine, folder)
    yield {"what": "rates", "ok": True, **rates}
    yield from _passes(machine, folder, rates)
    yield from _accelerate(machine, folder)
    yield _group_offloading(machine, folder, rates)
    yield from _predictions(machine, root, folder)


def _rates(machine: Machine, folder: Path) -> dict[str, float]:
    """Measure the link from pinned memory and four readers of the checkpoint's own files.

    In bytes a second.
    """
    nbytes = (256 << 20) if not machine.is_simulated else (4 << 20)
    backend = backend_for(parse_device(0))
    source, target = backend.pinned_allocate(nbytes), backend.allocate(nbytes)
    stream = backend.stream()

    def copy() -> None:
        backend.copy(target, source.tensor, stream=stream)
        stream.synchronize()

    copy()
    link = nbytes / min(_seconds(copy) for _ in range(10))
    cold = drop_from_cache(folder)
    disk = _read_all(folder)
    warm = _read_all(folder)
    return {
        "host_to_device": link,
        "is_pinned": source.is_pinned,
        "disk_cold" if cold else "disk": disk,
        "disk_warm": warm,
    }


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _read_all(folder: Path, readers: int = 4) -> float:
    """Read all shards by several threads; bytes a second."""
    pieces = [
        (path, at)
        for path in sorted(folder.glob("*.safetensors"))
        for at in range(0, path.stat().st_size, 16 << 20)
    ]
    lock = threading.Lock()
    total = [0]

    def read() -> None:
        buffer = bytearray(16 << 20)
        while True:
            with lock:
                if not pieces:
                    return
                path, at = pieces.pop()
            descriptor = os.open(path, os.O_RDONLY)
            try:
                got = os.preadv(descriptor, [buffer], at)
            finally:
                os.close(descriptor)
            with lock:
                total[0] += got

    threads = [threading.Thread(target=read) for _ in range(readers)]
    started = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return total[0] / (time.perf_counter() - started)


def _pass_seconds(
    model: Any, inputs: dict[str, torch.Tensor], machine: Machine, *, passes: int = _PASSES
) -> float:
    def once() -> None:
        with torch.no_grad():
            model(**inputs)
        machine.synchronize()

    once()
    once()
    return statistics.median(_seconds(once) for _ in range(passes))


def _sizes(machine: Machine) -> dict[str, tuple[int, int]]:
    """Return batch and length of a pass that waits for copies.

    And of one that computes longer than it copies.
    """
    return {"one token": (1, 1), "many tokens": (8, 512) if not machine.is_simulated else (2, 16)}


def _passes(machine: Machine, folder: Path, rates: dict[str, float]) -> Iterator[dict[str, Any]]:
    total = stored_bytes(folder)
    compute: dict[str, float] = {}
    reference = plain("large", folder, machine.device())
    for label, (batch, length) in _sizes(machine).items():
        inputs = inputs_of("llama", reference, machine.device(), batch=batch, length=length)
        inputs.pop("attention_mask")
        compute[label] = _pass_seconds(reference, inputs, machine)
        yield {"what": f"resident, {label}", "seconds": compute[label], "ok": True}
    del reference
    gc.collect()
    machine.empty_cache()
    for home in ("cpu", "disk"):
        memory = {0: total * 2 // 3, home: 4 * total} | ({"disk": 4 * total} if home == "disk" else {})
        config = write_config(folder, f"speed-{home}", memory=memory, host_memory="4GB")
        if home == "disk":
            drop_from_cache(folder)
        started = time.perf_counter()
        model: Any = devmap.load(config, progress=False)
        loaded = time.perf_counter() - started
        for label, (batch, length) in _sizes(machine).items():
            inputs = inputs_of("llama", model, machine.device(), batch=batch, length=length)
            inputs.pop("attention_mask")
            before = model.devmap.stats()
            with torch.no_grad():
                model(**inputs)
            machine.synchronize()
            first = time.perf_counter() - started
            moved = model.devmap.stats().streamed_bytes - before.streamed_bytes
            seconds = _pass_seconds(model, inputs, machine)
            reading = rates["disk_warm"] if home == "disk" else float("inf")
            bound = max(compute[label], moved / rates["host_to_device"], moved / reading)
            row: dict[str, Any] = {
                "what": f"{home}-homed, {label}",
                "seconds": seconds,
                "bound_seconds": bound,
                "over_bound": seconds / bound,
                "moved_bytes": moved,
                "load_seconds": loaded,
                "first_pass_seconds": first,
                "host_peak_bytes": host_peak_bytes(),
                "misses": model.devmap.stats().misses,
            }
            binds = "compute" if bound == compute[label] else "copies"
            goal = 1.05 if binds == "compute" else 1 / 0.9
            row |= {
                "binds": binds,
                "goal": goal,
                "ok": machine.is_simulated or seconds / bound <= goal or home == "disk",
            }
            yield row
        if home == "disk" and drop_from_cache(folder):
            yield _cold_pass(model, machine, folder, moved / rates.get("disk_cold", rates["disk_warm"]))
        model.devmap.remove()
        del model
        gc.collect()
        machine.empty_cache()


def _cold_pass(model: Any, machine: Machine, folder: Path, bound: float) -> dict[str, Any]:
    inputs = inputs_of("llama", model, machine.device(), batch=1, length=1)
    inputs.pop("attention_mask")

    def once() -> None:
        with torch.no_grad():
            model(**inputs)
        machine.synchronize()

    found = []
    for _ in range(3):
        drop_from_cache(folder)
        found.append(_seconds(once))
    seconds = statistics.median(found)
    return {"what": "disk-homed, cold, one token", "seconds": seconds, "bound_seconds": bound, "ok": True}


def _accelerate(machine: Machine, folder: Path) -> Iterator[dict[str, Any]]:
    """Let Accelerate offload the same blocks."""
    if machine.is_simulated:
        yield {"what": "Accelerate", "ok": True, "note": "its hooks need a real device"}
        return
    total = stored_bytes(folder)
    plan = devmap.resolve(
        devmap.read_config(write_config(folder, "peer", memory={0: total * 2 // 3, "cpu": 4 * total})),
        devmap.Inventory.from_checkpoint(folder),
    )
    for home in ("cpu", "disk"):
        placed = {path: (home if device == "cpu" else device) for path, device in plan.device_map.items()}
        started = time.perf_counter()
        model: Any = getattr(transformers, SHAPES["large"].model_class).from_pretrained(
            folder,
            device_map=placed,
            offload_folder=str(folder.parent / "accelerate-offload"),
            dtype=torch.bfloat16,
        )
        loaded = time.perf_counter() - started
        for label, (batch, length) in _sizes(machine).items():
            inputs = inputs_of("llama", model, machine.device(), batch=batch, length=length)
            inputs.pop("attention_mask")
            yield {
                "what": f"Accelerate, {home} offload, {label}",
                "seconds": _pass_seconds(model, inputs, machine, passes=3),
                "load_seconds": loaded,
                "ok": True,
            }
        del model
        gc.collect()
        machine.empty_cache()


def _group_offloading(machine: Machine, folder: Path, rates: dict[str, float]) -> dict[str, Any]:
    """Let diffusers stream every block with its own stream, where it is installed."""
    try:
        # An optional peer.
        from diffusers.hooks import apply_group_offloading  # noqa: PLC0415
    except ImportError:
        return {"what": "diffusers group offloading", "ok": True, "note": "diffusers is not installed"}
    if machine.is_simulated:
        return {"what": "diffusers group offloading", "ok": True, "note": "its hooks need a real device"}
    model = plain("large", folder, torch.device("cpu"))
    apply_group_offloading(
        model.model.layers,
        onload_device=machine.device(),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=True,
    )
    for name, part in model.model.named_children():
        if name != "layers":
            part.to(machine.device())
    model.lm_head.to(machine.device())
    inputs = inputs_of("llama", model, machine.device(), batch=1, length=1)
    inputs.pop("attention_mask")
    seconds = _pass_seconds(model, inputs, machine, passes=3)
    moved = sum(parameter.nbytes for parameter in model.model.layers.parameters())
    return {
        "what": "diffusers group offloading, one token",
        "seconds": seconds,
        "moved_bytes": moved,
        "bound_seconds": moved / rates["host_to_device"],
        "ok": True,
    }


def _predictions(machine: Machine, root: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Section d: the rates that `doctor` measures, and the pass that `fastest` predicts by them."""
    found = measure(root, seconds=1.0 if not machine.is_simulated else 0.1).profile
    total = stored_bytes(folder)
    profile: dict[str, Any] = {"name": "this machine"}
    for device, entry in found.devices.items():
        figures = {
            key: value for key, value in entry.model_dump(mode="json", exclude_none=True).items() if value
        }
        profile.setdefault("devices", {})[str(device)] = figures
    yield {"what": "doctor", "ok": True, "profile": profile}
    for home in ("cpu",):
        config = write_config(
            folder,
            "predicted",
            memory={0: total * 2 // 3, home: 4 * total},
            machine={"devices": profile["devices"]},
            workload={"batch_size": 1, "sequence_length": 1},
        )
        model: Any = devmap.load(config, progress=False)
        inputs = inputs_of("llama", model, machine.device(), batch=1, length=1)
        inputs.pop("attention_mask")
        seconds = _pass_seconds(model, inputs, machine)
        predicted = model.devmap.plan.predicted_seconds
        ratio = None if not predicted else seconds / predicted
        yield {
            "what": f"predicted pass, {home}-homed",
            "seconds": seconds,
            "predicted_seconds": predicted,
            "ratio": ratio,
            "ok": machine.is_simulated or (ratio is not None and 0.85 <= ratio <= 1.15),
        }
        model.devmap.remove()
