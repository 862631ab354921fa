"""A folder of files that is written whole or not at all: each beside its name first, then renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from pararev_hw.errors import BadFile


def write_files(folder: Path, contents: Mapping[str, str]) -> tuple[Path, ...]:
    """Write each name's text into `folder` (made where it is missing) and give the paths, in order.

    No file of the folder changes before all the new ones are written, and nothing half-written stays behind: a folder
    that was made for files which could not be written goes again.
    Raises BadFile where the folder or a file cannot be written.
    """
    drafts: dict[Path, Path] = {}
    at = folder
    missing_folders = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            at = folder / name
            if at.is_dir():
                raise IsADirectoryError(f"{at} is a folder")
            drafts[at] = folder / f".{name}.{os.getpid()}.part"
            drafts[at].write_text(content, encoding="utf-8", errors="replace", newline="\n")
        for at, draft in drafts.items():
            draft.replace(at)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadFile(f"cannot write {str(at)!r}: {reason}: name a folder that can be written and has room") from error
    finally:
        for draft in drafts.values():
            _remove(draft)
        for p in missing_folders:  # those that hold a file stay
            with contextlib.suppress(OSError):
                p.rmdir()
    return tuple(drafts)


def real_path(path: Path) -> Path:
    """The path with its links followed; a link that leads back to itself stays (there `Path.resolve` may raise)."""
    return Path(os.path.realpath(path))


def _remove(draft: Path) -> None:
    try:
        draft.unlink(missing_ok=True)
    except OSError:
        # The folder itself has gone or turned read-only: the error that is on its way says so already.
        return
