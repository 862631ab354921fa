"""What a GPU's board draws, worked out by hand, and what it does not let its kernels draw."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pararev_hw import pipeline
from pararev_hw.costmodels import cost
from pararev_hw.devices import device_names, load_device
from pararev_hw.devices.board_power import held_below, kernel_watts, share_of_draw
from pararev_hw.devices.gpu_law import share_within_power
from pararev_hw.tracing import DispatchRules, trace_step
from pararev_hw.types import BlockGraph


def copies(elements: int) -> BlockGraph:
    """Twenty elementwise ops on a tensor of that size."""

    class Doubles(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(20):
                x = x * 2.0
            return x

    x = torch.empty(elements // 64, 64, device="meta")
    return trace_step(Doubles(), x, loop=None, rules=DispatchRules(cuda=True)).graph


def test_every_gpu_says_what_its_board_may_draw() -> None:
    for name in device_names():
        device = load_device(name) if name != "cpu" else None
        if device is not None and device.kind == "gpu":
            assert device.value("static_power_w") < device.value("board_power_w")
            assert device.value("expected_error.power") <= 0.2


def test_a_draw_is_held_below_the_limit_the_more_the_nearer_it_comes() -> None:
    assert held_below(50.0, 250.0, 6.0) == pytest.approx(50.0, rel=1e-4)
    assert held_below(250.0, 250.0, 6.0) == pytest.approx(250 / 2 ** (1 / 6))
    assert held_below(1000.0, 250.0, 6.0) < 250.0


def test_elementwise_ops_draw_by_their_traffic() -> None:
    device = load_device("v100")
    graph = copies(1 << 26)
    costed = cost(graph, device, "eager")
    sustained = device.value("memory_bandwidth_bytes_per_s") * device.value("bandwidth_sustained_share")
    filled_s = 20 * 2 * 4 * 2**26 / (sustained * device.value("bandwidth_share.elementwise"))  # read and written
    above_w = device.value("filled_power_share") * (250 - 36)
    assert kernel_watts(device) == pytest.approx(above_w)
    assert sum(costed.op_joules) == pytest.approx(filled_s * above_w, rel=1e-6)


def test_the_board_draws_between_idle_power_and_its_limit() -> None:
    device = load_device("v100")
    for elements, low, high in ((64, 36, 40), (1 << 26, 170, 250)):
        p = pipeline.predict(pipeline.plan(copies(elements), device, "sequential"))
        assert p.power_w is not None and low <= p.power_w <= high
        assert p.energy_j["total"] == pytest.approx(p.power_w * p.latency_s)
        assert sum(e["total"] for e in p.energy_by_phase_j.values()) == pytest.approx(p.energy_j["total"])
        error = p.expected_error
        assert error is not None and error.power is not None and error.energy is not None
        assert error.energy > error.power  # the time's error comes on top


def test_what_the_board_does_not_give_is_taken_from_the_kernels_alone() -> None:
    device = load_device("v100")
    share = share_of_draw(device, {"kernels": 10_000.0, "static": 36.0, "total": 10_036.0}, 1.0)
    assert 0 < share < 0.025 and 36.0 + share * 10_000 <= 250.0
    assert share_of_draw(device, {"kernels": 0.0}, 1.0) == 1.0


def test_a_board_without_power_for_its_peak_runs_at_the_share_that_it_has_power_for() -> None:
    small = {"board_power_w": 72.0, "matrix_flops_per_s.float32": 30e12, "process_nm": 5.0}
    assert share_within_power(small, 20e-12) == pytest.approx(72 / (30 * 20 * 0.28))
    assert share_within_power(small | {"board_power_w": 450.0}, 20e-12) == 1.0
    assert share_within_power(small | {"process_nm": 16.0}, 20e-12) == pytest.approx(72 / (30 * 20))
    for unknown in small:
        assert share_within_power({name: v for name, v in small.items() if name != unknown}, 20e-12) == 1.0


def test_cards_that_were_not_measured_sustain_what_their_boards_have_power_for() -> None:
    shares = {name: load_device(name).parameters["cuda_sustained_share"] for name in ("l4", "a40", "h200", "t4")}
    assert shares["l4"].value / shares["a40"].value == pytest.approx(
        72 / (30.3 * 0.28) / (300 / (37.4 * 0.5)), rel=1e-3
    )
    assert shares["l4"].value < 0.5 * shares["h200"].value
    assert "power" in shares["l4"].source and "power" not in shares["h200"].source
    assert shares["t4"].provenance == "published"  # measured: as it was
