"""Gradients that meet are summed in place, and a rewritten step gives those of plain autograd all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pararev_hw import models, rewrites
from pararev_hw.check import random_order
from pararev_hw.rewrites.sums import sums_apart
from pararev_hw.tracing import Traced, trace_step
from pararev_hw.tracing.tape import Tape
from tests.helpers.graph_invariants import assert_sound
from tests.helpers.real_step import Step, eager, replayed, steady

RELATIVE = 1e-12  # float64: another kernel sums in another order


@pytest.fixture(autouse=True)
def double() -> Iterable[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Branches(nn.Module):
    """One tensor read by three convolutions alike and by their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(3))
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for _ in range(2):
            h = torch.tanh(x)
            x = x + self.branches[0](h) + self.branches[1](h) * self.branches[2](h)
        return self.fc(x.mean((2, 3)))


class Leaky(nn.Module):
    """Leaky neurons over time, the same weights in each step, two of them on one input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.decay = nn.Parameter(torch.tensor(0.7))
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = w = torch.zeros(())
        total = torch.zeros(x.shape[0], 10)
        for _ in range(3):
            v = self.decay * v + self.one(x)
            w = self.decay * w + self.two(x)
            spikes = torch.sigmoid(4 * (v - 0.1)) + torch.sigmoid(4 * (w - 0.1))
            v, w = v - v * spikes, w - w * spikes
            total = total + self.fc(spikes.mean((2, 3)))
        return total


class TransposedLinear(nn.Module):
    """Two linear layers on rows that do not lie densely, whose biases torch adds in place, run alike twice."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.fc = nn.Linear(3, 5), nn.Linear(5, 10)

    def unit(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.rows(x.flatten(2).transpose(1, 2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = checkpoint(self.unit, x.requires_grad_(), use_reentrant=False) + self.unit(x)
        return self.fc(y.mean(1))


def case(model: Callable[[], nn.Module]) -> tuple[Traced, Step]:
    torch.manual_seed(1)
    network = model()
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    return trace_step(network, x, dtype="float64"), steady(network, x)


def pararev() -> nn.Module:
    return models.create("pararevsnn21", width=0.0625, num_classes=10, timesteps=2, store=True)


NETWORKS = {"branches": Branches, "leaky": Leaky, "transposed linear": TransposedLinear, "pararev": pararev}


@pytest.mark.parametrize("kinds", [(k,) for k in rewrites.REWRITES] + [tuple(rewrites.REWRITES)], ids="+".join)
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_rewritten_step_gives_the_gradients_of_autograd(name: str, kinds: tuple[rewrites.Kind, ...]) -> None:
    before, step = case(NETWORKS[name])
    after, _ = rewrites.apply_all(before, kinds)
    assert_sound(after.graph)
    expected = eager(step)
    for seed in (None, 0, 1):
        order = None if seed is None else random_order(after.graph.ops, seed)
        given = replayed(step, after.program, order)
        assert set(given) == set(expected)
        for tensor, value in expected.items():
            torch.testing.assert_close(given[tensor], value, rtol=RELATIVE, atol=RELATIVE, msg=f"{tensor}, {seed}")


def sums_in_place(tape: Tape) -> int:
    """Of tensors that the step makes: a batch norm counts batches in place, and the optimizer updates parameters."""
    others = set(tape.storage_of_external.values())
    lines = [line for line in tape.lines if line.inputs and line.inputs[0].storage not in others]
    lines = [line for line in lines if line.home.phase != "update"]
    return sum(tape.entries[line.entry].op_type.name == "aten.add_.Tensor" for line in lines)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_sums_apart_are_in_place_again_where_nothing_else_was_changed(name: str) -> None:
    before, _ = case(NETWORKS[name])
    tape = before.tape
    sums = sums_apart(tape)
    assert sums_in_place(tape) > 0 == sums_in_place(sums.tape)
    again = sums.in_place(sums.tape)
    assert again.storage_bytes[: len(tape.storage_bytes)] == tape.storage_bytes
    assert not any(again.storage_bytes[len(tape.storage_bytes) :])
    assert again.last_line[: len(tape.last_line)] == tape.last_line
    for field in ("lines", "results", "gradients"):
        assert getattr(again, field) == getattr(tape, field)


def test_a_sum_is_not_written_over_what_is_wanted_later() -> None:
    """The first gradient is read once more after the sum, as a rewrite may let it be."""
    before, _ = case(Branches)
    sums = sums_apart(before.tape)
    lines = list(sums.tape.lines)
    at = next(k for k, (a, b) in enumerate(zip(lines, before.tape.lines, strict=True)) if a.entry != b.entry)
    first = lines[at].inputs[0]
    later = next(k for k in range(at + 1, len(lines)) if lines[k].inputs and lines[k].inputs[0].meta == first.meta)
    lines[later] = replace(lines[later], inputs=(first, *lines[later].inputs[1:]))
    changed = sums.in_place(replace(sums.tape, lines=tuple(lines)))
    assert changed.lines[at] == lines[at]


def test_biases_added_in_place_hide_no_work_done_twice() -> None:
    before, _ = case(TransposedLinear)
    assert [o.kind for o in rewrites.find(before, ("store",))] == ["store"]
    shared = rewrites.find(before, ("share",))
    after, _ = rewrites.apply_all(before, ("share",))
    products = [
        sum(graph.op_types[op.type].flops > 0 for op in graph.ops if op.phase == "forward")
        for graph in (before.graph, after.graph)
    ]
    assert shared and products == [3, 2]
