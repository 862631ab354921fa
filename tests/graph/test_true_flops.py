"""A grouped convolution counted against the same convolution written as one convolution per group."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pararev_hw.costmodels.gpu.kernels import kernels
from pararev_hw.devices import load_device
from pararev_hw.graph import files
from pararev_hw.tracing import trace_step
from pararev_hw.training.step import Loop
from pararev_hw.types import BlockGraph
from tests.helpers.costing import costs


class Apart(nn.Module):
    """A grouped convolution as one convolution per group."""

    def __init__(self, groups: int, transposed: bool) -> None:
        super().__init__()
        make = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.parts = nn.ModuleList(make(16 // groups, 32 // groups, 3, stride=2, bias=False) for _ in range(groups))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = x.chunk(len(self.parts), dim=1)
        return torch.cat([f(p) for f, p in zip(self.parts, parts, strict=True)], dim=1)


def grouped(groups: int, transposed: bool) -> nn.Module:
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    return make(16, 32, 3, stride=2, groups=groups, bias=False)


def graph_of(model: nn.Module, mode: str = "train") -> BlockGraph:
    first = nn.Sequential(nn.Conv2d(16, 16, 1), model)  # so that the input's gradient is needed too
    return trace_step(first, torch.empty(4, 16, 12, 12, device="meta"), loop=Loop() if mode == "train" else None).graph


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [2, 4, 16])
def test_true_flops_are_those_of_the_groups_apart(groups: int, transposed: bool) -> None:
    whole, apart = graph_of(grouped(groups, transposed)), graph_of(Apart(groups, transposed))
    assert files.totals(whole)["true_flops"] == files.totals(apart)["true_flops"] == files.totals(apart)["flops"]


def test_dense_convolutions_count_as_torch_does() -> None:
    graph = graph_of(grouped(1, False))
    assert files.totals(graph)["true_flops"] == files.totals(graph)["flops"]


def test_flops_stay_torchs() -> None:
    model = nn.Sequential(nn.Conv2d(16, 16, 1), grouped(4, False))
    graph = graph_of(grouped(4, False))
    x, counter = torch.zeros(4, 16, 12, 12), FlopCounterMode(display=False)
    with counter:
        model(x).square().mean().backward()
    assert files.totals(graph)["flops"] == counter.get_total_flops()


@pytest.mark.parametrize("device", ["edge8", "eyeriss-like"])
def test_groups_take_the_energy_of_the_groups_apart(device: str) -> None:
    def mac_j(model: nn.Module) -> float:
        problem = costs(graph_of(model), load_device(device))
        return sum(task.energy_j["mac"] for task in problem.tasks)

    assert mac_j(grouped(16, False)) == pytest.approx(mac_j(Apart(16, False)), rel=1e-9)


def test_groups_are_as_much_arithmetic_for_a_gpus_kernels_as_the_groups_apart() -> None:
    def flops(model: nn.Module) -> int:
        graph = graph_of(model)
        return sum(k.flops for op in graph.ops for k in kernels(graph.op_types[op.type]))

    assert flops(grouped(16, False)) == flops(Apart(16, False)) > 0
