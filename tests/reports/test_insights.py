"""Insights and reports side by side: what holds is said once, what does not is not said; figures by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import pararev_hw as ph
from pararev_hw.errors import BadFile
from pararev_hw.reports import insights, read_report, report_html, side_by_side, write_report
from pararev_hw.types import Placement
from tests.helpers import hand_built_study


class _Checkpointed(nn.Module):
    def __init__(self, depth: int, again: bool = True) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(depth)
        )
        self.again = again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.again else block(x)
        return x.mean((2, 3))


def _lines(model: nn.Module) -> tuple[str, ...]:
    graph = ph.trace(model, torch.rand(2, 4, 8, 8), ph.TraceOptions(spikes="none"))
    return insights(replace(hand_built_study.study((1,)), graph=graph))


def test_checkpointed_blocks_keep_their_inputs_and_update_statistics_twice() -> None:
    lines = _lines(_Checkpointed(5))
    # the input of the first block is the batch; outputs of 4 blocks are kept, 2 x 4 x 8 x 8 floats each
    assert any("4 of 5 recomputed blocks keep 2.00 KiB each" in line for line in lines), lines
    assert any(line.startswith("5 BatchNorm layers, blocks.0.1 among them, update") for line in lines), lines
    assert not any("recompute" in line for line in _lines(_Checkpointed(5, again=False)))


def test_reversible_blocks_are_not_blamed() -> None:
    graph = ph.trace("pararevsnn37", width=0.0625, batch=1, spikes="none")
    lines = insights(replace(hand_built_study.study((1,)), graph=graph))
    assert not any("BatchNorm" in line or "depth" in line for line in lines), lines


def test_a_launch_bound_step_and_a_branch_that_waits() -> None:
    study = hand_built_study.study((1,), 2)
    eager, graph, chosen = study.predictions
    # 10 ms eagerly, 4 ms as a graph: 60 % of the step is the host
    ways = (replace(eager, latency_s=10e-3), replace(graph, latency_s=4e-3), chosen)
    (line,) = (x for x in insights(replace(study, predictions=ways)) if x.startswith("Launch-bound"))
    assert "60 % of the eager step" in line and "4.00 ms" in line
    near = (replace(eager, latency_s=10e-3), replace(graph, latency_s=9e-3), chosen)
    assert not any(x.startswith("Launch-bound") for x in insights(replace(study, predictions=near)))

    names = {t.id for t in study.graph.tasks}
    stem, f, join = "stem:forward", "stages.0.blocks.0.f:forward", "stages.0.blocks.0.join:forward"
    assert {stem, f, join} <= names
    # lane 0 is done at 1 ms; the sum needs lane 1, which is done at 4 ms
    placements = (Placement(stem, 0, 0.0, 1e-3), Placement(f, 1, 1e-3, 4e-3), Placement(join, 0, 4e-3, 4.1e-3))
    waiting = replace(chosen, schedule=replace(chosen.schedule, placements=placements), latency_s=4.1e-3)
    (line,) = (x for x in insights(replace(study, predictions=(eager, graph, waiting))) if "for their sum" in x)
    assert f"the lane of {stem} idles 3.00 ms until {f} ends, for their sum, {join}, which takes 100 µs" in line


def test_a_report_beside_another(tmp_path: Path) -> None:
    study = hand_built_study.study((2, 2), 2)
    other = replace(study, predictions=tuple(replace(p, latency_s=2 * p.latency_s) for p in study.predictions))
    halved = tuple(replace(x, time_s=(x.time_s or 0.0) / 2) if x.module == "stem" else x for x in other.layers)
    write_report(replace(other, layers=halved), tmp_path / "other")
    both = side_by_side(study, read_report(tmp_path / "other" / "report.json"))
    assert both == side_by_side(study, read_report(tmp_path / "other"))
    by_name = {line.name: line for line in both.quantities}
    assert by_name["latency, recommended"].ratio == pytest.approx(2)
    assert by_name["memory, recommended"].ratio == 1
    assert [(line.name, line.ratio) for line in both.layers] == [("stem", 0.5)]
    elsewhere = tuple(replace(x, module=f"other.{x.module}") for x in halved)
    write_report(replace(other, layers=elsewhere), tmp_path / "elsewhere")
    assert side_by_side(study, read_report(tmp_path / "elsewhere")).layers == (), "layers that only one has say nothing"
    page = report_html(study, against=both)
    assert "Side by side" in page and "Side by side" not in report_html(study)


def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    study = hand_built_study.study((1,))
    write_report(study, tmp_path)
    good = json.loads(file.read_text())
    for wrong, words in (
        ({"tasks": []}, "holds no report"),
        (good | {"best": 99}, "there are 3 predictions"),
        (good | {"schema_version": 99}, "reads up to"),
        (good | {"batch": "many"}, "batch"),
    ):
        file.write_text(json.dumps(wrong))
        with pytest.raises(BadFile, match=words) as error:
            read_report(file)
        assert "\n" not in str(error.value)
    with pytest.raises(BadFile, match="cannot be read"):
        read_report(tmp_path / "missing.json")
