"""One calibration at a time per file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pararev_hw.atomic import real_path
from pararev_hw.errors import BadInput


@contextlib.contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Holds `path` for this calibration; None: nothing to hold. Raises BadInput where another one holds it.

    The operating system lets the lock go when this process ends, however it ends.
    """
    if path is None:
        yield
        return
    beside = real_path(path).with_name(f".{path.name}.lock")
    beside.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(beside)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"{path}: another calibration is writing it: wait for it, or name another file") from None
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            beside.unlink()
