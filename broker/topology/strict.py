"""What all values of a topology file are: frozen, and strict about keys and types."""

from __future__ import annotations

import re
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator

_NUMBER = re.compile(r"-?[0-9]+")
_WORDS = {"true": True, "false": False}


class Resolved(str):
    """Text that came in the place of a whole ``${VAR}``: it may stand for a number, too."""


def plain_types(annotation: Any) -> list[Any]:
    """Return the types behind Annotated and unions."""
    if get_origin(annotation) is Annotated:
        return plain_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [plain for part in get_args(annotation) for plain in plain_types(part)]
    return [annotation]


class Strict(BaseModel):
    """A frozen value that refuses unknown keys and never converts between types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _read_resolved(cls, data: Any) -> Any:
        """Read numbers and booleans where the text of a variable is to be one."""
        if not isinstance(data, dict):
            return data
        return {
            key: _as_wanted(value, cls.model_fields[key].annotation)
            if isinstance(value, Resolved) and key in cls.model_fields
            else value
            for key, value in data.items()
        }


def _as_wanted(value: Resolved, annotation: Any) -> Any:
    types = plain_types(annotation)
    if int in types and str not in types and _NUMBER.fullmatch(value):
        return int(value)
    if bool in types:
        return _WORDS.get(value, str(value))
    return str(value)
