"""`execute`: a network built for real, its schedule run beside the sequential step, measured beside predicted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pararev_hw import execution
from pararev_hw.costmodels.calibrated.intra_op_threads import intra_op_seconds
from pararev_hw.devices import load_device
from pararev_hw.errors import BadInput, Infeasible, StepFailed
from pararev_hw.execution import StepRun, TaskRun, contention
from pararev_hw.execution.harness import Rounds, interleave, spread
from pararev_hw.execution.lane_order import lane_slots
from pararev_hw.execution.scalars import Scalars
from pararev_hw.execution.streams import issue_order
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import Device, DeviceParameter
from tests.helpers.command_line import run
from tests.helpers.costing import costs, op_seconds
from tests.helpers.random_schedules import in_order, random_lanes
from tests.helpers.two_cores import give_two_cores

TINY = TraceOptions(granularity="block", batch=2, width=0.0625, timesteps=2)
NETWORK = """
import pathlib

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.a(x)) * torch.relu(self.b(x)))


def net():
    return Net(), torch.rand(5, 6)


class Raises(Net):
    def forward(self, x):
        if not torch.compiler.is_compiling() and type(x) is torch.Tensor:
            raise ValueError("only on real tensors")
        return super().forward(x)


def raises():
    return Raises(), torch.rand(5, 6)


class Tells(Net):
    def forward(self, x):
        if type(x) is torch.Tensor:
            pathlib.Path(__file__).with_suffix(".ran").touch()
        return super().forward(x)


def signals():
    return Tells(), torch.rand(5, 6)
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures as long as it takes to measure anything."""
    monkeypatch.setattr(contention, "_SAMPLE_S", 1e-4)
    monkeypatch.setattr(contention, "_ROUNDS", 1)
    monkeypatch.setattr(contention, "_MOST_CALLS", 4)


@pytest.fixture
def network(tmp_path: Path) -> str:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return str(path)


def cpu(lanes: int = 2, **figures: float) -> Device:
    """A CPU of round numbers, so that nothing has to be measured."""
    known = {
        "matrix_flops_per_s.float32": 1e10,
        "matrix_flops_per_s.float64": 5e9,
        "vector_flops_per_s.float32": 1e9,
        "memory_bandwidth_bytes_per_s": 2e10,
        "lane_bandwidth_bytes_per_s": 1e10,
        "energy_per_mac_j.float32": 1e-12,
        "energy_per_vector_flop_j": 1e-12,
        "dram_energy_j_per_byte": 1e-12,
        "memory_bytes": 1e12,
        "host_overhead_s": 1e-6,
        "static_power_w": 1.0,
    } | figures
    return Device("cpu", "cpu", "toy", lanes, {n: DeviceParameter(v, "toy", "assumed") for n, v in known.items()})


# ---- several steps of every optimizer are those of the plain loop


@pytest.mark.parametrize("optimizer", ["sgd", "sgd-plain", "adam", "adamw", "sgd-foreach", "adamw-foreach"])
def test_every_optimizer_trains_as_the_plain_loop_does_over_several_steps(optimizer: str, network: str) -> None:
    job = execution.prepare(f"{network}:net", TraceOptions(dtype="float64", optimizer=optimizer, granularity="block"))
    data = execution.batches(job)
    orders = random_lanes(job.graph, 2, 5)
    with execution.LaneRunner(job, orders) as lanes, execution.LoopRunner(job) as loop:
        for _ in range(4):
            batch = next(data)
            lanes.step(batch)
            loop.step(batch)
            assert lanes.loss() == loop.loss()
            assert execution.difference(lanes, loop) == 0


def test_scalars_that_change_are_those_of_the_bias_corrections() -> None:
    job = execution.prepare("pararevsnn21", replace(TINY, optimizer="adam"))
    scalars = Scalars(job.traced, "adam")
    assert scalars.calls
    assert scalars.at(2) == [v for c in scalars.calls for v in _scalars_of(job, c)]
    changed = {(a, b) for a, b in zip(scalars.at(2), scalars.at(7), strict=True) if a != b}
    step_size = [-1e-3 / (1 - 0.9**n) for n in (2, 7)]
    second = [(1 - 0.999**n) ** 0.5 for n in (2, 7)]
    assert np.array(sorted(changed)) == pytest.approx(np.array(sorted([step_size, second])))
    assert Scalars(job.traced, "sgd").calls == ()


def _scalars_of(job: execution.Job, call: int) -> list[Any]:
    from pararev_hw.execution import scalars_of

    return scalars_of(job.traced.program.calls[call])


@pytest.mark.parametrize(("mode", "dtype"), [("infer", "float32"), ("train", "bfloat16")])
def test_inference_and_autocast_run_as_the_plain_loop_does(mode: Any, dtype: str) -> None:
    job = execution.prepare("revsresnet21", replace(TINY, mode=mode, dtype=dtype))
    batch = next(execution.batches(job))
    with execution.LaneRunner(job, random_lanes(job.graph, 2, 1)) as lanes, execution.LoopRunner(job) as loop:
        lanes.step(batch)
        loop.step(batch)
        assert execution.difference(lanes, loop) == 0
        if mode == "train":
            assert lanes.loss() == loop.loss()


def test_batches_are_new_each_time_and_the_same_for_the_same_seed(network: str) -> None:
    job = execution.prepare("pararevsnn21", TINY)
    one, other = execution.batches(job), execution.batches(job)
    first, second, again = next(one), next(one), next(other)
    assert first.keys() == {"input:0", "target:0"}
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first["input:0"], second["input:0"])
    own = execution.prepare(f"{network}:net", TraceOptions(granularity="block"))
    rows = {tuple(r.tolist()) for r in own.target.inputs[0]}
    assert {tuple(r.tolist()) for r in next(execution.batches(own))["input:0"]} == rows  # its own samples


# ---- the whole comparison


def test_execution_reports_what_was_predicted_beside_what_was_measured() -> None:
    job = execution.prepare("pararevsnn21", TINY)
    found = execution.execute(job, cpu(), "heft", lanes=2, steps=2, warm_up=1)
    document = execution.document(found)
    json.dumps(document, allow_nan=False)
    assert {len(s) for s in document["measured"]["samples_s"].values()} == {2}
    assert document["measured"]["samples_s"].keys() == {"sequential", "parallel", "threads", "loop"}
    assert document["difference"] == document["difference_from_loop"] == 0
    assert len(document["losses"]) == 3
    assert document["predicted"]["peak_bytes"]["sequential"] == document["measured"]["peak_bytes"]["sequential"]
    assert document["predicted"]["speedup"] == pytest.approx(
        document["predicted"]["sequential_s"] / document["predicted"]["parallel_s"]
    )
    measured = document["measured"]["speedup"]
    assert measured["low"] <= measured["median"] <= measured["high"]
    assert document["choice"]["predicted"] in ("sequential", "parallel", "threads")
    assert 0 < document["measured"]["overlap"]["median"] <= 1
    assert document["lanes"] == 2
    assert document["predicted"]["expected_error"] is None  # of a device that was never measured


def test_what_does_not_fit_is_refused_with_numbers() -> None:
    job = execution.prepare("pararevsnn21", TINY)
    with pytest.raises(Infeasible, match=r"needs .* at its peak .* there are 1\.00 MiB"):
        execution.execute(job, cpu(memory_bytes=1 << 20))


def test_a_device_of_another_kind_is_refused() -> None:
    job = execution.prepare("pararevsnn21", TINY)
    with pytest.raises(BadInput, match="is of kind gpu, the step runs on cpu"):
        execution.execute(job, load_device("h200"))
    with pytest.raises(BadInput, match="needs a GPU"):
        execution.execute(job, cpu(), launch="graph")


def test_a_network_that_raises_while_it_runs_is_said_to(network: str) -> None:
    job = execution.prepare(f"{network}:raises", TraceOptions(granularity="block"))
    with (
        execution.LoopRunner(job) as loop,
        pytest.raises(StepFailed, match="ValueError while it ran: only on real tens"),
    ):
        loop.step(next(execution.batches(job)))


# ---- measuring


class Recorded:
    """A runner that takes down when it was asked to step."""

    def __init__(self, name: str, seen: list[str], latency_s: float) -> None:
        self.name, self.seen, self.latency_s, self.model = name, seen, latency_s, nn.Linear(1, 1)

    def step(self, batch: Any) -> StepRun:
        self.seen.append(f"{self.name}{batch}")
        return StepRun(self.latency_s * (1 + batch), (TaskRun(0, 0, 0.0, self.latency_s),))

    def loss(self) -> float | None:
        return 0.5

    def forget(self) -> None:
        return

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        return


def test_runners_take_turns_and_ratios_are_taken_round_by_round() -> None:
    seen: list[str] = []
    runners: Any = {"a": Recorded("a", seen, 2.0), "b": Recorded("b", seen, 1.0)}
    rounds = interleave(runners, iter(range(9)), 3, warm_up=1)  # type: ignore[arg-type]
    assert seen == ["a0", "b0", "b1", "a1", "a2", "b2", "b3", "a3"]
    assert [r.latency_s for r in rounds.runs["b"]] == [2, 3, 4]
    assert rounds.ratio("a", "b") == spread([2.0, 2.0, 2.0])
    assert rounds.losses == (0.5,) * 4


def test_overlap_is_not_known_where_tasks_have_no_times() -> None:
    assert Rounds({"a": (StepRun(1.0, ()),)}, ()).overlap("a") is None
    run = StepRun(4.0, (TaskRun(0, 0, 0.0, 2.0), TaskRun(1, 1, 1.0, 4.0)))
    assert Rounds({"a": (run,)}, ()).overlap("a") == spread([0.25])


# ---- lanes against threads


def test_threads_speed_an_op_up_as_far_as_its_slowest_resource_allows() -> None:
    job = execution.prepare("pararevsnn21", TraceOptions(batch=4, width=0.5, granularity="block"))
    narrow = op_seconds(job.graph, cpu())
    wide = intra_op_seconds(job.graph, cpu(), 2, narrow)
    convs = [
        (n, w)
        for op, n, w in zip(job.graph.ops, narrow, wide, strict=True)
        if job.graph.op_types[op.type].kind == "conv"
    ]
    assert convs
    assert all((n - 1e-6) / (w - 1e-6) == pytest.approx(2) for n, w in convs)  # twice the rate, the overhead stays
    small = [
        w == n
        for op, n, w in zip(job.graph.ops, narrow, wide, strict=True)
        if job.graph.op_types[op.type].kind == "norm" and job.graph.op_types[op.type].output_shapes[0][0] == 0
    ]
    assert all(small)
    assert intra_op_seconds(job.graph, cpu(), 1, narrow) == pytest.approx(narrow)
    with pytest.raises(BadInput, match="is no CPU"):
        intra_op_seconds(job.graph, load_device("h200"), 2, narrow)


def test_measured_contention_becomes_the_demand_that_gives_that_slowdown() -> None:
    job = execution.prepare("pararevsnn21", TINY)
    problem = costs(job.graph, cpu(), lanes=2)
    seconds = op_seconds(job.graph, cpu())
    everything = {c: contention.Sharing(1.5, 0.6) for c in range(len(job.traced.program.calls))}
    shared = contention.shared_costs(job, problem, seconds, everything, 2)
    busy = [c.bandwidth_demand for c in shared.tasks if c.best_s > 0]
    assert busy == pytest.approx([0.75] * len(busy))  # two of them: U = 1.5
    assert contention.threaded_seconds(job, seconds, seconds, everything) == pytest.approx(0.6 * sum(seconds))
    assert contention.threaded_seconds(job, seconds, seconds, {}) == pytest.approx(sum(seconds))


def test_sharing_is_measured_on_the_calls_that_take_most_of_the_step() -> None:
    job = execution.prepare("pararevsnn21", TINY)
    seconds = op_seconds(job.graph, cpu())
    found = contention.sharing_of_calls(job, seconds, 2, next(execution.batches(job)))
    assert 0 < len(found) <= 4
    assert all(s.together >= 1 and s.threads > 0 for s in found.values())
    total: dict[int, float] = {}
    for op, i, t in zip(job.graph.ops, job.traced.program.instructions, seconds, strict=True):
        if op.phase != "update" and job.graph.op_types[op.type].kind != "view":
            total[i.call] = total.get(i.call, 0.0) + t
    assert set(found) == set(sorted(total, key=lambda c: (-total[c], c))[: len(found)])


# ---- streams


def test_a_task_is_issued_after_all_that_it_waits_for() -> None:
    job = execution.prepare("pararevsnn21", TINY)
    for seed in range(5):
        lanes = lane_slots(job.graph, random_lanes(job.graph, 3, seed))
        order = issue_order(lanes)
        place = {turn.task: n for n, (_, turn) in enumerate(order)}
        assert sorted(place) == list(range(len(job.graph.tasks)))
        assert all(place[w] < place[turn.task] for _, turn in order for w in turn.waits)
        for k, own in enumerate(lanes):
            assert [turn for lane, turn in order if lane == k] == list(own)


@pytest.mark.gpu
@pytest.mark.parametrize("launch", ["eager", "graph"])
def test_streams_train_as_one_stream_does(launch: Any) -> None:
    job = execution.prepare("pararevsnn21", replace(TINY, dtype="float64", optimizer="sgd-foreach"), device="cuda")
    data = execution.batches(job)
    with (
        execution.LaneRunner(job, in_order(job.graph), launch=launch) as one,
        execution.LaneRunner(job, random_lanes(job.graph, 3, 1), launch=launch) as many,
        execution.LoopRunner(job) as loop,
    ):
        for _ in range(4):
            batch = next(data)
            for runner in (one, many, loop):
                runner.step(batch)
        # cuDNN may choose another algorithm, and sum in another order, on another stream
        assert execution.difference(one, many) < 1e-9
        assert execution.difference(one, loop) < 1e-9


@pytest.mark.gpu
def test_a_step_that_a_cuda_graph_cannot_hold_is_refused() -> None:
    job = execution.prepare("pararevsnn21", replace(TINY, optimizer="adam"), device="cuda")
    with pytest.raises(BadInput, match="scalars change from step to step"):
        execution.LaneRunner(job, in_order(job.graph), launch="graph")


@pytest.mark.gpu
def test_streams_give_every_task_a_time_and_a_peak() -> None:
    job = execution.prepare("pararevsnn21", replace(TINY, optimizer="sgd-foreach"), device="cuda")
    document = execution.document(execution.execute(job, load_device("h200"), "heft", lanes=2, steps=3))
    assert document["measured"]["overlap"]["median"] >= 0
    assert document["measured"]["peak_bytes"]["parallel"] > 0


def test_the_profilers_trace_is_written_and_tells_the_overlap(measured: None, network: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    ran = run("execute", f"{network}:net", "--steps", 1, "--lanes", 1, "--trace", path, "--json")
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["measured"]["profiled_overlap"] == 0  # one lane
    names = {e.get("name") for e in json.loads(path.read_text())["traceEvents"]}
    assert "aten::addmm" in names
    assert run("execute", f"{network}:net", "--trace", tmp_path).status == 2


# ---- the command line


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that is known already, with two cores."""
    give_two_cores(monkeypatch)
    monkeypatch.setattr(execution, "this_machine", lambda device, lanes, **_: cpu(lanes))
    monkeypatch.setattr(execution, "keep_memory", lambda: True)


def test_the_verb_prints_predicted_beside_measured(measured: None, network: str) -> None:
    ran = run("execute", f"{network}:net", "--steps", 2, columns=120)
    assert ran.status == 0, ran.err
    assert "predicted" in ran.out
    assert "equal bit for bit" in ran.out
    assert "speed-up over threads in each op" in ran.out
    assert "expected error of predicted times" not in ran.out  # this device was never measured
    ran = run("execute", f"{network}:net", "--steps", 2, "--lanes", 1, "--scheduler", "asap", "--json")
    document = json.loads(ran.out)
    assert (document["lanes"], document["scheduler"], document["choice"]) == (1, "asap", None)


def test_the_verb_repeats_how_far_off_the_times_may_be(measured: None, network: str) -> None:
    ran = run("execute", f"{network}:net", "--steps", 2, "--measure", columns=120)
    assert ran.status == 0, ran.err
    assert re.search(r"^expected error of predicted times: \+/- \d+ %$", ran.out, re.MULTILINE)


def test_choices_are_executed_and_compared_with_the_step_as_it_was_traced(measured: None, network: str) -> None:
    ran = run("execute", f"{network}:net", "--dtype", "float64", "--steps", 1, "--choices", "split", "--json")
    assert ran.status == 0, ran.err
    document = json.loads(ran.out)
    assert document["difference"] < 1e-12
    assert any("split" in said for said in document["assumptions"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--scheduler", "hefd"), "error: no scheduler is called 'hefd': did you mean heft?"),
        (("--device", "tpu9"), "error: no device is called 'tpu9'"),
        (("--device", "edge8"), "error: a step cannot run on 'accelerator': give --device cpu or cuda"),
        (("--lanes", 0), "error: a schedule needs at least one lane, not 0"),
        (("--steps", 0), "error: steps is 0: at least 1 is needed"),
        (("--launch", "quick"), "error: no launch is called 'quick'"),
        (("--launch", "graph"), "error: launch 'graph' needs a GPU: leave it out"),
    ],
)
def test_bad_input_is_one_line(measured: None, network: str, arguments: tuple[Any, ...], line: str) -> None:
    ran = run("execute", f"{network}:net", *arguments)
    assert ran.status == 2
    assert ran.line.startswith(line)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_one_line(network: str) -> None:
    ran = run("execute", f"{network}:net", "--device", "cuda")
    assert ran.status == 2
    assert ran.line == "error: this machine has no CUDA device that torch can use: give --device cpu"


def test_a_network_that_raises_is_one_line(measured: None, network: str) -> None:
    ran = run("execute", f"{network}:raises")
    assert ran.status == 2
    assert "ValueError" in ran.line


def test_too_little_memory_is_an_answer(monkeypatch: pytest.MonkeyPatch, measured: None, network: str) -> None:
    monkeypatch.setattr(execution, "this_machine", lambda device, lanes, **_: cpu(lanes, memory_bytes=1000.0))
    ran = run("execute", f"{network}:net")
    assert ran.status == 1
    assert "does not fit" in ran.line


def test_an_interrupt_ends_the_process_at_once(tmp_path: Path, network: str) -> None:
    device = tmp_path / "toy.json"
    from pararev_hw.devices import device_to_json

    device.write_text(device_to_json(replace(cpu(), name="toy")))
    command = [sys.executable, "-m", "pararev_hw.cli", "execute", f"{network}:signals", "--device", str(device)]
    process = subprocess.Popen(
        [*command, "--steps", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 60
        while not Path(network).with_suffix(".ran").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert out == ""
    assert err.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
