"""Inputs for a model of any kind, from the names that its forward takes."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["candidates", "with_enough_marks"]

_BATCH, _LENGTH = 2, 10


def candidates(model: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds of inputs with their values, the richest first; the model may refuse any of them."""
    names = set(inspect.signature(model.forward).parameters)
    config = model.config
    maker = _Maker(config, names)
    main = getattr(model, "main_input_name", "input_ids")
    if "input_ids" in names and main != "input_features":
        for kind in ("pixel_values", "input_features", "input_values"):
            if kind in names:
                yield f"text and {kind}", maker.make({"input_ids", kind}, batch=1)
                if kind == "pixel_values":
                    yield f"text and flat {kind}", maker.make({"input_ids", kind}, batch=1, flat=True)
                    yield (
                        f"text and {kind} in 5 dimensions",
                        maker.make({"input_ids", kind}, batch=1, frames=True),
                    )
        yield "text", maker.make({"input_ids", "attention_mask"})
        yield "text alone", maker.make({"input_ids"})
    for kind in dict.fromkeys(
        [main, "pixel_values", "pixel_values_videos", "input_features", "input_values", "past_values"]
    ):
        if kind in names and kind != "input_ids":
            yield kind, maker.make({kind})
            yield f"flat {kind}", maker.make({kind}, flat=True)
            yield f"{kind} in frames", maker.make({kind}, frames=True)
            yield f"long {kind}", maker.make({kind}, length=16)
            yield f"one {kind}", maker.make({kind}, batch=1)
    required = {
        name
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    yield "what is required", maker.make(required - {"self"})
    yield "text of one", maker.make({"input_ids"}, batch=1)


def with_enough_marks(model: Any, inputs: dict[str, Any], message: str) -> dict[str, Any] | None:
    """The inputs with as many marks of images in the text as an error says are wanted."""
    found = re.search(r"features:?\s*\[?(\d+)", message) or re.search(
        r"(\d+) (?:image|audio) features", message
    )
    if found is None or "input_ids" not in inputs:
        return None
    config = model.config
    mark = next(
        (
            value
            for key in (
                "image_token_id",
                "image_token_index",
                "audio_token_id",
                "audio_token_index",
                "media_placeholder_token_id",
            )
            if isinstance(value := getattr(config, key, None), int)
        ),
        None,
    )
    if mark is None:
        return None
    wanted = int(found[1])
    plain = torch.tensor([[1, 5, 6]]), torch.tensor([[7, 8, 9, 10]])
    ids = torch.cat([plain[0], torch.full((1, wanted), mark), plain[1]], dim=1)
    made = {**inputs, "input_ids": ids}
    if "attention_mask" in made:
        made["attention_mask"] = torch.ones_like(ids)
    if "mm_token_type_ids" in made:
        made["mm_token_type_ids"] = (ids == mark).long()
    if "token_type_ids" in made:
        made["token_type_ids"] = (ids == mark).long()
    return made


class _Maker:
    def __init__(self, config: Any, names: set[str]) -> None:
        self._config = config
        self._names = names
        self._parts = _parts(config)

    def make(
        self,
        wanted: set[str],
        *,
        batch: int = _BATCH,
        flat: bool = False,
        frames: bool = False,
        length: int = 1,
    ) -> dict[str, Any]:
        """Values for these names, and for those without which they mean nothing."""
        generator = torch.Generator().manual_seed(11)
        made: dict[str, Any] = {}
        if "input_ids" in wanted:
            top = min(96, int(self._figure("vocab_size") or 96))
            made["input_ids"] = torch.randint(3, top, (batch, _LENGTH), generator=generator)
            if "bbox" in self._names:
                made["bbox"] = torch.tensor([1, 2, 20, 30]).expand(batch, _LENGTH, 4).clone()
        if "attention_mask" in wanted:
            made["attention_mask"] = torch.ones(batch, _LENGTH, dtype=torch.long)
        needs_decoder = "decoder_input_ids" in self._names and (
            getattr(self._config, "is_encoder_decoder", False) or "decoder_input_ids" in wanted
        )
        if needs_decoder:
            made["decoder_input_ids"] = torch.randint(3, 90, (batch, 4), generator=generator)
        if "pixel_values" in wanted or "pixel_values_videos" in wanted:
            made |= self._pixels(wanted, batch, generator, flat=flat, frames=frames)
        if "input_features" in wanted:
            made |= self._features(batch, generator, length)
        if "input_values" in wanted:
            made |= self._waves(batch, generator, length)
        if "past_values" in wanted:
            made |= self._series(batch, generator)
        for name in wanted - set(made):
            made |= self._other(name, batch, generator)
        return made

    def _figure(self, *keys: str, where: str = "") -> Any:
        for part, path in self._parts:
            if where and where not in path:
                continue
            for key in keys:
                value = _attribute(part, key)
                if value is not None:
                    return value
        return None

    def _pixels(
        self, wanted: set[str], batch: int, generator: torch.Generator, *, flat: bool, frames: bool
    ) -> dict[str, Any]:
        where = "vision" if self._figure("patch_size", "image_size", where="vision") else ""
        channels = _first(self._figure("num_channels", "in_channels", "in_chans", where=where)) or 3
        channels = channels if channels in {1, 3, 4} else 3
        size = self._figure("image_size", "img_size", where=where)
        sides = list(size) if isinstance(size, list | tuple) else [size, size]
        sides = [int(side) if side else 64 for side in sides][-2:]
        name = "pixel_values" if "pixel_values" in wanted else "pixel_values_videos"
        if flat:
            patch = _first(self._figure("patch_size", where=where)) or 14
            time = _first(self._figure("temporal_patch_size", where=where)) or 1
            merge = _first(self._figure("spatial_merge_size", "merge_size", where=where)) or 1
            grid = 2 * merge
            made: dict[str, Any] = {
                name: torch.randn(grid * grid, channels * time * patch * patch, generator=generator)
            }
            if "image_grid_thw" in self._names:
                made["image_grid_thw"] = torch.tensor([[1, grid, grid]])
            if "grid_thw" in self._names:
                made["grid_thw"] = torch.tensor([[1, grid, grid]])
            if "image_grid_hws" in self._names:
                made["image_grid_hws"] = torch.tensor([[grid, grid]])
            if "spatial_shapes" in self._names:
                made["spatial_shapes"] = torch.tensor([[grid, grid]])
                made[name] = made[name][None]
            if "mm_token_type_ids" in self._names:
                made["mm_token_type_ids"] = torch.zeros(1, _LENGTH, dtype=torch.long)
            return made
        if frames:
            count = int(self._figure("num_frames", "frames_per_clip") or 2)
            return {name: torch.randn(batch, count, channels, *sides, generator=generator)}
        made = {name: torch.randn(batch, channels, *sides, generator=generator)}
        if "image_sizes" in self._names:
            made["image_sizes"] = torch.tensor([sides] * batch)
        if "token_type_ids" in self._names and "mm_tokens_per_image" in {
            key for part, _ in self._parts for key in vars(part)
        }:
            made["token_type_ids"] = torch.zeros(batch, _LENGTH, dtype=torch.long)
        return made

    def _features(self, batch: int, generator: torch.Generator, length: int) -> dict[str, Any]:
        where = "audio" if self._figure("num_mel_bins", where="audio") else ""
        bins = int(
            self._figure(
                "num_mel_bins",
                "input_feat_size",
                "feature_size",
                "input_dim",
                "feature_projection_input_dim",
                where=where,
            )
            or 80
        )
        frames = 2 * int(self._figure("max_source_positions", where=where) or 32)
        if "max_source_positions" not in {key for part, _ in self._parts for key in vars(part)}:
            return {"input_features": torch.randn(batch, 64 * length, bins, generator=generator)}
        if length > 1:
            return {"input_features": torch.randn(batch, frames, bins, generator=generator)}
        made: dict[str, Any] = {"input_features": torch.randn(batch, bins, frames, generator=generator)}
        for name in ("feature_attention_mask", "input_features_mask"):
            if name in self._names:
                made[name] = torch.ones(batch, frames, dtype=torch.long)
        return made

    def _waves(self, batch: int, generator: torch.Generator, length: int) -> dict[str, Any]:
        channels = _first(self._figure("audio_channels", "in_channels"))
        steps = 2048 * length
        if "max_length" in {key for part, _ in self._parts for key in vars(part)} and self._figure(
            "num_mel_bins"
        ):
            return {
                "input_values": torch.randn(
                    batch,
                    int(self._figure("max_length")),
                    int(self._figure("num_mel_bins")),
                    generator=generator,
                )
            }
        shape = (
            (batch, channels, steps)
            if channels in {1, 2} and self._figure("audio_channels")
            else (batch, steps)
        )
        return {"input_values": torch.randn(*shape, generator=generator) * 0.1}

    def _series(self, batch: int, generator: torch.Generator) -> dict[str, Any]:
        context = int(self._figure("context_length") or 32)
        channels = self._figure("num_input_channels")
        past = context + max(self._figure("lags_sequence") or [0])
        if channels:
            return {"past_values": torch.randn(batch, context, int(channels), generator=generator)}
        if "past_time_features" not in self._names:
            return {"past_values": torch.randn(batch, context, generator=generator)}
        future = int(self._figure("prediction_length") or 4)
        features = int(self._figure("num_time_features") or 0)
        return {
            "past_values": torch.randn(batch, past, generator=generator),
            "past_time_features": torch.randn(batch, past, features, generator=generator),
            "past_observed_mask": torch.ones(batch, past),
            "future_values": torch.randn(batch, future, generator=generator),
            "future_time_features": torch.randn(batch, future, features, generator=generator),
        }

    def _other(  # noqa: PLR0911 - one line for each name
        self, name: str, batch: int, generator: torch.Generator
    ) -> dict[str, Any]:
        width = int(self._figure("hidden_size", "d_model", "embed_dim") or 64)
        if name.endswith("_ids") or name in {"audio_codes", "input_tokens"}:
            return {name: torch.randint(3, 90, (batch, _LENGTH), generator=generator)}
        if name in {"hidden_states", "inputs_embeds", "encoder_hidden_states"}:
            return {name: torch.randn(batch, _LENGTH, width, generator=generator)}
        if name == "spectrogram":
            return {
                name: torch.randn(
                    batch, 20, int(self._figure("model_in_dim", "num_mel_bins") or 80), generator=generator
                )
            }
        if name == "attention_mask":
            return {name: torch.ones(batch, _LENGTH, dtype=torch.long)}
        if name in {"token_type_ids", "mm_token_type_ids"}:
            return {name: torch.zeros(batch, _LENGTH, dtype=torch.long)}
        if name == "bbox":
            return {name: torch.tensor([1, 2, 20, 30]).expand(batch, _LENGTH, 4).clone()}
        return {}


def _first(value: Any) -> int | None:
    value = value[0] if isinstance(value, list | tuple) and value else value
    return int(value) if isinstance(value, int | float) else None


def _attribute(config: Any, key: str) -> Any:
    try:
        return getattr(config, key, None)
    except (ValueError, RuntimeError):  # a figure that differs from layer to layer has no value of its own
        return None


def _parts(config: Any, path: str = "") -> list[tuple[Any, str]]:
    found = [(config, path)]
    for key, value in list(vars(config).items()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            found += _parts(value, f"{path}.{key}")
    return found
