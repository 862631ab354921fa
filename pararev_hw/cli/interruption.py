"""Ending a measurement that a signal finds in the middle: what is done so far is kept.

Python tells its main thread of a signal between two operations, and one operation of a library may last for minutes.
So another thread hears of it too, and where the main thread is still in an operation after GRACE_S, shows what is done
and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from pararev_hw.errors import INTERRUPTS

GRACE_S = 1.0  # in which most operations end
INTERRUPTED = 130  # the exit status


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the measuring as Ctrl-C does: what is done so far is kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def ended_at_once(show: Callable[[], None]) -> Iterator[None]:
    """The same; where an operation runs on all the same, `show` runs in another thread, and the process ends.

    `show` writes to the standard output that there was before.
    """
    ending = threading.Lock()  # who has it ends the measuring
    over = threading.Event()
    result = sys.stdout
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        if not _signalled(reader) or over.wait(GRACE_S) or not ending.acquire(blocking=False):
            return
        sys.stdout = result
        try:
            show()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(INTERRUPTED)

    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        with terminated_as_interrupted():
            yield
    finally:
        over.set()
        _take(ending)  # for good: the other thread ends the process, or never will
        signal.set_wakeup_fd(before)
        writer.close()


def _signalled(reader: socket.socket) -> bool:
    """Whether a signal that ends the measuring comes before the other end closes."""
    with reader:
        while numbers := reader.recv(64):
            if not {signal.SIGINT, signal.SIGTERM}.isdisjoint(numbers):
                return True
    return False


def _take(lock: threading.Lock) -> None:
    """Wait for the lock, whatever signals come meanwhile."""
    while True:
        try:
            lock.acquire()
            return
        except INTERRUPTS:
            continue
