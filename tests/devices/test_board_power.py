"""What a GPU's board draws, worked out by hand, and what it does not let its kernels draw."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pararev_hw import pipeline
from pararev_hw.costmodels import cost
from pararev_hw.costmodels.gpu.kernel_time import Card, KernelTimes, clocks_within
from pararev_hw.costmodels.gpu.kernels import Kernel
from pararev_hw.costmodels.gpu.model import card_of, values_of
from pararev_hw.devices import device_names, load_device
from pararev_hw.devices.board_power import held_below, kernel_watts, share_of_draw
from pararev_hw.tracing import DispatchRules, trace_step
from pararev_hw.types import BlockGraph, Device


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


def test_clocks_fall_as_the_cube_root_of_the_power_and_below_the_floor_with_it() -> None:
    power = np.array([4.0, 1.0, 0.729, 0.512, 0.32, 0.064])
    assert clocks_within(power, 0.8) == pytest.approx([1.0, 1.0, 0.9, 0.8, 0.5, 0.1])


def test_clocks_leave_memory_its_power() -> None:
    # at 0.9 of the clocks arithmetic draws 0.9^3 and memory 0.9 x 0.5; at 0.4, below the floor, 0.4 x (0.8^2 + 0.5)
    power = np.array([4.0, 1.5, 0.729 + 0.45, 0.4 * 1.14])
    assert clocks_within(power, 0.8, np.full(4, 0.5)) == pytest.approx([1.0, 1.0, 0.9, 0.4])
    # where arithmetic draws next to nothing, memory alone tells
    assert clocks_within(np.array([9e20, 2e21]), 0.8, np.full(2, 1e21)) == pytest.approx([0.9, 1.0])


def _seconds(kernel: Kernel, card: Card, device: Device) -> float:
    return float(KernelTimes([kernel], card).seconds(values_of(device))[0])


def test_a_product_is_slowed_down_as_far_as_its_board_has_no_power_for_it() -> None:
    device = load_device("l4")
    card = replace(card_of(device), tiles={"product": ((128, 128),)})
    assert card.power_w == 72 - 27 and card.node_energy == 0.28 and card.cache_bytes == 48 * 2**20
    n = 8192
    large = Kernel("product", 12 * n * n, dtype="float32", flops=2 * n**3, m=n, n=n, k=n)
    free_s = _seconds(large, replace(card, power_w=math.inf), device)
    held_s = _seconds(large, card, device)
    clocks = free_s / held_s  # arithmetic is nearly all of it
    missed = 1 / (1 + (48 * 2**20 / (4 * n * n)) ** 2)  # of the weights, read again for 63 more rows of tiles
    memory_j = (12 * n * n + 63 * 4 * n * n * missed) * 14e-12 * 8
    arithmetic_j = 2 * n**3 * values_of(device)["flop_energy_j"] * 0.28
    assert clocks < values_of(device)["voltage_floor"]
    energy_j = arithmetic_j * values_of(device)["voltage_floor"] ** 2 + memory_j
    assert 45 * held_s == pytest.approx(energy_j, rel=0.02)


def test_what_a_tile_does_beside_the_result_draws_power_too() -> None:
    device = load_device("l4")
    card = replace(card_of(device), tiles={"product": ((128, 128),)})
    wide = Kernel("product", 0, flops=2 * 128**2 * 8192 * 464, m=128 * 464, n=128, k=8192)  # 8 tiles a multiprocessor
    narrow = replace(wide, flops=wide.flops // 128, n=1)
    assert _seconds(narrow, card, device) == pytest.approx(_seconds(wide, card, device), rel=1e-3)
    assert _seconds(wide, card, device) > 1.5 * _seconds(wide, replace(card, power_w=math.inf), device)


def test_a_product_that_waits_for_memory_keeps_its_clocks() -> None:
    device = load_device("l4")
    card = card_of(device)
    thin = Kernel("product", 4 * 8192 * 8192, dtype="float32", flops=2 * 8192 * 8192, m=1, n=8192, k=8192)
    assert _seconds(thin, card, device) == _seconds(thin, replace(card, power_w=math.inf), device)


def test_a_board_that_says_too_little_of_its_power_is_not_held() -> None:
    device = load_device("l4")
    parameters = {name: p for name, p in device.parameters.items() if name != "process_nm"}
    assert card_of(replace(device, parameters=parameters)).power_w == math.inf
