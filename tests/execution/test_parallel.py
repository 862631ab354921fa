"""`ph.parallel`: a user's network trained on the lanes of a plan, and the script that a report leaves."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw.api.steps import traced_step
from pararev_hw.errors import BadInput
from pararev_hw.execution import parallel_step
from tests.helpers.command_line import run


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.left(x) + self.right(x))).flatten(1))


def test_a_network_trains_on_lanes_as_autograd_trains_it() -> None:
    torch.manual_seed(0)
    net = Branches()
    twin = copy.deepcopy(net)
    graph = ph.trace(net, torch.rand(2, 3, 6, 6), granularity="module")
    plan = ph.schedule(graph, ph.load_device("edge8"), "heft", lanes=2)
    assert len({p.lane for p in plan.schedule.placements}) == 2
    mine, theirs = (torch.optim.AdamW(n.parameters(), lr=0.01) for n in (net, twin))
    with ph.parallel(net, plan) as step:
        for _ in range(3):
            x, y = torch.rand(2, 3, 6, 6), torch.randint(0, 5, (2,))
            loss = step(x, y)
            mine.step()
            theirs.zero_grad()
            wanted = nn.functional.cross_entropy(twin(x), y)
            wanted.backward()
            theirs.step()
            torch.testing.assert_close(loss, wanted.detach())
    for (name, a), b in zip(net.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda said, name=name: f"{name}: {said}")


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(9, 6), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.table(x).mean(1))


def test_a_network_of_indices_trains_on_lanes() -> None:
    torch.manual_seed(0)
    net = Words()
    twin = copy.deepcopy(net)
    plan = ph.schedule(ph.trace(net, torch.randint(0, 9, (2, 7)), granularity="module"), ph.load_device("edge8"))
    x, y = torch.randint(0, 9, (2, 7)), torch.randint(0, 5, (2,))
    with ph.parallel(net, plan) as step:
        loss = step(x, y)
    wanted = nn.functional.cross_entropy(twin(x), y)
    wanted.backward()
    torch.testing.assert_close(loss, wanted.detach())
    torch.testing.assert_close(net.table.weight.grad, twin.table.weight.grad)


def test_what_cannot_run_is_refused_in_one_line() -> None:
    net = Branches()
    graph = ph.trace(net, torch.rand(2, 3, 6, 6))
    plan = ph.schedule(graph, ph.load_device("edge8"))
    with ph.parallel(net, plan) as step:
        with pytest.raises(BadInput, match=r"input:0 has shape \(4, 3, 6, 6\): the step was traced for \(2, 3, 6, 6\)"):
            step(torch.rand(4, 3, 6, 6), torch.zeros(4, dtype=torch.int64))
        with pytest.raises(BadInput, match="1 tensors were given"):
            step(torch.rand(2, 3, 6, 6))
    with pytest.raises(BadInput, match="holds no program"):
        ph.parallel(net, replace(plan, graph=copy.deepcopy(graph)))


def test_the_script_of_a_report_trains_with_the_recommended_schedule(tmp_path: Path) -> None:
    options = ("--width", 0.0625, "--batch", 2, "--timesteps", 1, "--input-shape", "3,16,16", "--spikes", "0.2")
    assert run("report", "pararevsnn21", *options, "--device", "h200", "-o", tmp_path).status == 0
    script = tmp_path / "run_schedule.py"
    environment = {**os.environ, "PYTHONPATH": str(Path(ph.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(script), "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("loss" in line for line in lines)
    assert "python run_schedule.py" in (tmp_path / "report.html").read_text()


def test_a_schedule_of_another_device_is_told_from_this_step() -> None:
    """A GPU runs an LSTM as one operation of cuDNN; this step, traced for a CPU, has others."""
    net, x = nn.LSTM(4, 6), torch.rand(5, 2, 4)
    on_gpu = ph.trace(net, x, ph.TraceOptions(mode="infer", granularity="op", device="h200"))
    on_cpu = traced_step(net, x, ph.TraceOptions(mode="infer", granularity="op", device="cpu"), lambda _: None)
    lanes = [[task.id for task in on_gpu.tasks]]
    assert "cudnn" in str(lanes)
    with pytest.raises(BadInput, match=r"has no task .*cudnn.*on another kind of device") as caught:
        parallel_step(net, on_cpu, lanes)
    assert "\n" not in str(caught.value)
