"""Triton's kernels compile for GPUs that are not here, and keep their values in registers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_the_kernels_of_the_neuron_spill_nothing_on_any_architecture() -> None:
    # in a process of its own: Triton decides at its import whether it interprets
    script = (
        "from benchmarks.campaign.kernel_resources import kernel_resources\n"
        "for r in kernel_resources():\n"
        "    print(r.kernel, r.dtype, r.architecture, r.registers, r.spill_bytes, r.shared_bytes)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    run = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240, check=False
    )
    assert run.returncode == 0, run.stderr[-1000:]
    rows = [line.split() for line in run.stdout.splitlines()]
    assert {(r[0], r[1]) for r in rows} == {(k, d) for k in ("forward", "backward") for d in ("fp64", "fp32", "bf16")}
    assert {r[2].rstrip("a") for r in rows} == {"sm_80", "sm_90", "sm_100"}
    assert all(0 < int(r[3]) <= 255 and int(r[4]) == 0 for r in rows)
