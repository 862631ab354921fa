"""Python's garbage collection, held back while a step runs; without torch, which verbs that read files do not load."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Python collects no garbage meanwhile: tensors in reference cycles die, or not, the same way every time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
