"""`trace.perfetto.json`: the schedules as a trace for ui.perfetto.dev and chrome://tracing.

The Chrome JSON trace format: one process per schedule, one thread per lane, a complete event ("X") per task, flow
events from lane to lane, a memory counter. Times are µs on a grid of ns, so that neighbours never overlap by rounding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

from pararev_hw.reports import phrasing
from pararev_hw.reports.curve import steps, thin
from pararev_hw.types import Prediction, Study, Task

MOST_COUNTER_POINTS = 20_000
_HOST_TID = 1_000_000  # past any lane
_ARGUMENTS = ("phase", "block", "branch", "flops", "read_bytes", "write_bytes", "sops")  # of a task, beside its event
_KEYS = attrgetter(*_ARGUMENTS)


def trace_document(study: Study) -> dict[str, Any]:
    """The trace of the sequential and the chosen schedule, ready for JSON."""
    document: dict[str, Any] = json.loads(trace_json(study))
    return document


def trace_json(study: Study) -> str:
    """The trace as JSON text, an event per line."""
    events = ",\n".join(_events(study))
    other = {"model": study.graph.model, "device": study.device.title, "answer": phrasing.answer(study)}
    return f'{{"traceEvents": [\n{events}\n], "displayTimeUnit": "ns", "otherData": {_TEXT.encode(other)}}}\n'


_TEXT = json.JSONEncoder(allow_nan=False)


def _events(study: Study) -> Iterator[str]:
    """Events as JSON text. That of a task, a counter or an arrow is put together here: a large step has hundreds of
    thousands, for which an encoder takes several times as long."""
    predictions = (study.sequential,) if study.best == 0 else (study.sequential, study.chosen)
    tasks = {t.id: t for t in (*study.graph.tasks, *study.chosen_graph.tasks)}
    critical = frozenset(study.critical_path.tasks)
    for pid, prediction in enumerate(predictions, start=1):
        name = f"{prediction.scheduler}, {phrasing.way(prediction, study.device)}"
        yield from map(_TEXT.encode, _names(pid, name, prediction, phrasing.lane_noun(study.device)))
        yield from _slices(pid, prediction, tasks, critical)
        yield from _flows(pid, prediction, study)
        yield from _counters(pid, prediction)


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


def _slices(pid: int, prediction: Prediction, tasks: Mapping[str, Task], critical: frozenset[str]) -> Iterator[str]:
    """An event for each placement. What tasks have in common is encoded once: operations come again in every block."""
    endings: dict[tuple[object, ...], str] = {}
    for p in prediction.schedule.placements:
        task = tasks.get(p.task)
        values = (p.task in critical, *(() if task is None else _KEYS(task)))
        ending = endings.get(values)
        if ending is None:
            args = dict(zip(("critical", *_ARGUMENTS), values, strict=False))
            ending = endings[values] = (
                f'"cat": {_TEXT.encode(args.get("phase", "other"))}, "args": {_TEXT.encode(args)}}}'
            )
        start = _us(p.start_s)
        dur = round(_us(p.end_s) - start, 3)
        yield (
            f'{{"ph": "X", "pid": {pid}, "tid": {p.lane}, "ts": {start}, "dur": {dur}, "name": {_TEXT.encode(p.task)}, '
            + ending
        )


def _flows(pid: int, prediction: Prediction, study: Study) -> Iterator[str]:
    """An arrow for every edge whose ends run on different lanes. It leaves from the middle of its source, because an
    event at the very end would bind to the next slice."""
    at = {p.task: p for p in prediction.schedule.placements}
    tasks = study.chosen_graph.tasks
    for k, e in enumerate(study.chosen_graph.edges):
        src, dst = at.get(tasks[e.src].id), at.get(tasks[e.dst].id)
        if src is None or dst is None or src.lane == dst.lane:
            continue
        common = f'"pid": {pid}, "cat": "edge", "name": "needs", "id": {(pid << 32) | k}'
        middle = _us((src.start_s + src.end_s) / 2)
        yield f'{{"ph": "s", "tid": {src.lane}, "ts": {middle}, {common}, "args": {{"bytes": {e.bytes}}}}}'
        yield f'{{"ph": "f", "bp": "e", "tid": {dst.lane}, "ts": {_us(dst.start_s)}, {common}}}'


def _counters(pid: int, prediction: Prediction) -> Iterator[str]:
    curve = steps(prediction.memory, prediction.latency_s)
    if curve is None:
        return
    curve = thin(curve, MOST_COUNTER_POINTS)
    labels = [f"{_TEXT.encode(role)}: " for role in curve.bytes]
    columns = [
        [f"{label}{live}" for live in values] for label, values in zip(labels, curve.bytes.values(), strict=True)
    ]
    rows = [", ".join(cells) for cells in zip(*columns, strict=True)]
    for start_s, live in zip((*curve.starts_s, curve.end_s), (*rows, rows[-1]), strict=True):
        yield (
            f'{{"ph": "C", "pid": {pid}, "tid": 0, "ts": {_us(start_s)}, "name": "memory (bytes)", "args": {{{live}}}}}'
        )
