"""Several networks in one sweep: an answer for each of them, and one configuration that serves all."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import pararev_hw as ph
from pararev_hw import reports, sweeps
from pararev_hw.api.files import load, save
from pararev_hw.reports import sweep_phrasing
from pararev_hw.types import SweepResult

NETWORKS = """
import torch
from torch import nn

def wide(batch=2):
    layers = nn.Flatten(), nn.Linear(768, 512), nn.ReLU(), nn.Linear(512, 10)
    return nn.Sequential(*layers), torch.randn(batch, 3, 16, 16)

class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.arms = nn.ModuleList(nn.Conv2d(3, 16, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(16, 10)
    def forward(self, x):
        return self.head(sum(torch.relu(a(x)) for a in self.arms).mean((2, 3)))

def branches(batch=2):
    return Branches(), torch.randn(batch, 3, 16, 16)
"""
SWEEP = """
name: both
device: edge8
networks: [nets.py:wide, nets.py:branches]
modes: [train, infer]
parameters:
  lanes: [1, 2, 4]
  sram_bytes_per_lane: [65536, 262144]
  pe_rows: [8, 32]
derived: {cost: lanes * (1 + sram_bytes_per_lane / 262144) * pe_rows}
constraints: [cost < 250]
objectives: [latency, energy, cost]
"""


OBJECTIVES = ["latency_s", "energy_j", "cost"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def result(folder: Path) -> SweepResult:
    (folder / "nets.py").write_text(NETWORKS)
    (folder / "both.yaml").write_text(SWEEP)
    answer = sweeps.run(sweeps.load(folder / "both.yaml"), folder, processes=1)
    reports.write_sweep(answer, folder)
    save(answer, folder / "result.json")
    assert load(folder / "result.json") == answer
    return answer


def unbeaten(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.array([not ((values <= v).all(1) & (values < v).any(1)).any() for v in values])


def knee(values: NDArray[np.float64]) -> int:
    """By hand: nearest to the best of every objective, on logarithmic scales that span the front."""
    front = np.flatnonzero(unbeaten(values))
    logs = np.log(values[front])
    scaled = (logs - logs.min(0)) / np.where(np.ptp(logs, axis=0) > 0, np.ptp(logs, axis=0), 1)
    return int(front[(scaled**2).sum(1).argmin()])


def test_each_network_in_each_mode_has_its_own_answer(result: SweepResult, folder: Path) -> None:
    table = sweeps.store.pq.read_table(folder / "results.parquet").to_pandas()
    fine = table[table["failed"].isna()]
    assert 0 < len(fine) < len(table)
    wanted = [{"network": n, "mode": m} for n in ("nets.py:wide", "nets.py:branches") for m in ("train", "infer")]
    assert [dict(c.workload) for c in result.workloads] == wanted
    for c in result.workloads:
        rows = fine[(fine["network"] == c.workload["network"]) & (fine["mode"] == c.workload["mode"])]
        assert {c.best.row, c.recommended.row} <= set(rows["row"])
        assert c.best.objectives["latency_s"] <= rows["latency_s"].min() * 1.01
        there = np.array([c.recommended.objectives[o] for o in OBJECTIVES])
        at_knee = rows[OBJECTIVES].to_numpy()[knee(rows[OBJECTIVES].to_numpy())]
        assert there == pytest.approx(at_knee, rel=0.03)  # near copies are merged before the knee is taken
    explained = {e.row for e in result.explanations}
    assert explained >= {p.row for c in result.workloads for p in (c.best, c.recommended)}
    chips = {p.stem for p in (folder / "chips").iterdir()}
    assert chips >= {f"row-{c.recommended.row}" for c in result.workloads}


def test_the_configuration_that_serves_all_is_the_knee_of_the_means(result: SweepResult, folder: Path) -> None:
    table = sweeps.store.pq.read_table(folder / "results.parquet").to_pandas()
    fine = table[table["failed"].isna()]
    names = ["lanes", "sram_bytes_per_lane", "pe_rows"]
    logs = fine[names].assign(**{o: np.log(fine[o]) for o in OBJECTIVES})
    means = np.exp(logs.groupby(names)[OBJECTIVES].mean())
    wanted = means.iloc[knee(means.to_numpy())]
    shared = [c.shared for c in result.workloads]
    assert None not in shared and len({p.row for p in shared if p}) == 4
    places = {tuple(p.parameters[n] for n in names) for p in shared if p}
    assert len(places) == 1
    assert means.loc[places.pop()].to_numpy() == pytest.approx(wanted.to_numpy(), rel=0.01)
    logs_of_it = [[np.log(p.objectives[o]) for o in OBJECTIVES] for p in shared if p]
    assert np.exp(np.mean(logs_of_it, 0)) == pytest.approx(wanted.to_numpy(), rel=0.01)


def test_ranges_that_end_at_the_answer_of_a_network_are_named(result: SweepResult) -> None:
    ends = {"sram_bytes_per_lane": (65536, 262144), "pe_rows": (8, 32), "lanes": (None, 4)}  # one core is the least
    for name, (low, high) in ends.items():
        for end, side in ((low, "smallest"), (high, "largest")):
            lines = [line for line in result.warnings if f"edge of {name}:" in line and side in line]
            for kind in ("best", "recommended"):
                for c in result.workloads:
                    at_end = getattr(c, kind).parameters[name] == end
                    words = f"{c.workload['network']} ({c.workload['mode']})"
                    named = any(
                        words in part
                        for line in lines
                        for part in line.split(" lie")[0].split(", and the ")
                        if f"{kind} configuration" in part or f"the {kind} and the" in part
                    )
                    assert named == (at_end and bool(lines)), (name, end, kind, words, lines)
    assert any("of nets.py:wide (train)" in line or ", nets.py:wide (train)" in line for line in result.warnings)


def test_text_json_and_page_name_a_configuration_for_each_network(result: SweepResult, folder: Path) -> None:
    document = json.loads((folder / "sweep.json").read_text())
    page = (folder / "sweep.html").read_text()
    assert "Which configuration for which network" in page and "One configuration for all 4 of them" in page
    for c, entry in zip(result.workloads, document["workloads"], strict=True):
        assert (entry["network"], entry["mode"]) == (c.workload["network"], c.workload["mode"])
        assert entry["recommended"]["row"] == c.recommended.row and entry["best"]["row"] == c.best.row
        name = f"{c.workload['network']} ({c.workload['mode']})"
        shown = sweep_phrasing.value(c.recommended.objectives["latency_s"], "s")
        line = next(x for x in sweep_phrasing.workload_lines(result) if x.startswith(name))
        assert shown in line and line in document["answer"]
        for axis in result.parameters:  # every parameter that differs between the best and the recommended one
            if axis.name not in c.workload and c.best.parameters[axis.name] != c.recommended.parameters[axis.name]:
                assert sweep_phrasing.value(c.best.parameters[axis.name], axis.unit) in line
                assert axis in sweep_phrasing.workload_axes(result)
        assert f'data-task="row-{c.recommended.row}"' in page and f'"{c.recommended.row}"' in page
    assert "Whatever the network and mode: " in document["answer"]
    assert sum("One configuration for all 4 of them" in line for line in reports.workload_lines(result)) == 1


def test_fewer_time_steps_are_not_called_better_without_a_word_on_accuracy(tmp_path: Path) -> None:
    sweep = {
        "device": "edge8",
        "networks": "pararevsnn21",
        "modes": "infer",
        "batch": 1,
        "spikes": "0.2",
        "parameters": {"network.width": [0.1], "network.timesteps": [2, 4], "lanes": [2, 4]},
        "objectives": ["latency", "energy"],
    }
    warnings = ph.sweep(sweep, tmp_path / "sweep", workers=1).result.warnings
    of_network = [line for line in warnings if "edge of network.timesteps" in line]
    assert of_network and all(line.endswith("accuracy is not modelled") for line in of_network)
    assert not any("accuracy" in line for line in warnings if "network." not in line)
