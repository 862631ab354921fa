"""One calibration at a time per file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pararev_hw.errors import BadInput


@contextlib.contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Holds `path` for this calibration; None: nothing to hold. Raises BadInput where another one holds it.

    The lock is a file beside it that the operating system lets go when this process ends, however it ends.
    """
    if path is None:
        yield
        return
    import fcntl  # of POSIX systems

    beside = path.resolve().with_name(f".{path.name}.lock")
    beside.parent.mkdir(parents=True, exist_ok=True)
    with open(beside, "a", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{path}: another calibration is writing it: wait for it, or name another file") from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(beside)
