"""The command line: `pararev-hw VERB ...`. Results on standard output, messages and progress on standard error.

Exit status: 0 done; 1 the thing asked about is false (it does not fit); 2 bad input, in one line; 130 interrupted.
A verb is a file of this folder, with one line in the table of `entry.py`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys


def script() -> None:
    """`main` as a process of its own, which ends as soon as it has cleaned up: Python would first let go of every
    object by itself, which takes up to some seconds after a report, and as long after Ctrl-C."""
    status = [1]
    atexit.register(_leave, status)  # first, and so the last to be called
    try:
        main()
    except SystemExit as stop:
        status[0] = stop.code if isinstance(stop.code, int) else 1
        raise


def _leave(status: list[int]) -> None:
    with contextlib.suppress(OSError, ValueError):  # where output is lost, Python says so
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status[0])


def main() -> None:
    """The entry point. What it needs is imported inside, so that an interrupt meanwhile ends like any other."""
    # a calibration fits by thousands of small products: numpy's threads wait for a busy core, and take 40 times as long
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from pararev_hw.cli.entry import run

        status = run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
