"""What the parts of a config have in common: they are strict and closed, and some have a short form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core.core_schema import no_info_before_validator_function

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["Shape", "ShortForm"]


class Shape(BaseModel):
    """Strict, closed, frozen: what every part of a config is."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        # the parts are built once, inside PlacementConfig, rather than each for itself at import
        defer_build=True,
    )


def _is_word(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


class ShortForm:
    """Lets a mapping be written as one word: the word becomes the value of one key.

    The JSON Schema shows both forms.
    """

    def __init__(self, key: str, schema: JsonSchemaValue, *, others: str | None = None) -> None:
        self.key = key
        self.schema = schema
        self.others = others

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        mapping = handler(schema)
        if self.others is not None:
            mapping = handler.resolve_ref_schema(mapping)["properties"][self.others]
            mapping = {key: value for key, value in mapping.items() if key not in {"default", "description"}}
        return {"anyOf": [self.schema, mapping]}

    def expand(self, value: object) -> object:
        """Return the mapping that a value stands for; a mapping as it is."""
        if _is_word(value):
            return {self.key: value}
        if self.others is not None and isinstance(value, dict):
            return {self.others: value}
        return value
