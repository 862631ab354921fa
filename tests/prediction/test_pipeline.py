"""The main job from Python: trace, schedule, predict, study, compare, and where the spikes of a graph come from."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw import graph as graphs
from pararev_hw import limits, pipeline, reports, target_graph
from pararev_hw.check import check_schedule
from pararev_hw.costmodels.allocator.workspace import eager_peak_bytes
from pararev_hw.defaults import ASSUMED_RATE
from pararev_hw.devices import load_device
from pararev_hw.errors import BadFile, BadInput, Infeasible
from pararev_hw.importers import free_memory
from pararev_hw.models.neurons import IF
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import BlockGraph, Device, DeviceParameter
from tests.helpers.command_line import run

WIDTH = 0.0625


@pytest.fixture(scope="module")
def graph() -> BlockGraph:
    """Two ParaRev pairs per stage, narrow, a quarter of its neurons firing."""
    return target_graph.build_graph("pararevsnn37", TraceOptions(batch=2, width=WIDTH, spikes="0.25"))


@pytest.fixture(params=["edge8", "h200"])
def device(request: pytest.FixtureRequest) -> Device:
    found = ph.load_device(request.param)
    assert isinstance(found, Device)
    return found


def with_memory(device: Device, size: float) -> Device:
    return replace(device, parameters={**device.parameters, "memory_bytes": DeviceParameter(size, "a test", "assumed")})


# ---- schedule and predict


@pytest.mark.parametrize("scheduler", ["sequential", "asap", "heft"])
def test_every_schedule_of_a_traced_step_is_legal_and_above_its_bound(
    graph: BlockGraph, device: Device, scheduler: str
) -> None:
    made = pipeline.plan(graph, device, scheduler)
    check_schedule(made.costs, made.schedule)
    assert made.schedule.lower_bound_s <= made.schedule.makespan_s * (1 + 1e-9)
    assert made.schedule.makespan_s <= made.schedule.sequential_s * (1 + 1e-9)


def test_a_graph_that_went_through_a_file_predicts_the_same(graph: BlockGraph, device: Device, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(graphs.dumps(graph))
    assert ph.predict(ph.schedule(graphs.load(path), device)) == ph.predict(ph.schedule(graph, device))


def test_what_does_not_fit_names_the_network_the_need_and_what_there_is(graph: BlockGraph) -> None:
    edge = ph.load_device("edge8")
    need = ph.predict(ph.schedule(graph, edge)).peak_bytes
    assert ph.predict(ph.schedule(graph, with_memory(edge, 10 * need))).peak_bytes == need
    with pytest.raises(Infeasible) as refused:
        ph.predict(ph.schedule(graph, with_memory(edge, need / 10)))
    assert "pararevsnn37" in str(refused.value)
    with pytest.raises(Infeasible, match=r"heft needs .* MiB at its peak"):
        made = ph.schedule(graph, edge)
        pipeline.predict(replace(made, device=with_memory(edge, need - 1)))


def test_what_pytorch_runs_by_itself_is_given_its_allocators_peak_too(graph: BlockGraph) -> None:
    h200 = ph.load_device("h200")
    cpu = replace(h200, name="cpu", kind="cpu", lanes=2)
    found = {
        (d.kind, name, how): ph.predict(ph.schedule(graph, d, name, launch=how)).eager_peak_bytes
        for d, name, how in (
            (cpu, "sequential", "eager"),
            (cpu, "heft", "eager"),
            (h200, "sequential", "eager"),
            (h200, "sequential", "graph"),
        )
    }
    on_cpu = eager_peak_bytes(graph, "cpu")  # of the usual processor, where the device says nothing
    assert list(found.values()) == [on_cpu, None, eager_peak_bytes(graph, "gpu"), None]
    assert on_cpu > graph.memory.peak_bytes
    page = reports.report_html(pipeline.study(graph, cpu))
    assert "workspaces of libraries included" in page


def test_lanes_beyond_what_any_machine_has_are_refused(graph: BlockGraph) -> None:
    with pytest.raises(BadInput, match="1025 lanes"):
        pipeline.plan(graph, ph.load_device("h200"), lanes=1025)


# ---- study and compare


def test_memory_for_a_study_of_many_tasks_is_told_and_refused_beforehand(
    graph: BlockGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, heard = len(graph.tasks), []
    monkeypatch.setattr(limits, "STUDY_BYTES", 1 << 20)
    monkeypatch.setattr(free_memory, "available_bytes", lambda: tasks * (1 << 20) - 1)
    pipeline.study(graph, ph.load_device("edge8"), progress=heard.append)  # too few tasks to look
    assert not any("of memory" in line for line in heard)
    monkeypatch.setattr(limits, "MANY_TASKS", tasks)
    with pytest.raises(Infeasible, match=rf"a study of {tasks} tasks needs some {tasks}(\.\d)? MiB .*--granularity"):
        pipeline.study(graph, ph.load_device("edge8"))
    monkeypatch.setattr(free_memory, "available_bytes", lambda: tasks * (1 << 20))
    pipeline.study(graph, ph.load_device("edge8"), progress=heard.append)
    assert any(f"needs some {tasks}" in line and "are free" in line for line in heard)


def test_a_study_recommends_the_fastest_and_compares_with_sequential(graph: BlockGraph, device: Device) -> None:
    study = pipeline.study(graph, device)
    assert study.sequential.scheduler == "sequential"
    assert study.chosen.latency_s == min(p.latency_s for p in study.predictions)
    assert {p.scheduler for p in study.predictions} == {"sequential", "asap", "heft"}
    launches = {p.launch for p in study.predictions}
    assert launches == ({"eager", "graph"} if device.kind == "gpu" else launches)
    assert len(study.predictions) == (6 if device.kind == "gpu" else 3)


def test_the_critical_path_is_a_chain_no_longer_than_the_step(graph: BlockGraph, device: Device) -> None:
    study = pipeline.study(graph, device)
    index = {t.id: k for k, t in enumerate(graph.tasks)}
    links = {(e.src, e.dst) for e in graph.edges}
    steps = [index[t] for t in study.critical_path.tasks]
    assert set(pairwise(steps)) <= links
    assert study.critical_path.length <= study.sequential.latency_s * (1 + 1e-9)


def test_where_memory_is_scarce_every_schedule_keeps_to_it(graph: BlockGraph) -> None:
    edge = ph.load_device("edge8")
    peaks = {p.scheduler: p.peak_bytes for p in pipeline.study(graph, edge).predictions}
    assert peaks["sequential"] < min(peaks["asap"], peaks["heft"])
    scarce = peaks["sequential"] * 1.02
    study = pipeline.study(graph, with_memory(edge, scarce))
    assert {p.scheduler for p in study.predictions} >= {"sequential"}
    assert max(p.peak_bytes for p in study.predictions) <= scarce


def test_a_comparison_keeps_the_order_and_launches_both_alike() -> None:
    found = ph.compare(
        ["revsresnet21", "pararevsnn21"],
        "h200",
        options=ph.TraceOptions(batch=2, width=WIDTH, spikes="none"),
        choices="none",
    )
    assert [s.graph.model for s in found.studies] == ["revsresnet21", "pararevsnn21"]
    assert {p.launch for s in found.studies for p in s.predictions} == {"graph"}


def test_pararev_gains_from_lanes_where_revnet_of_the_same_blocks_does_not_keep_up() -> None:
    step = ph.TraceOptions(batch=2, width=WIDTH, spikes="none")
    studies = (
        pipeline.study(ph.trace(n, None, step), ph.load_device("edge8")) for n in ("revsresnet109", "pararevsnn117")
    )
    rev, para = (s.sequential.latency_s / s.chosen.latency_s for s in studies)
    assert para > 1.2 * rev


# ---- spikes


def test_an_assumed_rate_is_every_spiking_layers(graph: BlockGraph) -> None:
    assert graph.spikes is not None
    assert not graph.spikes.measured
    assert {layer.density for layer in graph.spikes.layers if layer.spiking} == {0.25}


def test_spikes_are_counted_on_the_digits_where_they_fill_the_input() -> None:
    pytest.importorskip("sklearn")
    found = target_graph.build_graph("pararevsnn21", TraceOptions(batch=2, width=WIDTH))
    assert found.spikes is not None
    assert found.spikes.measured
    assert "digits" in found.spikes.source
    assert "random weights" in found.spikes.source


def test_where_digits_cannot_be_the_assumed_rate_is_said() -> None:
    found = target_graph.build_graph(
        "pararevsnn24_dvs", TraceOptions(batch=2, timesteps=2, width=WIDTH, input_shape=(2, 32, 32))
    )
    assert found.spikes is not None
    assert not found.spikes.measured
    assert found.spikes.rate == ASSUMED_RATE
    assert any("firing rate 0.2 assumed" in text for text in found.assumptions)
    with pytest.raises(BadInput, match="digits"):
        target_graph.build_graph("pararevsnn24_dvs", TraceOptions(batch=2, timesteps=2, width=WIDTH, spikes="digits"))


def test_spikes_are_counted_on_the_users_own_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("zeros.npy", np.zeros((3, 3, 32, 32), dtype=np.float32))
    np.save("noise.npy", np.random.default_rng(0).random((3, 3, 32, 32)))
    quiet, loud = (
        target_graph.build_graph("pararevsnn21", TraceOptions(batch=2, width=WIDTH, spikes=name))
        for name in ("zeros.npy", "noise.npy")
    )
    assert loud.spikes is not None
    assert loud.spikes.source == "noise.npy, 3 samples, random weights"
    stem = {layer.module: layer.density for layer in loud.spikes.layers}
    assert max(stem.values()) == 1.0  # noise has no zeros: the first layer sees them all
    assert quiet.spikes is None or max(layer.sops for layer in quiet.spikes.layers) < max(
        layer.sops for layer in loud.spikes.layers
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((2, 3, 8, 8)), "has shape"),
        (np.zeros((0, 3, 32, 32)), "0 samples"),
        (np.full((2, 3, 32, 32), np.nan), "not finite"),
        (np.full((2, 3, 32, 32), 1e300), "not finite"),
        (np.full((2, 3, 32, 32), "a"), "real numbers"),
        (np.ones((2, 3, 32, 32), dtype=complex), "real numbers"),
        (np.array([None]), "no .npy file of numbers"),
    ],
)
def test_inputs_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: np.ndarray, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", values, allow_pickle=True)
    with pytest.raises((BadInput, BadFile), match=said):
        target_graph.build_graph("pararevsnn21", TraceOptions(batch=2, width=WIDTH, spikes="x.npy"))


def test_a_network_that_traces_and_does_not_run_is_refused_with_what_to_do() -> None:
    class OnlyTraced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = IF()
            self.head = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if type(x) is torch.Tensor:
                raise KeyError("real")
            return self.head(self.neuron(x.unsqueeze(0))[0])

    network, x = OnlyTraced(), torch.zeros(2, 4)
    assert graphs.spiking_layers(ph.trace(network, x, spikes="0.5"))
    with pytest.raises(BadInput, match=r"KeyError: 'real'.*--spikes none"):
        ph.trace(network, x)


# ---- the Python way


def test_the_library_does_without_files_what_the_command_line_does(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    traced = ph.trace(network, torch.zeros(2, 3, 8, 8), name="mine")
    assert (traced.model, traced.batch) == ("mine", 2)
    written = ph.report(traced, "edge8", tmp_path / "out")
    assert (tmp_path / "out" / "report.html").exists()
    assert "mine" in written._repr_html_()
    plan = ph.schedule(traced, ph.load_device("edge8"), "asap")
    assert "makespan" in plan._repr_html_()
    with pytest.raises(BadInput, match="inputs"):
        ph.trace(network)
    with pytest.raises(BadInput, match="device"):
        ph.schedule(traced)


@pytest.mark.parametrize("device", ["h200", "edge8"])
def test_the_library_and_the_command_line_take_the_same_optimizer_by_default(device: str, tmp_path: Path) -> None:
    step: dict[str, Any] = {"batch": 2, "width": WIDTH, "spikes": "none"}
    by_name, loaded = (ph.trace("pararevsnn21", device=d, **step) for d in (device, ph.load_device(device)))
    options = ("--batch", 2, "--width", WIDTH, "--spikes", "none", "--device", device)
    ran = run("trace", "pararevsnn21", *options, "--json")
    assert by_name == loaded == graphs.from_document(json.loads(ran.out), "trace --json")
    if device == "h200":  # what `trace` is for where no device is named
        assert ph.trace("pararevsnn21", **step) == by_name
    kernels = {
        sum(o.phase == "update" for o in s.graph.ops)
        for s in ph.compare(["pararevsnn21"], device, options=ph.TraceOptions(**step), choices="none").studies
    }
    assert kernels == {sum(o.phase == "update" for o in by_name.ops)}


def test_the_machines_cpu_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    first = pipeline.find_device("cpu", cache=tmp_path, progress=told.append)
    assert told == ["measuring this machine's CPU"]
    measured: Callable[[], Device] = lambda: pytest.fail("measured again")  # noqa: E731
    monkeypatch.setattr("pararev_hw.measurement.quick_cpu_device", measured)
    assert pipeline.find_device("cpu", cache=tmp_path, progress=told.append) == first


def test_a_latency_bound_that_no_schedule_keeps_is_refused_although_the_sequential_step_fits(
    graph: BlockGraph,
) -> None:
    device = load_device("edge8")
    fastest = pipeline.plan(graph, device, "heft").schedule
    with pytest.raises(Infeasible, match="none can take less than"):
        pipeline.plan(graph, device, "memory-min", options={"latency_bound": fastest.lower_bound_s / 2})
    kept = pipeline.plan(graph, device, "memory-min", options={"latency_bound": fastest.makespan_s}).schedule
    assert kept.makespan_s <= fastest.makespan_s * (1 + 1e-9)
