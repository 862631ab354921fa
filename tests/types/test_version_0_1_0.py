"""Files that version 0.1.0 wrote are read today, and say what they said.

`tests/golden/version_0_1_0` holds what its command line wrote: `trace net.py:make -o graph.json` (the factory is
`net.txt` there), `trace pararevsnn21 --width 0.0625 --batch 1 --timesteps 1 --spikes 0.2 --mode infer -o spiking.json`,
`schedule graph.json --device edge8 --json`, `report net.py:make --device edge8 -o report`, the manifest of
`sweep sweep.yaml -o sweep`, two of its device files, and the profile that its tests wrote.
"""

import json
import shutil
from pathlib import Path

import pytest

import pararev_hw as ph
from pararev_hw import reports
from pararev_hw.errors import BadInput
from pararev_hw.types import Device, Profile

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
