"""Files and folders that a verb writes: refused before any work is done where they cannot be written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pararev_hw.atomic import is_stream, real_path
from pararev_hw.errors import BadFile


def writable(folder: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be written."""
    for p in (folder, *folder.parents):
        if p.is_file():
            raise BadFile(f"cannot write into {str(folder)!r}: {str(p)!r} is a file: name a folder that can be written")
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadFile(
            f"cannot write into {str(folder)!r}: {error.strerror}: name a folder that can be written"
        ) from error
    finally:
        for p in missing:  # an empty folder is no result: it is made again when there is something to put into it
            with contextlib.suppress(OSError):
                p.rmdir()


def check_output(path: Path) -> None:
    """Refuse, before any work is done, a file that cannot be written."""
    if path.is_dir():
        raise BadFile(f"cannot write {str(path)!r}: it is a folder: name a file in it")
    if not is_stream(path):
        writable(real_path(path).parent)
