"""`--measure`: ops timed in place, kept in a store, and predictions that add up to the step."""

from __future__ import annotations

import errno
import json
import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw.costmodels import measured_ops
from pararev_hw.costmodels.cost import cost
from pararev_hw.costmodels.expected_error import expected_error
from pararev_hw.costmodels.measured_ops import host_seconds, op_keys, python_calls
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.execution import measured_device as measuring
from pararev_hw.execution import replay_timing
from pararev_hw.execution.bound_step import BoundStep
from pararev_hw.execution.measured_device import measured_device
from pararev_hw.execution.replay_timing import ReplayTimes, drawn_state, replay_times
from pararev_hw.execution.single_layer import SingleStep
from pararev_hw.measurement.environment import environment
from pararev_hw.measurement.op_store import (
    Measurements,
    add_to_store,
    machine_description,
    read_store,
    store_path,
)
from pararev_hw.types import BlockGraph, Estimate, MeasuredDevice, OpTime, ReplayedStep
from tests.execution.test_running import cpu
from tests.helpers.command_line import run

MACHINE = {"cpu": "a test's", "torch": "9"}
PACE_S = 1e-3
STEP = ReplayedStep(1e-2, 5, 0.02, PACE_S)
HOST = {"forward_s": Estimate(2e-6, 1e-6), "backward_s": Estimate(1e-6, 1e-6), "update_s": Estimate(0.0)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def graph() -> BlockGraph:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return ph.trace(nn.Sequential(net, nn.Linear(4, 3)), torch.rand(2, 3, 8, 8), spikes="none")


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Op k takes (k + 1) us in place; how often the graph was replayed is counted."""
    calls = []

    def replayed(graph: BlockGraph, *_: Any) -> ReplayTimes:
        calls.append(graph)
        seconds = 1e-6 * np.arange(1.0, len(graph.ops) + 1)
        step = ReplayedStep(float(seconds.sum()), 5, 0.02, PACE_S)
        return ReplayTimes(seconds, seconds * 1.1, step, np.full(len(seconds), 0.02))

    monkeypatch.setattr(measuring, "replay_times", replayed)
    monkeypatch.setattr(measuring, "loop_overheads", lambda: HOST)
    monkeypatch.setattr(measuring, "typical_pace_s", lambda: PACE_S)
    return calls


def test_a_replay_times_every_op_and_the_step_as_a_whole(graph: BlockGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_timing, "LEAST_REPLAYS", 2)
    times = replay_times(graph, seconds=0.0)
    assert len(times.op_s) == len(times.other_order_s) == len(graph.ops)
    assert times.whole.replays == 2
    assert (times.op_s >= 0).all()
    convolution = next(k for k, op in enumerate(graph.ops) if graph.op_types[op.type].kind == "conv")
    assert times.op_s[convolution] > 0
    assert times.whole.seconds > 0.2 * times.op_s.sum()


def test_a_step_lets_go_of_what_it_left(graph: BlockGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock by which only that takes time, a second: a loop waits for it, and no op does."""
    clock_s = 0.0
    begin = BoundStep.begin

    def begun(step: BoundStep, *seed: Any, **named: Any) -> None:
        nonlocal clock_s
        clock_s += 1.0
        begin(step, *seed, **named)

    monkeypatch.setattr(BoundStep, "begin", begun)
    fake = SimpleNamespace(thread_time=lambda: clock_s, perf_counter=time.perf_counter)
    monkeypatch.setattr(replay_timing, "time", fake)
    times = replay_times(graph, seconds=0.0)
    assert times.whole.seconds == 1.0
    assert not times.op_s.any()


def test_the_drawn_state_has_the_layouts_of_the_trace(graph: BlockGraph) -> None:
    assert graph.program is not None
    state = drawn_state(graph.program)
    assert state["parameter:0.0.weight"].shape == (4, 3, 3, 3)
    assert state["buffer:0.1.running_var"].tolist() == [1.0] * 4
    assert state["target:0"].dtype == torch.int64
    assert state["input:0"].min() >= 0


def test_the_step_takes_the_sum_of_its_ops_and_what_stands_beside_them(graph: BlockGraph, known_times: Any) -> None:
    device = measured_device(graph, cpu(1))
    prediction = ph.predict(ph.schedule(graph, device, "sequential"))  # type: ignore[arg-type]
    calls = [i.call for i in graph.program.instructions]  # type: ignore[union-attr]
    expected = 0.0
    for task in graph.tasks:
        for k in task.ops:
            alike = [j for j, call in enumerate(calls) if call == calls[k]]
            expected += 1e-6 * sum(j + 1 for j in alike) / len(alike) + HOST[f"{graph.ops[k].phase}_s"].value
    assert prediction.latency_s == pytest.approx(expected, rel=1e-9)
    error = prediction.expected_error
    assert error is not None
    assert error.unmeasured_share == 0
    assert error.latency is not None
    assert 0.03 <= error.latency < 0.3


def test_calls_into_python_cost_what_each_was_measured_to_take(graph: BlockGraph) -> None:
    """Eight modules are called in the forward pass: six layers and the two sequences."""
    host = HOST | {"modules_s": Estimate(3e-6), "functions_s": Estimate(1.0)}
    device = MeasuredDevice(cpu(1), environment("cpu", 1), {}, host)
    assert python_calls(graph) == {("forward", "modules"): 8}
    counts = Counter(op.phase for op in graph.ops)
    expected = 8 * 3e-6 + sum(n * HOST[f"{phase}_s"].value for phase, n in counts.items())
    assert host_seconds(graph, device.host).sum() == pytest.approx(expected)


def test_python_that_other_data_drove_out_of_the_caches_takes_longer(
    graph: BlockGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of 30 MB calls five custom functions: 6 MB lie between two calls, twice what caches hold beside it, of
    whose code 1 / (1 + (3 / 6)^4) is gone; and between two steps, where nearly all of it is."""
    types = tuple(replace(t, read_bytes=0, write_bytes=0) for t in graph.op_types)
    first = graph.ops[0].type
    count = sum(op.type == first for op in graph.ops)
    moving = replace(types[first], read_bytes=20_000_000 // count, write_bytes=10_000_000 // count)
    types = (*types[:first], moving, *types[first + 1 :])
    monkeypatch.setattr(measured_ops, "python_calls", lambda _: {("forward", "functions"): 5})
    host = {"functions_s": 10e-6, "functions_far_s": 80e-6, "train_step_s": 50e-6, "train_step_far_s": 200e-6}
    seconds = host_seconds(replace(graph, op_types=types), {name: Estimate(s) for name, s in host.items()})
    expected = 5 * (10e-6 + 80e-6 / (1 + 0.5**4)) + 50e-6 + 200e-6 / (1 + 0.1**4)
    assert seconds.sum() == pytest.approx(expected, rel=1e-5)
    assert seconds[[op.phase != "forward" for op in graph.ops]].sum() == 0


def test_what_a_step_takes_once_is_what_it_took_beside_that_step(
    graph: BlockGraph, known_times: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Beside the replays it takes 0.9 ms; by what small networks told it would be 0.3 ms, or 0.7 ms."""
    told = {"train_step_s": 1e-4, "backward_step_s": 2e-4, "update_step_far_s": 4e-4}
    monkeypatch.setattr(
        measuring, "loop_overheads", lambda: {n: Estimate(s) for n, s in told.items()} | {"pace_s": Estimate(PACE_S)}
    )
    monkeypatch.setattr(measuring, "SingleStep", lambda **_: SimpleNamespace(take_one=None, beside_s=9e-4))
    for _ in range(2):  # measured, then read from the store
        device = measured_device(graph, cpu(1), folder=tmp_path)
        assert host_seconds(graph, device.host).sum() == pytest.approx(9e-4)


def test_the_single_layer_is_timed_both_ways_in_turns() -> None:
    single = SingleStep(training=True)
    assert single.beside_s is None
    taken = iter((5e-4, 1e-4, 7e-4, 2e-4, 6e-4))
    ways: list[str] = []

    def way(name: str) -> float:
        ways.append(name)
        return next(taken)

    single._ways = (lambda: way("loop"), lambda: way("replay"))
    for _ in range(5):
        single.take_one()
    assert ways == ["loop", "replay", "loop", "replay", "loop"]
    assert single.beside_s == pytest.approx(6e-4 - 1.5e-4)


def test_a_timed_step_follows_its_like_and_is_followed_by_what_is_timed_beside_it(
    graph: BlockGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each round: a replay that is not timed, one that is, one with timestamps; in three, one in another order."""
    replays: list[int] = []
    real = replay_timing._replay

    def counting(step: BoundStep) -> Any:
        replays.append(id(step))
        return real(step)

    monkeypatch.setattr(replay_timing, "_replay", counting)
    seen: list[int] = []
    replay_times(graph, seconds=0.0, after_step=lambda: seen.append(len(replays)))
    first = [1 + 2, 1 + 3, 1 + 6, 1 + 7, 1 + 10, 1 + 11]  # replays before each call, one having filled the allocator
    assert seen[:6] == first
    assert seen[6:10] == [15, 16, 18, 19]
    plain, stamped = replays[0], replays[3]
    assert replays[1] == replays[2] == plain != stamped


def test_an_op_that_was_not_measured_costs_what_the_base_says_as_its_kind_does(
    graph: BlockGraph, known_times: Any
) -> None:
    """Left out is a product of matrices: the base is off for it by as much as for the others of its kind."""
    device = measured_device(graph, cpu(1))
    kinds = [graph.op_types[op.type].kind for op in graph.ops]
    keys = op_keys(graph)
    gemms = [k for k, kind in enumerate(kinds) if kind == "gemm"]
    assert len({keys[k] for k in gemms}) == len(gemms) > 1
    device = replace(device, ops={k: v for k, v in device.ops.items() if k != keys[gemms[0]]})
    seconds, base = cost(graph, device).op_seconds, cost(graph, cpu(1)).op_seconds
    factor = sum(seconds[k] for k in gemms[1:]) / sum(base[k] for k in gemms[1:])
    assert seconds[gemms[0]] == pytest.approx(factor * base[gemms[0]])
    error = expected_error(graph, device, seconds)
    assert error.unmeasured_share == pytest.approx(seconds[gemms[0]] / sum(seconds))


def test_a_graph_is_measured_once_per_store(graph: BlockGraph, known_times: Any, tmp_path: Path) -> None:
    first = measured_device(graph, cpu(1), folder=tmp_path)
    again = measured_device(graph, cpu(1), folder=tmp_path)
    assert len(known_times) == 1
    assert again.ops == first.ops
    measured_device(graph, cpu(1), folder=tmp_path, anew=True)
    assert len(known_times) == 2
    in_file = pickle.loads(pickle.dumps(graph))
    assert in_file.program is None
    assert in_file == graph
    assert cost(in_file, again).op_seconds == pytest.approx(cost(graph, again).op_seconds)


@pytest.mark.parametrize(("slowed", "replays"), [(1.1, 1), (1.3, 2)])
@pytest.mark.parametrize("which", ["the step", "the loop"])
def test_what_was_measured_on_a_slower_machine_is_measured_anew(
    graph: BlockGraph,
    known_times: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    slowed: float,
    replays: int,
    which: str,
) -> None:
    """A neighbour slowed Python down while the step was replayed, or while the loop was timed, and is gone now."""
    host_pace_s = PACE_S if which == "the step" else PACE_S * slowed
    monkeypatch.setattr(measuring, "loop_overheads", lambda: HOST | {"pace_s": Estimate(host_pace_s)})
    measured_device(graph, cpu(1), folder=tmp_path)
    monkeypatch.setattr(measuring, "loop_overheads", lambda: HOST | {"pace_s": Estimate(PACE_S)})
    if which == "the step":
        monkeypatch.setattr(measuring, "typical_pace_s", lambda: PACE_S / slowed)
    measured_device(graph, cpu(1), folder=tmp_path)
    assert len(known_times) == replays
    measured_device(pickle.loads(pickle.dumps(graph)), cpu(1), folder=tmp_path)  # from a file: it cannot be run
    assert len(known_times) == replays


def test_what_another_graph_measured_since_leaves_a_step_as_it_was(
    graph: BlockGraph, known_times: Any, tmp_path: Path
) -> None:
    """All ops were slower when another graph that shares them was replayed: this step's own sum stays."""
    first = measured_device(graph, cpu(1), folder=tmp_path)
    path = store_path(tmp_path, machine_description())
    slower = {key: replace(t, seconds=3 * t.seconds) for key, t in first.ops.items()}
    add_to_store(path, machine_description(), Measurements(slower))
    again = measured_device(graph, cpu(1), folder=tmp_path)
    assert len(known_times) == 1
    for key, t in first.ops.items():
        assert again.ops[key].seconds == pytest.approx(t.seconds)


def test_python_is_as_slow_as_it_was_during_the_replay(
    graph: BlockGraph, known_times: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Seconds beside ops were measured at twice the speed."""
    monkeypatch.setattr(measuring, "loop_overheads", lambda: HOST | {"pace_s": Estimate(PACE_S / 2)})
    for _ in range(2):  # measured, then read from the store
        device = measured_device(graph, cpu(1), folder=tmp_path)
        assert device.host["forward_s"].value == pytest.approx(2 * HOST["forward_s"].value)


def test_what_it_is_compared_with_runs_in_turns(graph: BlockGraph) -> None:
    turns: list[int] = []
    times = replay_times(graph, seconds=0.0, in_turns=lambda: turns.append(len(turns)))
    assert len(turns) == times.whole.replays == replay_timing.LEAST_REPLAYS


def test_a_graph_without_its_program_is_one_line(graph: BlockGraph) -> None:
    with pytest.raises(BadInput, match="read from a file cannot be run"):
        measured_device(pickle.loads(pickle.dumps(graph)), cpu(1))
    with pytest.raises(BadInput, match="h200 is of kind gpu: give --device cpu"):
        measured_device(graph, ph.load_device("h200"))  # type: ignore[arg-type]


def test_a_step_that_memory_does_not_hold_is_not_run(graph: BlockGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_timing, "available_bytes", lambda: 1000)
    with pytest.raises(Infeasible, match=r"needs .* of memory, 1000 B are free"):
        replay_times(graph)


# ---- the store


def times(value: float) -> OpTime:
    return OpTime(value, 1, 0.0, 0.0)


def test_what_was_stored_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.json"
    new = Measurements({"a": times(1e-6)}, {"forward_s": Estimate(1e-6, None)}, {"g": STEP})
    assert add_to_store(path, MACHINE, new) == (new, None)
    assert read_store(path, MACHINE) == (new, None)
    merged, _ = add_to_store(path, MACHINE, Measurements({"a": times(2e-6), "b": times(3e-6)}, {}, {"h": STEP}))
    assert merged == Measurements({"a": times(2e-6), "b": times(3e-6)}, new.host, {"g": STEP, "h": STEP})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not whole"),
        ('{"version": 5, "mach', "not whole"),
        ("[]", "no store of measurements"),
        (json.dumps({"version": 5, "machine": {"cpu": "b"}, "ops": {}, "host": {}, "graphs": {}}), "another machine"),
        (json.dumps({"version": 0, "machine": MACHINE, "ops": {}, "host": {}, "graphs": {}}), "another machine"),
        (
            json.dumps({"version": 5, "machine": MACHINE, "ops": {"a": [-1, 1, 0, 0]}, "host": {}, "graphs": {}}),
            "no store of measurements",
        ),
    ],
)
def test_a_store_that_is_not_this_machines_is_ignored_and_said(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    stored, ignored = read_store(path, MACHINE)
    assert stored == Measurements()
    assert ignored is not None
    assert why in ignored
    add_to_store(path, MACHINE, Measurements({"a": times(1.0)}))
    assert read_store(path, MACHINE)[0].ops == {"a": times(1.0)}


def test_a_store_that_cannot_be_read_for_now_keeps_its_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, new = tmp_path / "s.json", Measurements({"b": times(2.0)})
    add_to_store(path, MACHINE, Measurements({"a": times(1.0)}))

    def failing(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", failing)
        stored, why = add_to_store(path, MACHINE, new)
    assert stored == new and why is not None and "Input/output error" in why
    assert read_store(path, MACHINE)[0].ops == {"a": times(1.0)}


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    new = Measurements({"a": times(1.0)})
    stored, why = add_to_store(blocked / "s.json", MACHINE, new)
    assert stored == new
    assert why is not None
    assert "is not stored" in why


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    writers = [
        threading.Thread(target=add_to_store, args=(path, MACHINE, Measurements({str(k): times(1e-6 * (k + 1))})))
        for k in range(8)
    ]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert read_store(path, MACHINE)[0].ops == {str(k): times(1e-6 * (k + 1)) for k in range(8)}
    assert {p.name for p in tmp_path.iterdir()} <= {"s.json", "s.lock"}


def test_the_verb_shows_the_file_and_clears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine = machine_description()
    path = store_path(tmp_path / "pararev-hw", machine)
    add_to_store(path, machine, Measurements({"a": times(1e-6), "type:a": times(1e-6)}, HOST, {"g": STEP}))
    document = json.loads(run("measurements", "--json").out)
    assert (document["file"], document["operations"], document["networks"]) == (str(path), 1, 1)
    assert "2.0 us" in run("measurements").out
    assert run("measurements", "--clear").status == 0
    assert not path.exists()
