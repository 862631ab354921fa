"""What PyTorch's loop spends beside ops: networks that tell its parts apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

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
    "functions_far_s": 90e-6,
    "backwards_far_s": 40e-6,
    "train_step_s": 50e-6,
    "train_step_far_s": 270e-6,
    "backward_step_s": 40e-6,
    "backward_step_far_s": 60e-6,
    "update_step_s": 55e-6,
    "update_step_far_s": 20e-6,
    "infer_step_s": 10e-6,
    "infer_step_far_s": 90e-6,
}


def test_the_networks_together_tell_all_parts_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which each part takes a known time."""
    counted = subject._beside

    def untimed(
        eager: Callable[[], dict[str, float]],
        replay: Callable[[], dict[str, float]],
        count: int,
        before_each: Callable[[], object] | None,
    ) -> tuple[dict[str, float], float]:
        return dict.fromkeys(("whole", "forward", "backward", "update"), 0.0), 1e-4

    def timed(network: subject._Network, runs: int, after: subject._Network | None = None) -> subject._Beside:
        beside = counted(network, runs, after)
        seconds = {
            phase: sum(n * TRUTH_S[name] for name, n in counts.items()) for phase, counts in beside.counts.items()
        }
        return replace(beside, seconds=seconds)

    monkeypatch.setattr(subject, "_interleaved", untimed)
    monkeypatch.setattr(subject, "_beside", timed)
    host = {name: e.value for name, e in subject.loop_overheads(2).items()}
    assert host.pop("pace_s") == 1e-4
    assert host == pytest.approx(TRUTH_S, rel=1e-6)


def test_what_comes_before_a_timed_run_is_its_like_or_what_is_given() -> None:
    order: list[str] = []

    def way(name: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            order.append(name)
            return {"whole": 3.0 if name == "loop" else 1.0}

        return run

    seconds, _ = subject._interleaved(way("loop"), way("replay"), 2, None)
    assert seconds == {"whole": 2.0}
    assert order[2:] == ["loop", "loop", "replay", "replay"] * 2  # the first two fill the allocator
    order.clear()
    subject._interleaved(way("loop"), way("replay"), 2, way("another"))
    assert order[2:] == ["another", "loop", "another", "replay"] * 2
