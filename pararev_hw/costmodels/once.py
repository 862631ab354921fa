"""What is asked many times of the same objects while they are studied, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Result = TypeVar("Result")
Asked = tuple[object, ...]
# what was asked of which objects -> the result, and the objects, so that no others take their place in memory
_shared: ContextVar[dict[Asked, tuple[Any, Asked]] | None] = ContextVar("shared", default=None)


@contextmanager
def working_out_once() -> Iterator[None]:
    """While it lasts, `once` remembers: what a graph costs on a device is worked out once for all who ask."""
    token = _shared.set({} if (results := _shared.get()) is None else results)
    try:
        yield
    finally:
        _shared.reset(token)


def once(work: Callable[..., Result], objects: Asked, *others: str | int | None) -> Result:
    """What `work` gives for these arguments, remembered while `working_out_once` lasts: they are the same where the
    `objects` are the same ones."""
    results = _shared.get()
    if results is None:
        return work(*objects, *others)
    asked = (work, *map(id, objects), *others)
    if asked not in results:
        results[asked] = (work(*objects, *others), objects)
    result: Result = results[asked][0]
    return result
