"""Steps as users write them: optimizers of their own, storages let go by hand, constants read, inputs of any form."""

from __future__ import annotations

import runpy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pararev_hw as ph
from pararev_hw.check import random_order
from pararev_hw.costmodels.allocator.workspace import eager_peak_bytes, rule_here
from pararev_hw.errors import BadInput, TraceError
from pararev_hw.reports.first_lines import first_lines
from pararev_hw.tracing import RESETS, StepDescription, trace_step
from pararev_hw.training.step import OPTIMIZERS, Loop
from tests.helpers.real_step import assert_same, eager, replayed, steady
from tests.helpers.recorded_memory import Setting, recorded_peak_bytes


def updates(graph: Any) -> int:
    """Parameters that the update phase writes, each as often as it is written by a step of Adam."""
    parameters = {s for s, storage in enumerate(graph.storages) if storage.role == "parameter"}
    return sum(
        1 for op in graph.ops
        if op.phase == "update" and parameters & set(op.writes) and "addcdiv" in graph.op_types[op.type].name
    )  # fmt: skip


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.g, self.d = nn.Linear(4, 6), nn.Linear(6, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.d(self.g(z))  # type: ignore[no-any-return]


def test_a_steps_own_optimizers_are_traced_and_put_back() -> None:
    net = Gan()
    adam = {"lr": 1e-3, "foreach": False}
    generator, critic = (torch.optim.Adam(m.parameters(), **adam) for m in (net.g, net.d))  # type: ignore[arg-type]

    def step(model: Any, batch: tuple[Tensor, ...], _: Any) -> None:
        for optimizer in (critic, generator):
            optimizer.zero_grad()
            model(batch[0]).mean().backward()
            optimizer.step()

    weights = [p.clone() for p in net.parameters()]
    graph = trace_step(net, torch.rand(3, 4), loop=Loop(step=step)).graph
    assert updates(graph) == 4  # weight and bias of two layers
    assert graph.memory.optimizer_bytes == 2 * 4 * sum(p.numel() for p in net.parameters()) + 4 * 4  # and step counts
    assert [id(p) for p in generator.param_groups[0]["params"]] == [id(p) for p in net.g.parameters()]
    assert not generator.state
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (lambda out: 1.0, "1.0"),
        (lambda out: None, "None"),
        (lambda out: out, "a tensor of shape [3, 1]"),
        (lambda out: out.detach().sum(), "a tensor of shape []"),
    ],
)
def test_a_loss_that_is_none_is_refused(loss: Callable[[Any], Any], named: str) -> None:
    with pytest.raises(TraceError) as caught:
        ph.trace(Gan(), torch.rand(3, 4), loss=loss)
    assert f"the loss is {named}: it must be a tensor of one element that depends on the output" in str(caught.value)


@pytest.mark.parametrize("optimizer", [lambda parameters: 3, lambda parameters: None])
def test_an_optimizer_that_is_none_is_refused(optimizer: Callable[[Any], Any]) -> None:
    with pytest.raises(BadInput, match=r"gives (3|None): it must give a torch\.optim\.Optimizer$"):
        ph.trace(Gan(), torch.rand(3, 4), optimizer=optimizer)


def test_an_optimizer_of_something_else_is_refused() -> None:
    net, stranger = Gan(), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(stranger.parameters(), lr=0.1)

    def step(model: Any, batch: tuple[Tensor, ...], _: Any) -> None:
        model(batch[0]).mean().backward()
        optimizer.step()

    with pytest.raises(TraceError, match=r"holds none of the network's parameters: make it over model.parameters"):
        trace_step(net, torch.rand(3, 4), loop=Loop(step=step))


class Freed(torch.autograd.Function):
    """y = x + f(x) whose input's memory is let go, and reconstructed by fixed-point steps: as MemCNN does."""

    @staticmethod
    def forward(ctx: Any, f: nn.Module, x: Tensor, *weights: Tensor) -> Tensor:
        with torch.no_grad():
            y = x.detach() + 1
        x.untyped_storage().resize_(0)
        ctx.f, ctx.x, ctx.y, ctx.weights = f, x, y, weights
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        with torch.no_grad():
            inverse = ctx.y - 1
            source = ctx.x
            source.untyped_storage().resize_(inverse.numel() * 4)
            source.set_(inverse)
            del ctx.x, ctx.y
        with torch.enable_grad():
            x = source.detach().requires_grad_()
            y = x + 0 * ctx.f(x)
        return (None, *torch.autograd.grad(y, (x, *ctx.weights), g))


class Deep(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1, bias=False)
        self.f = nn.Conv2d(4, 4, 1, bias=False)
        self.depth = depth

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(self.depth):
            x = Freed.apply(self.f, x, *self.f.parameters())
        return x.mean((2, 3))


def test_memory_let_go_by_resizing_its_storage_is_gone() -> None:
    """The peak is that of one block, however many there are."""
    peaks = [trace_step(Deep(depth), torch.empty(2, 1, 16, 16)).graph.memory.peak_bytes for depth in (3, 6, 12)]
    image = 2 * 4 * 16 * 16 * 4
    assert peaks[0] == peaks[1] == peaks[2] < 12 * image
    graph = trace_step(Deep(3), torch.empty(2, 1, 16, 16)).graph
    assert all(op.after == tuple(sorted(set(op.after))) for op in graph.ops)
    assert len({k for t in graph.tasks for k in t.ops}) >= len(graph.ops) - 12  # views of parameters alone have none


class Constants(nn.Module):
    """Numbers in tensors that no input decides are no control flow: attributes, buffers, what follows of them."""

    def __init__(self) -> None:
        super().__init__()
        self.leak, self.fc = torch.tensor(0.5), nn.Linear(3, 3)
        self.register_buffer("threshold", torch.tensor([1.0, 2.0]))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        state = torch.full((x.shape[0], 3), self.leak.detach().item())
        x = x.repeat(torch.ones(x.dim(), dtype=torch.int64).tolist())
        if (self.threshold[1] * 2 > 3).item() and torch.arange(3)[2] == 2:
            state = state + self.fc(x)
        return state

    def counted(self, x: Tensor) -> Tensor:
        self.seen += int((x > 0).sum().item() > 3)
        return self.fc(x)  # type: ignore[no-any-return]


def test_a_constants_value_is_no_control_flow_and_an_inputs_is() -> None:
    graph = trace_step(Constants(), torch.rand(2, 3)).graph
    assert sum(t.flops for t in graph.tasks) == 2 * 2 * (2 * 3 * 3)  # forward and the weight's gradient
    net = Constants()
    net.forward = net.counted  # type: ignore[method-assign]
    with pytest.raises(TraceError, match="only when the network really runs"):
        trace_step(net, torch.rand(2, 3))


class Membrane(nn.Module):
    """Keeps its potential from call to call: the user resets it in the training loop. Its statistics go on."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.v = nn.Linear(3, 3), nn.BatchNorm1d(3), 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v = 0.5 * self.v + self.norm(self.fc(x))  # type: ignore[assignment]
        return self.v  # type: ignore[return-value]


def test_state_that_a_micro_batch_leaves_is_put_back_before_the_next() -> None:
    net = Membrane()
    graphs = [trace_step(net, torch.rand(2, 3), loop=Loop(accumulate=n)).graph for n in (1, 3)]
    assert net.v == 0.0
    assert [RESETS in g.assumptions for g in graphs] == [False, True]
    assert graphs[1].totals.flops == 3 * graphs[0].totals.flops
    statistics = {s for s, storage in enumerate(graphs[1].storages) if storage.role == "buffer"}
    assert sum(bool(statistics & set(op.writes)) for op in graphs[1].ops if "norm" in op.module) == 3 * sum(
        bool(statistics & set(op.writes)) for op in graphs[0].ops if "norm" in op.module
    )


class Counting(nn.Module):
    """Counts its calls in tensors, in place, and changes its mind by them."""

    def __init__(self, count: Callable[[Tensor], Tensor | None], start: float) -> None:
        super().__init__()
        self.fc, self.count = nn.Linear(3, 3), count
        self.register_buffer("calls", torch.full((4,), start))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(5):
            self.count(self.calls)
            x = self.fc(x) if self.calls[0] > 102 else x.sin()
        return x


@pytest.mark.parametrize(
    "count",
    [
        lambda c: c.add_(1),
        lambda c: c[0].add_(1),
        lambda c: c.copy_(c + 1),
        lambda c: c.index_put_((torch.tensor([0, 2]),), torch.tensor(1.0), accumulate=True),
        lambda c: torch.add(c, 1, out=c),
        lambda c: c[:2].mul_(2).sub_(c[:2] / 2).add_(1),
    ],
    ids=["add", "view", "copy", "index", "out", "several"],
)
def test_a_counter_in_a_tensor_goes_on_counting_while_its_network_is_traced(
    count: Callable[[Tensor], Tensor | None],
) -> None:
    net, x = Counting(count, 100.0), torch.rand(2, 3)
    layers = [0]
    net.fc.register_forward_hook(lambda *_: layers.__setitem__(0, layers[0] + 1))
    graph = trace_step(net, x, loop=None).graph
    assert torch.equal(net.calls, torch.full((4,), 100.0))
    layers[0] = 0
    net(x)
    assert 0 < layers[0] <= 5
    assert sum(t.macs for t in graph.tasks) == layers[0] * 2 * 3 * 3


class Encoding(nn.Module):
    """Refuses inputs outside [0, 1], and goes two ways by them, as latency encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if torch.min(x) < 0 or torch.max(x) > 1:
            raise ValueError(f"inputs are between 0 and 1, and one is {x.min()}")
        steps = int(torch.round(x.max() * 4)) + 1
        first = torch.round((1 - x) * 4)
        for t in range(steps):
            y = self.b((self.a((first == t).float()) > 0).float())
        return y


def test_a_network_that_asks_for_values_of_its_inputs_goes_the_way_of_those_given() -> None:
    net = Encoding()
    for top in (0.5, 1.0):
        x = torch.tensor([[0.0, 0.25, top], [0.1, top, top]])
        graph = ph.trace(net, x, mode="infer")
        assert sum(t.macs for t in graph.tasks) == (top * 4 + 1) * 2 * (3 * 4 + 4 * 2)
        (line,) = [a for a in graph.assumptions if "asks for values" in a]
        assert "test_users_steps.py:" in line and "as it runs on those given" in line
        first, spikes = torch.round((1 - x) * 4), 0.0
        with torch.no_grad():
            for t in range(int(top * 4) + 1):
                on = (first == t).float()
                spikes += float(on.sum()) * 4 + float((net.a(on) > 0).sum()) * 2
        assert graph.totals.sops == spikes
    with pytest.raises(
        TraceError, match=r"ValueError when run on its inputs: inputs are between 0 and 1, and one is -1"
    ):
        ph.trace(net, torch.full((2, 3), -1.0))
    with pytest.raises(TraceError, match="only when the network really runs"):  # shapes alone tell nothing
        ph.trace(net, torch.empty(2, 3, device="meta"))


class Routed(nn.Module):
    """Sends each row to one expert, drops padding by a mask, and asks for a number after `one_hot`, which asks for two
    of real tensors alone. As many rows as its inputs say go each way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.head = nn.Linear(8, 3), nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        chances, chosen = self.gate(x).softmax(-1).max(-1)
        x = x.clone()
        x[chosen == 2] = 0.0
        share = F.one_hot(chosen, 3).float().mean(0) + x.mean()
        for _ in range(2 if share.sum() > -100 else 1):
            out = torch.zeros_like(x)
            for k, expert in enumerate(self.experts):
                (rows,) = torch.where(chosen == k)
                out[rows] = expert(x[rows]) * chances[rows, None]
            x = x + out
        return self.head(x[chosen != 1])[None]  # type: ignore[no-any-return]


REAL = StepDescription(real_inputs=True)


def test_shapes_that_depend_on_values_are_those_on_the_networks_inputs() -> None:
    net, x = Routed(), torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    traced = trace_step(net, x, loop=Loop(optimizer=OPTIMIZERS["sgd"]), description=REAL)
    chosen = net.gate(x).argmax(-1)
    # the gate, two rounds of experts of 8 x 8 for all rows together, and the head for the rows that are left
    flops = 2 * 40 * 8 * 3 + 2 * (2 * 40 * 8 * 8) + 2 * int((chosen != 1).sum()) * 8 * 4
    assert sum(traced.graph.op_types[op.type].flops for op in traced.graph.ops if op.phase == "forward") == flops
    recorded = recorded_peak_bytes(Routed(), x, Setting(OPTIMIZERS["sgd"])) - 8 * 40  # the targets, which none reads
    assert eager_peak_bytes(traced.graph, "cpu", rule_here()) == pytest.approx(recorded, rel=0.01)


def test_answers_go_to_the_file_that_asks_where_another_has_its_name(tmp_path: Path) -> None:
    """`one_hot` asks real tensors alone for numbers: one more at its line than the traced network asks for."""
    forwards = {
        "codes": "F.one_hot(x.argmax(-1), 3).float()",
        "rounds": "[x := x.cos() for _ in range(int(x.max() + 4))][-1]",
    }
    classes = {}
    for folder, forward in forwards.items():
        path = tmp_path / folder / "layer.py"
        path.parent.mkdir()
        path.write_text(
            "import torch.nn.functional as F\nfrom torch import nn\nclass Layer(nn.Module):\n"
            f"    def forward(self, x): return {forward}\n"
        )
        classes[folder] = runpy.run_path(str(path))["Layer"]
    graph = ph.trace(nn.Sequential(classes["codes"](), classes["rounds"]()), torch.rand(2, 3), mode="infer")
    assert sum(graph.op_types[op.type].name.startswith("aten.cos") for op in graph.ops) == 5


class Positive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


def test_shapes_that_depend_on_values_are_refused_where_inputs_are_mere_shapes() -> None:
    with pytest.raises(TraceError, match=r"depends on tensor values .* or the inputs must be real"):
        ph.trace(Positive(), torch.empty(4, 8, device="meta"), mode="infer")


def test_a_replay_takes_as_many_rows_as_were_traced() -> None:
    """On the traced inputs it is the step, bit for bit; on others, which set other rows, it runs all the same."""
    x, other = (torch.randn(40, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    step = steady(Routed(), x)
    traced = trace_step(step.model, x, loop=Loop(optimizer=OPTIMIZERS["sgd"]), description=REAL)
    assert_same(replayed(step, traced.program, random_order(traced.graph.ops, 0)), eager(step))
    assert not torch.equal(step.model.gate(x).argmax(-1).bincount(), step.model.gate(other).argmax(-1).bincount())
    assert replayed(replace(step, inputs=(other,)), traced.program)["loss"] > 0


class Hard(nn.Module):
    """Its spikes have a gradient only where `surrogate`."""

    def __init__(self, surrogate: bool) -> None:
        super().__init__()
        self.a, self.b, self.c, self.unused = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(2, 2)
        self.unused.requires_grad_(False)
        self.surrogate = surrogate

    def fire(self, v: Tensor) -> Tensor:
        spikes = (v > 0).float()
        return spikes + torch.sigmoid(v) - torch.sigmoid(v).detach() if self.surrogate else spikes

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.fire(self.b(self.fire(self.a(x)))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("loop", [Loop(), Loop(zero_grad="zero"), Loop(accumulate=2), None])
def test_parameters_that_receive_no_gradient_are_named(loop: Loop | None) -> None:
    graph = trace_step(Hard(surrogate=False), torch.rand(2, 3), loop=loop).graph
    lines = [line for line in graph.assumptions if "receive no gradient" in line]
    real = Hard(surrogate=False)
    real(torch.rand(2, 3)).sum().backward()
    absent = [n for n, p in real.named_parameters() if p.requires_grad and p.grad is None]
    assert absent == ["a.weight", "a.bias", "b.weight", "b.bias"]
    if loop is None:
        assert not lines
        return
    assert len(lines) == 1
    assert lines[0].startswith("4 of 6 parameter tensors receive no gradient: a.weight, a.bias, b.weight and 1 more (")
    assert first_lines(graph)[0] == f"{lines[0]}."
    graph = trace_step(Hard(surrogate=True), torch.rand(2, 3), loop=loop).graph
    assert not [line for line in graph.assumptions if "receive no gradient" in line]


def test_gradients_that_a_step_of_the_users_lets_go_were_received() -> None:
    net = Hard(surrogate=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step(model: Any, batch: tuple[Tensor, ...], _: Any) -> None:
        model(batch[0]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    graph = trace_step(net, torch.rand(2, 3), loop=Loop(step=step)).graph
    assert not [line for line in graph.assumptions if "receive no gradient" in line]


@dataclass
class Out:
    logits: Tensor
    hidden: Tensor


class Pair(NamedTuple):
    tokens: Tensor
    mask: Tensor


class Forms(nn.Module):
    def __init__(self, gives: str = "tensor") -> None:
        super().__init__()
        self.gives, self.emb, self.fc = gives, nn.Embedding(20, 4), nn.Linear(4, 3)

    def forward(self, tokens: Any, mask: Tensor | None = None, *, extra: Any = None) -> Any:
        if isinstance(tokens, Pair):
            tokens, mask = tokens
        elif isinstance(tokens, Mapping):
            tokens, mask = tokens["tokens"], tokens["mask"]
        h = self.emb(tokens)
        if extra is not None:
            h = h + extra["scale"][0]
        y = self.fc((h * mask[..., None]).sum(1) if mask is not None else h.sum(1))
        forms = {
            "tensor": lambda: y, "dataclass": lambda: Out(y, h), "mapping": lambda: OrderedDict(logits=y, n=3),
            "nested": lambda: [y, (None, {"h": h})],
            "distribution": lambda: torch.distributions.Categorical(logits=y),
        }  # fmt: skip
        return forms[self.gives]()


TOKENS, MASK = torch.randint(0, 20, (2, 5)), torch.ones(2, 5)


@pytest.mark.parametrize(
    "inputs",
    [
        {"tokens": TOKENS, "mask": MASK},
        ({"tokens": TOKENS, "mask": MASK},),
        (Pair(TOKENS, MASK),),
        [TOKENS, MASK],
        {"tokens": TOKENS, "mask": MASK, "extra": {"scale": [torch.rand(4), "name"]}},
    ],
    ids=["keywords", "dictionary", "named tuple", "list", "nested"],
)
def test_inputs_of_any_form_trace_to_the_same_work(inputs: Any) -> None:
    net = Forms()
    graph = ph.trace(net, inputs)
    assert type(net) is Forms
    assert graph.batch == 2
    assert sum(t.flops for t in graph.tasks) == 3 * 2 * (2 * 4 * 3)  # forward and two gradients
    assert graph.input_shapes[:2] == ((2, 5), (2, 5))


@pytest.mark.parametrize("gives", ["dataclass", "mapping", "nested", "distribution"])
def test_outputs_of_any_form_are_trained_on(gives: str) -> None:
    graph = ph.trace(Forms(gives), (TOKENS,))
    assert any(op.phase == "update" for op in graph.ops)
    assert sum(t.flops for t in graph.tasks) == 3 * 2 * (2 * 4 * 3)


def test_a_step_of_ones_own_is_given_the_inputs_as_they_came() -> None:
    def step(model: Any, batch: Any, optimizer: Any) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(**batch).logits, torch.zeros(2, dtype=torch.long)).backward()
        optimizer.step()

    graph = ph.trace(Forms("dataclass"), {"tokens": TOKENS, "mask": MASK}, step=step)
    assert any(op.phase == "update" for op in graph.ops)
