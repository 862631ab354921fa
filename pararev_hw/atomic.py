"""Files that are written whole or not at all: each beside its name first, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path

from pararev_hw.errors import BadFile


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> tuple[Path, ...]:
    """Write each name's text or bytes into `folder` (made where it is missing) and give the paths, in order.

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
                raise BadFile(f"cannot write {str(at)!r}: it is a folder: name another folder to write into")
            drafts[at] = folder / f".{name}.{os.getpid()}.part"
            drafts[at].write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)
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


def write_file(path: Path | str, content: str) -> None:
    """Write one file, whole or not at all. A link stays a link; a device or a pipe is written to, never replaced.

    Raises BadFile where it cannot be written.
    """
    if not isinstance(path, Path | str):
        raise BadFile(f"cannot write {path!r}: a file is named by a str or a Path")
    path = Path(path)
    if path.is_dir():
        raise BadFile(f"cannot write {str(path)!r}: it is a folder: name a file in it")
    if not is_stream(path):
        path = real_path(path)
        write_files(path.parent, {path.name: content})
        return
    try:
        # without waiting: a pipe that nobody reads could be waited for without end
        handle = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
        os.set_blocking(handle, True)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as stream:
            stream.write(content + "\n" * (not content.endswith("\n")))
    except OSError as error:
        unread = error.errno == errno.ENXIO
        reason = "nobody reads it: start its reader first" if unread else f"{error.strerror}: name another file"
        raise BadFile(f"cannot write {str(path)!r}: {reason}") from error


def is_stream(path: Path) -> bool:
    """Whether the path is a device or a pipe, such as /dev/null: written to, where a file is replaced."""
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError):
        return False


def real_path(path: Path) -> Path:
    """The path with its links followed; a link that leads back to itself stays (there `Path.resolve` may raise).

    Raises BadFile where it is none.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        raise BadFile(f"{str(path)!r}: a path holds no NUL") from None


def _remove(draft: Path) -> None:
    try:
        draft.unlink(missing_ok=True)
    except OSError:
        # The folder itself has gone or turned read-only: the error that is on its way says so already.
        return
