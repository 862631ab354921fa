"""Held-in steps of a CPU, measured in a process of their own.

Measuring ops leaves this process's allocator unlike that of a user who trains one network: what it keeps and what it
gives back depends on the largest block that it ever let go. So `python -m pararev_hw.calibration.subprocess_steps`
measures steps in a fresh process: it reads a JSON list of steps, and writes one JSON line for each as soon as it is
known.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pararev_hw.calibration import held_in
from pararev_hw.calibration.failures import failure
from pararev_hw.calibration.held_in import HeldIn
from pararev_hw.measurement import Timing, computing_threads, measure_step, step_clock
from pararev_hw.measurement.pace import PaceLog


@dataclass(frozen=True, slots=True)
class Timed:
    """What came of a step: its timing, or why there is none."""

    timing: Timing | None
    failed: str = ""
    slowness: float = 1.0


def timed_here(one: HeldIn, device: str, seed: int, limit_s: float, pace_s: float | None = None) -> Timed:
    """The step's timing in this process on one thread, and how many times as slowly as at `pace_s` the machine ran
    meanwhile. Raises what the step raises."""
    with computing_threads(1):
        clock = PaceLog(step_clock(device))
        timing = measure_step(held_in.step(one, device, seed), clock, limit_s=limit_s)
    return Timed(timing, slowness=1.0 if pace_s is None else statistics.median(clock.paces_s) / pace_s)


def timed_in_subprocess(
    networks: Sequence[HeldIn], seed: int, limit_s: float, until: Callable[[], bool], pace_s: float | None = None
) -> Iterator[Timed]:
    """Timings in turn, measured on the CPU in a process of their own, which ends with the time or with this one."""
    child = subprocess.Popen(
        [sys.executable, "-m", "pararev_hw.calibration.subprocess_steps"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        request = {"steps": [asdict(one) for one in networks], "seed": seed, "limit_s": limit_s, "pace_s": pace_s}
        json.dump(request, child.stdin)
        child.stdin.close()
        for line in child.stdout:
            yield _timed(json.loads(line))
            if until():
                return
        if child.wait() != 0:
            yield Timed(None, f"the process that measured it ended with status {child.returncode}")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _timed(answer: dict[str, Any]) -> Timed:
    if answer["failed"]:
        return Timed(None, answer["failed"])
    t = answer["timing"]
    timing = Timing(tuple(t["seconds"]), t["noisy"], t["disturbed"], t["faulted_bytes"])
    return Timed(timing, slowness=answer["slowness"])


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends this process
    request = json.load(sys.stdin)
    for entry in request["steps"]:
        answer: dict[str, Any]
        try:
            answer = asdict(timed_here(HeldIn(**entry), "cpu", request["seed"], request["limit_s"], request["pace_s"]))
        except Exception as error:
            # a step may fail in as many ways as a network: the others still count
            answer = {"failed": failure(error) or str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
