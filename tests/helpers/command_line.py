"""Runs the command line: inside the test's process for speed, or as a process of its own where that is the point."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from pararev_hw import cli

SMALL = ("--width", "0.0625", "--batch", "2", "--timesteps", "2")  # a zoo network that traces in half a second
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that a refused run says. Fails where it says more, or prints anything."""
        assert self.out == "", self.out
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.rstrip("\n")


def run(*arguments: object, columns: int = 80) -> Ran:
    """`pararev-hw ARGUMENTS` on a terminal of that width. An exception that would reach the user reaches the test."""
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with (
        mock.patch.object(sys, "argv", ["pararev-hw", *map(str, arguments)]),
        mock.patch.dict(os.environ, {"COLUMNS": str(columns)}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code
    assert isinstance(status, int), status
    return Ran(status, out.getvalue(), err.getvalue())


def start(
    *arguments: object,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    stdout: int = subprocess.PIPE,
) -> "subprocess.Popen[str]":
    """`pararev-hw ARGUMENTS` as a process of its own, in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "pararev_hw.cli", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", **(environment or {})},
        preexec_fn=before,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> Ran:
    """Waits for the end of a started run."""
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out or "", err)
