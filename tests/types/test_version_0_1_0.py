"""Files that version 0.1.0 wrote are read today, and say what they said.

`tests/golden/version_0_1_0` holds what its command line wrote: `trace net.py:make -o graph.json` (the factory is
`net.txt` there), `trace pararevsnn21 --width 0.0625 --batch 1 --timesteps 1 --spikes 0.2 --mode infer -o spiking.json`,
`schedule graph.json --device edge8 --json`, two of its device files, and the profile that its tests wrote.
"""

import json
from pathlib import Path

import pytest

import pararev_hw as ph
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
