"""JSON Schema for one argument of a job; numpy arrays count as JSON's arrays and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import extend

_KINDS = {"number": "iuf", "integer": "iu", "boolean": "b", "string": "US"}


class Validator:
    """Checks values against one schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._validator = _Draft(dict(schema))

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value in one short sentence, or None."""
        error = best_match(self._validator.iter_errors(value))
        if error is None:
            return None
        at = "".join(f"[{part!r}]" for part in error.absolute_path)
        return f"{at + ': ' if at else ''}{_sentence(error)}"


def schema_problem(schema: Any) -> str | None:
    """Return what is wrong with a schema itself, or None."""
    if not isinstance(schema, Mapping):
        return "a JSON Schema is a mapping"
    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as exc:
        return str(exc.message)
    return None


def _is_numpy(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "numpy"


def _is_array(_checker: Any, value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return True
    return _is_numpy(value) and getattr(value, "ndim", False) >= 1


def _is_number(_checker: Any, value: Any) -> bool:
    if _is_numpy(value):
        return getattr(value, "ndim", True) == 0 and value.dtype.kind in "iuf"
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(_checker: Any, value: Any) -> bool:
    if _is_numpy(value):
        return getattr(value, "ndim", True) == 0 and value.dtype.kind in "iu"
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _items(validator: Any, items: Any, instance: Any, schema: Mapping[str, Any]) -> Any:
    if not _is_numpy(instance):
        yield from Draft202012Validator.VALIDATORS["items"](validator, items, instance, schema)
        return
    # One look at the dtype instead of one at every element, where that is all that is asked.
    if isinstance(items, Mapping) and set(items) == {"type"} and instance.ndim == 1:
        if instance.dtype.kind not in _KINDS.get(str(items["type"]), ""):
            yield ValidationError(f"array of {instance.dtype} is not an array of {items['type']}s")
        return
    yield from Draft202012Validator.VALIDATORS["items"](validator, items, instance.tolist(), schema)


_Draft: Any = extend(
    Draft202012Validator,
    validators={"items": _items},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"array": _is_array, "number": _is_number, "integer": _is_integer}
    ),
)


def _sentence(error: ValidationError) -> str:
    if error.validator == "type":
        expected = error.validator_value
        expected = " or ".join(expected) if isinstance(expected, list) else expected
        return f"{_short(error.instance)} is not of type {expected}"
    text = str(error.message)
    return text if len(text) <= 200 else text[:200] + "…"


def _short(value: Any) -> str:
    if _is_numpy(value) and getattr(value, "ndim", False):
        return f"an array of {value.dtype} and shape {value.shape}"
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
