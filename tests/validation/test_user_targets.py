"""`validate TARGET ...`: the user's own networks, and where their error comes from."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw.devices import device_to_json
from pararev_hw.errors import Infeasible
from pararev_hw.measurement.clock import Timing
from pararev_hw.measurement.environment import environment
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import Estimate, Hardware, MeasuredDevice
from pararev_hw.validation import user_targets, validate_targets
from pararev_hw.validation.user_targets import breakdown
from tests.execution.test_running import cpu
from tests.helpers.command_line import finish, run, start
from tests.helpers.validation_helpers import cpu_profile

NETWORKS = """
import torch
from torch import nn


class Raises(nn.Linear):
    def forward(self, x):
        if type(x) is torch.Tensor:
            raise ValueError("only on real tensors")
        return super().forward(x)


class Membrane(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.v = nn.Linear(6, 3), None

    def forward(self, x):
        self.v = self.f(x) if self.v is None else self.v * 0.5 + self.f(x)
        return self.v


def small():
    return nn.Linear(6, 3), torch.rand(4, 6)


def membrane():
    return Membrane(), torch.rand(4, 6)


def raises():
    return Raises(6, 3), torch.rand(4, 6)


def alone():
    return nn.Linear(6, 3).double()
"""


@pytest.fixture
def networks(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(NETWORKS)
    return str(path)


def test_each_target_is_a_case_with_its_own_result(networks: str) -> None:
    seen: list[str] = []
    result = validate_targets(
        [f"{networks}:{name}" for name in ("small", "membrane", "raises", "nothing")],
        cpu(1),
        TraceOptions(granularity="block"),
        minutes=1.0,
        finished=lambda so_far: seen.append(so_far.cases[-1].network),
    )
    small, membrane, raises = result.cases
    assert seen == ["nets:small", "nets:membrane", "nets:raises"]
    assert small.measured is not None and small.measured.latency_s > 0
    memory = small.error("peak_bytes")  # 21 parameters, their gradients and momenta, 28 numbers of a batch, a few more
    assert memory is not None and abs(memory) < 0.03
    assert len(small.samples_s) >= 7
    assert membrane.failed is None  # its state is put back before every step
    assert raises.failed is not None and "only on real tensors" in raises.failed
    assert len(result.left_out) == 1 and "nothing" in result.left_out[0]
    assert {e.name for e in small.by_kind} >= {"gemm", "optimizer"} or {e.name for e in small.by_kind} >= {"gemm"}
    assert 1 <= len(small.worst_ops) <= 5


def test_steps_are_taken_in_turns_with_the_replays(networks: str) -> None:
    """Nine turns are nine steps; a network that raises is asked once, and its case tells why."""
    taken: list[int] = []

    def measured(graph: ph.BlockGraph, hardware: Hardware, seconds: float, in_turns: Callable[[], None]) -> Hardware:
        for _ in range(9):
            in_turns()
        taken.append(9)
        return MeasuredDevice(cpu(1), environment("cpu", 1), {}, {"forward_s": Estimate(1e-3)})

    targets = [f"{networks}:{name}" for name in ("small", "raises")]
    small, raises = validate_targets(targets, cpu(1), TraceOptions(granularity="block"), measure=measured).cases
    assert len(taken) == 2
    assert len(small.samples_s) == 9
    assert small.measured is not None
    beside = {e.name: e for e in small.by_kind}["Python and autograd"]
    forward = sum(op.phase == "forward" for op in ph.trace(nn.Linear(6, 3), torch.rand(4, 6)).ops)
    assert beside.predicted_s == pytest.approx(1e-3 * forward)
    assert 0 <= beside.measured_s < small.measured.latency_s
    assert raises.failed is not None and "only on real tensors" in raises.failed
    assert sum(e.measured_s for e in small.by_kind) <= small.measured.latency_s * 1.001


def test_errors_by_kind_and_module_add_up_and_the_worst_come_first() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 6))
    graph = ph.trace(net, torch.rand(2, 6), mode="infer", spikes="none")
    names = [graph.op_types[op.type].name for op in graph.ops]
    predicted = [1e-6 * (k + 1) for k in range(len(names))]
    first, second = (k for k, name in enumerate(names) if name == "aten.addmm.default")
    measured = {"aten.addmm.default": [4e-6, 7e-6], "aten.relu.default": [1e-6]}
    parts = breakdown(graph, predicted, measured, step_s=1.0)
    for errors in (parts.by_kind, parts.by_module):
        assert sum(e.predicted_s for e in errors) == pytest.approx(sum(predicted))
        assert sum(e.measured_s for e in errors) == pytest.approx(12e-6)
    module = {e.name: e for e in parts.by_module}
    assert module["0.0"].measured_s == pytest.approx(4e-6)  # the first call of addmm is the first layer's
    assert module["1"].measured_s == pytest.approx(7e-6)
    assert module["0.1"].measured_s == pytest.approx(1e-6)
    op = {e.name: e for e in parts.worst_ops}["aten.addmm"]
    assert op.predicted_s == pytest.approx(predicted[first] + predicted[second])
    gaps = [abs(e.predicted_s - e.measured_s) for e in parts.worst_ops]
    assert gaps == sorted(gaps, reverse=True)
    scaled = breakdown(graph, predicted, measured, step_s=6e-6)  # the profiler took twice the step's time
    assert {e.name: e.measured_s for e in scaled.worst_ops}["aten.addmm"] == pytest.approx(5.5e-6)
    uneven = breakdown(graph, predicted, {"aten.addmm.default": [6e-6]}, step_s=1.0)  # one call fewer than in the trace
    # the ops' times are the whole step but for a rounding: nothing is left beside them
    calls = {"aten.addmm.default": [0.1, 0.7], "aten.relu.default": [1e-7]}
    whole = breakdown(graph, [*predicted[:-1], 1e-19], calls, step_s=(0.1 + 0.7 + 1e-7) * (1 + 1e-13), beside_s=2e-6)
    assert {e.name: e.measured_s for e in whole.by_kind}["Python and autograd"] == 0.0
    assert all(
        s == 0.0 or s > 1e-9
        for errors in (whole.by_kind, whole.worst_ops)
        for e in errors
        for s in (e.predicted_s, e.measured_s)
    )
    share = predicted[first] / (predicted[first] + predicted[second])
    assert {e.name: e.measured_s for e in uneven.by_module}["0.0"] == pytest.approx(6e-6 * share)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--measure",), "--measure is for TARGETs"),
        (("pararevsnn37", "--suite", "full"), "--suite names networks, and so do the TARGETs"),
        (("pararevsnn37", "--paper"), "--paper compares the paper's own networks"),
        (("pararevsnn37", "--device", "h200"), "h200 is of kind gpu"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[Any, ...], line: str) -> None:
    ran = run("validate", *arguments)
    assert ran.status == 2
    assert line in ran.line


def test_targets_none_of_which_can_be_run_are_bad_input(networks: str, tmp_path: Path) -> None:
    device = tmp_path / "cpu.json"
    device.write_text(device_to_json(cpu(1)))
    ran = run("validate", f"{networks}:smal", "revsresnet99", "--device", device, "-o", tmp_path / "page")
    assert ran.status == 2
    assert "nets.py is called 'smal': did you mean small?; revsresnet99: no network is called" in ran.line
    assert not (tmp_path / "page").exists()


def test_targets_that_all_need_more_memory_than_there_is_do_not_fit(
    networks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_targets, "available_bytes", lambda: 100)
    with pytest.raises(Infeasible, match=r"nets.py:small: nets:small needs \d+ B of memory, 100 B are free"):
        user_targets.validate_targets([f"{networks}:small"], cpu(1), TraceOptions(granularity="block"))


def test_the_document_says_what_was_expected(networks: str, tmp_path: Path) -> None:
    device = tmp_path / "cpu.json"
    device.write_text(device_to_json(cpu(1)))
    ran = run("validate", f"{networks}:small", "--device", device, "--minutes", 0.1, "--json")
    assert ran.status == 0, ran.err
    document = json.loads(ran.out)
    assert document["cases"][0]["worst_ops"]
    assert document["cases"][0]["by_module"]
    assert document["cases"][0]["expected_error"] is None  # nothing of that device was measured
    assert document["coverage"] is None


def test_a_network_alone_is_validated_with_a_shape_in_its_own_datatype(networks: str, tmp_path: Path) -> None:
    device = tmp_path / "cpu.json"
    device.write_text(device_to_json(cpu(1)))
    ran = run(
        *("validate", f"{networks}:alone", "--device", device, "--input-shape", "6", "--batch", 5),
        *("--optimizer", "adamw", "--minutes", 0.1, "--json"),
    )
    assert ran.status == 0, ran.err
    case = json.loads(ran.out)["cases"][0]
    assert (case["dtype"], case["batch"]) == ("float64", 5)
    # weights, inputs, gradients and both moments of AdamW are alive at once, and its two counts of steps
    assert case["measured"]["peak_bytes"] >= 8 * (4 * (6 * 3 + 3) + 5 * 6)


def test_steps_at_the_machines_own_speed_are_kept_where_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine runs at half its speed, and at its own again from the tenth look on."""
    looks = iter(range(10_000))
    clock_s = iter(range(1, 10_000))
    monkeypatch.setattr(user_targets, "pace_s", lambda: 2e-4 if next(looks) < 10 else 1e-4)
    monkeypatch.setattr(user_targets, "step_clock", lambda device: lambda run, count: (0.0, float(next(clock_s))))
    steps = user_targets._RealSteps(None)  # type: ignore[arg-type]
    steps.paces_s, steps.seconds = [2e-4] * 7, [0.5] * 7
    steps._take_at(1.15e-4, lambda: None, 10.0)
    assert steps.paces_s == pytest.approx([1e-4] * user_targets.MIN_STEPS)
    assert steps.seconds == [float(k) for k in range(11, 11 + user_targets.MIN_STEPS)]
    steps.paces_s, steps.seconds = [0.9e-4] * 7, [0.5] * 7  # no better than what there was
    steps._take_at(1.15e-4, lambda: None, 10.0)
    assert steps.seconds == [0.5] * 7


def test_a_target_is_predicted_for_the_memory_that_its_steps_map_in(
    networks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 MiB at 10 ns a byte is 10.5 ms more."""
    profile = replace(cpu_profile(), host={"fault_s_per_byte": Estimate(1e-8)})

    def latency_s(faulted_bytes: int) -> float:
        timing = Timing((1e-3,) * 7, noisy=False, disturbed=0, faulted_bytes=faulted_bytes)
        monkeypatch.setattr(user_targets, "measure_step", lambda run, clock, limit_s: clock(run, 1) and timing)
        (case,) = validate_targets([f"{networks}:small"], profile, TraceOptions(granularity="block"), minutes=0.1).cases
        assert case.predicted is not None and case.mapped_in_bytes == faulted_bytes
        return case.predicted.latency_s

    assert latency_s(1 << 20) - latency_s(0) == pytest.approx(1e-8 * (1 << 20), rel=1e-6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_long_operation_ends_it_at_once_and_keeps_what_is_done(
    tmp_path: Path, networks: str, number: signal.Signals
) -> None:
    """One call into a library would last for hours, and Python tells of signals between two calls."""
    (tmp_path / "slow.py").write_text(
        "import hashlib, pathlib, torch\n"
        "class Slow(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        if type(x) is torch.Tensor:\n"
        "            pathlib.Path('started').touch()\n"
        "            hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)\n"
        "        return super().forward(x)\n"
        "def make(): return Slow(4, 4), torch.zeros(2, 4)\n"
    )
    options = ("-d", "cpu.json", "--minutes", "3", "--json", "-o", "page")
    (tmp_path / "cpu.json").write_text(device_to_json(cpu(1)))
    process = start("validate", f"{networks}:small", "slow.py:make", *options, folder=tmp_path)
    while not (tmp_path / "started").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    ran = finish(process)
    assert (ran.status, ran.err.splitlines()[-1]) == (128 + number, "interrupted")
    document = json.loads(ran.out)
    assert [case["network"] for case in document["cases"]] == ["nets:small"]
    assert document["interrupted"] is True
    assert document["left_out"] == ["slow.py:make: interrupted before it was done"]
    assert (tmp_path / "page" / "validation.html").exists()
