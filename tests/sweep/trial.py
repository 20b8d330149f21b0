"""One specimen tried: headers against module, load, state dict, outputs, generation."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import devmap
from devmap.errors import DevmapError, ResolutionError
from devmap.inventory.live.module import read_module
from devmap.runtime.meta_build import build_on_meta
from devmap.testing import simulated_devices
from tests.sweep.zoo import forward, generations, plain_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sweep.zoo import Built

__all__ = ["CHECKS", "MODES", "attempt", "load_small"]

CHECKS = ("inventory", "loads", "state", "outputs", "generates")

MODES: dict[str, tuple[float, float, float]] = {
    "spread": (0.45, 0.3, 0.15),
    "two": (0.7, 0.7, 0.0),
    "disk": (0.3, 0.0, 0.0),
}
"""The parts of a model's bytes that two accelerators and the CPU may hold; the rest is on disk."""


def attempt(built: Built, mode: str = "spread", *, checks: tuple[str, ...] = CHECKS) -> dict[str, str]:
    """Each check's result: `ok`, `-` where it does not apply, or what was wrong."""
    found = dict.fromkeys(checks, "-")
    if built.reason:
        return found
    if "inventory" in checks:
        found["inventory"] = _said(lambda: _inventory(built))
    if set(checks) == {"inventory"}:
        return found
    with (
        tempfile.TemporaryDirectory() as scratch,
        simulated_devices({0: "4GB", 1: "4GB"}, activations=False),
    ):
        kept: list[Any] = []
        found["loads"] = _said(lambda: kept.append(load_small(built.folder, mode, Path(scratch))))
        if not kept:
            return found
        if "state" in checks:
            found["state"] = _said(lambda: _state(kept[0], built.folder))
        if "outputs" in checks and built.inputs and built.repeats:
            found["outputs"] = _said(lambda: _outputs(kept[0], built.folder))
        if "generates" in checks and built.generates:
            found["generates"] = _said(lambda: _generates(kept[0], built))
    return found


def _said(check: Callable[[], object]) -> str:
    try:
        return str(check() or "ok")
    except DevmapError as error:
        problems = [str(getattr(each, "message", each)) for each in getattr(error, "problems", ())][:2]
        return " | ".join([f"{type(error).__name__}: {error.message}", *problems])
    except Exception as error:  # noqa: BLE001 - whatever is raised is what was wrong
        return f"{type(error).__name__}: {(str(error) or '?').strip().splitlines()[0][:200]}"


def load_small(folder: Path, mode: str, scratch: Path) -> Any:
    """Load a checkpoint over two simulated devices, CPU and disk, each with room for a part of it.

    `scratch` holds what has no file in the checkpoint, for as long as the model lives.
    """
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    parts = MODES[mode]
    path = scratch / "small.devmap.yaml"
    for more in (1.0, 1.5, 2.1, 6.0):  # where a block is large beside the model, not all can be tight
        most = 1.2 if more > 2.1 else 0.9
        sizes = [int(min(part * more, most) * total) + 4096 for part in parts]
        memory = {0: sizes[0], 1: sizes[1], "cpu": sizes[2], "disk": "100GB"}
        if not parts[1]:
            del memory[1]
        if not parts[2]:
            del memory["cpu"]
        if mode == "two":
            del memory["disk"]
        config = {
            "version": 1,
            "model": {"checkpoint": str(folder)},
            "device_map": "auto",
            "max_memory": memory,
            "offload": {"folder": str(scratch / "offload")},
        }
        path.write_text(json.dumps(config), encoding="utf-8")
        try:
            return devmap.load(path, progress=False)
        except ResolutionError as error:
            refusal = error
    raise refusal


def _inventory(built: Built) -> str:
    headers = devmap.Inventory.from_checkpoint(built.folder)
    module = read_module(build_on_meta(built.folder))
    for what in ("modules", "tensors", "ties", "no_split_module_classes"):
        said, true = getattr(headers, what), getattr(module, what)
        if said == true:
            continue
        if isinstance(true, tuple):
            return f"{what}: {str(said)[:80]} for {str(true)[:80]}"
        less, more = [key for key in true if key not in said], [key for key in said if key not in true]
        other = [key for key in true if key in said and said[key] != true[key]]
        if less or more or other:
            first = other[0] if other else ""
            change = f", '{first}': {said[first]} for {true[first]}" if other else ""
            return (
                f"{what}: {len(less)} lacking {less[:1]}, {len(more)} too many "
                f"{more[:1]}, {len(other)} differ{change}"
            )
        return f"{what}: another order"
    return ""


def _state(model: Any, folder: Path) -> str:
    plain = plain_model(folder).state_dict()
    loaded = model.state_dict()
    if plain.keys() != loaded.keys():
        lacking, extra = sorted(plain.keys() - loaded.keys()), sorted(loaded.keys() - plain.keys())
        return f"{len(lacking)} lacking {lacking[:1]}, {len(extra)} too many {extra[:1]}"
    wrong = [name for name, value in plain.items() if not _same_bits(value, loaded[name].cpu())]
    return f"{len(wrong)} of {len(plain)} differ, such as '{wrong[0]}'" if wrong else ""


def _where_it_runs(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """On the one device of a model that is nowhere else: like any module of torch's it moves no inputs."""
    if model.devmap.hooks is not None:
        return inputs
    device = next(model.parameters()).device
    return {
        key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in inputs.items()
    }


def _same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    return torch.equal(
        one.detach().contiguous().view(-1).view(torch.uint8),
        two.detach().contiguous().view(-1).view(torch.uint8),
    )


def _outputs(model: Any, folder: Path) -> str:
    inputs, wanted = torch.load(folder / "inputs.pt"), torch.load(folder / "outputs.pt")
    inputs = _where_it_runs(model, inputs)
    for number in range(2):
        found = [each.cpu() for each in forward(model, inputs)]
        if len(found) != len(wanted):
            return f"{len(found)} tensors for {len(wanted)}"
        for index, (value, true) in enumerate(zip(found, wanted, strict=True)):
            if value.shape != true.shape:
                return f"pass {number}: output {index} is {list(value.shape)}, not {list(true.shape)}"
            if not torch.allclose(value.double(), true.double(), rtol=1e-3, atol=1e-4, equal_nan=True):
                away = (value.double() - true.double()).abs().max().item()
                return (
                    f"pass {number}: output {index} is off by {away:.1e} of "
                    f"{true.double().abs().max().item():.1e}"
                )
    return ""


def _generates(model: Any, built: Built) -> str:
    inputs, wanted = torch.load(built.folder / "inputs.pt"), torch.load(built.folder / "tokens.pt")
    for way, options in generations(inputs).items():
        if way not in built.generates:
            continue
        torch.manual_seed(7)
        try:
            found = model.generate(**_where_it_runs(model, options))
        except Exception as error:
            raise RuntimeError(f"{way}: {type(error).__name__}: {error}") from error
        if not torch.equal(found.cpu(), wanted[way]):
            return f"{way}: other tokens"
    return ""


def as_row(built: Built, found: dict[str, str]) -> dict[str, Any]:
    """A specimen's result as one JSON object."""
    values = dataclasses.asdict(built)
    # Under one name stand the ways in which a model generates, and whether it gave the right tokens.
    del values["folder"], values["generates"]
    return {**values, **found}
