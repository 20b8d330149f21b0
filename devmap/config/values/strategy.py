"""The named ways of placing a model."""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MEANINGS",
    "Objective",
    "Optimizer",
    "QuantizationMethod",
    "Residency",
    "Schedule",
    "Strategy",
    "WorkloadKind",
]


class Strategy(enum.StrEnum):
    """What `device_map` may name for a model or a subtree."""

    AUTO = "auto"
    SEQUENTIAL = "sequential"
    BALANCED = "balanced"
    BALANCED_LOW_0 = "balanced_low_0"
    FASTEST = "fastest"


class Objective(enum.StrEnum):
    """What `fastest` makes small: the time of one pass, or the time of the slowest stage of a pipeline."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


class WorkloadKind(enum.StrEnum):
    """What the model will do once it is placed."""

    INFERENCE = "inference"
    TRAINING = "training"
    SERVER = "server"


class Residency(enum.StrEnum):
    """Whether components are on their devices all the time, or one after another."""

    TOGETHER = "together"
    BY_TURNS = "by turns"


class Schedule(enum.StrEnum):
    """In which order the stages of a pipeline work on the microbatches of a step."""

    GPIPE = "gpipe"
    ONE_F_ONE_B = "1f1b"


class Optimizer(enum.StrEnum):
    """Optimizers whose state a training workload counts."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    ADAFACTOR = "adafactor"
    LION = "lion"
    SGD = "sgd"
    SGD_MOMENTUM = "sgd_momentum"


class QuantizationMethod(enum.StrEnum):
    """How weights may be quantised while they are loaded."""

    NF4 = "nf4"
    FP4 = "fp4"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"

    @property
    def library(self) -> str:
        """Transformers' word for whose arithmetic it is: `bitsandbytes` or `torchao`."""
        return "torchao" if self in {QuantizationMethod.INT4, QuantizationMethod.FP8} else "bitsandbytes"


MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "auto": "Fill the accelerators in order, then cpu, then disk.",
        "sequential": "Fill the accelerators in order, then cpu, then disk.",
        "balanced": "The smallest possible largest load of an accelerator; cpu and disk take only what "
        "does not fit.",
        "balanced_low_0": "As little as possible on device 0, the others balanced.",
        "fastest": "The shortest predicted time of one pass on the machine that the config names.",
        "nf4": "4 bits with levels for normally distributed weights, a scale for 64 of them (bitsandbytes).",
        "fp4": "4-bit floating point, a scale for 64 weights (bitsandbytes).",
        "int8": "8-bit integers, a scale a row, and 16 bits where inputs are large (bitsandbytes).",
        "int4": "4-bit integers, a scale and a zero point for 128 weights (torchao, on accelerators).",
        "fp8": "8-bit floating point, a scale a row (torchao).",
        "cpu": "Host memory.",
        "disk": "The checkpoint's own files, or the offload folder.",
        "latency": "The time of one pass.",
        "throughput": "The time of the slowest stage of a pipeline.",
        "gpipe": "All microbatches forward, then all of them backward.",
        "1f1b": "One forward, one backward in turn: fewer microbatches are in flight.",
        "inference": "Room for the KV cache and activations.",
        "training": "Room for gradients and optimizer states too.",
        "server": "As inference, with device 0 kept light.",
        "adamw": "Two states per parameter in float32.",
        "adamw_8bit": "Two states per parameter in 8 bits.",
        "adafactor": "One state per row and per column of each matrix.",
        "lion": "One state per parameter.",
        "sgd": "No state.",
        "sgd_momentum": "One state per parameter.",
    }
)
"""What each word of a config means, for editors."""
