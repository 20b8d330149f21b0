"""A config that is right, made without pydantic's validator.

To build that validator takes a quarter of what `devmap validate` needs for one file. So the models' own
fields are read here, for the few kinds of values that they have, and whatever is not plainly right is left to
pydantic, which also says what is wrong. A property test holds the two together.
"""

from __future__ import annotations

import enum
import types
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, BeforeValidator, PlainSerializer, PlainValidator, Strict, WithJsonSchema
from pydantic.fields import FieldInfo

from devmap.config.model.placement_config import ShortForm

if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[Any], Any]

__all__ = ["straight"]

M = TypeVar("M", bound=BaseModel)


def straight(model: type[M], values: object) -> M | None:
    """Return the model of `values` where each of them is plainly right; None where pydantic has to look."""
    try:
        return _read_model(model, values)
    except (_Doubt, ValueError):  # a parser's complaint, which pydantic will place
        return None


class _Doubt(Exception):  # noqa: N818 - control flow inside this module, never seen outside
    """Something that is not plainly right."""


def _read_model(model: type[M], values: object) -> M:
    readers, defaults = _fields(model)
    if (
        not isinstance(values, dict)
        or not values.keys() <= readers.keys()
        or not readers.keys() <= values.keys() | defaults.keys()
    ):
        raise _Doubt
    read = {
        name: reader(values[name]) if name in values else defaults[name]() for name, reader in readers.items()
    }
    return model.model_construct(set(values), **read)


@cache
def _fields(model: type[BaseModel]) -> tuple[dict[str, Reader], dict[str, Callable[[], Any]]]:
    """Return what reads each field of a model, and what makes the value of a field that is left out.

    pydantic would look at the signature of each default's factory, which takes longer than all the rest.
    """
    fields = model.model_fields
    readers = {name: _reader(field.annotation, tuple(field.metadata)) for name, field in fields.items()}
    left_out = {
        name: field.default_factory or partial(_same, field.default)
        for name, field in fields.items()
        if not field.is_required()
    }
    return readers, cast("dict[str, Callable[[], Any]]", left_out)


def _same(default: object) -> object:
    return default  # ours do not change: None, False, numbers, words


def _reader(annotation: Any, metadata: tuple[object, ...] = ()) -> Reader:
    """Return what reads a value of a type with what is annotated to it; what it does not know it doubts."""
    flat = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else (item,))]
    kept = [item for item in flat if not isinstance(item, PlainSerializer | WithJsonSchema | Strict)]
    if len(kept) == 1 and isinstance(kept[0], PlainValidator):
        return kept[0].func  # type: ignore[return-value]  # ours take the value alone
    if not kept:
        return _plain_reader(annotation)
    inner = _plain_reader(annotation)
    if len(kept) == 1 and isinstance(kept[0], BeforeValidator | ShortForm):
        before: Any = kept[0].expand if isinstance(kept[0], ShortForm) else kept[0].func
        return lambda value: inner(before(value))
    if all(isinstance(item, Ge | Gt | Le) for item in kept):
        return lambda value: _bounded(inner(value), kept)
    return _doubted


def _plain_reader(annotation: Any) -> Reader:
    """Return what reads a value of a type to which nothing is annotated."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _reader(arguments[0], arguments[1:])
    if origin in {Union, types.UnionType} and len(arguments) == 2 and arguments[1] is types.NoneType:
        inner = _reader(arguments[0])
        return lambda value: None if value is None else inner(value)
    if origin is list:
        item = _reader(arguments[0])
        return lambda value: [item(each) for each in _exactly(list, value)]
    if origin is dict:
        key, content = _reader(arguments[0]), _reader(arguments[1])
        return lambda value: {key(name): content(each) for name, each in _exactly(dict, value).items()}
    return (lambda value: value) if annotation is Any else _class_reader(annotation)


def _class_reader(annotation: Any) -> Reader:
    """Return what reads a value of a class."""
    if not isinstance(annotation, type):
        return _doubted
    if issubclass(annotation, BaseModel):
        return lambda value: _read_model(annotation, value)
    if issubclass(annotation, enum.StrEnum):
        return lambda value: annotation(_exactly(str, value))
    if annotation in {str, int, bool}:
        return lambda value: _exactly(annotation, value)
    return _number if annotation is float else _doubted


def _exactly(kind: type, value: Any) -> Any:
    """Return the value, if it is of that type and of none below it: `True` is an int to Python."""
    if type(value) is not kind:
        raise _Doubt
    return value


def _number(value: Any) -> float:
    if type(value) is not float or not value - value == 0:  # neither infinite nor not a number
        raise _Doubt
    return value


def _bounded(value: Any, bounds: list[Any]) -> Any:
    """Return the value, if it is within bounds; None, which an optional field may be, has none."""
    for bound in bounds if value is not None else ():
        inside = (
            value >= bound.ge
            if isinstance(bound, Ge)
            else value > bound.gt
            if isinstance(bound, Gt)
            else value <= bound.le
        )
        if not inside:
            raise _Doubt
    return value


def _doubted(_value: object) -> object:
    raise _Doubt
