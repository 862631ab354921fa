"""Calls of public functions, held against their signatures: a wrong name or type is told in one line.

An option that does not exist gets the nearest one that does, as the command line says it. A value of another type than
the annotation names is refused before anything is done with it; an integer of numpy's becomes an int.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from pararev_hw.documents import shown
from pararev_hw.errors import BadInput, unknown_name

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")

_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "bool": "True or False",
    "Path": "a path",
    "Any": "anything",
    "BlockGraph": "what ph.trace gave",
    "Plan": "what ph.schedule gave",
    "Prediction": "what ph.predict gave",
    "SchedulingProblem": "what ph.load_problem gave",
    "TraceOptions": "ph.TraceOptions(...)",
}


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose wrong calls raise BadInput in one line.

    What it takes as `**keywords: Unpack[...]` of a TypedDict of its module stands in its signature name by name.
    """
    checked = functools.wraps(function)(_checked(function, _public_name(function)))
    checked.__signature__ = _signature(function)  # type: ignore[attr-defined]
    return checked


def exact_fields(cls: type[C]) -> type[C]:
    """The same for the fields of a dataclass."""
    plain_init = cls.__init__
    type.__setattr__(cls, "__init__", functools.wraps(plain_init)(_checked(plain_init, f"ph.{cls.__name__}")))
    return cls


def _public_name(function: Callable[..., object]) -> str:
    """As a user names it: "ph.trace", "ph.models.create", "Study.graph_of"."""
    if "." in function.__qualname__:
        return function.__qualname__
    room = function.__module__.split(".")[1]
    return f"ph.{function.__name__}" if room == "api" else f"ph.{room}.{function.__name__}"


def _checked(function: Callable[P, R], name: str) -> Callable[P, R]:
    signature = _signature(function)
    names = tuple(n for n in signature.parameters if n != "self")
    hints: dict[str, Any] = {}

    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            unknown = next((k for k in kwargs if k not in names), None)
            if unknown is not None:
                raise unknown_name(f"option of {name}", unknown, names) from None
            raise BadInput(f"{name}: {error}: it takes {', '.join(names) or 'nothing'}") from None
        if not hints:  # at the first call: until then what annotations name may not be there yet
            hints.update(_hints(function, signature))
        for parameter, value in bound.arguments.items():
            bound.arguments[parameter] = _of_type(parameter, value, hints[parameter])
        return function(*bound.args, **bound.kwargs)

    return checked


def _signature(function: Callable[..., object]) -> inspect.Signature:
    signature = inspect.signature(function)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD or not parameter.annotation.startswith("Unpack["):
            parameters.append(parameter)
            continue
        (keywords,) = typing.get_args(eval(parameter.annotation, vars(sys.modules[function.__module__])))
        parameters += (
            inspect.Parameter(name, parameter.KEYWORD_ONLY, default=None, annotation=hint.__forward_arg__)
            for name, hint in keywords.__annotations__.items()
        )
    parameters.sort(key=lambda p: p.kind)
    return signature.replace(parameters=parameters)


def _hints(function: Callable[..., object], signature: inspect.Signature) -> dict[str, Any]:
    """The type of each parameter; Any where it names what is imported for type checkers alone."""
    module = vars(sys.modules[function.__module__])
    hints: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        try:
            plain = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            hints[name] = eval(parameter.annotation, module) if plain and name != "self" else Any
        except NameError:
            hints[name] = Any
    return hints


def _of_type(name: str, value: object, hint: Any) -> object:
    """The value as one of that type. Raises BadInput."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for kind in kinds:
        if _fits(value, kind):
            return int(value) if kind is int and isinstance(value, Integral) else value
    items = next((k for k in kinds if _is_list(k)), None)
    if items is not None:
        item = typing.get_args(items)[0]
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
        return tuple(_of_type(f"one of {name}", v, item) for v in values)
    words = [_in_words(kind) for kind in kinds if kind is not types.NoneType]
    listed = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    part = next((f for f in getattr(value, "__dataclass_fields__", ()) if _fits_noun(getattr(value, f), kinds)), None)
    advice = "" if part is None else f": give its .{part}"
    raise BadInput(f"{name} is {_quoted(value)}: it must be {listed}{advice}")


def _fits_noun(value: object, kinds: Sequence[Any]) -> bool:
    """Whether the value is one of the kinds that are the package's own."""
    return any(hasattr(kind, "__dataclass_fields__") and isinstance(value, kind) for kind in kinds)


def _quoted(value: object) -> str:
    """`torch.float32` tells more than "a dtype" does, and `[1, 2]` more than "a list"."""
    text = repr(value) if isinstance(value, list | tuple) or type(value).__module__ == "torch" else ""
    return text if 0 < len(text) <= 40 and "\n" not in text else shown(value)


def _fits(value: object, kind: Any) -> bool:
    plain = typing.get_origin(kind) or kind
    if plain is Any:
        return True
    if plain is Literal:  # which of the names, the function itself tells
        return isinstance(value, str)
    if isinstance(value, bool):
        return plain is bool
    if plain is int:
        return isinstance(value, Integral)
    if plain is float:
        return isinstance(value, Real) and _is_finite(value)
    if plain is Path:
        return isinstance(value, os.PathLike)
    if plain is Callable:
        return callable(value)
    if plain is Mapping:
        of_key, of_value = typing.get_args(kind)
        return isinstance(value, Mapping) and all(_fits(k, of_key) and _fits(v, of_value) for k, v in value.items())
    return not _is_list(kind) and isinstance(value, plain)


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) in (tuple, Sequence)


def _in_words(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(typing.get_args(kind))
    plain = typing.get_origin(kind) or kind
    if plain is Mapping:
        of_key, of_value = (_in_words(k) for k in typing.get_args(kind))
        return f"a mapping from {of_key} to {of_value}"
    return "a function" if plain is Callable else _WORDS.get(plain.__name__, f"a {plain.__name__}")


def whole_number(name: str, value: int, *, least: int) -> None:
    """Raise BadInput unless the value is at least `least`, and one that a machine counts with."""
    if value < least:
        raise BadInput(f"{name} is {shown(value)}: it must be at least {least}")
    if value > sys.maxsize:
        raise BadInput(f"{name} is {shown(value)}: it must be at most {sys.maxsize}")


def positive(name: str, value: float, unit: str = "") -> None:
    """Raise BadInput unless the value is above 0."""
    if not value > 0:
        raise BadInput(f"{name} is {shown(value)}: it must be a number{unit} above 0")
