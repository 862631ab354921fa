"""A trace is the real step: same ops, same flops, and dependencies that hold when the ops run in any legal order."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from pararev_hw import models
from pararev_hw.check import random_order
from pararev_hw.costmodels.allocator.workspace import eager_peak_bytes, rule_here
from pararev_hw.errors import BadInput, TraceError
from pararev_hw.graph import critical_path, totals
from pararev_hw.torch_private import storage_key
from pararev_hw.tracing import Traced, recorder, trace_step
from pararev_hw.training.step import OPTIMIZERS, Loop
from pararev_hw.types import BlockGraph
from tests.helpers.graph_invariants import assert_sound
from tests.helpers.real_step import assert_same, default_loss, eager, replayed, steady
from tests.helpers.recorded_memory import Setting, recorded_peak_bytes
from tests.helpers.unseen_networks import STRANGERS, HiddenState, PlainParaRev, Stepwise

SHAPE = (4, 3, 8, 8)


def stranger(name: str) -> nn.Module:
    torch.manual_seed(1)
    return STRANGERS[name]()


def small(name: str, **options: object) -> nn.Module:
    torch.manual_seed(1)
    return models.create(name, width=0.0625, num_classes=10, timesteps=2, **options)


@pytest.mark.parametrize("name", sorted(STRANGERS))
def test_replaying_a_step_in_any_legal_order_gives_its_own_results_bit_for_bit(name: str) -> None:
    model = stranger(name)
    step = steady(model, torch.randn(*SHAPE))
    traced = trace_step(model, torch.empty(*SHAPE))
    assert_sound(traced.graph)
    expected = eager(step)
    for order in (None, *(random_order(traced.graph.ops, seed) for seed in range(4))):
        assert_same(replayed(step, traced.program, order), expected)


def test_an_lstm_whose_kernel_asks_whether_gradients_are_enabled_replays_too() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    torch.manual_seed(1)
    model = Sequence()
    step = steady(model, torch.randn(2, 3, 4))
    traced = trace_step(model, torch.empty(2, 3, 4))
    assert_same(replayed(step, traced.program, random_order(traced.graph.ops, 0)), eager(step))


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("pararevsnn37", "sgd"), ("revsresnet21", "adamw"), ("msresnet18", "sgd"), ("pararevsnn24_dvs", "sgd-foreach")],
)
def test_replaying_a_zoo_network_gives_its_own_results_bit_for_bit(name: str, optimizer: str) -> None:
    model = small(name)
    shape = (2, 2, 2, 32, 32) if name.endswith("dvs") else (2, 3, 16, 16)
    torch.manual_seed(3)
    step = steady(model, torch.randn(*shape), optimizer=optimizer)
    step.target.resize_(2).random_(0, 10)
    traced = trace_step(model, torch.empty(*shape), loop=Loop(optimizer=OPTIMIZERS[optimizer]))
    assert_sound(traced.graph)
    expected = eager(step, optimizer)
    for seed in range(2):
        assert_same(replayed(step, traced.program, random_order(traced.graph.ops, seed)), expected)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_small_networks_replay_in_random_orders(data: st.DataObject) -> None:
    n_layers = data.draw(st.integers(1, 6))
    layers: list[nn.Module] = []
    sources: list[tuple[int, ...]] = []
    for k in range(n_layers):
        kind = data.draw(st.sampled_from(["conv", "depthwise", "norm", "relu_", "tanh", "pool"]))
        layers.append(
            {
                "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
                "depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
                "norm": lambda: nn.BatchNorm2d(4),
                "relu_": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)),
                "tanh": lambda: nn.Tanh(),
                "pool": lambda: nn.AvgPool2d(3, 1, 1),
            }[kind]()
        )
        sources.append(tuple(data.draw(st.lists(st.integers(0, k), min_size=1, max_size=2))))

    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)
            self.head = nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = [x]
            for layer, come in zip(self.layers, sources, strict=True):
                made.append(layer(sum((made[c] for c in come[1:]), made[come[0]])))
            return self.head(sum(made[1:], made[0]).mean((2, 3)))

    torch.manual_seed(data.draw(st.integers(0, 99)))
    model = Random()
    step = steady(model, torch.randn(3, 4, 6, 6))
    traced = trace_step(model, torch.empty(3, 4, 6, 6))
    assert_sound(traced.graph)
    order = random_order(traced.graph.ops, data.draw(st.integers(0, 999)))
    assert_same(replayed(step, traced.program, order), eager(step))


def test_a_missing_dependency_is_noticed_by_the_replay() -> None:
    """The proof proves something: forget the write-after-read edges of the update, and some order goes wrong."""
    from dataclasses import replace

    model = stranger("inception")
    step = steady(model, torch.randn(*SHAPE))
    traced = trace_step(model, torch.empty(*SHAPE))
    readers = [op if op.phase != "update" else replace(op, after=()) for op in traced.graph.ops]
    expected = eager(step)
    wrong = 0
    for seed in range(5):
        try:
            assert_same(replayed(step, traced.program, random_order(readers, seed)), expected)
        except (AssertionError, ValueError):
            wrong += 1
    assert wrong > 0


# ---- parallelism is discovered


def units(path: tuple[str, ...], block: str) -> int:
    """Residual functions on a path, of the blocks whose name begins so."""
    return sum(1 for task in path if task.startswith(block) and (".f:" in task or ".g:" in task))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(
    ("coupling", "expected"), [("pararevsnn21", lambda n: n + 1), ("revsresnet21", lambda n: 2 * n)]
)
def test_a_stage_of_n_pairs_has_n_plus_1_phases_where_pararev_and_2n_where_revnet(n, coupling, expected) -> None:
    model = small(coupling, blocks=(n, 1, 1, 1))
    path = critical_path(trace_step(model, torch.empty(2, 3, 16, 16)).graph).by_phase
    for phase in ("forward", "recompute", "backward"):
        assert units(path[phase], "stages.0") == expected(n), (phase, path[phase])


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize(("coupling", "expected"), [("pararev", lambda n: n + 1), ("revnet", lambda n: 2 * n)])
def test_the_same_is_found_where_a_user_wrote_the_equations_in_plain_autograd(n, coupling, expected) -> None:
    graph = trace_step(PlainParaRev(n, coupling), torch.empty(*SHAPE)).graph
    path = critical_path(graph).by_phase
    for phase in ("forward", "backward"):
        convs = [t for t in path[phase] if t.startswith(("f.", "g.")) and ".join" not in t]
        assert len(convs) == expected(n), (phase, path[phase])
    assert "recompute" not in path


def test_inception_branches_depend_on_the_stem_alone_and_not_on_each_other() -> None:
    graph = trace_step(stranger("inception"), torch.empty(*SHAPE)).graph
    names = [t.id for t in graph.tasks]
    for phase in ("forward", "backward"):
        branches = [f"{b}:{phase}" for b in ("one", "three", "five", "pool")]
        order = nx.DiGraph((names[e.src], names[e.dst]) for e in graph.edges)
        for a in branches:
            assert not set(branches) & nx.descendants(order, a), a


def test_a_checkpoint_is_recomputed_and_a_plain_network_is_not() -> None:
    for name in ("checkpointed", "checkpointed_reentrant"):
        tasks = trace_step(stranger(name), torch.empty(*SHAPE)).graph.tasks
        assert {t.block for t in tasks if t.phase == "recompute"} == {"body"}
    assert not [t for t in trace_step(stranger("inception"), torch.empty(*SHAPE)).graph.tasks if t.phase == "recompute"]


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_a_block_that_is_called_at_every_time_step_is_a_task_per_step(feedback: bool, phase: str) -> None:
    tasks = trace_step(Stepwise(4, feedback=feedback), torch.empty(*SHAPE)).graph.tasks
    assert len([t for t in tasks if (t.block, t.branch, t.phase) == ("second", "", phase)]) == 4


def test_each_parameter_update_waits_for_its_own_gradient_only() -> None:
    graph = trace_step(small("revsresnet21"), torch.empty(2, 3, 16, 16)).graph
    last = {t.block: k for k, t in enumerate(graph.tasks) if t.phase == "update" and t.branch == ""}
    into = [graph.tasks[e.src] for e in graph.edges if e.dst == last["fc"]]
    assert {t.block for t in into} == {"fc"}


@pytest.mark.parametrize("granularity", ["op", "module", "block"])
def test_every_granularity_gives_a_sound_graph_of_the_same_work(granularity: str) -> None:
    graph = trace_step(small("pararevsnn37"), torch.empty(2, 3, 16, 16), granularity=granularity).graph
    assert_sound(graph)
    whole = trace_step(small("pararevsnn37"), torch.empty(2, 3, 16, 16)).graph
    assert totals(graph) == totals(whole)


def test_a_neuron_that_owns_its_surrogate_as_a_module_is_one_layer_and_splits_no_block() -> None:
    class Owner(nn.Module):  # as SpikingJelly's nodes do
        def __init__(self) -> None:
            super().__init__()
            self.surrogate = nn.Sigmoid()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            v = torch.zeros_like(x[0])
            spikes = []
            for x_t in x.unbind(0):
                v = v + x_t
                spikes.append(self.surrogate(v - 1))
                v = v - spikes[-1].detach()
            return torch.stack(spikes)

    model = PlainParaRev(3)
    for units_of in (model.f, model.g):
        for k in range(3):
            units_of[k] = nn.Sequential(Owner(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
    graph = trace_step(model, torch.empty(*SHAPE)).graph
    assert {t.block for t in graph.tasks if t.block.startswith("f.")} == {"f.0", "f.1", "f.2"}
    for phase in ("forward", "backward"):
        path = critical_path(graph).by_phase[phase]
        assert len([t for t in path if t.startswith(("f.", "g.")) and ".join" not in t]) == 4


def test_a_pattern_that_names_no_block_is_refused_and_modules_are_named() -> None:
    x = torch.empty(4, 3, 8, 8)
    with pytest.raises(BadInput, match=r"'layers\.\*' matches no module: its modules are .*stem"):
        trace_step(STRANGERS["inception"](), x, blocks=["stem", "layers.*"])
    with pytest.raises(BadInput, match="holds no module"):
        trace_step(STRANGERS["functional"](), x, blocks=["stem"])


@pytest.mark.parametrize("layer", [nn.LazyLinear(4), nn.LazyBatchNorm1d()], ids=["linear", "norm"])
def test_lazy_layers_are_answered_with_what_to_do_and_trace_once_they_have_a_shape(layer: nn.Module) -> None:
    model, x = nn.Sequential(layer, nn.ReLU()), torch.randn(4, 3)
    with pytest.raises(BadInput, match="has no shape yet: run one batch through the network first"):
        trace_step(model, x)
    model(x)
    assert trace_step(model, x).graph.parameters > 0


def test_blocks_can_be_named_by_hand() -> None:
    graph = trace_step(stranger("attention"), torch.empty(*SHAPE), blocks=["layers.*"]).graph
    assert {t.block for t in graph.tasks if t.phase == "forward"} >= {"layers.0", "layers.1"}


# ---- flops and formulas


def counted_by_torch(model: nn.Module, *inputs: torch.Tensor) -> int:
    model = copy.deepcopy(model).train()
    with FlopCounterMode(display=False) as counter:
        default_loss(model(*inputs), torch.zeros(inputs[0].shape[0], dtype=torch.int64)).backward()
    return counter.get_total_flops()


# What torch's counter leaves out on a CPU: fused attention, two layers of it on 4 images of 64 tokens of 16 numbers.
# Two products forward, five backward (one of them again), each of tokens x tokens x numbers.
UNCOUNTED_BY_TORCH = {"attention": 2 * (2 + 5) * 4 * 2 * 64 * 64 * 16}


@pytest.mark.parametrize("name", sorted(STRANGERS))
def test_flops_equal_those_of_torchs_counter(name: str) -> None:
    model = stranger(name)
    counted = counted_by_torch(model, torch.randn(*SHAPE)) + UNCOUNTED_BY_TORCH.get(name, 0)
    assert totals(trace_step(model, torch.empty(*SHAPE)).graph)["flops"] == counted


@pytest.mark.parametrize("name", ["pararevsnn37", "revsresnet37", "msresnet18"])
def test_flops_of_the_zoo_equal_those_of_torchs_counter(name: str) -> None:
    model = small(name)
    x = torch.randn(2, 3, 16, 16)
    assert totals(trace_step(model, torch.empty(2, 3, 16, 16)).graph)["flops"] == counted_by_torch(model, x)


def test_forward_macs_of_the_published_networks_are_the_papers() -> None:
    # seeds: GMAC per sample over all T, conv + linear
    for name, gmac in (("msresnet18", 2.216567), ("revsresnet21", 2.374728)):
        with torch.device("meta"):
            model = models.create(name)
        graph = trace_step(model, torch.empty(1, 3, 32, 32), loop=None).graph
        assert totals(graph)["macs"] == pytest.approx(gmac * 1e9, rel=1e-6)


def test_the_recomputing_step_does_a_third_more_than_the_storing_one_in_its_reversible_part() -> None:
    def reversible(graph: BlockGraph) -> int:
        return sum(t.flops for t in graph.tasks if t.block.startswith("stages"))

    again = reversible(trace_step(small("revsresnet37"), torch.empty(2, 3, 16, 16)).graph)
    stored = reversible(trace_step(small("revsresnet37", store=True), torch.empty(2, 3, 16, 16)).graph)
    assert again * 3 == stored * 4  # 1 forward + 1 recompute + 2 backward against 1 + 2


def test_an_op_without_a_formula_is_listed_and_not_counted_as_nothing() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.cholesky(self.fc(x) @ self.fc(x).transpose(-1, -2) + 8 * torch.eye(8))

    graph = trace_step(Odd(), torch.empty(2, 8, 8)).graph
    assert any("cholesky" in name for name in graph.unknown_ops)
    odd = next(t for t in graph.op_types if "cholesky" in t.name)
    assert odd.vector_flops is None
    assert odd.read_bytes == 2 * 8 * 8 * 4


def test_bytes_of_an_op_are_its_tensors() -> None:
    graph = trace_step(nn.Conv2d(3, 8, 3, padding=1), torch.empty(2, 3, 8, 8), loop=None).graph
    (op,) = [t for t in graph.op_types if t.kind == "conv"]
    assert op.read_bytes == 4 * (2 * 3 * 8 * 8 + 8 * 3 * 3 * 3 + 8)  # input, weight, bias
    assert op.write_bytes == 4 * (2 * 8 * 8 * 8)
    assert op.flops == 2 * (2 * 8 * 8 * 8) * (3 * 3 * 3)  # two per MAC: outputs x (3 channels x 3 x 3)


# ---- memory


def test_what_forward_saves_does_not_grow_with_depth_where_reversible_and_grows_where_not() -> None:
    def saved(name: str) -> int:
        return trace_step(small(name), torch.empty(2, 3, 16, 16)).graph.memory.saved_bytes

    assert saved("revsresnet21") == saved("revsresnet37") == saved("revsresnet109") > 0
    assert saved("msresnet34") > saved("msresnet18") > 0


def test_persistent_memory_is_counted_exactly() -> None:
    model = small("revsresnet21")
    memory = trace_step(model, torch.empty(2, 3, 16, 16)).graph.memory
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert memory.parameter_bytes == memory.gradient_bytes == memory.optimizer_bytes == weights
    assert memory.buffer_bytes == sum(b.numel() * b.element_size() for b in model.buffers())
    assert memory.input_bytes == 4 * 2 * 3 * 16 * 16 + 8 * 2  # images, targets


# ---- leaves everything as it was


def test_tracing_leaves_the_network_its_hidden_state_and_the_generator_alone() -> None:
    model = HiddenState().eval()
    with torch.no_grad():
        model(torch.randn(*SHAPE))
    before = {n: p.clone() for n, p in model.state_dict().items()}
    state, parameters, kept = model.v, dict(model.named_parameters()), model.memory["u"]
    rng = torch.random.get_rng_state()
    trace_step(model, torch.empty(*SHAPE))
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert model.v is state
    assert model.memory["u"] is kept
    assert not model.training
    assert all(p is parameters[n] and p.grad is None for n, p in model.named_parameters())
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())


def test_the_same_network_gives_the_same_graph_twice_and_on_the_meta_device() -> None:
    model = small("pararevsnn37")
    graph = trace_step(model, torch.empty(2, 3, 16, 16)).graph
    assert trace_step(model, torch.randn(2, 3, 16, 16)).graph == graph
    with torch.device("meta"):
        ghost = small("pararevsnn37")
    assert trace_step(ghost, torch.empty(2, 3, 16, 16, device="meta")).graph == graph


def test_dropout_is_drawn_again_alike_in_the_recomputation() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(8, 8)
            self.body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))
            self.fc = nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.utils.checkpoint.checkpoint(self.body, self.stem(x), use_reentrant=False)
            return self.fc(nn.functional.dropout(y, 0.25))

    traced = trace_step(Dropped(), torch.empty(4, 8))
    tokens = [
        (i.rng, op.phase) for i, op in zip(traced.program.instructions, traced.graph.ops, strict=True) if i.rng >= 0
    ]
    assert [phase for _, phase in tokens] == ["forward", "forward", "recompute"]
    assert tokens[0][0] == tokens[2][0] != tokens[1][0]
    torch.manual_seed(2)
    step = steady(Dropped(), torch.randn(4, 8))
    runs = [
        replayed(step, traced.program, order, seed_rng=lambda token: torch.manual_seed(100 + token))  # type: ignore[arg-type,return-value]
        for order in (None, random_order(traced.graph.ops, 1), random_order(traced.graph.ops, 2))
    ]
    assert_same(runs[1], runs[0])
    assert_same(runs[2], runs[0])


# ---- other steps


def test_a_users_own_step_is_traced_gradient_accumulation_and_zeroing_in_place() -> None:
    def step(model: nn.Module, inputs: tuple[torch.Tensor, ...], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=False)
        for half in inputs[0].chunk(2):
            (model(half).square().mean() / 2).backward()
        optimizer.step()

    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    graph = trace_step(model, torch.empty(4, 8), loop=Loop(step=step)).graph
    assert_sound(graph)
    phases = [op.phase for op in graph.ops]
    assert phases.count("backward") > 0
    assert "update" in phases
    assert phases.index("backward") < len(phases) - 1 - phases[::-1].index("forward")  # the second half's forward


def test_inference_has_one_phase_and_fewer_bytes_than_training() -> None:
    model = small("pararevsnn37")
    infer = trace_step(model, torch.empty(2, 3, 16, 16), loop=None).graph
    train = trace_step(model, torch.empty(2, 3, 16, 16)).graph
    assert {t.phase for t in infer.tasks} == {"forward"}
    assert infer.memory.peak_bytes < train.memory.peak_bytes
    assert infer.memory.saved_bytes == 0


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", "bfloat16"), ("float64", "float64"), ("float32", "float32")]
)
def test_the_dtype_of_convolutions_is_the_one_asked_for(dtype: str, expected: str) -> None:
    graph = trace_step(small("pararevsnn21"), torch.empty(2, 3, 16, 16), dtype=dtype).graph
    assert {t.dtype for t in graph.op_types if t.kind == "conv"} == {expected}


# ---- what cannot be traced is said in one line


def refused(model: nn.Module, *inputs: torch.Tensor) -> str:
    with pytest.raises(TraceError) as caught:
        trace_step(model, inputs or torch.empty(*SHAPE))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_control_flow_on_values_is_named_with_its_place() -> None:
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.gate(x)
            return y if y.sum() > 0 else -y

    assert "test_trace.py:" in refused(Decides(), torch.empty(2, 8))


def test_inputs_of_the_wrong_shape_name_module_and_line() -> None:
    message = refused(stranger("inception"), torch.empty(4, 5, 8, 8))
    assert "stem.0" in message
    assert "5" in message


def test_a_network_that_raises_is_quoted() -> None:
    class Raises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ArithmeticError("the flux is inverted")

    message = refused(Raises(), torch.empty(2, 8))
    assert "ArithmeticError" in message
    assert "the flux is inverted" in message


def test_a_trainable_tensor_that_is_no_parameter_is_refused() -> None:
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)
            self.loose = [torch.ones(8, requires_grad=True)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) * self.loose[0]

    assert "nn.Parameter" in refused(Loose(), torch.empty(2, 8))


def test_a_state_whose_gradient_forward_itself_asks_for_is_traced() -> None:
    """As a library's neuron does with its resting potential."""

    class Rested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)
            self.rest = (torch.tensor(0.1),)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            v = self.rest[0]
            v.requires_grad = True
            return torch.sigmoid(self.fc(x) - v) * v.requires_grad_()

    model, x = Rested(), torch.randn(2, 8)
    traced = trace_step(model, x)
    assert not model.rest[0].requires_grad
    model(x).sum().backward()  # it is marked already, and has a gradient
    gradient = model.rest[0].grad
    again = trace_step(model, x)
    assert totals(again.graph) == totals(traced.graph)
    assert model.rest[0].grad is gradient
    step = steady(Rested(), x, classes=8)
    assert_same(replayed(step, again.program), eager(step))


def test_a_network_is_whole_again_after_a_failed_trace() -> None:
    model = stranger("inception")
    parameters = dict(model.named_parameters())
    refused(model, torch.empty(4, 5, 8, 8))
    assert all(p is parameters[n] for n, p in model.named_parameters())
    assert isinstance(trace_step(model, torch.empty(*SHAPE)), Traced)


def test_an_ops_outputs_are_looked_up_among_its_inputs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer's foreach op reads and writes all weights: each against each would be quadratic."""
    looked_up = 0

    def counted(tensor: torch.Tensor) -> int:
        nonlocal looked_up
        looked_up += 1
        return storage_key(tensor)

    monkeypatch.setattr(recorder, "storage_key", counted)
    lookups = {}
    for layers in (20, 40):
        looked_up = 0
        net = nn.Sequential(*[nn.Linear(3, 3) for _ in range(layers)])
        trace_step(net, torch.zeros(2, 3), loop=Loop(optimizer=lambda weights: torch.optim.Adam(weights, foreach=True)))
        lookups[layers] = looked_up
    assert lookups[40] < 2.2 * lookups[20]


@pytest.mark.parametrize(
    ("layout", "layer", "shape"),
    [
        (torch.channels_last, nn.Conv2d(3, 4, 3), (2, 3, 8, 8)),
        (torch.channels_last_3d, nn.Conv3d(3, 4, 3), (2, 3, 8, 8, 8)),
        (torch.contiguous_format, nn.Conv2d(3, 4, 3), (2, 3, 8, 8)),
    ],
)
def test_images_lie_in_memory_as_they_are_given(
    layout: torch.memory_format, layer: nn.Module, shape: tuple[int, ...]
) -> None:
    """As in a real call: the strides of the convolution's output tell which layout its kernel took."""
    x = torch.rand(shape).to(memory_format=layout)
    program = trace_step(nn.Sequential(layer, nn.Flatten()), x, loop=None).graph.program
    assert program is not None
    given = next(strides for slot, (_, strides, _) in program.layouts.items() if program.externals[slot] == "input:0")
    assert given == x.stride()


def test_images_that_are_repeated_are_traced_whole() -> None:
    x = torch.rand(1, 3, 8, 8).expand(2, 3, 8, 8)
    program = trace_step(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), x, loop=None).graph.program
    assert program is not None
    given = next(strides for slot, (_, strides, _) in program.layouts.items() if program.externals[slot] == "input:0")
    assert given == x.contiguous().stride()


class SummedGradients(nn.Module):
    """Sums that torch writes over a gradient, and sums that it may not: one is kept by a hook, one is expanded,
    one is shared; a bias that `linear` adds in place, and one that is added by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 10)
        self.weight, self.bias = nn.Parameter(torch.rand(8, 8)), nn.Parameter(torch.rand(8))
        self.kept: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x.transpose(0, 1))
        z = y * 2
        if z.requires_grad:
            z.register_hook(self.kept.append)
        total = z.sin() + y.cos() + (z @ self.weight + self.bias) + y[:1] + y[1:2] + y
        shared = y * 3
        return self.outer((total + shared + shared).mean(0)) + y.sum() + y.mean()


def test_gradients_are_summed_in_place_where_torch_does() -> None:
    """Beside what torch's profiler counts in a step without a tracer."""
    model, x = SummedGradients(), torch.randn(5, 4, 6)
    graph = trace_step(model, x).graph
    traced = Counter(graph.op_types[op.type].name.split(".")[1] for op in graph.ops if op.phase != "update")
    loss = nn.functional.cross_entropy(model(x), torch.zeros(5, dtype=torch.long))
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as recorded:
        loss = nn.functional.cross_entropy(model(x), torch.zeros(5, dtype=torch.long))
        loss.backward()
    seen = Counter(e.name().removeprefix("aten::") for e in recorded.profiler.kineto_results.events())
    assert (traced["add"], traced["add_"]) == (seen["add"], seen["add_"])
    assert traced["add_"] > 4


def test_an_optimizer_that_goes_by_its_losses_is_refused_in_its_name() -> None:
    with pytest.raises(BadInput, match="LBFGS takes as many passes as its losses ask for"):
        trace_step(nn.Linear(3, 2), torch.zeros(2, 3), loop=Loop(optimizer=torch.optim.LBFGS))


def test_an_optimizer_that_asks_for_numbers_says_so() -> None:
    graph = trace_step(nn.Linear(3, 2), torch.zeros(2, 3), loop=Loop(optimizer=torch.optim.Adafactor)).graph
    assert [a for a in graph.assumptions if a.startswith("the optimizer asks its tensors for numbers")]


SCATTERED = {
    "gather": lambda x, rows: x.gather(1, rows[:, None].expand(-1, 5)),
    "index": lambda x, rows: x[rows],
    "columns": lambda x, rows: x[:, rows[:40]],
    "take": lambda x, rows: x.take(rows),
    "index_select": lambda x, rows: x.index_select(0, rows),
    "max": lambda x, rows: x.max(1).values,
    "median": lambda x, rows: x.median(1).values,
    "topk": lambda x, rows: x.topk(3, 1).values,
    "sort": lambda x, rows: x.sort(1).values,
    "cummax": lambda x, rows: x.cummax(1).values,
    "trace": lambda x, rows: x.trace(),
    "logits": lambda x, rows: nn.functional.binary_cross_entropy_with_logits(x, x.detach(), pos_weight=rows + 1.0),
    "greatest of what is scattered": lambda x, rows: x.scatter_reduce(1, rows[:, None] // 2, x + 1, "amax"),
    "scattered by hand": lambda x, rows: torch.zeros(64, 64).scatter_add(0, rows[:, None], x[:, :1]),
}


@pytest.mark.parametrize("function", SCATTERED.values(), ids=SCATTERED)
def test_gradients_are_scattered_in_place_where_torch_does(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    """Torch takes other formulas of gradients under a dispatch mode. Beside what its profiler records without one."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.weight = nn.Parameter(torch.rand(64, 64))
            self.register_buffer("rows", torch.arange(64).flip(0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(self.weight, self.rows)[None, None] * x

    x, setting = torch.ones(2, 1, 1, 1), Setting(OPTIMIZERS["sgd-plain"])
    traced = trace_step(Net(), x, loop=Loop(optimizer=OPTIMIZERS["sgd-plain"]))
    predicted = eager_peak_bytes(traced.graph, "cpu", rule_here())
    assert predicted == pytest.approx(recorded_peak_bytes(Net(), x, setting), abs=200)
    step = steady(Net(), x, optimizer="sgd-plain")
    order = random_order(traced.graph.ops, 0)
    assert_same(replayed(step, traced.program, order), eager(step, "sgd-plain"))


def test_the_backward_before_a_recomputation_that_is_broken_off_keeps_its_modules() -> None:
    """`checkpoint` leaves its recomputation by an exception as soon as it has what was saved."""

    class Network(nn.Module):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.reentrant = reentrant
            self.stem, self.middle = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.block, self.head = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.middle(self.stem(x))
            return self.head(checkpoint(self.block, x, use_reentrant=self.reentrant).sum((2, 3)))

    macs: list[dict[str, int]] = []
    for reentrant in (True, False):
        graph = trace_step(Network(reentrant), torch.empty(2, 3, 12, 12)).graph
        work: dict[str, int] = {}
        for op in graph.ops:
            if op.phase == "backward" and graph.op_types[op.type].kind == "conv_backward":
                work[op.module] = work.get(op.module, 0) + graph.op_types[op.type].macs
        macs.append(work)
    # weights alone of the stem, whose input asks for no gradient, and weights and input of the others
    assert (
        macs[0]
        == macs[1]
        == {"stem": 2 * 100 * 3 * 4 * 9, "middle": 2 * 2 * 64 * 16 * 9, "block.0": 2 * 2 * 36 * 16 * 9}
    )


def test_work_after_an_exception_that_the_network_caught_is_not_that_of_the_module_that_raised() -> None:
    class Raising(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("not for these")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.tried, self.last = nn.Linear(4, 4), Raising(), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            try:
                x = self.tried(x)
            except ValueError:
                x = torch.sigmoid(x)
            return self.last(x)

    graph = trace_step(Network(), torch.empty(2, 4)).graph
    module_of = {graph.op_types[op.type].name: op.module for op in graph.ops if op.phase == "forward"}
    assert module_of["aten.sigmoid.default"] == ""
    assert "tried" not in {op.module for op in graph.ops}
