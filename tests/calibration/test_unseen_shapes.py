"""What tells ops of unseen shapes apart: kernels, layouts, warm code; and how far a fit is off on unseen families."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw.calibration import held_in, left_out
from pararev_hw.calibration.assortments import Assortment, assorted_convolutions
from pararev_hw.calibration.drawn_networks import drawn_networks
from pararev_hw.calibration.held_in import HeldIn
from pararev_hw.calibration.steps import MeasuredStep, corrections, kept_bytes
from pararev_hw.calibration.suite.entry import Draw
from pararev_hw.costmodels.allocator.workspace import rule_of
from pararev_hw.costmodels.calibrated.cache_model import OTHER_OPS, code_miss_share
from pararev_hw.costmodels.calibrated.features import coefficient_names, group, work_terms
from pararev_hw.costmodels.calibrated.op_times import op_costs
from pararev_hw.costmodels.calibrated.pace_response import exponent_name, exponents_between
from pararev_hw.costmodels.calibrated.page_faults import MAPPED, fitted_mapped_block, mapped_bytes, mapping
from pararev_hw.costmodels.traffic import traffic
from pararev_hw.devices import needed_parameters
from pararev_hw.devices.instruction_sets import InstructionSet
from pararev_hw.types import BlockGraph, Device, DeviceParameter, Estimate, OpType, Profile, StepSample
from tests.helpers.validation_helpers import cpu_profile


def _graph(module: nn.Module, x: torch.Tensor) -> BlockGraph:
    return ph.trace(module, x, mode="infer", spikes="none")


def _op(module: nn.Module, x: torch.Tensor, name: str) -> OpType:
    return next(t for t in _graph(module, x).op_types if t.name.startswith(f"aten.{name}"))


def _work(t: OpType, isa: InstructionSet) -> dict[str, float]:
    return dict(zip(coefficient_names(t), work_terms(t, isa), strict=False))


@pytest.mark.parametrize(("channels", "is_product"), [(10, True), (16, False)])
def test_groups_of_no_whole_block_of_channels_are_matrix_products(channels: int, is_product: bool) -> None:
    x = torch.empty(2, 3 * channels, 12, 12)
    t = _op(nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3), x, "convolution")
    work = _work(t, InstructionSet.AVX2)
    if is_product:
        assert work["product_s"] == 2 * 3  # one for each image and group
        assert work["product_s_per_flop"] == 2 * 2 * 144 * 9 * channels * 3 * channels
        assert work["column_s_per_byte"] == 2 * 3 * 4 * 9 * channels * 144
        assert work["compute_s_per_flop"] == 0
    else:
        taps = (3 * 12 - 2) ** 2  # of each kernel column 12 places, but 11 of the two outer ones
        assert work["compute_s_per_flop"] == 2 * 2 * taps * channels * 3 * channels
        assert work["product_s"] == work["product_s_per_flop"] == 0
    assert _work(t, InstructionSet.AVX512_CORE)["product_s"] == 0


def test_a_transposed_convolution_counts_what_the_one_that_it_undoes_does() -> None:
    up = _op(nn.ConvTranspose2d(16, 32, 2, 2), torch.empty(3, 16, 5, 5), "convolution")
    assert group(up).endswith("transposed")
    assert _work(up, InstructionSet.AVX2)["compute_s_per_flop"] == 2 * 3 * 25 * 4 * 16 * 32


def test_an_image_of_few_channels_fills_half_a_register() -> None:
    """25 pixels, 4 taps each, 16 channels read; 3 and 8 channels made count as 8, 9 as 16."""
    for channels, counted in ((3, 8), (8, 8), (9, 16)):
        up = _op(nn.ConvTranspose2d(16, channels, 2, 2), torch.empty(3, 16, 5, 5), "convolution")
        assert _work(up, InstructionSet.AVX512_CORE)["compute_s_per_flop"] == 2 * 3 * 25 * 4 * 16 * counted


def test_layouts_tell_forms_and_copies_apart() -> None:
    plain, convolution = torch.empty(2, 16, 6, 6), nn.Conv2d(16, 16, 3)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(16, 16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.convolution(x.contiguous(memory_format=torch.channels_last)).relu()
            return y

    assert group(_op(Last(), plain, "convolution")) == group(_op(convolution, plain, "convolution")) + " last"

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x.transpose(-2, -1)

    assert _work(_op(Sum(), plain, "add"), InstructionSet.AVX2)["crossed_s_per_element"] == 2 * 16 * 36
    assert _work(_op(Last(), plain, "relu"), InstructionSet.AVX2)["crossed_s_per_element"] == 0


def test_code_is_far_where_others_ran_in_between() -> None:
    graph = _graph(nn.Sequential(nn.ReLU(), nn.ReLU(), nn.Tanh(), nn.Sigmoid()), torch.empty(1000))
    # tanh and sigmoid ran in the step before since ReLU did; the second ReLU runs right after the first
    assert code_miss_share(graph) == pytest.approx([1 / (1 + (OTHER_OPS / 2) ** 2) if n else 0.0 for n in (2, 0, 2, 2)])


def test_exponents_between_steps_come_back_beside_outliers() -> None:
    slowness = np.geomspace(0.8, 2.5, 30)
    steps: list[tuple[dict[str, tuple[float, float]], float]] = [
        ({"conv": (1e-3 * s**0.7 * (5.0 if k % 10 == 0 else 1.0), 1e-3)}, float(s)) for k, s in enumerate(slowness)
    ]
    host = exponents_between(steps, {})
    assert host[exponent_name("conv")].value == pytest.approx(0.7, abs=0.05)


def test_the_factor_covers_nine_of_ten_networks_of_families_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are 17 % and 2 us for each op too slow, which whole steps correct, and beside that off by normal errors of a
    deviation of 17 %, where 10 % is expected: nine of ten lie within 28 %. Thirty more are as expected. What people
    write is as much off as 0.7 of that."""
    normal = NormalDist(0, 0.17)
    drawn = [normal.inv_cdf((k + 0.5) / 270) for k in range(270)]
    random.Random(0).shuffle(drawn)
    off = {f"n{k}": error for k, error in enumerate(drawn)}
    replayed: Any = [
        SimpleNamespace(network=SimpleNamespace(name=n, family_name=f"family {k % 3}", is_assorted=False))
        for k, n in enumerate(off)
    ]
    fitted: list[set[str]] = []

    def refitted(names: list[str]) -> Any:
        fitted.append(set(names))
        return None

    def prediction(one: Any, profile: Any, rates: Any) -> left_out.Unseen:
        name = one.network.name
        assert name not in fitted[-1]
        measured_s, op_count = 1e-3 * (1 + int(name[1:])), 100 * (1 + int(name[1:]) % 4)
        right_s = measured_s * (1 + off[name])
        return left_out.Unseen(1.17 * (right_s + 2e-6 * op_count), measured_s, op_count, 0.1)

    monkeypatch.setattr(left_out, "_prediction", prediction)
    monkeypatch.setattr(left_out, "measured_rates", lambda profile: None)
    factor = left_out.interval_factor(replayed, refitted)  # type: ignore[arg-type]
    assert factor is not None and factor.value == pytest.approx(0.7 * 2.8 ** (270 / 300), rel=0.05)
    assert len(fitted) == left_out.FOLDS
    assert left_out.interval_factor(replayed[:5], refitted) is None  # type: ignore[arg-type]


def test_an_assortment_runs_each_layer_on_an_input_of_its_own() -> None:
    network, x = assorted_convolutions(Draw(3))
    assert isinstance(network, Assortment)
    with torch.no_grad():
        assert network(torch.zeros_like(x)).shape == (1, 10)
    shapes = {tuple(y.shape) for y in network.inputs}
    assert len(shapes) > 4


def test_halves_that_take_less_than_predicted_move_no_correction_of_float32() -> None:
    """Float32 steps as predicted, bfloat16 ones in half the time: nothing is to be corrected but the latter."""
    rates = {n: 2e10 if "_per_s" in n else 2e-6 for n in needed_parameters("cpu")} | {"memory_bytes": 1e9}
    device = Device(
        "cpu", "cpu", "a test's", 1, {n: DeviceParameter(v, "a test", "measured") for n, v in rates.items()}
    )
    profile = replace(cpu_profile(), device=device)

    def predicted_s(graph: BlockGraph, by: Profile) -> float:
        return float(op_costs(graph, by, traffic(graph), "eager").seconds.sum())

    steps = []
    for dtype, share in (("float32", 1.0), ("bfloat16", 0.5)):
        for batch in (1, 2, 4):
            graph = held_in.traced(HeldIn("plain", "train", dtype, 0.125, batch, 2), "cpu")
            seconds = (share * predicted_s(graph, profile),) * 5
            steps.append(MeasuredStep(StepSample(f"{dtype} {batch}", seconds, 0.0), graph))
    estimates, _ = corrections(profile, steps)
    assert estimates["train_halves_factor"].value == pytest.approx(0.5, abs=0.06)
    corrected = replace(profile, corrections=estimates)
    over_measured = [predicted_s(s.graph, corrected) / s.sample.seconds[0] for s in steps]
    assert over_measured == pytest.approx([1.0] * 6, abs=0.03)


def test_small_steps_leave_the_memory_that_an_allocator_usually_keeps() -> None:
    """A step of some KiB maps in nothing, whatever is kept; one that lets six blocks of 30 MiB go maps them in again
    unless that much is kept, and none was seen to be."""

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            blocks = [x.tanh() for _ in range(6)]
            return torch.stack([block.mean() for block in blocks]).sum()

    small = _graph(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.empty(4, 8))
    blocks = _graph(Sum(), torch.empty(30 << 18))
    of_step = {name: StepSample(name, (1e-3,), 0.0, faulted_bytes=0) for name in ("small", "blocks")}
    rule = rule_of(cpu_profile())
    usual = kept_bytes([MeasuredStep(of_step["small"], small)], rule).value
    assert usual == pytest.approx(128 << 20, rel=0.05)
    several = [MeasuredStep(of_step["small"], small), MeasuredStep(of_step["blocks"], blocks)]
    assert kept_bytes(several, rule).value >= 5 * (30 << 20)  # while the last is still read


@pytest.mark.parametrize(
    ("shapes", "rows"),
    [
        (((8, 51, 10, 8), (8, 51, 10, 8)), 0),
        (((8, 51, 10, 8), (8, 51, 10, 1)), 8 * 51 * 10),  # one number for each row of 8
        (((8, 51, 10, 8), (1, 51, 1, 1)), 8 * 51),  # one for each image of a channel
        (((64, 96), (96,)), 64),  # a bias
        (((64, 96), ()), 0),
        (((64, 96, 1), (4,)), 64 * 96),  # neither is as large as the result
    ],
)
def test_rows_of_what_is_spread_over_another_tensor(shapes: tuple[tuple[int, ...], ...], rows: int) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("other", torch.zeros(shapes[1]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.other

    assert _work(_op(Sum(), torch.empty(shapes[0]), "add"), InstructionSet.AVX2)["row_s"] == rows


@pytest.mark.parametrize(
    ("norm", "shape", "rows"),
    [
        (nn.BatchNorm2d(6), (4, 6, 5, 5), 4 * 6),  # a plane of a channel each
        (nn.BatchNorm1d(6), (40, 6), 40),  # the channels of a place each
        (nn.LayerNorm(6), (40, 6), 40),
        (nn.LayerNorm(6), (4, 5, 7, 6), 4 * 5 * 7),
        (nn.LayerNorm((7, 6)), (4, 5, 7, 6), 4 * 5),
    ],
)
def test_rows_of_a_normalisation_are_what_its_inner_loop_goes_through(
    norm: nn.Module, shape: tuple[int, ...], rows: int
) -> None:
    assert _work(_op(norm, torch.empty(shape), "native"), InstructionSet.AVX2)["row_s"] == rows


def test_rows_of_a_batch_norm_channels_last_are_places() -> None:
    x = torch.empty(4, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    t = _op(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(6)), x, "native_batch_norm")
    assert _work(t, InstructionSet.AVX2)["row_s"] == 4 * 5 * 5


def test_a_copy_that_a_kernel_makes_first_is_work() -> None:
    class Turned(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.layer_norm(x.transpose(1, 2), (5,))

    t = _op(Turned(), torch.empty(3, 5, 7), "native_layer_norm")
    assert _work(t, InstructionSet.AVX2)["copied_s_per_byte"] == 4 * 3 * 5 * 7
    plain = _op(nn.LayerNorm(7), torch.empty(3, 5, 7), "native_layer_norm")
    assert _work(plain, InstructionSet.AVX2)["copied_s_per_byte"] == 0


def test_a_product_of_complex_numbers_is_four() -> None:
    class Product(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = torch.complex(x, x)
            return torch.bmm(z, z.mT).real

    t = _op(Product(), torch.empty(3, 8, 16), "bmm")
    assert t.true_flops == 4 * 2 * (3 * 8 * 16 * 8) == 4 * t.flops
    assert _work(t, InstructionSet.AVX2)["compute_s_per_flop"] == t.true_flops


def test_functions_of_series_transforms_and_short_rows_are_drawn() -> None:
    drawn = [n for n in itertools.islice(drawn_networks(), 60) if n.family_name == "assorted layers"]
    types = [t for network in drawn[:4] for t in network.traced().op_types]
    assert {"aten.sin.default", "aten.cos.default", "aten._fft_r2c.default"} <= {t.name for t in types}
    assert any(_work(t, InstructionSet.AVX2)["row_s"] > 100 for t in types if t.kind == "elementwise")


class _Chain(nn.Module):
    """Blocks of 1 MiB, of 256 KiB and of 16 KiB, each let go after the next is made."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for rows in (256, 64, 4):
            x = x[:rows].tanh()
        return x


def test_blocks_above_a_size_are_mapped_afresh_by_an_allocator_that_was_seen_to() -> None:
    """Of blocks of 256 KiB half: 1 MiB x 256/257 + 256 KiB / 2 + 16 KiB / 65537, and the rest, which the heap holds
    from step to step, never."""
    graph = _graph(_Chain(), torch.empty(256, 1024))
    rule = rule_of(cpu_profile())
    expected = (1 << 20) * 256 / 257 + (1 << 18) / 2 + (1 << 14) / (1 + 16**4)
    assert mapped_bytes(graph, math.inf, rule, 256 << 10).sum() == pytest.approx(expected, rel=1e-6)
    assert not mapped_bytes(graph, math.inf, rule).any()


def test_the_size_above_which_blocks_are_mapped_afresh_is_seen_in_replays() -> None:
    graph = _graph(_Chain(), torch.empty(256, 1024))
    rule = rule_of(cpu_profile())
    for size in (40 << 10, 300 << 10):
        seen = mapped_bytes(graph, math.inf, rule, size)
        assert fitted_mapped_block([(graph, seen)], rule)[MAPPED].value == pytest.approx(size, rel=0.07)
    assert not fitted_mapped_block([(graph, np.zeros(len(graph.ops)))], rule)
    assert not fitted_mapped_block([], rule)


def test_a_process_that_maps_in_less_takes_less_by_as_many_faults() -> None:
    """At 4 ns a byte: 800 KiB seen where 1.1 MiB was expected, 50 KiB where nothing was."""
    graph = _graph(_Chain(), torch.empty(256, 1024))
    host = {"fault_s_per_byte": Estimate(4e-9)}
    usual = replace(cpu_profile(), host=host)
    small = replace(usual, host={**host, MAPPED: Estimate(256 << 10)})

    def fault_s(profile: Profile) -> float:
        return float((op_costs(graph, profile, traffic(graph), "eager").seconds - bare_s).sum())

    bare_s = op_costs(graph, usual, traffic(graph), "eager").seconds
    assert fault_s(small) == pytest.approx(4e-9 * mapped_bytes(graph, math.inf, rule_of(small), 256 << 10).sum())
    assert fault_s(mapping(small, 800 << 10)) == pytest.approx(4e-9 * (800 << 10), rel=1e-6)
    assert fault_s(mapping(usual, 50 << 10)) == pytest.approx(4e-9 * (50 << 10), rel=1e-6)
    assert fault_s(mapping(small, 0)) == pytest.approx(0.0, abs=1e-12)


def test_memory_that_steps_map_in_is_counted_once() -> None:
    """Steps that take what their ops and the faults take that were seen leave a price of once as much as it is."""
    graph = _graph(_Chain(), torch.empty(256, 1024))
    price = Estimate(4e-9)
    profile = replace(cpu_profile(), host={"fault_s_per_byte": price, MAPPED: Estimate(256 << 10)})
    bare_s = float(op_costs(graph, cpu_profile(), traffic(graph), "eager").seconds.sum())
    mapped = float(mapped_bytes(graph, math.inf, rule_of(profile), 256 << 10).sum())
    sample = StepSample("chain", (bare_s + price.value * mapped,) * 5, 0.0, faulted_bytes=round(mapped))
    estimates, (predicted,) = corrections(profile, [MeasuredStep(sample, graph)])
    assert estimates["fault_factor"].value == pytest.approx(1.0, abs=1e-3)
    corrected = replace(profile, corrections=estimates)
    after_s = float(op_costs(graph, corrected, traffic(graph), "eager").seconds.sum())
    assert after_s == pytest.approx(sample.seconds[0], rel=1e-3)
    assert predicted.ops_s == pytest.approx(bare_s + price.value * mapped, rel=1e-4)
