"""The named ways of placing a model."""

from __future__ import annotations

import enum

__all__ = ["Objective", "Optimizer", "Strategy", "WorkloadKind"]


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


class Optimizer(enum.StrEnum):
    """Optimizers whose state a training workload counts."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    ADAFACTOR = "adafactor"
    LION = "lion"
    SGD = "sgd"
    SGD_MOMENTUM = "sgd_momentum"
