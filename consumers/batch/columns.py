"""A batch job's parameters: each is given the values of all messages, an entry a message."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from broker.errors import InvalidInput
from consumers.batch.stack import kind_of, stacked
from consumers.signature import Array, Signature

_UNIONS = (Union, types.UnionType)
_LISTS = (list, Sequence)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Shape(Enum):
    """In which form a parameter gets its values."""

    LIST = "a list"
    ARRAY = "one array; messages whose arrays differ are calls of their own"
    EITHER = "one array where all are arrays that agree, else a list"


@dataclass(frozen=True, slots=True)
class Column:
    """One parameter of a batch job's function.

    Attributes:
        name: of the parameter.
        shape: how it gets its values.
        default: of a message that leaves it out.
    """

    name: str
    shape: Shape
    default: Any


class Columns:
    """The parameters of a batch job's function.

    Args:
        job: name of the job, for messages.
        function: takes a list, or an array, of the values of each parameter of a message.

    Attributes:
        one: a function with the parameters of one message, for who compares signatures.
        takes: checks the arguments of one message.

    Raises:
        InvalidInput: a parameter is not annotated as one that takes many values.
    """

    def __init__(self, job: str, function: Callable[..., Any]) -> None:
        self._job = job
        signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
        columns, parameters, annotations = [], [], {}
        for parameter in signature.parameters.values():
            if parameter.kind in _VARIADIC:
                raise InvalidInput(
                    f"batch job {job!r}: name each parameter of its function; {parameter} has no"
                    " list of its own"
                )
            shape, each = self._column(parameter.name, hints.get(parameter.name))
            columns.append(Column(parameter.name, shape, parameter.default))
            parameters.append(parameter.replace(annotation=each))
            if each is not parameter.empty:
                annotations[parameter.name] = each
        self._columns = tuple(columns)
        self._position_only = frozenset(
            each.name for each in parameters if each.kind is each.POSITIONAL_ONLY
        )
        self.one = _one(signature.replace(parameters=parameters), annotations)
        self.takes = Signature(job, self.one)

    def row(self, args: Any, kwargs: Any) -> tuple[Any, ...]:
        """Return the values of one message, in the order of the parameters.

        Raises:
            InvalidArguments: they do not fit.
        """
        given = self.takes.values(args, kwargs)
        return tuple(given.get(column.name, column.default) for column in self._columns)

    def groups(self, rows: Sequence[tuple[Any, ...]]) -> list[list[int]]:
        """Return which messages go into one call, by their indexes, in order."""
        keyed = [at for at, each in enumerate(self._columns) if each.shape is Shape.ARRAY]
        if not keyed:
            return [list(range(len(rows)))] if rows else []
        found: dict[Hashable, list[int]] = {}
        for index, row in enumerate(rows):
            found.setdefault(tuple(kind_of(row[at]) for at in keyed), []).append(index)
        return list(found.values())

    def arguments(self, rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of one call.

        Args:
            rows: of the messages of one group.
        """
        args, kwargs = [], {}
        for at, column in enumerate(self._columns):
            values: Any = [row[at] for row in rows]
            if column.shape is not Shape.LIST:
                together = stacked(values)
                values = values if together is None else together
            if column.name in self._position_only:
                args.append(values)
            else:
                kwargs[column.name] = values
        return args, kwargs

    def _column(self, name: str, annotation: Any) -> tuple[Shape, Any]:
        """Return a parameter's shape, and the type of one message's value."""
        if annotation is None or annotation is Any:
            return Shape.EITHER, inspect.Parameter.empty
        if _is_array(annotation):
            return Shape.ARRAY, Array
        if _is_list(annotation):
            return Shape.LIST, _item(annotation)
        if get_origin(annotation) in _UNIONS:
            options = [each for each in get_args(annotation) if each is not type(None)]
            if len(options) == 1:
                return self._column(name, options[0])
            if all(_is_array(each) or (_is_list(each) and _is_array(_item(each)))
                   for each in options):  # fmt: skip
                return Shape.EITHER, Array
        raise InvalidInput(
            f"batch job {self._job!r}: parameter {name!r} gets the values of many messages;"
            " annotate it as list[...] or numpy.ndarray, not"
            f" {inspect.formatannotation(annotation)}"
        )


def _is_array(annotation: Any) -> bool:
    return annotation is Array or getattr(annotation, "__origin__", annotation) is np.ndarray


def _is_list(annotation: Any) -> bool:
    return annotation in _LISTS or get_origin(annotation) in _LISTS


def _item(annotation: Any) -> Any:
    inner = get_args(annotation)
    return inner[0] if inner and inner[0] is not Any else inspect.Parameter.empty


def _one(signature: inspect.Signature, annotations: dict[str, Any]) -> Callable[..., Any]:
    """Return a function with the parameters of one message, for its signature."""

    def one() -> None:
        """Do nothing."""

    one.__signature__ = signature  # type: ignore[attr-defined]
    one.__annotations__ = annotations
    return one
