"""What cards that no table holds take from the measured ones, beside shares worked out by hand."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from pararev_hw.costmodels.gpu.kernels import Kernel

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fit_published_gpus import Problem, unmeasured_shares
from published_kinds import HOST, OTHER, factors, far_off, finer, lines, seconds_by_kind
from published_tables import Block, _one_each, neusight, product


def test_neusights_products_sum_over_the_column_named_n(tmp_path: Path) -> None:
    """Its collector takes `torch.bmm` of [B, M, N] and [B, N, K], and `Linear(N, K)` of [B, M, N]."""
    tables = {
        "vector": "gpu,op,split,B,H,ms",
        "conv3x3": "gpu,split,B,ic,oc,in_hw,stride,pad,k,ms",
        "gemm": "gpu,op,split,B,M,N,K,ms\nTesla T4,bmm,train,7,30,50,90,0.1\nTesla T4,linear,train,2,30,50,90,0.1",
    }
    for name, text in tables.items():
        (tmp_path / f"neusight-{name}-fp32.csv.gz").write_bytes(gzip.compress(text.encode()))
    batched, linear = (b.kernels[0] for b in neusight(tmp_path, 60))
    assert (batched.groups, batched.m, batched.n, batched.k) == (7, 30, 90, 50)
    assert batched.bytes == 4 * 7 * (30 * 50 + 50 * 90 + 30 * 90)
    assert (linear.groups, linear.m, linear.n, linear.k) == (1, 60, 90, 50)


def test_boards_short_of_power_tell_the_energy_of_an_operation_and_not_what_others_sustain() -> None:
    energy = 24e-12

    def clocks(power: float) -> float:  # over full ones, of a board with that share of the power which those would draw
        return power ** (1 / 3) if power > 0.75**3 else power / 0.75**2

    t4 = clocks((70 - 26) / (8.1e12 * energy * 0.75))  # at 12 nm
    p4 = clocks((75 - 23) / (5.5e12 * energy))
    full = {"bandwidth_sustained_share": 0.8, "cuda_sustained_share": 1.2}
    measured = dict.fromkeys(("gtx1080ti", "p100", "v100"), full)
    measured |= {card: full | {"cuda_sustained_share": 1.2 * within} for card, within in (("t4", t4), ("p4", p4))}
    others = unmeasured_shares(measured)
    assert others["cuda_sustained_share"] == pytest.approx(1.2, rel=0.01)
    assert others["flop_energy_j"] == pytest.approx(energy, rel=0.01)
    assert others["bandwidth_sustained_share"] == pytest.approx(0.8)
    slower = {card: full | {"cuda_sustained_share": 0.8 * 1.2 * within} for card, within in (("t4", t4), ("p4", p4))}
    thirsty = unmeasured_shares(measured | slower)
    assert thirsty["flop_energy_j"] > 1.03 * energy
    assert thirsty["cuda_sustained_share"] == pytest.approx(1.2, rel=0.02)


def test_the_kinds_that_carry_an_error_are_told_by_steps_that_hold_them_in_other_shares() -> None:
    generator = np.random.default_rng(0)
    parts = {kind: generator.uniform(1e-3, 1e-2, 40) for kind in ("window_forward", "pool", HOST)}
    measured = parts["window_forward"] + 2.5 * parts["pool"] + 0.8 * parts[HOST]
    of_kind = factors(parts, measured)
    assert of_kind["window_forward"] == pytest.approx(1.0, abs=0.05)
    assert of_kind["pool"] == pytest.approx(2.5, abs=0.1)
    assert of_kind[HOST] == pytest.approx(0.8, abs=0.05)


def test_a_blocks_seconds_are_those_of_its_kinds_of_kernels() -> None:
    """Of one kernel to a step, all time is that kernel's; the mean share of what is left over is nil."""
    work = (Kernel("pool", 10**9), Kernel("elementwise", 10**9), product(1, 512, 512, 8192, "float32"))
    block = Block("b", "v100", work, np.ones(3), np.zeros(3, bool), _one_each, 1.0, ("p", "e", "m"), ("p", "e", "m"))
    problem = Problem([block])
    parts = seconds_by_kind(problem, 0, problem.start)
    assert {kind for kind, part in parts.items() if part.any()} == {"pool", "elementwise", "product"}
    assert sum(parts.values()) == pytest.approx(problem.predicted(problem.start)[0])
    assert not parts[HOST].any()
    assert not parts[OTHER].any()
    assert finer(block) == ("p", "e", "m, sums over 4,096")
    assert any(line.startswith("pool ") for line in lines(problem, 0, problem.start))
    first = next(far_off(problem, 0, problem.start))
    assert first.startswith("p: 0.00 times the published time, of which pool 100 %")
