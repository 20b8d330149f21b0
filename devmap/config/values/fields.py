"""Types of the config's values.

Parsed once by pydantic, located by it when they are wrong, never parsed again.

A parser here raises `ValueError` with a sentence for people; it becomes an error of the type `DMnnn`, which
`devmap.config.model.shape` turns into a fault at the value's place.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from devmap.config.values.device import CPU, DEVICE_PATTERN, DISK, NODE_PATTERN, Device, parse_device
from devmap.config.values.rate import parse_rate, parse_seconds
from devmap.config.values.size import Bytes, Percent, parse_amount, parse_size
from devmap.config.values.strategy import Strategy
from devmap.config.values.words import shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AMOUNT_SCHEMA",
    "DTYPES",
    "DTYPE_ALIASES",
    "DTYPE_SCHEMA",
    "TARGET_SCHEMA",
    "Amount",
    "DeviceKey",
    "DtypeName",
    "FormatVersion",
    "Latency",
    "MapKey",
    "NodeName",
    "Rate",
    "Size",
    "Target",
    "as_plain",
]

T = TypeVar("T")


def _coded(code: str, parse: Callable[[Any], T]) -> Callable[[Any], T]:
    """Return the parser, its ValueError turned into an error that carries a rule's code.

    What short words and numbers stand for is remembered: a thousand configs of one model have the same keys
    and devices.
    """
    remembered = lru_cache(maxsize=4096)(parse)

    def parse_or_report(value: Any) -> T:
        kind = type(value)  # exactly: `True` equals 1
        try:
            return (
                remembered(value)
                if kind is int or (kind is str and len(value) < _LONGEST_REMEMBERED)
                else parse(value)
            )
        except ValueError as error:
            raise PydanticCustomError(code, "{reason}", {"reason": str(error)}) from None

    return parse_or_report


_LONGEST_REMEMBERED = 200
"""Characters. A hostile file's are not kept."""

_STRATEGIES = frozenset(strategy.value for strategy in Strategy)


def _parse_target(value: object) -> Device | Strategy:
    if isinstance(value, Device | Strategy):
        return value
    if isinstance(value, str) and value in _STRATEGIES:
        return Strategy(value)
    try:
        return parse_device(value)
    except ValueError:
        if isinstance(value, int) and not isinstance(value, bool):
            raise  # a negative index has words of its own
        strategies = ", ".join(Strategy)
        msg = f"{shown(value)} is neither a device (0, cpu, disk, cuda:0) nor a strategy ({strategies})"
        raise ValueError(msg) from None


_SEGMENT = r"(?:[^.\[\]\s]+)"
_END = r"\Z"
_MAP_KEY = re.compile(rf"(?:{_SEGMENT}(?:\[[0-9]+-[0-9]+\])?(?:\.{_SEGMENT}(?:\[[0-9]+-[0-9]+\])?)*)?\Z")


def _parse_map_key(value: object) -> str:
    if not isinstance(value, str) or not _MAP_KEY.match(value):
        msg = (
            f"{shown(value)} is not a valid module path; expected names joined by dots, ranges such as "
            f"'model.layers[0-39]' "
            "or globs such as 'model.layers.*.mlp'"
        )
        raise ValueError(msg)
    for first, last in re.findall(r"\[([0-9]+)-([0-9]+)\]", value):
        if len(last) > 6 or int(first) > int(last):
            msg = (
                f"the range [{first}-{last}] in {shown(value)} is empty or "
                "too long; write the lower number first"
            )
            raise ValueError(msg)
    return value


DTYPES = (
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "int8", "uint8", "int4", "uint4",
)  # fmt: skip
DTYPE_ALIASES = {
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "half": "float16",
    "float": "float32",
    "double": "float64",
}


def _parse_dtype(value: object) -> str:
    name = str(value).removeprefix("torch.")
    name = DTYPE_ALIASES.get(name, name)
    if not isinstance(value, str) or name not in DTYPES:
        msg = f"{shown(value)} is not a dtype that weights can run in; expected one of {', '.join(DTYPES)}"
        raise ValueError(msg)
    return name


def as_plain(value: object) -> Any:
    """Return a value of a config as JSON has it, what `model_dump(mode="json")` makes of it.

    Needs no serializer to be built.
    """
    if isinstance(value, dict):
        return {str(as_plain(key)): as_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_plain(item) for item in value]
    if isinstance(value, BaseModel):
        return {name: as_plain(item) for name, item in value}
    return value.value if isinstance(value, enum.Enum) else _plain(value)


def _plain(value: object) -> int | str:
    if isinstance(value, Device):
        return value.plain
    if isinstance(value, Strategy):
        return value.value
    # Bytes is an int
    return str(value) if isinstance(value, Percent) else value  # type: ignore[return-value]


_SIZE_PATTERN = r"^\s*(?:[0-9]{1,18}|[0-9]{1,18}(?:\.[0-9]{1,18})?\s*(?:[KkMmGgTt][Ii]?)?B)\s*$"
_SHARE_PATTERN = r"^\s*(?:100(?:\.0{1,6})?|0?[0-9]{1,2}(?:\.[0-9]{1,6})?)\s*%\s*$"
_BYTES_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [_BYTES_SCHEMA, {"type": "string", "pattern": _SIZE_PATTERN}],
    "examples": ["20GB", "16GiB", 21474836480],
}
AMOUNT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        _BYTES_SCHEMA,
        {"type": "string", "pattern": _SIZE_PATTERN},
        {"type": "string", "pattern": _SHARE_PATTERN},
    ],
    "examples": ["20GB", "90%"],
}

_as_plain = PlainSerializer(_plain, return_type=int | str)

Size = Annotated[Bytes, PlainValidator(_coded("DM104", parse_size)), _as_plain, WithJsonSchema(_SIZE_SCHEMA)]
"""A number of bytes: an int, or text with a unit."""

Amount = Annotated[
    Bytes | Percent, PlainValidator(_coded("DM104", parse_amount)), _as_plain, WithJsonSchema(AMOUNT_SCHEMA)
]
"""A number of bytes, or a share of the device's memory."""

Rate = Annotated[
    float,
    PlainValidator(_coded("DM104", parse_rate)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {
                    "type": "string",
                    "pattern": r"^\s*(?:[0-9]{1,9}(?:\.[0-9]{1,9})?\s*[KMGT]bit"
                    r"|[0-9]{1,18}(?:\.[0-9]{1,18})?\s*(?:[KkMmGgTt][Ii]?)?B)/s\s*$",
                },
            ],
            "examples": ["50GB/s", "400Gbit/s"],
        }
    ),
]
"""Bytes a second: a number, a size with `/s`, or bits a second."""

Latency = Annotated[
    float,
    PlainValidator(_coded("DM104", parse_seconds)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 60},
                {"type": "string", "pattern": r"^\s*[0-9]{1,9}(?:\.[0-9]{1,9})?\s*(?:ns|us|ms|s)\s*$"},
            ],
            "examples": ["5us"],
        }
    ),
]
"""Seconds: a number, or a number with a unit."""


def _parse_node_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(NODE_PATTERN, value) or value in {"cpu", "disk"}:
        msg = (
            f"{shown(value)} is not a valid name of a node; expected letters, digits, - and _, such as node-a"
        )
        raise ValueError(msg)
    return value


NodeName = Annotated[
    str,
    PlainValidator(_coded("DM105", _parse_node_name)),
    WithJsonSchema({"type": "string", "pattern": f"^(?!(?:cpu|disk)$){NODE_PATTERN}$", "examples": ["a"]}),
]
"""The name of a node as devices carry it."""

DeviceKey = Annotated[
    Device,
    PlainValidator(_coded("DM105", parse_device)),
    _as_plain,
    WithJsonSchema({"type": "string", "pattern": DEVICE_PATTERN, "examples": ["0", "cpu", "disk"]}),
]
"""A device as the key of a mapping."""

TARGET_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"enum": [*Strategy, CPU.plain, DISK.plain]},
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": DEVICE_PATTERN},
    ],
    "examples": [0, "cpu", "disk", "balanced"],
}

Target = Annotated[
    Device | Strategy,
    PlainValidator(_coded("DM105", _parse_target)),
    _as_plain,
    WithJsonSchema(TARGET_SCHEMA),
]
"""What a key of a device map stands for: a device, or a strategy for the rest of that subtree."""

MapKey = Annotated[
    str,
    PlainValidator(_coded("DM108", _parse_map_key)),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{_MAP_KEY.pattern.removesuffix(_END)}$",
            "examples": ["model.layers[0-39]", ""],
        }
    ),
]
"""A module or parameter path, a range or a glob."""


def _parse_version(value: object) -> Literal[1]:
    if value is True or value != 1 or not isinstance(value, int):
        msg = f"this devmap reads version 1 of the format, found {shown(value)}"
        raise ValueError(msg)
    return 1


FormatVersion = Annotated[
    Literal[1],
    PlainValidator(_coded("DM109", _parse_version)),
    WithJsonSchema({"type": "integer", "const": 1, "examples": [1]}),
]
"""The version of the format; `true` equals 1 to Python, and only to Python."""

DTYPE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"enum": [*DTYPES, *DTYPE_ALIASES]},
        {"type": "string", "pattern": f"^torch\\.(?:{'|'.join((*DTYPES, *DTYPE_ALIASES))})$"},
    ],
    "examples": ["bfloat16"],
}

DtypeName = Annotated[str, BeforeValidator(_coded("DM106", _parse_dtype)), WithJsonSchema(DTYPE_SCHEMA)]
"""A torch dtype by name."""
