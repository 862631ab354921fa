"""Reads task graphs that users bring from elsewhere into a scheduling problem.

Three formats: JSON `{"tasks": [{"id", "time_s", "memory_bytes"?, "lanes"?: [0, 2]}], "edges": [{"src", "dst",
"bytes"?}]}`; the Standard Task Graph Set's `.stg` (T. Tobita, H. Kasahara, 2002, doi 10.1002/jos.116), whose two
dummy tasks are left out; and job-shop `.jsp` files (jobs and machines, then a line of machine-time pairs per job), in
which every machine is a lane. The last two have no unit of time: it is read as the second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from pararev_hw import limits
from pararev_hw.documents import parse_json, read_text
from pararev_hw.errors import BadFile, BadInput, unknown_name
from pararev_hw.sizes import counted
from pararev_hw.types import CONTROL, CommEdge, SchedulingProblem, TaskCost

FORMATS = ("json", "stg", "jsp")
HOLDS = "a task graph is a JSON, STG or JSP text"

ASSUMED_DELAY = "data moves between lanes in no time"
ASSUMED_UNIT = "the file's unit of time is the second"


def read_problem(
    path: str | Path,
    *,
    format: str | None = None,
    lanes: int | None = None,
    memory_limit_bytes: int | None = None,
    document: object = None,
) -> SchedulingProblem:
    """The problem in a `.json`, `.stg` or `.jsp` file; `format` says which where the name does not.

    `lanes` must be given, except for `.jsp`, where it is the number of machines. Edges have no delay, tasks no energy.
    `document` is what a `.json` file holds, where it has been read already: its rows are let go of as they are read.
    Raises BadFile for what is wrong in the file, BadInput or UnknownName for what is wrong in the call.
    """
    path = Path(path)
    kind = _format(path, format)
    text = "" if document is not None else read_text(path, limits.TASK_GRAPH_BYTES, HOLDS)
    if lanes is None and kind != "jsp":
        raise BadInput(f"{path} does not say how many lanes there are: give the number (lanes=4)")
    if lanes is not None and not 1 <= lanes <= limits.LANES:
        raise BadInput(f"{lanes} lanes: a problem has 1 to {limits.LANES}")
    if memory_limit_bytes is not None and memory_limit_bytes < 0:
        raise BadInput(f"a memory limit of {memory_limit_bytes} bytes: it must not be negative")
    if kind == "json" and document is None:
        document, text = parse_json(text, str(path)), ""
    try:
        if kind == "jsp":
            lanes, tasks, edges = _read_jsp(text, lanes)
        else:
            assert lanes is not None
            tasks, edges = _read_json(document, lanes) if kind == "json" else _read_stg(text, lanes)
        return SchedulingProblem(
            device=counted(lanes, "lane"),
            lanes=lanes,
            tasks=tuple(tasks),
            edges=tuple(edges),
            memory_limit_bytes=memory_limit_bytes,
            assumptions=(ASSUMED_DELAY,) if kind == "json" else (ASSUMED_DELAY, ASSUMED_UNIT),
            not_modelled=("energy",) if any(c.memory_bytes for c in tasks) else ("energy", "memory"),
        )
    except (BadFile, BadInput) as e:
        raise BadFile(f"{path}: {e}") from None


def _format(path: Path, format: str | None) -> str:
    if format is not None and format not in FORMATS:
        raise unknown_name("problem format", format, FORMATS)
    kind = format or path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise BadInput(f"the name {path.name!r} does not tell the format: give it (format='json', 'stg' or 'jsp')")
    return kind


def _check_size(tasks: int, lanes: int) -> None:
    if tasks * lanes > limits.TIMES:
        raise BadFile(f"{tasks} tasks on {lanes} lanes: at most {limits.TIMES} times are held")


def _read_json(document: object, lanes: int) -> tuple[list[TaskCost], list[CommEdge]]:
    graph = _fields(document, "the file", required=("tasks",), optional=("edges",))
    rows = _list(graph["tasks"], "tasks")
    _check_size(len(rows), lanes)
    tasks: list[TaskCost] = []
    index: dict[str, int] = {}
    for at, row in enumerate(rows):
        fields = _fields(row, f"tasks[{at}]", required=("id", "time_s"), optional=("memory_bytes", "lanes"))
        name = _id(fields["id"], f"tasks[{at}].id")
        if name in index:
            raise BadFile(f"task id {name!r} occurs twice, as tasks[{index[name]}] and tasks[{at}]: ids must be unique")
        index[name] = at
        time_s = _number(fields["time_s"], f"time_s of task {name!r}")
        allowed = _lanes(fields["lanes"], name, lanes) if "lanes" in fields else range(lanes)
        times_s = tuple(time_s if k in allowed else math.inf for k in range(lanes))
        memory_bytes = _bytes(fields.get("memory_bytes", 0), f"memory_bytes of task {name!r}")
        tasks.append(TaskCost(name, times_s, memory_bytes=memory_bytes))
        rows[at] = None
    edges: list[CommEdge] = []
    rows = _list(graph.get("edges", []), "edges")
    for at, row in enumerate(rows):
        edges.append(_plain_edge(row, index) or _edge(row, at, index))
        rows[at] = None
    return tasks, edges


def _plain_edge(row: object, index: Mapping[str, int]) -> CommEdge | None:
    """An edge that names two tasks and perhaps a small whole number of bytes; None: it is to be looked at closely."""
    if type(row) is not dict:
        return None
    src, dst, moved = row.get("src"), row.get("dst"), row.get("bytes", 0)
    if len(row) != 2 + ("bytes" in row) or type(src) is not str or type(dst) is not str or type(moved) is not int:
        return None
    if src not in index or dst not in index or not 0 <= moved < limits.COUNT:
        return None
    return CommEdge(index[src], index[dst], bytes=moved)


def _edge(row: object, at: int, index: Mapping[str, int]) -> CommEdge:
    fields = _fields(row, f"edges[{at}]", required=("src", "dst"), optional=("bytes",))
    ends = {end: _id(fields[end], f"edges[{at}].{end}") for end in ("src", "dst")}
    for end, name in ends.items():
        if name not in index:
            raise BadFile(f"edges[{at}].{end} is {name!r}, which is no task{_nearest(name, index)}")
    moved = _bytes(fields.get("bytes", 0), f"edges[{at}].bytes")
    return CommEdge(index[ends["src"]], index[ends["dst"]], bytes=moved)


def _fields(value: object, where: str, required: Sequence[str], optional: Sequence[str]) -> Mapping[str, object]:
    """An object with exactly these keys."""
    names = (*required, *optional)
    if not isinstance(value, dict):
        raise BadFile(f"{where} is {_quoted(value)}: it must be an object with {', '.join(names)}")
    for key in value:
        if key not in names:
            raise BadFile(f"{where} has an unknown key {key!r}{_nearest(key, names)}; known: {', '.join(names)}")
    for key in required:
        if key not in value:
            raise BadFile(f"{where} has no {key!r}")
    return value


def _nearest(name: str, names: Sequence[str] | Mapping[str, int]) -> str:
    near = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}?" if near else ""


def _quoted(value: object) -> str:
    """A short word for a JSON value in an error line."""
    names = {dict: "an object", list: "a list", type(None): "null"}
    return names.get(type(value)) or f"{json.dumps(value)[:40]}"


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise BadFile(f"{where} is {_quoted(value)}: it must be a list")
    return value


def _id(value: object, where: str) -> str:
    if isinstance(value, str) and value:
        if CONTROL.search(value):
            raise BadFile(f"{where} is {value[:60]!r}: a control character in it would be obeyed by a terminal")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadFile(f"{where} is {_quoted(value)}: an id is a text that is not empty, or a whole number")


def _number(value: object, where: str) -> float:
    """A number >= 0 of which a million can be added up without overflow."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e300:
        return float(value)
    raise BadFile(f"{where} is {_quoted(value)}: it must be a finite number >= 0")


def _bytes(value: object, where: str) -> int:
    number = _number(value, where)
    if number != int(number):
        raise BadFile(f"{where} is {_quoted(value)}: it must be a whole number")
    return value if isinstance(value, int) else int(number)


def _lanes(value: object, task: str, lanes: int) -> frozenset[int]:
    listed = _list(value, f"lanes of task {task!r}")
    if not listed:
        raise BadFile(f"lanes of task {task!r} is empty: allow at least one of 0..{lanes - 1}")
    allowed: set[int] = set()
    for lane in listed:
        if not isinstance(lane, int) or isinstance(lane, bool) or not 0 <= lane < lanes:
            raise BadFile(f"lanes of task {task!r} holds {_quoted(lane)}: lanes are numbered 0..{lanes - 1}")
        allowed.add(lane)
    return frozenset(allowed)


def _rows(text: str) -> list[tuple[int, list[float]]]:
    """Line number and numbers of every line; what follows a `#` is comment."""
    rows: list[tuple[int, list[float]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if words:
            try:
                rows.append((number, [float(w) for w in words]))
            except ValueError:
                raise BadFile(f"line {number}: {' '.join(words)[:40]!r} is not a row of numbers") from None
    if not rows:
        raise BadFile("holds nothing but comments")
    return rows


def _count(value: float, where: str) -> int:
    if not (0 <= value < 1e9 and value == int(value)):
        raise BadFile(f"{where} is {value:g}: it must be a whole number >= 0")
    return int(value)


def _read_stg(text: str, lanes: int) -> tuple[list[TaskCost], list[CommEdge]]:
    """First line the number of tasks n, then n + 2 lines `id time predecessors predecessor...`, ids from 0 up."""
    (first, head), *rows = _rows(text)
    if len(head) != 1:
        raise BadFile(f"line {first}: must hold the number of tasks alone, not {len(head)} numbers")
    n = _count(head[0], f"line {first}: the number of tasks")
    if len(rows) != n + 2:
        raise BadFile(f"says {n} tasks, which with the two dummies makes {n + 2} rows: found {len(rows)}")
    _check_size(n, lanes)
    tasks: list[TaskCost] = []
    edges: list[CommEdge] = []
    for at, (line, row) in enumerate(rows):
        where = f"line {line}: "
        if len(row) < 3 or row[0] != at or len(row) != 3 + row[2]:
            raise BadFile(f"{where}must hold id {at}, its time, the number of predecessors and that many ids")
        time_s = _number(row[1], f"{where}time of task {at}")
        if at in (0, n + 1):
            if time_s:
                raise BadFile(f"{where}task {at} is a dummy: its time must be 0, not {time_s:g}")
            continue
        tasks.append(TaskCost(str(at), (time_s,) * lanes))
        for src in row[3:]:
            before = _count(src, f"{where}a predecessor of task {at}")
            if before > n:
                raise BadFile(f"{where}task {at} names predecessor {before}: tasks are 1..{n}")
            if before > 0:
                edges.append(CommEdge(before - 1, at - 1))
    return tasks, edges


def _read_jsp(text: str, lanes: int | None) -> tuple[int, list[TaskCost], list[CommEdge]]:
    """First line jobs and machines, then for each job its operations in order, each a machine and a time.

    Operation k of job j is task "j.k".
    """
    (first, head), *rows = _rows(text)
    if len(head) != 2:
        raise BadFile(f"line {first}: must hold the numbers of jobs and of machines, not {len(head)} numbers")
    jobs, machines = (
        _count(v, f"line {first}: the number of {w}") for v, w in zip(head, ("jobs", "machines"), strict=True)
    )
    if not 1 <= machines <= limits.LANES:
        raise BadFile(f"line {first}: {machines} machines: a problem has 1 to {limits.LANES}")
    if lanes not in (None, machines):
        raise BadInput(
            f"{counted(lanes, 'lane')} asked for, but every machine is a lane: leave lanes out or say {machines}"
        )
    if len(rows) != jobs:
        raise BadFile(f"says {jobs} jobs, one per row: found {len(rows)}")
    _check_size(jobs * machines, machines)
    tasks: list[TaskCost] = []
    edges: list[CommEdge] = []
    for job, (line, row) in enumerate(rows):
        if len(row) != 2 * machines:
            raise BadFile(f"line {line}: must hold {machines} pairs of machine and time, found {len(row)} numbers")
        for step, (machine, time) in enumerate(zip(row[::2], row[1::2], strict=True)):
            where = f"line {line}: operation {step} of job {job}: "
            lane = _count(machine, f"{where}machine")
            if lane >= machines:
                raise BadFile(f"{where}machine {lane}: machines are 0..{machines - 1}")
            time_s = _number(time, f"{where}time")
            if step:
                edges.append(CommEdge(len(tasks) - 1, len(tasks)))
            tasks.append(TaskCost(f"{job}.{step}", tuple(time_s if k == lane else math.inf for k in range(machines))))
    return machines, tasks, edges
