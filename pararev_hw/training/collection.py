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


def take_for_old() -> None:
    """What there is now is left out until Python looks through everything it has: after a long step without collection
    it would look through all that the step made, most of which stays. Nothing happens where objects are set aside
    (`gc.freeze`): what came since would be set aside with them, and its garbage never collected."""
    if gc.get_freeze_count() == 0:
        gc.freeze()
        gc.unfreeze()
