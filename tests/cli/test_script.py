"""The command line as a process: it cleans up, and leaves without letting go of every object by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys
from pararev_hw import cli
class Object:
    def __del__(self):
        print("let go of", file=sys.stderr)
one, run = Object(), cli.main
def main():
    atexit.register(print, "cleaned up")
    run()
cli.main = main
sys.argv = ["pararev-hw", {verb!r}]
cli.script()
"""


@pytest.mark.parametrize(("verb", "status"), [("version", 0), ("nonsense", 2)])
def test_a_verb_cleans_up_and_leaves_at_once(verb: str, status: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(verb=verb)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == status, ran.stderr
    assert bool(ran.stdout) == (status == 0)  # written to the end
    assert ran.stderr.splitlines()[-1] == "cleaned up"
