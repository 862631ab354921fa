"""`execute` runs whatever PyTorch trains: overlapping tensors, computed weights, scripted parts, state of modules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pararev_hw import execution, pipeline
from pararev_hw.errors import BadInput
from pararev_hw.execution import contention, machine
from pararev_hw.execution.contention import copied_tensor
from pararev_hw.execution.harness import Rounds
from pararev_hw.execution.measured_run import Execution
from pararev_hw.execution.network_copy import copied_network
from pararev_hw.trace_options import TraceOptions
from tests.execution.test_running import cpu
from tests.helpers.command_line import run

NETWORKS = """
import torch
import torch.nn.utils as U
from torch import nn
from torch.nn.utils import prune


def body(wrap):
    torch.manual_seed(0)
    layers = wrap(nn.Conv2d(3, 4, 3)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), wrap(nn.Linear(4, 3))
    return nn.Sequential(*layers), torch.rand(2, 3, 8, 8)


def pooled():
    return body(lambda m: m)


def spectral():
    return body(U.spectral_norm)


def pruned():
    return body(lambda m: prune.l1_unstructured(m, "weight", 0.5))


def weight_norm():
    return body(U.weight_norm)


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.states = nn.Linear(6, 3), []

    def forward(self, x):
        self.states.append(self.f(x))
        return sum(self.states)


def list_of_states():
    return Remembers(), torch.rand(2, 6)


class ViewedInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.f = nn.GRU(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        y = self.recurrent(x)[0].clone().transpose_(0, 1).unsqueeze_(0)
        return self.f(y.squeeze_(0)[-1] * 2)


def viewed_in_place():
    torch.manual_seed(0)
    return ViewedInPlace(), torch.rand(2, 5, 6)


def channels_last():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return net.to(memory_format=torch.channels_last), torch.rand(2, 3, 8, 8)
"""


@pytest.fixture
def networks(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(NETWORKS)
    return str(path)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "factory", ["pooled", "spectral", "pruned", "weight_norm", "list_of_states", "viewed_in_place", "channels_last"]
)
def test_lanes_train_it_as_the_plain_loop_does(factory: str, networks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "_SAMPLE_S", 1e-5)
    monkeypatch.setattr(contention, "_ROUNDS", 1)
    job = execution.prepare(f"{networks}:{factory}", TraceOptions(granularity="block"))
    before = {n: p.detach().clone() for n, p in job.model.named_parameters()}
    result = execution.execute(job, cpu(), lanes=2, steps=2, warm_up=1)
    assert result.difference == result.loop_difference == 0
    assert all(torch.equal(before[n], p) for n, p in job.model.named_parameters())


def test_a_copy_has_the_numbers_and_the_strides_of_an_overlapping_tensor() -> None:
    x = torch.arange(12.0).reshape(3, 4)
    for tensor in (x.expand(2, 3, 4), x.t(), x[:, 1:3], x.as_strided((2, 3), (1, 1)), x[:0]):
        twin = copied_tensor(tensor)
        assert torch.equal(twin, tensor)
        assert twin.stride() == tensor.stride()
        assert twin.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr() or not tensor.numel()


def test_a_copied_network_trains_apart_from_the_first() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(3, 2)
            self.last = [self.f(torch.ones(1, 3))]  # made by autograd: deepcopy refuses it

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.f(x) + self.last[0].detach()

    for make in (Remembers, _scripted):
        model: nn.Module = make()
        twin = copied_network(model, "a test's")
        assert all(p.is_leaf for p in twin.parameters())
        weight = next(model.parameters()).detach().clone()
        torch.optim.SGD(twin.parameters(), lr=1.0).zero_grad()
        twin(torch.ones(1, 3)).sum().backward()
        torch.optim.SGD(twin.parameters(), lr=1.0).step()
        assert torch.equal(next(model.parameters()), weight)
        assert torch.allclose(next(twin.parameters()), weight - 1.0)  # d(sum)/dw is the input: ones


def _scripted() -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is deprecated
        module: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(3, 2)))
    return module


def test_what_cannot_be_copied_is_one_line() -> None:
    model = nn.Linear(2, 2)
    model.stream = (n for n in range(3))
    with pytest.raises(BadInput, match=r"net cannot be copied.*TypeError"):
        copied_network(model, "net")


# ---- how many lanes, and which way is the fastest


def test_more_lanes_than_cores_are_one_line(networks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    ran = run("execute", f"{networks}:pooled", "--lanes", 100)
    assert ran.status == 2
    assert ran.line == "error: --lanes 100: this machine has 2 cores, each runs one lane: at most 2"


@pytest.mark.parametrize(("cores", "lanes"), [(1, 1), (2, 2), (64, 4)])
def test_the_default_is_a_lane_per_core_and_says_so(cores: int, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    count, why = machine.lanes_here("cpu", None)
    assert count == lanes
    assert why.startswith(f"this machine has {cores} core")


@pytest.mark.parametrize(
    ("measured", "fastest", "right"),
    [
        ({"sequential": [2.0, 2.1], "parallel": [1.0, 1.1], "threads": [1.5, 1.6]}, "parallel", True),
        ({"sequential": [1.0, 1.0], "parallel": [1.1, 1.2], "threads": [1.5, 1.6]}, "sequential", False),
        ({"sequential": [1.0, 1.1], "parallel": [1.1, 1.0], "threads": [0.5, 0.5]}, "threads", False),
        ({"sequential": [1.0, 1.1, 0.9], "parallel": [1.1, 1.0, 1.0], "threads": [2.0] * 3}, "sequential", True),
    ],
)
def test_the_verdict_compares_the_best_of_all_ways(measured: dict[str, list[float]], fastest: str, right: bool) -> None:
    """Predicted: lanes 1 s, one lane 2 s, threads 1.5 s. The measured ones are given."""
    runs = {name: tuple(execution.StepRun(s, ()) for s in seconds) for name, seconds in measured.items()}
    choice = _execution(Rounds(runs, ())).choice
    assert choice is not None
    assert (choice.predicted, choice.measured, choice.right) == ("parallel", fastest, right)
    assert choice.threads_over_lanes == 1.5


def _execution(rounds: Rounds) -> Execution:
    class Predicted:
        def __init__(self, latency_s: float) -> None:
            self.latency_s = latency_s

    nothing: Any = None
    made: Callable[..., Any] = Execution
    return made(nothing, nothing, Predicted(2.0), Predicted(1.0), 1.5, rounds, {}, 0.0, 0.0)


def test_a_cpu_has_as_many_lanes_as_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its report advises; more than the machine has cores is one line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pipeline, "with_observed_allocations", lambda device: device)
    monkeypatch.setattr("pararev_hw.measurement.quick_cpu_device", lambda lanes: cpu(lanes))
    monkeypatch.setattr("pararev_hw.measurement.environment.cores", lambda: 2)
    network = ("pararevsnn21", "--width", "0.1", "--batch", "1", "--timesteps", "1", "--device", "cpu")
    document = json.loads(run("schedule", *network, "--lanes", "2", "--json").out)
    assert document["lanes"] == 2
    assert run("schedule", *network, "--lanes", "5").line == (
        "error: 5 lanes: this machine has 2 cores, each runs one lane: at most 2"
    )
