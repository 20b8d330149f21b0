"""One architecture tried end to end: described from headers, loaded over every tier, run, generated with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import traceback
from typing import TYPE_CHECKING, Any

import torch
import transformers

import devmap
from devmap.inventory.checkpoint import read_headers
from devmap.inventory.module import read_module
from devmap.inventory.through_transformers import read_through_transformers
from tests.sweep.zoo import VOCABULARY, Entry, tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devmap.inventory.model import Inventory

__all__ = ["Outcome", "checkpoint_of", "same_inventory", "try_one"]


@dataclasses.dataclass
class Outcome:
    """What was seen of one architecture; None where a stage was not reached, a text where it failed."""

    group: str
    class_name: str
    built: bool | str = False
    inventory: bool | str | None = None
    loads: bool | str | None = None
    state: bool | str | None = None
    outputs: bool | str | None = None
    generates: bool | str | None = None

    @property
    def is_good(self) -> bool:
        """Whether all that was reached is right."""
        return all(
            value in {True, None} for value in vars(self).values() if not isinstance(value, str)
        ) and not any(
            isinstance(getattr(self, name), str)
            for name in ("built", "inventory", "loads", "state", "outputs", "generates")
        )


def checkpoint_of(entry: Entry, root: Path) -> Path:
    """The folder of the class's tiny checkpoint, written the first time."""
    folder = root / entry.class_name
    if not (folder / "written").exists():
        model: Any = tiny_model(entry)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():  # many initialise to zeros and ones, which hide mistakes
                if parameter.is_floating_point():
                    parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * 0.02)
        model.save_pretrained(folder)
        (folder / "written").touch()
    return folder


def try_one(entry: Entry, root: Path, *, generate: bool = True) -> Outcome:
    """All stages for one class."""
    found = Outcome(entry.group, entry.class_name)
    try:
        folder = checkpoint_of(entry, root)
        plain = _plain(entry, folder)
    except Exception as error:  # noqa: BLE001 - a class that cannot be built is a row of the report
        found.built = _short(error)
        return found
    found.built = True
    described: list[Inventory] = []
    with _recorded(found, "inventory"):
        truth = read_through_transformers(read_headers(folder))
        described.append(truth)
        found.inventory = same_inventory(devmap.Inventory.from_checkpoint(folder), truth) or True
    with _recorded(found, "loads"):
        config = _config(folder, described[0] if described else read_module(plain))
        with devmap.testing.simulated_devices({0: "4GB", 1: "4GB"}, activations=False):
            model: Any = devmap.load(config, progress=False)
            found.loads = True
            with _recorded(found, "outputs"):
                inputs = _inputs(plain)
                if inputs is not None:
                    found.outputs = _compare(plain, model, inputs)
            with _recorded(found, "generates"):
                if generate and getattr(plain, "can_generate", bool)() and inputs is not None:
                    found.generates = _generations(plain, model, inputs)
            with _recorded(found, "state"):
                found.state = _same_state(plain, model.devmap.remove())
    return found


@contextlib.contextmanager
def _recorded(found: Outcome, stage: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - every failure is a row of the report
        setattr(found, stage, _short(error))


def _short(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    problems = "; ".join(getattr(each, "message", "") for each in getattr(error, "problems", ())[:3])
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} {problems[:300]} [{where.filename.rsplit('/', 1)[-1]}:{where.lineno}]"


def _plain(entry: Entry, folder: Path) -> Any:
    return getattr(transformers, entry.class_name).from_pretrained(folder).eval()


def same_inventory(mine: Inventory, truth: Inventory) -> str:
    """What differs; empty where nothing does."""
    if mine == truth:
        return ""
    parts = []
    for what in ("modules", "tensors"):
        a, b = getattr(mine, what), getattr(truth, what)
        if a != b:
            lacks = [key for key in b if key not in a]
            extra = [key for key in a if key not in b]
            other = [key for key in b if key in a and a[key] != b[key]]
            first = [(key, a[key], b[key]) for key in other[:1]]
            parts.append(
                f"{what}: lacks {len(lacks)} {lacks[:2]}, extra {len(extra)} {extra[:2]}, other {len(other)} {first}"
            )
            if not (lacks or extra or other):
                parts.append("order")
    for what in ("ties", "no_split_module_classes", "architecture"):
        a, b = getattr(mine, what), getattr(truth, what)
        if a != b:
            parts.append(f"{what}: {str(a)[:100]} for {str(b)[:100]}")
    return "differs: " + "; ".join(parts)[:600]


def _config(folder: Path, inventory: Inventory) -> Path:
    """A config that uses two accelerators, the cpu and the disk, written beside the checkpoint."""
    total = inventory.nbytes
    text = (
        f"version: 1\nmodel: {{checkpoint: {folder.name}}}\ndevice_map: auto\n"
        f"max_memory: {{0: {int(total * 0.45) + 4096}, 1: {int(total * 0.45) + 4096}, cpu: {total // 5 + 4096}, disk: 10GB}}\n"
    )
    path = folder.parent / f"{folder.name}.devmap.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        devmap.resolve(devmap.read_config(path), inventory)
    except devmap.ResolutionError:  # a block that is most of the model
        text = (
            text.replace("max_memory:", "# max_memory:")
            + f"max_memory: {{0: {total * 2}, 1: {total * 2}, cpu: {total * 2}, disk: 10GB}}\n"
        )
        path.write_text(text, encoding="utf-8")
    return path


def _inputs(model: Any) -> dict[str, Any] | None:
    """Inputs that the plain model takes; None where no guess is taken."""
    for guess in _guesses(model):
        try:
            with torch.no_grad():
                torch.manual_seed(0)
                model(**guess)
        except Exception:  # noqa: BLE001 - the next guess may be right
            continue
        return guess
    return None


def _guesses(model: Any) -> Iterator[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    vocabulary = min(
        [
            VOCABULARY,
            *[
                int(each.vocab_size)
                for each in _configs(model.config)
                if isinstance(getattr(each, "vocab_size", None), int) and each.vocab_size > 0
            ],
        ]
    )
    special = {
        value
        for each in _configs(model.config)
        for key, value in vars(each).items()
        if isinstance(value, int) and "token" in key
    }
    usable = [number for number in range(3, max(vocabulary, 4)) if number not in special] or [1]
    ids = torch.tensor(
        [usable[int(n)] for n in torch.randint(0, len(usable), (18,), generator=generator)]
    ).view(2, 9)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    text: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "is_encoder_decoder", False):
        yield {**text, "decoder_input_ids": ids[:, :4]}
    yield text
    yield {"input_ids": ids}
    size = next(
        (
            value
            for each in _configs(model.config)
            if isinstance(value := getattr(each, "image_size", None), int)
        ),
        64,
    )
    channels = next(
        (
            value
            for each in _configs(model.config)
            if isinstance(value := getattr(each, "num_channels", None), int)
        ),
        3,
    )
    for edge in (size, 64, 224):
        pixels = torch.randn(1, channels, edge, edge, generator=generator)
        yield {"pixel_values": pixels}
        yield {"pixel_values": pixels, "input_ids": ids[:1], "attention_mask": mask[:1]}
    mels = next(
        (
            value
            for each in _configs(model.config)
            if isinstance(value := getattr(each, "num_mel_bins", None), int)
        ),
        80,
    )
    frames = next(
        (
            value
            for each in _configs(model.config)
            if isinstance(value := getattr(each, "max_source_positions", None), int)
        ),
        64,
    )
    for length in (frames * 2, 64):
        features = torch.randn(1, mels, length, generator=generator)
        yield {"input_features": features, "decoder_input_ids": ids[:1, :4]}
        yield {"input_features": features}
        yield {"input_features": features.transpose(1, 2)}
        yield {"input_features": features.transpose(1, 2), "decoder_input_ids": ids[:1, :4]}
    sound = torch.randn(1, 4000, generator=generator)
    yield {"input_values": sound}
    yield {"input_values": sound, "decoder_input_ids": ids[:1, :4]}
    yield {"input_values": sound[:, None]}


def _configs(config: Any) -> Iterator[Any]:
    yield config
    for value in vars(config).values():
        if isinstance(value, transformers.PreTrainedConfig):
            yield from _configs(value)


def _tensors(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        return [each for value in output.values() for each in _tensors(value)]
    if isinstance(output, (list, tuple)):
        return [each for value in output for each in _tensors(value)]
    return []


def _compare(plain: Any, model: Any, inputs: dict[str, Any]) -> bool | str:
    want, again = _run(plain, inputs), _run(plain, inputs)
    if not all(torch.equal(a, b) or bool(torch.isnan(a).any()) for a, b in zip(want, again, strict=True)):
        return "skipped: the plain model differs from itself"
    got = _run(model, inputs)
    if len(want) != len(got):
        return f"{len(got)} tensors for {len(want)}"
    for number, (a, b) in enumerate(zip(want, got, strict=True)):
        if a.shape != b.shape or not torch.allclose(
            a.float(), b.float(), atol=1e-5, rtol=1e-4, equal_nan=True
        ):
            return f"output {number} of {len(want)} differs by {float((a.float() - b.float()).abs().max()) if a.shape == b.shape else a.shape}"
    return True


def _run(model: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return [each.detach().cpu() for each in _tensors(model(**inputs))]


def _generations(plain: Any, model: Any, inputs: dict[str, Any]) -> bool | str:
    """Greedy with a cache and padding, and two beams, against the plain model's tokens."""
    asked = {key: value for key, value in inputs.items() if key != "decoder_input_ids"}
    for kind, options in (("greedy", {"num_beams": 1}), ("beams", {"num_beams": 2})):
        settings: dict[str, Any] = {
            "max_new_tokens": 5,
            "do_sample": False,
            "return_dict_in_generate": False,
            **options,
        }
        try:
            torch.manual_seed(0)
            want = plain.generate(**asked, **settings)
        except Exception as error:  # noqa: BLE001 - what the plain model cannot do is not asked of ours
            if kind == "greedy":
                return f"skipped: the plain model does not generate: {_short(error)}"
            continue
        torch.manual_seed(0)
        got = model.generate(**asked, **settings)
        if not all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(_tensors(want), _tensors(got), strict=True)):
            return f"{kind}: other tokens"
    return True


def _same_state(plain: Any, loaded: Any) -> bool | str:
    want, got = plain.state_dict(), loaded.state_dict()
    if list(want) != list(got):
        return f"names differ: {sorted(set(want) ^ set(got))[:4]}"
    wrong = [
        name
        for name, tensor in want.items()
        if tensor.dtype != got[name].dtype or not _equal(tensor, got[name].cpu())
    ]
    buffers = dict(plain.named_buffers())
    wrong += [
        name
        for name, tensor in loaded.named_buffers()
        if name not in want and not _equal(buffers[name], tensor.cpu())
    ]
    return f"{len(wrong)} of {len(want)} differ: {wrong[:4]}" if wrong else True


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if a.numel() == 0:
        return True
    return bool(
        torch.equal(
            a.contiguous().view(torch.uint8) if a.dim() else a,
            b.contiguous().view(torch.uint8) if b.dim() else b,
        )
    )


def report(rows: list[Outcome]) -> str:
    """The rows as JSON lines."""
    return "\n".join(json.dumps(dataclasses.asdict(row)) for row in rows)
