"""Which files are opened in a folder and below, by whom and in what language ever: the kernel tells, by inotify.

Python's own audit events know what Python opens; HDF5, TorchScript and other libraries in C++ open files unheard.
Elsewhere than on Linux nothing is heard. A large tree is watched only as far as `limits.WATCHED_FOLDERS`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pararev_hw import limits

_HEAD = struct.Struct("iIII")  # struct inotify_event: watch, mask, cookie, length of the name that follows
_OPEN, _MODIFY, _IS_FOLDER = 0x20, 0x02, 0x40000000  # sys/inotify.h
_BUFFER_BYTES = 1 << 20
LOCK = "sweep.lock"  # lies in every folder of results of a sweep


class Watch:
    """Hears from when it is made until `stop`."""

    def __init__(self, folders: set[Path]) -> None:
        self._folder_of: dict[int, Path] = {}
        self._handle = -1
        if not folders:
            return
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, AttributeError):
            return
        if self._handle < 0:
            return
        for folder in _below(folders):
            watch = libc.inotify_add_watch(self._handle, os.fsencode(folder), _OPEN | _MODIFY)
            if watch >= 0:
                self._folder_of[watch] = folder

    def stop(self) -> set[str]:
        """Paths of the files that were opened, but for those that were written, and for Python's source, whose readers
        are Python itself and editors."""
        if self._handle < 0:
            return set()
        opened, written_paths = set[str](), set[str]()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._handle, _BUFFER_BYTES):
                for path, mask in self._events(data):
                    (written_paths if mask & _MODIFY else opened).add(path)
        os.close(self._handle)
        self._handle = -1
        return {path for path in opened - written_paths if not path.endswith((".py", ".pyc"))}

    def _events(self, data: bytes) -> Iterator[tuple[str, int]]:
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
            at += _HEAD.size + length
            folder = self._folder_of.get(watch)
            if folder is not None and name and not mask & _IS_FOLDER:
                yield str(folder / os.fsdecode(name)), mask


def _below(folders: set[Path]) -> list[Path]:
    """The folders and those inside them, the nearest first, but for hidden ones and results of sweeps: what another
    sweep reads meanwhile is nothing that this one depends on."""
    below = sorted(folders)
    for folder in below:  # grows meanwhile
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            below += sorted(Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) and not _passed_over(e))
        if len(below) >= limits.WATCHED_FOLDERS:
            break
    return list(dict.fromkeys(below))[: limits.WATCHED_FOLDERS]


def _passed_over(folder: os.DirEntry[str]) -> bool:
    return folder.name.startswith(".") or folder.name == "__pycache__" or os.path.exists(f"{folder.path}/{LOCK}")
