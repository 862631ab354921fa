"""Calls that name an option which does not exist get the nearest one that does, as the command line says it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from pararev_hw.errors import BadInput, unknown_name

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose wrong calls raise BadInput in one line where Python raises a TypeError."""
    signature = inspect.signature(function)
    name = f"ph.{function.__name__}"

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        _check(signature, name, args, kwargs)
        return function(*args, **kwargs)

    return checked


def exact_fields(cls: type[C]) -> type[C]:
    """The same for the fields of a dataclass."""
    signature = inspect.signature(cls)
    plain_init = cls.__init__

    @functools.wraps(plain_init)
    def init(self: C, *args: object, **kwargs: object) -> None:
        _check(signature, f"ph.{cls.__name__}", args, kwargs)
        plain_init(self, *args, **kwargs)

    type.__setattr__(cls, "__init__", init)
    return cls


def _check(signature: inspect.Signature, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        names = tuple(signature.parameters)
        unknown = next((k for k in kwargs if k not in names), None)
        if unknown is not None:
            raise unknown_name(f"option of {name}", unknown, names) from None
        raise BadInput(f"{name}: {error}: it takes {', '.join(names)}") from None


def whole_number(what: str, value: object, *, least: int) -> None:
    """Raise BadInput unless the value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"{what} is {value!r}: it must be an integer")
    if value < least:
        raise BadInput(f"{what} is {value}: it must be at least {least}")


def path_of(what: str, value: object) -> Path:
    """The value as a path. Raises BadInput where it names none."""
    if not isinstance(value, str | Path):
        raise BadInput(f"{what} is of type {type(value).__name__}: give a path")
    return Path(value)
