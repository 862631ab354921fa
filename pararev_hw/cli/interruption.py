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
from types import FrameType

from pararev_hw.errors import INTERRUPTED, INTERRUPTS, TERMINATED, Terminated

GRACE_S = 1.0  # in which most operations end


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the measuring as Ctrl-C does: what is done so far is kept."""

    before = signal.getsignal(signal.SIGTERM)

    def interrupt(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(Terminated):
            if callable(before):  # it hears which signal ends the process
                before(number, frame)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
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
        number = _signal_from(reader)
        if number is None or over.wait(GRACE_S) or not ending.acquire(blocking=False):
            return
        sys.stdout = result
        try:
            show()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(TERMINATED if number == signal.SIGTERM else INTERRUPTED)

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


def _signal_from(reader: socket.socket) -> int | None:
    """The first signal that ends the measuring; None where the other end closes before one comes."""
    with reader:
        while numbers := reader.recv(64):
            for number in numbers:
                if number in (signal.SIGINT, signal.SIGTERM):
                    return number
    return None


def _take(lock: threading.Lock) -> None:
    """Wait for the lock, whatever signals come meanwhile."""
    while True:
        try:
            lock.acquire()
            return
        except INTERRUPTS:
            continue
