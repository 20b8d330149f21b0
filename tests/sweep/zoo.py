"""Tiny checkpoints of every class, each with inputs that it accepts and what the plain model makes of them.

A checkpoint is built once into a folder of the zoo (`DEVMAP_ZOO`, else the caller's) and found there again.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers

from tests.sweep.inputs import candidates, with_enough_marks
from tests.sweep.tiny_configs import PLANS, Specimen, tiny_config

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Built", "Zoo", "flat_outputs", "forward", "generations", "plain_model"]

_LIMIT_PARAMETERS = 40_000_000
_SEED = 7

_FORMAT = 1
"""Raised by whoever changes how checkpoints are made."""


@dataclass(frozen=True)
class Built:
    """What is known of a specimen's checkpoint."""

    folder: Path
    reason: str
    """Why there is none; empty where there is one."""
    plan: str = ""
    parameters: int = 0
    inputs: str = ""
    """The kind of inputs that the model accepts; empty where none was found."""
    no_forward: str = ""
    """Why not."""
    repeats: bool = True
    """Whether a second forward gives the same numbers."""
    generates: tuple[str, ...] = ()
    """The ways in which the plain model generates."""


class Zoo:
    """A folder of tiny checkpoints, one sub-folder a class."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def built(self, specimen: Specimen) -> Built:
        """The specimen's checkpoint, built now unless it is here."""
        folder = self.root / f"{transformers.__version__}-{_FORMAT}" / f"{specimen.group}-{specimen.name}"
        note = folder / "built.json"
        if not note.exists():
            made = _build(specimen, folder.with_name(f"{folder.name}.{os.getpid()}"))
            shutil.rmtree(folder, ignore_errors=True)
            made.folder.rename(folder)
        return Built(**{**json.loads(note.read_text(encoding="utf-8")), "folder": folder})


def _build(specimen: Specimen, folder: Path) -> Built:
    folder.mkdir(parents=True)
    reasons = []
    made = None
    for plan in PLANS:
        try:
            made = _save(specimen, plan, folder)
            break
        except Exception as error:  # noqa: BLE001 - whatever a class of Transformers raises is the reason
            reasons.append(
                f"{plan}: {type(error).__name__}: {(str(error) or '?').strip().splitlines()[0][:160]}"
            )
            shutil.rmtree(folder)
            folder.mkdir()
    built = Built(folder, "; ".join(reasons[:1])) if made is None else made
    values = {**asdict(built), "folder": ""}
    (folder / "built.json").write_text(json.dumps(values), encoding="utf-8")
    return built


def _save(specimen: Specimen, plan: str, folder: Path) -> Built:
    model_class = getattr(transformers, specimen.name)
    config = tiny_config(model_class, specimen.model_type, plan)
    with torch.device("meta"):
        parameters = sum(each.numel() for each in _made(model_class, config).parameters())
    if parameters > _LIMIT_PARAMETERS:
        raise ValueError(f"{parameters:,} parameters")
    torch.manual_seed(_SEED)
    model = _made(model_class, tiny_config(model_class, specimen.model_type, plan))
    _randomise(model)
    model.save_pretrained(folder)
    del model
    model = plain_model(folder)
    kind, no_forward, repeats = _find_inputs(model, folder)
    ways: list[str] = []
    if kind and callable(getattr(model, "can_generate", None)) and model.can_generate():
        inputs = torch.load(folder / "inputs.pt")
        tokens = {}
        for way, options in generations(inputs).items():
            try:
                torch.manual_seed(_SEED)
                tokens[way] = model.generate(**options)
                ways.append(way)
            except Exception as error:  # noqa: BLE001 - as above
                tokens.pop(way, None)
                (folder / f"no-{way}.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        tokens = {way: value for way, value in tokens.items() if isinstance(value, torch.Tensor)}
        ways = [way for way in ways if way in tokens]
        torch.save(tokens, folder / "tokens.pt")
    return Built(folder, "", plan, parameters, kind, no_forward, repeats, tuple(ways))


def _made(model_class: Any, config: Any) -> Any:
    build = getattr(model_class, "_from_config", None)
    return (build(config, dtype=torch.float32) if build is not None else model_class(config)).eval()


def _randomise(model: torch.nn.Module) -> None:
    """No two parameters are equal, so that one in another's place shows; none keeps what its code gave it."""
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point():
                continue
            noise = torch.randn(parameter.shape, generator=generator) * 0.02
            tame = torch.nan_to_num(parameter, nan=0.0, posinf=1.0, neginf=-1.0)
            parameter.copy_(torch.where(tame.abs() < 100, tame, 0.0) + noise.to(parameter.dtype))
        for module in model.modules():  # a trained model has zeros there, and some classes insist on them
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0


def plain_model(folder: Path) -> Any:
    """What `from_pretrained` makes of a checkpoint, on the CPU."""
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, content["architectures"][0]).from_pretrained(folder).eval()


def forward(model: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors of a forward's output, with the same random numbers each time."""
    torch.manual_seed(_SEED)
    with torch.no_grad():
        return flat_outputs(model(**inputs))


def flat_outputs(value: Any) -> list[torch.Tensor]:
    """The tensors in an output, in its order; without caches."""
    if isinstance(value, torch.Tensor):
        return [value]
    if hasattr(value, "items"):
        return [
            each
            for key, item in value.items()
            if "past_key_values" not in key and "cache" not in key
            for each in flat_outputs(item)
        ]
    if isinstance(value, list | tuple):
        return [each for item in value for each in flat_outputs(item)]
    return []


def _find_inputs(model: Any, folder: Path) -> tuple[str, str, bool]:
    reason = "no inputs are known for this class"
    for kind, inputs in candidates(model):
        for attempt in range(3):
            try:
                outputs = forward(model, inputs)
            except Exception as error:  # noqa: BLE001 - the next kind of inputs is tried
                reason = (
                    f"{kind}: {type(error).__name__}: {(str(error) or '?').strip().splitlines()[0][:160]}"
                )
                mended = with_enough_marks(model, inputs, str(error)) if attempt < 2 else None
                if mended is None:
                    break
                inputs = mended  # noqa: PLW2901 - the same kind
                continue
            if not outputs:
                reason = f"{kind}: the output holds no tensor"
                break
            again = forward(model, inputs)
            repeats = all(map(torch.equal, outputs, again)) or all(
                torch.equal(one.nan_to_num(), two.nan_to_num())
                for one, two in zip(outputs, again, strict=True)
            )
            torch.save(inputs, folder / "inputs.pt")
            torch.save(outputs, folder / "outputs.pt")
            return kind, "", repeats
    return "", reason, True


def generations(inputs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of `generate` for each way that is tried: greedy with its cache, a padded batch, beams."""
    common = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    given = {
        key: value for key, value in inputs.items() if not key.startswith("decoder_") and key != "labels"
    }
    found = {"greedy": {**given, **common}, "beams": {**given, **common, "num_beams": 2}}
    ids = inputs.get("input_ids")
    if ids is not None and set(given) <= {"input_ids", "attention_mask"}:
        mask = torch.ones_like(ids)
        mask[0, :3] = 0
        padded = ids.clone()
        padded[0, :3] = 0
        found["greedy"] |= {"attention_mask": torch.ones_like(ids)}
        found["padded"] = {"input_ids": padded, "attention_mask": mask, **common}
    return found
