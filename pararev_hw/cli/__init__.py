"""The command line: `pararev-hw VERB ...`. Results on standard output, messages and progress on standard error.

Exit status: 0 done; 1 the thing asked about is false (it does not fit); 2 bad input, in one line; 130 interrupted.
A verb is a file of this folder, with one line in the table of `entry.py`.
"""

from __future__ import annotations

import os
import sys


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
