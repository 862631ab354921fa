"""Standard output for the verb's result alone, whatever a user's network writes, as any terminal can show it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def result_stream() -> Iterator[None]:
    """While a verb runs, `sys.stdout` alone leads to the result; file descriptor 1 leads to standard error.

    A network's factory may print from C, start a program, or write to descriptor 1: none of it may end up inside a
    JSON document. Characters that the terminal's encoding lacks are escaped.
    """
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        with contextlib.suppress(AttributeError, ValueError, OSError):  # streams of tests and notebooks
            stream.reconfigure(errors="backslashreplace")
    before: Any = sys.stdout
    if not _is_descriptor(before, 1):
        yield
        return
    before.flush()
    result = os.dup(1)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        os.close(result)
        yield
        return
    stream = sys.stdout = open(  # noqa: SIM115, open until the interpreter ends: whoever writes last may be late
        result, "w", encoding=before.encoding, errors="backslashreplace", buffering=1 if os.isatty(result) else -1
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
        sys.stdout = sys.stderr  # what a network prints when the interpreter ends is no result either


def _is_descriptor(stream: object, number: int) -> bool:
    try:
        return bool(stream.fileno() == number)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
