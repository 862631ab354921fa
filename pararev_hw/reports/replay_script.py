"""`run_schedule.py`: a script that trains the network with the schedule that its report recommends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

from pararev_hw.types import Study

NAME = "run_schedule.py"
_SCRIPT = '''"""Trains {model} with the schedule that its report recommends for {device}: python {name} [steps]

Forward and backward run on {lanes} ({kind}); the optimizer is PyTorch's own.
"""

import sys
import time
from pathlib import Path

import torch

from pararev_hw import rewrites
from pararev_hw.execution import batches, lane_orders, parallel_step, prepare
from pararev_hw.trace_options import TraceOptions

HERE = Path(__file__).resolve().parent
{path}TARGET = {target}
OPTIONS = {options}
GRANULARITY = {granularity!r}
REWRITES = {rewrites}
LANES = {orders}


def main(steps: int = 10) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    job = prepare(TARGET, TraceOptions(**OPTIONS, dtype={dtype!r}, granularity=GRANULARITY), device)
    step_as_traced = rewrites.apply(job.traced, REWRITES)
    optimizer = torch.optim.SGD(job.model.parameters(), lr=0.1, momentum=0.9)
    data = batches(job)  # random batches of the right shapes: put your own here
    with parallel_step(job.model, step_as_traced, LANES) as step:
        for number in range(steps):
            begin = time.perf_counter()
            loss = step(*(tensor for _, tensor in sorted(next(data).items())))
            optimizer.step()
            print(f"step {{number}}: loss {{float(loss):.4f}}, {{1e3 * (time.perf_counter() - begin):.1f}} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
'''


def run_script(study: Study, target: str, options: Mapping[str, Any], folder: Path) -> str | None:
    """The script, None where nothing of this kind can run: an inference, a chip that PyTorch does not drive.

    A file, or the folder of a module, is named by its place seen from `folder`, into which the script is written.
    `options` are those of the target that the user set, by the names of `TraceOptions`.
    """
    if study.graph.mode != "train" or study.device.kind not in ("cpu", "gpu"):
        return None
    schedule, graph = study.chosen.schedule, study.chosen_graph
    phase_of = {t.id: t.phase for t in graph.tasks}
    lanes: dict[int, list[str]] = {}
    for p in schedule.placements:
        if phase_of.get(p.task) != "update":
            lanes.setdefault(p.lane, []).append(p.task)
    noun = "stream" if study.device.kind == "gpu" else "thread"
    return _SCRIPT.format(
        model=_plain(graph.model),
        device=_plain(study.device.title),
        name=NAME,
        lanes=f"{len(lanes)} {noun}{'s' * (len(lanes) > 1)}",
        kind=study.chosen.scheduler,
        path=_path(target, folder),
        target=_target(target, folder),
        options=pformat(dict(options), width=100, sort_dicts=True),
        granularity=graph.granularity,
        rewrites=pformat(list(study.rewrites.get(study.chosen.choices, ())), width=110),
        orders=pformat([lanes[k] for k in sorted(lanes)], width=110, compact=True),
        dtype=graph.dtype,
    )


def _target(target: str, folder: Path) -> str:
    """The expression that gives the target: a file's path is relative to the script's own folder."""
    place, colon, factory = target.rpartition(":") if ":" in target else (target, "", "")
    if not Path(place).is_file():
        return repr(target)
    path = os.path.relpath(os.path.realpath(place), os.path.realpath(folder))
    return f"str(HERE / {path!r})" + (f" + {colon + factory!r}" if colon else "")


def _path(target: str, folder: Path) -> str:
    """The line that lets a module of the current folder, package.net:make, be imported from any other."""
    module, colon, _ = target.rpartition(":")
    first = module.partition(".")[0]
    here = Path.cwd()
    if not colon or Path(module).is_file() or not first or not any((here / n).exists() for n in (first, f"{first}.py")):
        return ""
    return f"sys.path.insert(0, str(HERE / {os.path.relpath(here, os.path.realpath(folder))!r}))  # of {module}\n"


def _plain(text: str) -> str:
    """A name that cannot end the docstring it stands in."""
    return text.replace("\\", "/").replace('"', "'")
