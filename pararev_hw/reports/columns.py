"""Many tasks of a report by column, each thing said once; and back.

What many tasks have in common (a block's operations come again in every time step) stands once, in `kinds`. A task that
begins when the one before it on its lane ends needs no time of its own, and neither does an end whose duration others
have too. Nothing is rounded: `by_row` gives the very numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from pararev_hw.types import CriticalPath, Edge, Placement, Task
from pararev_hw.types.graph import task_id

KIND_KEYS = ("block", "branch", "phase", "flops", "vector_flops", "read_bytes", "write_bytes", "ops", "sops")


def task_columns(tasks: Sequence[Task]) -> dict[str, Any]:
    """Tasks as places in `kinds` and numbers, from which their ids follow; ids that do not are given as they are."""
    place: dict[tuple[object, ...], int] = {}
    kind = []
    for t in tasks:
        values = (*(getattr(t, key) for key in KIND_KEYS[:-2]), len(t.ops), t.sops)
        kind.append(place.setdefault(values, len(place)))
    number = [_number(t.id) for t in tasks]
    follow = all(task_id(t.block, t.branch, t.phase, k) == t.id for t, k in zip(tasks, number, strict=True))
    kinds = {key: [values[k] for values in place] for k, key in enumerate(KIND_KEYS)}
    return {"kinds": kinds, "kind": kind, **({"number": number} if follow else {"id": [t.id for t in tasks]})}


def _number(name: str) -> int:
    digits = name.rpartition("#")[2]
    return int(digits) if "#" in name and digits.isdecimal() and len(digits) < 10 else 1


def edge_columns(edges: Sequence[Edge]) -> dict[str, list[int]]:
    """Edges by the places of their tasks; the sizes that there are, and which is whose."""
    sizes: dict[int, int] = {}
    size = [sizes.setdefault(e.bytes, len(sizes)) for e in edges]
    return {"src": [e.src for e in edges], "dst": [e.dst for e in edges], "sizes_bytes": list(sizes), "size": size}


def path_columns(path: CriticalPath, number: Mapping[str, int]) -> dict[str, Any]:
    """A critical path by the places of its tasks."""
    by_phase = {phase: [number.get(i, i) for i in ids] for phase, ids in path.by_phase.items()}
    return {"places": [number.get(i, i) for i in path.tasks], "places_by_phase": by_phase}


def placement_columns(placements: Sequence[Placement], number: Mapping[str, int]) -> dict[str, Any]:
    """Placements: tasks and lanes, the durations that there are and which is whose, and what starts by itself.

    Each of the others starts when the one before it on its lane ends, the first at 0.
    """
    durations: dict[float, int] = {}
    duration, free_s = [], dict[int, float]()
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    for at, p in enumerate(placements):
        if p.start_s != free_s.get(p.lane, 0.0):
            starts[at] = p.start_s
        duration_s = p.end_s - p.start_s
        if p.start_s + duration_s != p.end_s:
            duration_s = _between(p.start_s, p.end_s)
            if p.start_s + duration_s != p.end_s:
                ends[at] = p.end_s
        duration.append(durations.setdefault(duration_s, len(durations)))
        free_s[p.lane] = p.end_s
    return {
        **_task_steps([number.get(p.task, p.task) for p in placements]),
        "lane": [p.lane for p in placements],
        "durations_s": list(durations),
        "duration": duration,
        "starts": {"placement": list(starts), "start_s": list(starts.values())},
        "ends": {"placement": list(ends), "end_s": list(ends.values())},
    }


def _task_steps(tasks: Sequence[int | str]) -> dict[str, Any]:
    """Places of tasks by how far each is from the one before, since most follow each other; with ids among them as they
    are."""
    places = [place for place in tasks if not isinstance(place, str)]
    if len(places) < len(tasks):
        return {"task": list(tasks)}
    return {"task_step": [place - before for before, place in zip([-1, *places], places, strict=False)]}


def _between(start_s: float, end_s: float) -> float:
    """What gives the end when it is added to the start, though their difference misses it; that where nothing does."""
    duration_s = end_s - start_s
    near = (math.nextafter(duration_s, math.inf), math.nextafter(duration_s, 0.0))
    return next((d for d in near if start_s + d == end_s), duration_s)


def by_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """A report's document with `tasks`, `edges`, `placements` and the critical path as reports of few tasks have them;
    one that has them already as it is."""
    if "task_columns" not in document:
        return dict(document)
    rest = {key: value for key, value in document.items() if not key.endswith("_columns")}
    tasks = _task_rows(document["task_columns"])
    ids = [t["id"] for t in tasks]
    edges = document["edge_columns"]
    path = document["critical_path"]
    return rest | {
        "tasks": tasks,
        "edges": [
            {"src": ids[src], "dst": ids[dst], "bytes": edges["sizes_bytes"][size]}
            for src, dst, size in zip(edges["src"], edges["dst"], edges["size"], strict=True)
        ],
        "critical_path": {
            "tasks": [_name(place, ids) for place in path["places"]],
            "length": path["length"],
            "weight": path["weight"],
            "by_phase": {p: [_name(place, ids) for place in places] for p, places in path["places_by_phase"].items()},
        },
        "predictions": [
            {key: value for key, value in p.items() if key != "placement_columns"}
            | {"placements": _placement_rows(p["placement_columns"], ids)}
            for p in document["predictions"]
        ],
    }


def _name(place: int | str, ids: Sequence[str]) -> str:
    """A task's id: of one that a choice made the report has no place."""
    return place if isinstance(place, str) else ids[place]


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _task_rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    kinds = _rows(columns["kinds"])
    rows = [kinds[k] for k in columns["kind"]]
    ids = columns.get("id") or [
        task_id(row["block"], row["branch"], row["phase"], number)
        for row, number in zip(rows, columns["number"], strict=True)
    ]
    return [{"id": name, **row} for name, row in zip(ids, rows, strict=True)]


def _placement_rows(columns: Mapping[str, Any], ids: Sequence[str]) -> list[dict[str, Any]]:
    start_at = dict(zip(columns["starts"]["placement"], columns["starts"]["start_s"], strict=True))
    end_at = dict(zip(columns["ends"]["placement"], columns["ends"]["end_s"], strict=True))
    free_s: dict[int, float] = {}
    rows = []
    tasks = columns["task"] if "task" in columns else list(accumulate(columns["task_step"], initial=-1))[1:]
    for at, (task, lane) in enumerate(zip(tasks, columns["lane"], strict=True)):
        start_s = start_at.get(at, free_s.get(lane, 0.0))
        end_s = end_at.get(at, start_s + columns["durations_s"][columns["duration"][at]])
        free_s[lane] = end_s
        rows.append({"task": _name(task, ids), "lane": lane, "start_s": start_s, "end_s": end_s})
    return rows
