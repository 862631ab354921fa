"""A rewritten step gives the results of the step, in any order that its own dependencies allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from pararev_hw import graph as graphs
from pararev_hw import models, rewrites
from pararev_hw.check import random_order
from pararev_hw.errors import UnknownName
from pararev_hw.graph import totals
from pararev_hw.rewrites import writer
from pararev_hw.tracing import Traced, trace_step
from pararev_hw.training.step import OPTIMIZERS, Loop
from tests.helpers.graph_invariants import assert_sound
from tests.helpers.real_step import Step, replayed, steady
from tests.helpers.unseen_networks import STRANGERS

EXACT: tuple[rewrites.Kind, ...] = ("share", "split", "wait")  # the same kernels on the same numbers
RELATIVE = 1e-12  # of a tensor's largest element, float64: another kernel sums in another order
SHAPE = (4, 3, 8, 8)


@pytest.fixture(autouse=True)
def double() -> Iterable[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def small(name: str, **options: object) -> nn.Module:
    torch.manual_seed(1)
    return models.create(name, width=0.0625, num_classes=10, timesteps=2, **options)


def stranger(name: str) -> nn.Module:
    torch.manual_seed(1)
    return STRANGERS[name]()


def traced_with_step(model: nn.Module, *shape: int) -> tuple[Traced, Step]:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(3))
    return trace_step(model, x, dtype="float64"), steady(model, x)


@dataclass(frozen=True)
class Case:
    """A network's traced step in double precision, the step to replay, and what replaying it as traced gives."""

    before: Traced
    step: Step
    expected: Mapping[str, torch.Tensor]


@cache
def case(name: str) -> Case:
    shape = SHAPE if name in STRANGERS else (2, 2, 2, 32, 32) if name.endswith("dvs") else (2, 3, 16, 16)
    before, step = traced_with_step(stranger(name) if name in STRANGERS else small(name), *shape)
    return Case(before, step, replayed(step, before.program, seed_rng=torch.manual_seed))


@cache
def plain(name: str) -> Traced:
    """The step of a zoo network on small images, to look at."""
    return trace_step(small(name), torch.empty(2, 3, 16, 16))


def largest_difference(step: Step, before: Traced, after: Traced, seeds: Iterable[int | None]) -> float:
    expected = replayed(step, before.program, seed_rng=torch.manual_seed)
    return difference_from(Case(before, step, expected), after, seeds)


def difference_from(case: Case, after: Traced, seeds: Iterable[int | None]) -> float:
    """Over all results, parameters and buffers, relative to the largest element of each; gradients, to that of all.

    A sum's rounding goes with its terms: the gradient of a bias before a batch norm is zero but for its rounding.
    """
    expected, step = case.expected, case.step
    scale = {name: float(value.abs().max()) for name, value in expected.items()}
    gradients = [name for name in expected if name.startswith("gradient:")]
    scale |= dict.fromkeys(gradients, max((scale[name] for name in gradients), default=0.0))
    worst = 0.0
    for seed in seeds:
        order = None if seed is None else random_order(after.graph.ops, seed)
        found = replayed(step, after.program, order, seed_rng=torch.manual_seed)
        assert set(found) == set(expected)
        for name, value in expected.items():
            if not torch.equal(found[name], value):
                difference = float((found[name] - value).abs().max()) / scale[name] if scale[name] else float("inf")
                assert difference < float("inf"), name
                worst = max(worst, difference)
    return worst


@pytest.mark.parametrize("kinds", [("share",), ("split",), ("wait",), EXACT], ids="+".join)
@pytest.mark.parametrize("name", sorted(STRANGERS))
def test_what_runs_the_same_kernels_is_bit_equal_on_any_network(name: str, kinds: tuple[rewrites.Kind, ...]) -> None:
    network = case(name)
    after, _ = rewrites.apply_all(network.before, kinds)
    assert_sound(after.graph)
    assert difference_from(network, after, (None, 0, 1)) == 0.0


@pytest.mark.parametrize("kinds", [("share",), ("split",), ("wait",), EXACT], ids="+".join)
@pytest.mark.parametrize("name", ["pararevsnn37", "revsresnet21", "msresnet18", "pararevsnn24_dvs"])
def test_what_runs_the_same_kernels_is_bit_equal_on_the_zoo(name: str, kinds: tuple[rewrites.Kind, ...]) -> None:
    network = case(name)
    after, taken = rewrites.apply_all(network.before, kinds)
    assert taken or kinds in (("share",), ("wait",))
    assert_sound(after.graph)
    assert difference_from(network, after, (None, 0)) == 0.0


def test_pairs_of_pararev_share_their_first_neuron_in_every_phase_and_revnet_has_nothing_to_share() -> None:
    before = plain("pararevsnn37")
    found = [o.name for o in rewrites.find(before, ["share"])]
    assert "share stages.0.blocks.0.g:forward + stages.0.blocks.1.f:forward" in found
    assert "share stages.0.blocks.1.f:recompute + stages.0.blocks.0.g:recompute" in found
    assert len(found) == 4 * 3  # four stages of two pairs; forward, recompute, and the surrogate's slope in backward
    after, _ = rewrites.apply_all(before, ["share"])
    assert totals(after.graph)["flops"] == totals(before.graph)["flops"]
    assert sum(t.vector_flops for t in after.graph.tasks) < sum(t.vector_flops for t in before.graph.tasks)
    revnet = plain("revsresnet21")
    assert not rewrites.find(revnet, ["share"])


def test_sharing_makes_no_unit_wait_for_another() -> None:
    before = plain("pararevsnn37")
    after, _ = rewrites.apply_all(before, ["share"])
    edges = {(after.graph.tasks[e.src].id, after.graph.tasks[e.dst].id) for e in after.graph.edges}
    g, f = "stages.0.blocks.0.g:forward", "stages.0.blocks.1.f:forward"
    assert (g, f) not in edges and (f, g) not in edges
    assert {("stages.0.blocks.0.g.shared:forward", t) for t in (g, f)} <= edges


def test_splitting_moves_work_and_adds_none() -> None:
    before = plain("pararevsnn37")
    after, taken = rewrites.apply_all(before, ["split"])
    assert totals(after.graph)["flops"] == totals(before.graph)["flops"]
    kept = {t.id: t for t in after.graph.tasks}
    split = {o.name.removeprefix("split ") for o in taken}
    for task in before.graph.tasks:
        whole = kept[task.id].flops
        if task.id in split:
            whole += kept[task.id.replace(":backward", ".weights:backward")].flops
        assert whole == task.flops, task.id


@pytest.mark.parametrize("name", ["pararevsnn37", "revsresnet21", "pararevsnn24_dvs"])
def test_storing_everything_leaves_no_recomputation_and_gives_the_same_step(name: str) -> None:
    network = case(name)
    before = network.before
    after, _ = rewrites.apply_all(before, ["store"])
    assert_sound(after.graph)
    assert any(t.phase == "recompute" for t in before.graph.tasks)
    assert not any(t.phase == "recompute" for t in after.graph.tasks)
    assert after.graph.memory.saved_bytes > before.graph.memory.saved_bytes
    assert difference_from(network, after, (None, 0)) <= RELATIVE


def test_a_stored_step_does_the_work_and_keeps_the_memory_of_the_network_that_stores() -> None:
    recomputing = plain("pararevsnn37")
    rewritten, _ = rewrites.apply_all(recomputing, ["store"])
    storing = trace_step(small("pararevsnn37", store=True), torch.empty(2, 3, 16, 16))
    assert totals(rewritten.graph)["flops"] == totals(storing.graph)["flops"] < totals(recomputing.graph)["flops"]
    assert rewritten.graph.memory.saved_bytes == pytest.approx(storing.graph.memory.saved_bytes, rel=0.1)


def test_storing_the_last_blocks_first_trades_memory_for_work_step_by_step() -> None:
    before = plain("pararevsnn69")
    names = [o.name for o in rewrites.find(before, ["store"])]
    assert names[0] == "store stages.3.blocks.3.g:recompute"
    steps = [rewrites.apply(before, names[:k]).graph for k in (0, 4, 12, len(names))]
    flops = [totals(g)["flops"] for g in steps]
    saved = [g.memory.saved_bytes for g in steps]
    assert flops == sorted(flops, reverse=True) and len(set(flops)) == 4
    assert saved == sorted(saved) and len(set(saved)) == 4


@pytest.mark.parametrize("name", ["checkpointed", "checkpointed_reentrant"])
def test_a_checkpoint_stored_is_bit_equal(name: str) -> None:
    network = case(name)
    after, taken = rewrites.apply_all(network.before, ["store"])
    assert taken
    assert difference_from(network, after, (None, 0)) == 0.0


class Lookalike(torch.autograd.Function):
    """Runs its unit in the backward on something else than forward saw."""

    @staticmethod
    def forward(ctx: Any, unit: nn.Module, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.unit = unit
        ctx.save_for_backward(x)
        return unit(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor]:
        (x,) = ctx.saved_tensors
        z = (x * 1.5).detach().requires_grad_()
        with torch.enable_grad():
            out = ctx.unit(z)
        dz, dw = torch.autograd.grad(out, [z, ctx.unit.weight], g)
        return None, dz, dw


class OnOtherInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.unit = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = Lookalike.apply(self.unit, self.stem(x), self.unit.weight)
        return self.fc(y.mean((2, 3)))


def test_what_only_looks_like_forward_is_not_stored() -> None:
    torch.manual_seed(0)
    before = trace_step(OnOtherInput(), torch.empty(*SHAPE))
    assert any(t.phase == "recompute" for t in before.graph.tasks)
    assert not rewrites.find(before, ["store"])


@pytest.mark.parametrize("kinds", [("fuse",), ("share", "fuse", "split"), tuple(rewrites.REWRITES)], ids="+".join)
@pytest.mark.parametrize("name", ["pararevsnn37", "pararevsnn24_dvs", "plain_pararev", "stepwise", "inception"])
def test_stacked_convolutions_give_the_same_step_up_to_rounding(name: str, kinds: tuple[rewrites.Kind, ...]) -> None:
    network = case(name)
    after, _ = rewrites.apply_all(network.before, kinds)
    assert_sound(after.graph)
    assert difference_from(network, after, (None, 0, 1)) <= RELATIVE


def test_a_fused_pair_is_one_task_with_one_wider_convolution_and_its_weights_concatenated() -> None:
    before = plain("pararevsnn37")
    after, taken = rewrites.apply_all(before, ["fuse"])
    assert len(taken) == 4 * 3
    at = {t.id: t for t in after.graph.tasks}
    pair = at["stages.0.blocks.0.g+stages.0.blocks.1.f:forward"]
    types = [after.graph.op_types[after.graph.ops[k].type] for k in pair.ops]
    assert sorted(t.output_shapes[0][1] for t in types if t.kind == "conv") == [4, 4, 8]
    assert [t.output_shapes[0] for t in types if t.name == "aten.cat.default"] == [(8, 4, 3, 3)]
    apart = [t for t in before.graph.tasks if t.id in ("stages.0.blocks.0.g:forward", "stages.0.blocks.1.f:forward")]
    assert pair.flops == sum(t.flops for t in apart)
    assert pair.vector_flops < sum(t.vector_flops for t in apart)  # one first neuron instead of two
    gradient = at["stages.0.blocks.1.f+stages.0.blocks.0.g:backward"]
    kinds = [after.graph.op_types[after.graph.ops[k].type].kind for k in gradient.ops]
    assert kinds.count("conv_backward") == 3  # of the two second convolutions, and one of both first ones


def test_a_fused_pair_has_the_synaptic_operations_of_both() -> None:
    graph = plain("pararevsnn37")
    before = Traced(graphs.attach(graph.graph, graphs.assumed(graph.graph, 0.25)), graph.tape)
    after, _ = rewrites.apply_all(before, ["fuse"])
    spent = [sum(t.sops or 0 for t in g.tasks if t.phase == "forward") for g in (before.graph, after.graph)]
    assert spent[0] == pytest.approx(spent[1], rel=1e-6) and spent[0] > 0


def test_convolutions_of_which_one_needs_the_other_are_not_fused() -> None:
    revnet = plain("revsresnet37")
    assert not rewrites.find(revnet, ["fuse"])
    assert not rewrites.find(case("plain_revnet").before, ["fuse"])


def test_any_subset_of_the_opportunities_may_be_taken_and_the_others_stay_as_they_were() -> None:
    network = case("pararevsnn37")
    before = network.before
    names = [o.name for o in rewrites.find(before, EXACT)]
    chosen = names[::3]
    after = rewrites.apply(before, chosen)
    left = {o.name for o in rewrites.find(after, EXACT)}
    assert left == set(names) - set(chosen)
    assert difference_from(network, after, (None, 5)) == 0.0
    assert rewrites.apply(before, ()) is before


def test_unknown_choices_are_named() -> None:
    before = trace_step(stranger("inception"), torch.empty(*SHAPE))
    with pytest.raises(UnknownName, match=r"'splt'.*split"):
        rewrites.apply_all(before, ["splt"])


class Random(nn.Module):
    """A random feed-forward network: each node reads one or two earlier ones."""

    def __init__(self, kinds: list[int], sources: list[tuple[int, int]]) -> None:
        super().__init__()
        self.kinds, self.sources = kinds, sources
        self.nodes = nn.ModuleList(
            nn.Sequential(nn.Tanh(), nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)) if k == 0
            else nn.Sequential(nn.Tanh(), nn.Conv2d(3, 3, 1, bias=False)) if k == 1
            else nn.Sequential(nn.Tanh(), nn.Dropout(0.25))
            for k in kinds
        )  # fmt: skip
        self.fc = nn.Linear(3, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [x]
        for node, (a, b) in zip(self.nodes, self.sources, strict=True):
            out = node(made[a])
            made.append(out + made[b] if b != a else out)
        return self.fc(made[-1].mean((2, 3)))


@st.composite
def networks(draw: st.DrawFn) -> Random:
    n = draw(st.integers(2, 6))
    kinds = [draw(st.integers(0, 2)) for _ in range(n - 1)] + [0]
    sources = [(draw(st.integers(max(0, k - 3), k)), draw(st.integers(0, k))) for k in range(n)]
    torch.manual_seed(draw(st.integers(0, 99)))
    return Random(kinds, sources)


def test_a_bias_before_a_batch_norm_has_no_gradient_but_rounding_which_rewrites_may_change() -> None:
    torch.manual_seed(0)
    before, step = traced_with_step(Random([0, 0], [(0, 0), (0, 1)]), 2, 3, 5, 5)
    gradient = replayed(step, before.program)
    assert (
        gradient["gradient:nodes.0.1.bias"].abs().max() < RELATIVE < gradient["gradient:nodes.0.1.weight"].abs().max()
    )
    after, taken = rewrites.apply_all(before, tuple(rewrites.REWRITES))
    assert any(o.name.startswith("fuse") for o in taken)
    assert largest_difference(step, before, after, (None, 0)) <= RELATIVE


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(), st.data())
def test_any_choices_on_any_network_keep_the_step(network: Random, data: st.DataObject) -> None:
    before, step = traced_with_step(network, 2, 3, 5, 5)
    names = [o.name for o in rewrites.find(before)]
    chosen = data.draw(st.sets(st.sampled_from(names)) if names else st.just(set()))
    after = rewrites.apply(before, chosen)
    assert_sound(after.graph)
    assert largest_difference(step, before, after, (None, data.draw(st.integers(0, 99)))) <= RELATIVE


@pytest.mark.parametrize(
    ("optimizer", "granularity", "mode", "options"),
    [
        ("adamw-foreach", "block", "train", {}),
        ("adam", "module", "train", {}),
        ("sgd", "op", "train", {}),
        ("sgd", "block", "infer", {}),
        ("sgd", "block", "train", {"form": "fused"}),
        ("sgd", "block", "train", {"form": "merged"}),
        ("sgd", "block", "train", {"store": True}),
        ("sgd", "block", "train", {"neuron": "lif", "v_reset": None, "detach_reset": False}),
        ("sgd", "block", "train", {"neuron": "plif"}),
    ],
)
def test_every_choice_together_keeps_the_step_however_it_is_trained_and_traced(
    optimizer: str, granularity: str, mode: Literal["train", "infer"], options: dict[str, Any]
) -> None:
    model, x = small("pararevsnn37", **options), torch.rand(2, 3, 16, 16)
    step = steady(model, x, optimizer=optimizer)
    if mode == "infer":
        step.model.eval()
    before = trace_step(
        model,
        x,
        loop=Loop(optimizer=OPTIMIZERS[optimizer]) if mode == "train" else None,
        dtype="float64",
        granularity=granularity,
    )
    after, taken = rewrites.apply_all(before, tuple(rewrites.REWRITES))
    assert taken
    assert_sound(after.graph)
    assert largest_difference(step, before, after, (None, 0)) <= RELATIVE


class SameCallsOtherValues(nn.Module):
    """Equal calls on one tensor whose results differ: it is changed in between, or they draw."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 10)
        self.one, self.two = nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        a = torch.tanh(y)
        y.mul_(2.0)
        b = torch.tanh(y)
        noise = torch.rand_like(a) - 5.0 * torch.rand_like(a)
        return self.fc((self.one(a) + 3.0 * self.two(a) + b + noise).mean((2, 3)))


def test_equal_calls_that_give_other_values_are_not_shared() -> None:
    torch.manual_seed(2)
    before, step = traced_with_step(SameCallsOtherValues(), *SHAPE)
    after, _ = rewrites.apply_all(before, ["share"])
    names = [after.graph.op_types[op.type].name for op in after.graph.ops if op.phase == "forward"]
    assert names.count("aten.tanh.default") == 2
    assert largest_difference(step, before, after, (None, 0)) == 0.0


def test_calls_worked_out_before_give_the_steps_of_working_each_out(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plain("pararevsnn21")

    def rewritten() -> list[Traced]:
        return [rewrites.apply_all(before, kinds)[0] for kinds in (["split"], ["fuse", "split"])]

    class Forgetful(dict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            """Keeps nothing."""

    monkeypatch.setattr(writer, "_WRITTEN", Forgetful())
    each = rewritten()
    monkeypatch.setattr(writer, "_WRITTEN", {})
    for together in (rewritten(), rewritten()[1:]):
        for a, b in zip(each[-len(together) :], together, strict=True):
            assert (a.graph, a.program.instructions) == (b.graph, b.program.instructions)
            assert [c.function for c in a.program.calls] == [c.function for c in b.program.calls]
    assert len(writer._WRITTEN) > 3
