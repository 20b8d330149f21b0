"""Made-up input for a model of transformers.

Token ids, audio features or pixels, as the model says it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from devmap.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["made_up_inputs"]


def made_up_inputs(
    model: nn.Module, *, batch_size: int, sequence_length: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Keyword arguments for one forward pass, all zeros.

    Audio and pictures have the length that the model was made for.

    Raises:
        UsageError: when the model does not say what it takes.
    """
    config: Any = getattr(model, "config", None)
    main = getattr(model, "main_input_name", None)
    ids = torch.zeros((batch_size, sequence_length), dtype=torch.long, device=device)
    if config is None or main not in {"input_ids", "input_features", "pixel_values"}:
        raise UsageError(
            f"devmap does not know what input {type(model).__name__} takes",
            help="pass the forward's keyword arguments as `inputs`",
        )
    dtype = next(
        (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32
    )
    inputs = {"input_ids": ids}
    if main == "input_features":
        inputs = {
            "input_features": torch.zeros(
                (batch_size, config.num_mel_bins, 2 * config.max_source_positions), dtype=dtype, device=device
            )
        }
    elif main == "pixel_values":
        vision = getattr(config, "vision_config", config)
        shape = (batch_size, vision.num_channels, vision.image_size, vision.image_size)
        inputs = {"pixel_values": torch.zeros(shape, dtype=dtype, device=device)}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    return inputs
