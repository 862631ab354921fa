"""Files that version 0.1.0 wrote are read today, and say what they said.

`tests/golden/version_0_1_0` holds what its command line wrote: `trace net.py:make -o graph.json` (the factory is
`net.txt` there), `trace pararevsnn21 --width 0.0625 --batch 1 --timesteps 1 --spikes 0.2 --mode infer -o spiking.json`,
`schedule graph.json --device edge8 --json` (`front.json`: with `--scheduler pareto`), `report net.py:make --device
edge8 -o report`, the manifest of `sweep sweep.yaml -o sweep`, `sweep.json` of its examples/sweeps/edge.yaml with the
first six points of the front, two of its device files, the profile that its tests wrote, the float32 convolutions of
one that `calibrate --device cpu --minutes 1.5` wrote (five times of each sample), and what `validate --minutes 1`
wrote then.
"""

import json
import shutil
import statistics
from pathlib import Path

import pytest
import torch

import pararev_hw as ph
from pararev_hw import reports
from pararev_hw.errors import BadInput
from pararev_hw.types import Device, Profile, Schedule, SweepResult, Validation

FILES = Path(__file__).parents[1] / "golden" / "version_0_1_0"


@pytest.mark.parametrize("name", ["graph", "spiking"])
def test_a_graph_has_the_totals_and_the_memory_that_were_written(name: str, tmp_path: Path) -> None:
    document = json.loads((FILES / f"{name}.json").read_text(encoding="utf-8"))
    graph = ph.load_graph(FILES / f"{name}.json")
    assert (graph.model, graph.mode, graph.batch) == (document["model"], document["mode"], document["batch"])
    assert (graph.totals.macs, graph.totals.flops) == (document["totals"]["macs"], document["totals"]["flops"])
    assert graph.memory.peak_bytes == document["memory"]["peak_bytes"]
    assert [t.id for t in graph.tasks] == [t["id"] for t in document["tasks"]]
    assert (graph.spikes is not None) == (document["spikes"] is not None)
    graph.save(tmp_path / "again.json")
    assert ph.load_graph(tmp_path / "again.json") == graph


def test_a_graph_is_scheduled_on_a_device_file() -> None:
    before = json.loads((FILES / "schedule.json").read_text(encoding="utf-8"))
    schedule = ph.schedule(ph.load_graph(FILES / "graph.json"), FILES / "edge8.yaml").schedule
    assert (schedule.device, schedule.lanes) == (before["device"], before["lanes"])
    assert {p.task for p in schedule.placements} == {p["task"] for p in before["placements"]}


@pytest.mark.parametrize(("name", "kind", "lanes"), [("edge8", "accelerator", 8), ("loihi1-like", "neuromorphic", 128)])
def test_a_device_file_is_read(name: str, kind: str, lanes: int) -> None:
    device = ph.load_device(FILES / f"{name}.yaml")
    assert isinstance(device, Device)
    assert (device.name, device.kind, device.lanes) == (name, kind, lanes)


def test_a_profile_is_read_and_schedules() -> None:
    document = json.loads((FILES / "profile.json").read_text(encoding="utf-8"))
    profile = ph.load_device(FILES / "profile.json")
    assert isinstance(profile, Profile)
    assert [fit.group for fit in profile.fits] == [fit["group"] for fit in document["fits"]]
    graph = ph.load_graph(FILES / "graph.json")
    assert ph.schedule(graph, profile, "sequential").predict().latency_s > 0


def test_fits_with_other_terms_are_made_anew_from_their_samples() -> None:
    """Then, the residuals of a convolution lay along eight coordinates, and channels were not rounded up to blocks."""
    before = json.loads((FILES / "convolutions.json").read_text(encoding="utf-8"))
    profile = ph.load(FILES / "convolutions.json")
    assert isinstance(profile, Profile)
    assert len(profile.samples) == len(before["samples"])
    assert {"length7_factor"} <= set(before["fits"][0]["coefficients"])
    assert any("fitted anew" in note for note in profile.device.notes)
    plain = next(s for s in profile.samples if s.op.attributes and not s.cold and not s.held_out and s.median_s > 1e-4)
    image, weight = plain.op.input_shapes[:2]
    net = torch.nn.Conv2d(weight[1], weight[0], weight[2], padding=weight[2] // 2, bias=False)
    graph = ph.trace(net, torch.zeros(image), ph.TraceOptions(mode="infer"))
    predicted_s = ph.schedule(graph, profile, "sequential").predict().latency_s
    assert plain.median_s / 2 < predicted_s < plain.median_s * 2
    # the file on its own, and the command line, read the same profile
    assert ph.load_device(FILES / "convolutions.json") == profile


def test_a_schedule_with_its_front_is_read() -> None:
    document = json.loads((FILES / "front.json").read_text(encoding="utf-8"))
    schedule = ph.load(FILES / "front.json")
    assert isinstance(schedule, Schedule)
    assert (schedule.makespan_s, schedule.gap) == (document["makespan_s"], document["gap"])
    assert [[p.task, p.lane, p.start_s, p.end_s] for p in schedule.placements] == [
        list(p.values()) for p in document["placements"]
    ]
    assert [(p.peak_bytes, p.speedup, p.device) for p in schedule.front] == [
        (p["peak_bytes"], p["speedup"], document["device"]) for p in document["front"]
    ]
    assert "compute" not in schedule.energy_j


def test_a_validation_is_read() -> None:
    document = json.loads((FILES / "validation.json").read_text(encoding="utf-8"))
    validation = ph.load(FILES / "validation.json")
    assert isinstance(validation, Validation)
    assert [c.error("latency_s") for c in validation.cases] == [c["error"]["latency"] for c in document["cases"]]
    assert validation.latency is not None
    assert validation.latency.mape == statistics.mean(abs(c["error"]["latency"]) for c in document["cases"])


def test_the_front_of_a_sweep_is_read() -> None:
    document = json.loads((FILES / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    result = ph.load(FILES / "sweep" / "sweep.json")
    assert isinstance(result, SweepResult)
    assert (result.evaluated, result.failed) == (document["evaluated"], document["failed"])
    assert [p.row for p in result.pareto] == [p["row"] for p in document["pareto"]]
    assert [p.objectives for p in result.pareto] == [p["objectives"] for p in document["pareto"]]


def test_a_report_is_shown_beside_one_of_today(tmp_path: Path) -> None:
    before = json.loads((FILES / "report.json").read_text(encoding="utf-8"))
    study = ph.report(ph.load_graph(FILES / "graph.json"), "edge8", tmp_path, scheduler="heft").study
    both = reports.side_by_side_document(reports.side_by_side(study, reports.read_report(FILES / "report.json")))
    assert before["device"]["title"] in both["titles"][1]
    macs = next(row for row in both["quantities"] if row["name"] == "MACs")
    assert (macs["ratio"], study.graph.totals.macs) == (1.0, before["totals"]["macs"])


def test_a_sweeps_folder_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FILES / "sweep", tmp_path / "sweep"))
    with pytest.raises(BadInput, match="rows of another release: name another folder, or give --fresh") as caught:
        ph.sweep(FILES / "sweep.yaml", folder, workers=1)
    assert "\n" not in str(caught.value)
    assert (folder / "manifest.json").read_bytes() == (FILES / "sweep" / "manifest.json").read_bytes()
