"""`trace.perfetto.json`: the schedules as a trace for ui.perfetto.dev and chrome://tracing.

The Chrome JSON trace format: one process per schedule, one thread per lane, a complete event ("X") per task, flow
events from lane to lane, a memory counter. Times are µs on a grid of ns, so that neighbours never overlap by rounding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pararev_hw.reports import phrasing
from pararev_hw.reports.curve import steps, thin
from pararev_hw.reports.document import rows_text
from pararev_hw.types import Placement, Prediction, Study, Task

MOST_COUNTER_POINTS = 20_000
_HOST_TID = 1_000_000  # past any lane


def trace_document(study: Study) -> dict[str, Any]:
    """The trace of the sequential and the chosen schedule, ready for JSON."""
    predictions = (study.sequential,) if study.best == 0 else (study.sequential, study.chosen)
    tasks = {t.id: t for t in (*study.graph.tasks, *study.chosen_graph.tasks)}
    events: list[dict[str, Any]] = []
    for pid, prediction in enumerate(predictions, start=1):
        name = f"{prediction.scheduler}, {phrasing.way(prediction, study.device)}"
        events += _names(pid, name, prediction, phrasing.lane_noun(study.device))
        critical = frozenset(study.critical_path.tasks)
        events += [_slice(pid, p, tasks.get(p.task), p.task in critical) for p in prediction.schedule.placements]
        events += _flows(pid, prediction, study)
        events += _counters(pid, prediction)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"model": study.graph.model, "device": study.device.title, "answer": phrasing.answer(study)},
    }


def trace_json(study: Study) -> str:
    """The trace as JSON text, an event per line."""
    document = trace_document(study)
    events = rows_text(document.pop("traceEvents"), "\n")
    rest = json.dumps(document, allow_nan=False)[1:]
    return f'{{"traceEvents": [\n{events}\n], {rest}\n'


def _us(time_s: float) -> float:
    return round(time_s * 1e9) / 1e3


def _names(pid: int, name: str, prediction: Prediction, noun: str) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": {"sort_index": pid}}
    threads = {lane: f"{noun} {lane}" for lane in sorted({p.lane for p in prediction.schedule.placements})}
    if prediction.host_s > 0:
        threads[_HOST_TID] = "host (time in all)"
    for tid, thread in threads.items():
        order = -1 if tid == _HOST_TID else tid
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": thread}}
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": order}}
    if prediction.host_s > 0:
        yield {"ph": "X", "pid": pid, "tid": _HOST_TID, "ts": 0, "dur": _us(prediction.host_s), "name": "launching",
               "cat": "host", "args": {"note": "the host's total: single launches are not predicted"}}  # fmt: skip


def _slice(pid: int, p: Placement, task: Task | None, critical: bool) -> dict[str, Any]:
    args: dict[str, Any] = {"critical": critical}
    if task is not None:
        args |= {"phase": task.phase, "block": task.block, "branch": task.branch, "flops": task.flops,
                 "read_bytes": task.read_bytes, "write_bytes": task.write_bytes, "sops": task.sops}  # fmt: skip
    start = _us(p.start_s)
    dur = round(_us(p.end_s) - start, 3)
    cat = task.phase if task is not None else "other"
    return {"ph": "X", "pid": pid, "tid": p.lane, "ts": start, "dur": dur, "name": p.task, "cat": cat, "args": args}


def _flows(pid: int, prediction: Prediction, study: Study) -> Iterator[dict[str, Any]]:
    """An arrow for every edge whose ends run on different lanes. It leaves from the middle of its source, because an
    event at the very end would bind to the next slice."""
    at = {p.task: p for p in prediction.schedule.placements}
    tasks = study.chosen_graph.tasks
    for k, e in enumerate(study.chosen_graph.edges):
        src, dst = at.get(tasks[e.src].id), at.get(tasks[e.dst].id)
        if src is None or dst is None or src.lane == dst.lane:
            continue
        common = {"pid": pid, "cat": "edge", "name": "needs", "id": (pid << 32) | k}
        middle = _us((src.start_s + src.end_s) / 2)
        yield {"ph": "s", "tid": src.lane, "ts": middle, **common, "args": {"bytes": e.bytes}}
        yield {"ph": "f", "bp": "e", "tid": dst.lane, "ts": _us(dst.start_s), **common}


def _counters(pid: int, prediction: Prediction) -> Iterator[dict[str, Any]]:
    curve = steps(prediction.memory, prediction.latency_s)
    if curve is None:
        return
    curve = thin(curve, MOST_COUNTER_POINTS)
    for k, start_s in enumerate(curve.starts_s):
        live = {role: values[k] for role, values in curve.bytes.items()}
        yield {"ph": "C", "pid": pid, "tid": 0, "ts": _us(start_s), "name": "memory (bytes)", "args": live}
    yield {"ph": "C", "pid": pid, "tid": 0, "ts": _us(curve.end_s), "name": "memory (bytes)", "args": live}
