"""The weight of a product is the factor that is a parameter, whichever call multiplies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pararev_hw.costmodels.energy_models.layer_work import layer_works
from pararev_hw.devices import load_device
from pararev_hw.errors import BadInput
from pararev_hw.graph import attach
from pararev_hw.graph.spiking_network import spiking_network
from pararev_hw.pipeline import plan
from pararev_hw.tracing import measure_spikes, trace_step
from pararev_hw.types import BlockGraph

BATCH = 4
Multiply = Callable[[Tensor, Tensor, Tensor], Tensor]


class Multiplied(nn.Module):
    """Spikes [4, 8] by a weight [6, 8]."""

    def __init__(self, multiply: Multiply) -> None:
        super().__init__()
        self.multiply, self.w, self.b = multiply, nn.Parameter(torch.ones(6, 8)), nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply((x > 0).to(x.dtype), self.w, self.b)


def each(multiply: Callable[[Tensor], Tensor], spikes: Tensor) -> Tensor:
    return torch.stack([multiply(row) for row in spikes])


PRODUCTS: dict[str, Multiply] = {
    "linear": lambda s, w, b: F.linear(s, w, b),
    "linear of a vector": lambda s, w, b: each(lambda row: F.linear(row, w, b), s),
    "addmm": lambda s, w, b: torch.addmm(b, s, w.T),
    "mm from the left": lambda s, w, b: (w @ s.T).T,
    "mv": lambda s, w, b: each(lambda row: w @ row, s),
    "addmv": lambda s, w, b: each(lambda row: torch.addmv(b, w, row), s),
    "bmm": lambda s, w, b: torch.bmm(s[None], w.T[None])[0],
    "baddbmm": lambda s, w, b: torch.baddbmm(b[None, None].expand(1, BATCH, 6), s[None], w.T[None])[0],
    "addbmm": lambda s, w, b: torch.addbmm(b[None].expand(BATCH, 6), s[None], w.T[None]),
    "inner": lambda s, w, b: torch.inner(s, w),
    "tensordot": lambda s, w, b: torch.tensordot(s, w, dims=([1], [1])),
    "einsum": lambda s, w, b: torch.einsum("bi,oi->bo", s, w),
}


def counted(net: nn.Module, x: Tensor) -> BlockGraph:
    graph = trace_step(net, x, loop=None).graph
    return attach(graph, measure_spikes(net, x, source="noise", mode="infer", samples=len(x), graph=graph))


@pytest.mark.parametrize("name", PRODUCTS)
def test_counting_energy_and_mapping_know_the_weight_of_every_product(name: str) -> None:
    x = torch.randn(BATCH, 8, generator=torch.Generator().manual_seed(0))
    graph = counted(Multiplied(PRODUCTS[name]), x)
    (work,) = layer_works(graph)
    assert (work.sops, work.macs) == (int((x > 0).sum()) * 6, BATCH * 8 * 6)
    assert (work.inputs, work.outputs, work.weights, work.fan_in) == (BATCH * 8, BATCH * 6, 48, 8)
    assert (work.columns, work.neurons) == (6, 6)
    (projection,) = spiking_network(graph).projections
    assert (projection.weights, projection.inputs, projection.outputs, projection.channels) == (48, 8, 6, 6)
    assert not projection.product


class Addressed(nn.Module):
    """Rows of a table, named by the addresses of spikes; 0 is padding."""

    def __init__(self, mode: str, threshold: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.fc = nn.EmbeddingBag(30, 12, mode=mode, padding_idx=0), nn.Linear(12, 5)
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        current = self.rows(x)
        return self.fc((current > 0).to(current.dtype) if self.threshold else current)  # type: ignore[no-any-return]


def test_an_embedding_bag_adds_a_row_for_each_address() -> None:
    addresses = torch.randint(0, 30, (BATCH, 7), generator=torch.Generator().manual_seed(1))
    addresses[:, 0] = 0
    events = int((addresses != 0).sum()) * 12
    for mode in ("sum", "mean"):
        net = Addressed(mode)
        graph = counted(net, addresses)
        with torch.no_grad():
            fired = int((net.rows(addresses) > 0).sum())
        assert [(w.module, w.sops) for w in layer_works(graph)] == [("rows", events), ("fc", fired * 5)]
        assert graph.totals.sops == events + fired * 5
        assert not graph.unknown_ops
    work = layer_works(graph)[0]
    assert (work.inputs, work.weights, work.fan_in, work.columns) == (BATCH * 30, 360, 30, 12)
    largest = layer_works(counted(Addressed("max"), addresses))
    assert [w.sops is None for w in largest] == [True, False]  # a maximum adds nothing
    assert counted(Addressed("sum", threshold=False), addresses).totals.sops is None  # no spiking network at all


def test_a_chip_refuses_an_embedding_bag() -> None:
    graph = trace_step(Addressed("sum"), torch.ones(2, 3, dtype=torch.int64), loop=None).graph
    with pytest.raises(BadInput, match="rows is an embedding bag, which reads indices, and loihi1 takes spikes"):
        plan(graph, load_device("loihi1"), "heft")


def test_a_bilinear_layer_has_a_formula() -> None:
    graph = trace_step(
        Multiplied(lambda s, w, b: F.bilinear(s, s, w[:, None, :].expand(6, 8, 8))), torch.zeros(3, 8), loop=None
    ).graph
    (work,) = (t.vector_flops for t in graph.op_types if "trilinear" in t.name)
    assert work == 3 * (3 * 6 * 8 * 8)  # two multiplications and an addition for each pair of inputs of each output
    assert not graph.unknown_ops
