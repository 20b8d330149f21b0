"""pydantic's errors turned into faults with our codes, our words and a place in the file."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from devmap.config.model.collisions import colliding_devices
from devmap.config.model.known_keys import elsewhere, known_keys
from devmap.config.model.placement_config import PlacementConfig
from devmap.config.values.device import DEVICE_PATTERN
from devmap.config.values.fields import DTYPE_ALIASES, DTYPES
from devmap.config.values.size import parse_size
from devmap.config.values.strategy import Strategy
from devmap.config.values.words import near_words, shown, sure_word
from devmap.config.yaml.edits import rename, requote, written
from devmap.config.yaml.faults import DocumentPath, Edit, Fault
from devmap.config.yaml.positions import locate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

    from devmap.config.yaml.positions import NodePosition
    from devmap.config.yaml.reader import Plain
    from devmap.config.yaml.source import Position

__all__ = ["locate", "validate_model", "validate_shape"]

M = TypeVar("M", bound=BaseModel)


def validate_shape(
    data: dict[str, Plain], positions: Mapping[DocumentPath, NodePosition]
) -> tuple[PlacementConfig | None, tuple[Fault, ...]]:
    """Return the config that `data` describes, or the faults that keep it from being one."""
    return validate_model(PlacementConfig, data, positions)


def validate_model(
    model_type: type[M], data: dict[str, Plain], positions: Mapping[DocumentPath, NodePosition]
) -> tuple[M | None, tuple[Fault, ...]]:
    """Return the model that `data` describes, or None and every fault that keeps it from being one."""
    faults = list(colliding_devices(model_type, data, positions))
    model = None
    try:
        model = model_type.model_validate(data)
    except ValidationError as error:
        # `str(error)` would render the whole input, which an alias bomb makes huge.
        details = error.errors(include_url=False, include_input=False)
        wrong_keys = {detail["loc"][:-1] for detail in details if detail["loc"][-1:] == ("[key]",)}
        # Skip values whose key is invalid: their type is unknown.
        faults += [
            _fault(detail, data, positions, model_type)
            for detail in details
            if detail["loc"] not in wrong_keys
        ]
    return (None if faults else model), tuple(faults)


def _fault(
    detail: ErrorDetails,
    data: dict[str, Plain],
    positions: Mapping[DocumentPath, NodePosition],
    model: type[BaseModel],
) -> Fault:
    location = detail["loc"]
    about_key = bool(location) and location[-1] == "[key]"
    path = _document_path(location[:-1] if about_key else location, data)
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, positions, model)
    if kind == "missing":
        name = str(location[-1])
        where = f"'{_dotted(path)}'" if path else "the config"
        wanted = "version: 1" if name == "version" else f"{name}:"
        base = ", or 'abstract: true' where others extend this file" if path == () and name == "model" else ""
        return Fault(
            "DM102",
            f"{where} lacks '{name}'",
            locate(path, positions, key=True),
            (*path, name),
            help=f"add '{wanted}'{base}",
        )
    position = locate(path, positions, key=about_key)
    value = path[-1] if about_key else _value_at(path, data)
    blank = _no_break_space(value, position, path, kind)
    if blank is not None:
        return blank
    if kind in _CANDIDATES or kind.startswith("DM"):
        fault = Fault(kind, detail["ctx"]["reason"], position, path)
        return _with_suggestion(_device_with_blank(fault, value), value, _CANDIDATES.get(kind, ()))
    if kind in {"enum", "literal_error"}:
        expected = re.findall(r"'([^']*)'", str(detail["ctx"]["expected"]))
        message = f"'{_dotted(path)}' expects one of {', '.join(expected)}, found {_found(value)}"
        return _with_suggestion(Fault("DM106", message, position, path), value, expected)
    code, words = _expectation(detail, path)
    return _with_remedy(
        Fault(code, f"'{_dotted(path)}' expects {words}, found {_found(value)}", position, path), kind, value
    )


def _no_break_space(value: Plain, position: Position, path: DocumentPath, kind: str) -> Fault | None:
    """Return a value that is wrong because a no-break space stands in it.

    It YAML takes for a letter and nobody sees.
    """
    column = written(position).find("\u00a0")
    if not isinstance(value, str) or column < 0:
        return None
    place = position.source.stretch(position.start.line, position.start.column + column)
    code = kind if kind.startswith("DM") else "DM103"
    edit = Edit(place, " ", "a plain blank")
    return Fault(
        code,
        "a no-break space (U+00A0), which YAML reads as a letter",
        place,
        path,
        help="use a plain space",
        edit=edit,
    )


_MISSING_BLANK = re.compile(r"((?:[0-9]+|cpu|disk):)([0-9].*)")
"""`0:20GB` where `0: 20GB` was meant."""

_CANDIDATES = {"DM105": (*Strategy, "cpu", "disk"), "DM106": (*DTYPES, *DTYPE_ALIASES)}
"""The words that a value of the wrong form may have been meant as."""


def _with_suggestion(fault: Fault, value: Plain, known: Iterable[str]) -> Fault:
    if not isinstance(value, str) or not value or fault.label:
        return fault
    if fault.code == "DM105" and re.fullmatch(r"(?i)gpu[:_ ]?[0-9]*", value):
        index = re.sub(r"[^0-9]", "", value) or "0"
        return replace(fault, label=f"did you mean {index}?", edit=rename(fault.position, value, index))
    known = tuple(known)
    sure = sure_word(value, known)
    near = (sure,) if sure is not None else near_words(value.lower(), known)
    if not near:
        return fault
    return replace(
        fault,
        label=f"did you mean '{near[0]}'?",
        edit=rename(fault.position, value, near[0]) if sure else None,
    )


def _device_with_blank(fault: Fault, value: Plain) -> Fault:
    """`cuda: 0` on a line of its own is a mapping; most likely `cuda:0` was meant."""
    if isinstance(value, dict) and len(value) == 1:
        key, index = next(iter(value.items()))
        if re.fullmatch(DEVICE_PATTERN, key) and isinstance(index, int) and not isinstance(index, bool):
            return replace(
                fault, label=f"did you mean '{key}:{index}'?", help=f"write {key}:{index} without the space"
            )
    if isinstance(value, str) and _MISSING_BLANK.fullmatch(value) and fault.code == "DM105":
        return _without_blank(fault, value)
    if (
        isinstance(value, str)
        and fault.code == "DM105"
        and re.fullmatch(DEVICE_PATTERN, joined := re.sub(r":\s+", ":", value))
    ):
        return replace(fault, label=f"did you mean '{joined}'?", edit=rename(fault.position, value, joined))
    return fault


def _without_blank(fault: Fault, value: str) -> Fault:
    """`0:20GB` is text, or a key without a value; most likely `0: 20GB` was meant."""
    key, _, rest = value.partition(":")
    start = fault.position.start
    after_colon = fault.position.source.stretch(start.line, start.column + len(key) + 1, 0)
    edit = Edit(after_colon, " ", "a space after the colon") if written(fault.position) == value else None
    return replace(
        fault, label=f"did you mean '{key}: {rest}'?", help="a colon needs a space after it", edit=edit
    )


def _with_remedy(fault: Fault, kind: str, value: Plain) -> Fault:
    """Return the fault of a value of another type, with what to write instead where that is plain."""
    if kind == "string_type" and isinstance(value, int | float):
        return replace(fault, help="put quotes around it", edit=requote(fault.position))
    if isinstance(value, float) and kind in {"int_type", "int_from_float"}:
        return replace(fault, help="write the digits, without a point or an exponent")
    return _with_remedy_of_text(fault, kind, value) if isinstance(value, str) else fault


def _with_remedy_of_text(fault: Fault, kind: str, value: str) -> Fault:
    if kind == "dict_type" and _MISSING_BLANK.fullmatch(value):
        return _without_blank(fault, value)
    if fault.path in {("model",), ("max_memory",)}:
        return _as_mapping(fault, value)
    if kind == "list_type":
        return replace(fault, help=f"put brackets around it: [{value}]")
    truth = _TRUTHS.get(value.lower()) if kind == "bool_type" else None
    if truth is not None:
        edit = (
            Edit(fault.position, truth, f"write {truth}")
            if written(fault.position).strip("'\"") == value
            else None
        )
        return replace(fault, label=f"write {truth}", edit=edit)
    if kind in {"int_type", "int_from_float", "float_type"} and re.fullmatch(r"[0-9_,.]+", value):
        return replace(fault, help="write the number without quotes, spaces, commas or underscores")
    return fault


def _as_mapping(fault: Fault, value: str) -> Fault:
    """Return one word where a mapping belongs: most likely the value of its first key."""
    if fault.path == ("max_memory",):
        key = "0" if _looks_like_size(value) else ""
    elif re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", value):
        key = "factory"
    else:
        key = "manifest" if value.endswith((".manifest.yaml", ".manifest.yml")) else "checkpoint"
    there = written(fault.position)
    if not key or there.strip("'\"") != value:
        return fault
    meant = f"{{{key}: {there}}}"
    is_plain = re.fullmatch(r"""(['"]?)[\w./~ :-]*\w\1""", there) is not None
    edit = Edit(fault.position, meant, f"write {meant}") if is_plain else None
    return replace(fault, label=f"write {meant}", edit=edit)


def _looks_like_size(value: str) -> bool:
    try:
        parse_size(value)
    except ValueError:
        return False
    return True


_TRUTHS = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "true": "true",
    "no": "false",
    "off": "false",
    "n": "false",
    "false": "false",
}


def _unknown_key(
    path: DocumentPath, positions: Mapping[DocumentPath, NodePosition], model: type[BaseModel]
) -> Fault:
    name = str(path[-1])
    known = known_keys(model, path[:-1])
    sure = sure_word(name, known)
    near = (sure,) if sure is not None else near_words(name, known)
    position = locate(path, positions, key=True)
    where = (
        f"'{_dotted(path[:-1])}'"
        if len(path) > 1
        else "a config"
        if model is PlacementConfig
        else "a machine"
    )
    message = f"{shown(name)} is not a key of {where}"
    if near:
        edit = rename(position, name, near[0]) if sure is not None else None
        return Fault("DM101", message, position, path, label=f"did you mean '{near[0]}'?", edit=edit)
    other = elsewhere(model, name)
    hint = f"it is a key of {other}" if other else f"known keys: {', '.join(sorted(known))}"
    return Fault("DM101", message, position, path, help=hint)


def _expectation(detail: ErrorDetails, path: DocumentPath) -> tuple[str, str]:
    """Return the code and the words for what pydantic expected."""
    kind, context = detail["type"], detail.get("ctx", {})
    match kind:
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            key = next(iter(context))
            bound = int(context[key]) if float(context[key]).is_integer() else context[key]
            return "DM107", f"{_BOUNDS[key]} {bound:,}"
        case "string_pattern_mismatch":
            return "DM107", next(_PATTERNS[str(part)] for part in reversed(path) if part in _PATTERNS)
        case "finite_number":
            return "DM107", "a finite number"
        case _:
            return "DM103", _SHORT_FORMS.get(
                str(path[-1]) if path else "", _TYPES.get(kind, "another kind of value")
            )


_PATTERNS = {
    "factory": "a callable written package.module:function",
    "components": "names of letters, digits and _, such as text_encoder",
    "llm_int8_skip_modules": "names of modules, or their ends, such as lm_head",
    "modules_to_not_convert": "names of modules, or their ends, such as lm_head",
    "variant": "the middle part of a file's name: letters, digits, - and _, such as fp16",
}

_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}

_SHORT_FORMS = {
    "device_map": "a strategy such as auto, or a mapping from modules to devices",
    "headroom": "a share such as 15%, a size, or a mapping from devices to either",
    "workload": "inference, training, server, or a mapping",
    "quantization": "nf4, fp4, int8, int4, fp8, or a mapping",
    "machine": "the name of a machine, a file, or a mapping",
}

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
}


def _found(value: Plain) -> str:
    """Return a value in a message.

    Text in quotes, a number as a number, nothing for a key without a value.
    """
    if value is None:
        return "nothing"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value}"
    return shown(value)


def _document_path(location: tuple[int | str, ...], data: Plain) -> DocumentPath:
    """Pydantic's location without the parts that short forms and key errors put into it."""
    path: list[str | int] = []
    node = data
    for index, part in enumerate(location):
        if isinstance(node, dict) and part in node:
            node = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif isinstance(node, dict) and index == len(location) - 1:
            break  # the name of a missing key
        else:
            continue
        path.append(part)
    return tuple(path)


def _value_at(path: DocumentPath, data: Plain) -> Plain:
    node = data
    for part in path:
        node = node[part]  # type: ignore[index]  # the path was walked through this data
    return node


def _dotted(path: DocumentPath) -> str:
    return ".".join(str(part) for part in path)
