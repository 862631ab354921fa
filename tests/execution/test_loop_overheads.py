"""What PyTorch's loop spends beside ops: networks that tell its parts apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from pararev_hw.execution import loop_overheads as subject

TRUTH_S = {
    "forward_s": 0.3e-6,
    "backward_s": 0.2e-6,
    "recompute_s": 9e-6,
    "update_s": 0.5e-6,
    "infer_s": 0.1e-6,
    "modules_s": 4e-6,
    "functions_s": 80e-6,
    "backwards_s": 30e-6,
    "packs_s": 17e-6,
}


def test_the_networks_together_tell_all_parts_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which each part takes a known time, and a step nothing beside them."""
    counted = subject._beside

    def untimed(
        eager: Callable[[], dict[str, float]], replay: Callable[[], dict[str, float]], count: int
    ) -> tuple[dict[str, float], float]:
        return dict.fromkeys(("whole", "forward", "backward", "update"), 0.0), 1e-4

    def timed(model: nn.Module, x: torch.Tensor, runs: int) -> subject._Beside:
        beside = counted(model, x, runs)
        seconds = {
            phase: sum(n * TRUTH_S[name] for name, n in counts.items()) for phase, counts in beside.counts.items()
        }
        return replace(beside, seconds=seconds)

    monkeypatch.setattr(subject, "_interleaved", untimed)
    monkeypatch.setattr(subject, "_beside", timed)
    host = {name: e.value for name, e in subject.loop_overheads(2).items()}
    assert host.pop("pace_s") == 1e-4
    assert host.pop("train_step_s") == pytest.approx(0, abs=1e-9)
    assert host.pop("infer_step_s") == pytest.approx(0, abs=1e-9)
    assert host == pytest.approx(TRUTH_S, rel=1e-6)
