"""The line of a user's code that is running, or that raised."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

import torch

_PACKAGE = Path(__file__).parents[1]
_OWN_FILES = tuple(str(_PACKAGE / name) for name in ("tracing", "training", "torch_private.py"))
_NOT_THE_USERS = (str(Path(torch.__file__).parent), *_OWN_FILES)


def user_line(trace: TracebackType | None = None) -> str:
    """`" (net.py:12)"`: the innermost line of code outside torch and the tracer, of the stack or of a traceback."""
    path, line = source_line(trace)
    return f" ({Path(path).name}:{line})" if path else ""


def source_line(trace: TracebackType | None = None) -> tuple[str, int]:
    """Path and number of that line, `("", 0)` where no such code runs."""
    frames: list[tuple[str, int]] = []
    if trace is not None:
        while trace is not None:
            frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
            trace = trace.tb_next
        frames.reverse()
    else:
        frame = sys._getframe(1)
        while frame is not None:
            frames.append((frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back  # type: ignore[assignment]
    for name, line in frames:
        if not name.startswith(_NOT_THE_USERS) and not name.startswith("<") and "contextlib" not in name:
            return name, line
    return "", 0
