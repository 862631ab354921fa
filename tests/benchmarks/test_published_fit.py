"""What cards that no table holds take from the measured ones, beside shares worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fit_published_gpus import unmeasured_shares


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
