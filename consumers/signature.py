"""Checks a job's arguments against the signature of its function, by pydantic."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import numpy as np
from pydantic import BeforeValidator, InstanceOf, TypeAdapter, ValidationError

from broker.errors import InvalidArguments


def _as_array(value: Any) -> Any:
    """Make an array of a list, so that clients without numpy can send one; None is a gap."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (list, tuple)):
        try:
            return np.asarray(
                [np.nan if item is None else item for item in value]
                if any(item is None for item in value)
                else value
            )
        except ValueError as exc:
            raise ValueError(f"the list is not an array: {exc}") from None
    raise ValueError(f"an array or a list is needed, not {type(value).__name__}")


# What a task that takes an array says: an array, or a list that becomes one.
Array = Annotated[np.ndarray[Any, Any], InstanceOf(), BeforeValidator(_as_array)]


_BY_NAME = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
_BY_POSITION = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}


class Signature:
    """The parameters of a function, ready to check arguments against them.

    Args:
        job: name of the job, for messages.
        function: its annotations say what is allowed; a parameter without one takes anything.
            `numpy.ndarray` takes lists too.
        bound: whether Celery passes the task itself first (``bind=True``).
    """

    def __init__(self, job: str, function: Callable[..., Any], *, bound: bool = False) -> None:
        self.job = job
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[1 if bound else 0 :]
        self._signature = signature.replace(parameters=parameters)
        # Where all parameters are of one kind, the usual arguments need no binding.
        self._names = tuple(self._signature.parameters)
        self._known = frozenset(self._names)
        kinds = {each.kind for each in parameters}
        self._by_name, self._by_position = kinds <= _BY_NAME, kinds <= _BY_POSITION
        hints = get_type_hints(function, include_extras=True)
        self._validators: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            annotation: Any = hints.get(name)
            if annotation is None:
                continue
            if getattr(annotation, "__origin__", annotation) is np.ndarray:
                annotation = Array
            if parameter.kind is parameter.VAR_POSITIONAL:
                annotation = tuple[annotation, ...]
            elif parameter.kind is parameter.VAR_KEYWORD:
                annotation = dict[str, annotation]
            self._validators[name] = TypeAdapter(annotation).validator

    def bind(self, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments as the function takes them, converted where that is harmless.

        Raises:
            InvalidArguments: names the argument and what is wrong with it.
        """
        given = self._given(args, kwargs)
        if given is None:
            bound = self._bound(args, kwargs)
            return bound.args, bound.kwargs
        self._check(given)
        return (tuple(given.values()), {}) if args else ((), given)

    def values(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the arguments by the names of their parameters; what is left out is absent.

        Raises:
            InvalidArguments: as above.
        """
        given = self._given(args, kwargs)
        if given is None:
            return self._bound(args, kwargs).arguments
        self._check(given)
        return given

    def _given(self, args: Any, kwargs: Any) -> dict[str, Any] | None:
        """Return the usual arguments by their names; None for all that needs binding."""
        if self._by_position and not kwargs and len(args) == len(self._names):
            return dict(zip(self._names, args, strict=True))
        if self._by_name and not args and kwargs.keys() == self._known:
            return dict(kwargs)
        return None

    def _bound(self, args: Any, kwargs: Any) -> inspect.BoundArguments:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise InvalidArguments(
                f"job {self.job!r}: {exc}; it takes {self._signature}", job=self.job
            ) from None
        self._check(bound.arguments)
        return bound

    def _check(self, given: dict[str, Any]) -> None:
        for name, value in given.items():
            validator = self._validators.get(name)
            if validator is None:
                continue
            try:
                given[name] = validator.validate_python(value)
            except ValidationError as exc:
                first = exc.errors(include_url=False, include_context=False)[0]
                at = "".join(f"[{part!r}]" for part in first["loc"])
                raise InvalidArguments(
                    f"argument {name!r}{at} of job {self.job!r}: {first['msg']}",
                    job=self.job,
                    argument=name,
                ) from exc
