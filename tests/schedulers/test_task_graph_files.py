"""Task graphs from elsewhere: read as they are, or refused in one line that says where they are wrong."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw import limits, task_graph_files
from pararev_hw.errors import BadFile, BadInput, PararevError, UnknownName
from pararev_hw.task_graph_files import read_problem
from pararev_hw.types import CONTROL, SchedulingProblem, TaskCost

INSTANCES = Path(__file__).parents[1] / "golden" / "instances"
GRAPH = {
    "tasks": [
        {"id": "conv", "time_s": 0.5, "memory_bytes": 100},
        {"id": "norm", "time_s": 1, "lanes": [0, 2]},
        {"id": 7, "time_s": 0},
    ],
    "edges": [{"src": "conv", "dst": "norm", "bytes": 64}, {"src": "norm", "dst": 7}],
}


names = st.text(min_size=1).filter(lambda text: not CONTROL.search(text))


def written(folder: Path, text: str, name: str = "graph.json") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_json_tasks_edges_lanes_and_memory_arrive_as_written(tmp_path: Path) -> None:
    costs = read_problem(written(tmp_path, json.dumps(GRAPH)), lanes=3, memory_limit_bytes=1000)
    assert costs.tasks == (
        TaskCost("conv", (0.5, 0.5, 0.5), memory_bytes=100),
        TaskCost("norm", (1.0, math.inf, 1.0)),
        TaskCost("7", (0.0, 0.0, 0.0)),
    )
    assert [(e.src, e.dst, e.delay_s, e.bytes) for e in costs.edges] == [(0, 1, 0.0, 64), (1, 2, 0.0, 0)]
    assert (costs.lanes, costs.memory_limit_bytes, costs.device) == (3, 1000, "3 lanes")
    assert costs.not_modelled == ("energy",)


def test_a_document_that_was_read_is_the_problem_of_its_file(tmp_path: Path) -> None:
    file = written(tmp_path, json.dumps(GRAPH))
    assert read_problem(file, lanes=3, document=json.loads(file.read_text())) == read_problem(file, lanes=3)


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        ({"src": "conv", "dst": "nrm"}, "edges[0].dst is 'nrm', which is no task: did you mean 'norm'?"),
        ({"src": "conv", "dst": "norm", "bytes": -1}, "bytes is -1: it must be a finite number >= 0"),
        ({"src": "conv", "dst": "norm", "bytes": True}, "bytes is true: it must be a finite number >= 0"),
        ({"src": "conv", "dst": "norm", "byte": 1}, "unknown key 'byte'"),
        ({"src": "conv", "dst": ["norm"]}, "edges[0].dst is a list: an id is a text"),
        ({"src": "conv"}, "edges[0] has no 'dst'"),
    ],
)
def test_an_edge_that_is_none_is_refused(tmp_path: Path, edge: object, words: str) -> None:
    with pytest.raises(BadFile, match=re.escape(words)):
        read_problem(written(tmp_path, json.dumps({**GRAPH, "edges": [edge]})), lanes=3)


def test_an_edge_may_name_a_number_and_move_a_whole_float(tmp_path: Path) -> None:
    edges = [{"src": "norm", "dst": 7}, {"src": "conv", "dst": "norm", "bytes": 64.0}]
    costs = read_problem(written(tmp_path, json.dumps({**GRAPH, "edges": edges})), lanes=3)
    assert [(e.src, e.dst, e.bytes) for e in costs.edges] == [(1, 2, 0), (0, 1, 64)]


def test_json_without_edges_or_tasks_is_a_problem_too(tmp_path: Path) -> None:
    assert read_problem(written(tmp_path, '{"tasks": []}'), lanes=2).tasks == ()
    only = read_problem(written(tmp_path, '{"tasks": [{"id": "a", "time_s": 1}]}'), lanes=1)
    assert (len(only.tasks), only.edges, only.not_modelled) == (1, (), ("energy", "memory"))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_written_as_json_is_read_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    n, lanes = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 3))
    times = st.floats(0, 1e9)
    ids = data.draw(st.lists(names, min_size=n, max_size=n, unique=True))
    tasks = [{"id": i, "time_s": data.draw(times), "memory_bytes": data.draw(st.integers(0, 2**60))} for i in ids]
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    document = {"tasks": tasks, "edges": [{"src": ids[a], "dst": ids[b]} for a, b in edges]}
    path = written(tmp_path_factory.mktemp("graphs"), json.dumps(document))
    costs = read_problem(path, lanes=lanes)
    assert [(c.task, c.times_s, c.memory_bytes) for c in costs.tasks] == [
        (t["id"], (t["time_s"],) * lanes, t["memory_bytes"]) for t in tasks
    ]
    assert [(e.src, e.dst) for e in costs.edges] == edges


A = '{"id": "a", "time_s": 1}'
B = '{"id": "b", "time_s": 1}'
BAD_JSON = {
    "empty file": ("", r"is empty"),
    "blank file": (" \n ", r"is empty"),
    "half-written": ('{"tasks": [\n  {"id": "a", "time_s"', r"not valid JSON in line 2, column \d+"),
    "not JSON": ("tasks:\n  - a", r"not valid JSON in line 1, column 1 "),
    "a list": ("[]", r"the file is a list: it must be an object with tasks, edges"),
    "no tasks": ('{"edges": []}', r"the file has no 'tasks'"),
    "tasks no list": ('{"tasks": {"a": 1}}', r"tasks is an object: it must be a list"),
    "task no object": (
        '{"tasks": ["a"]}',
        r'tasks\[0\] is "a": it must be an object with id, time_s, memory_bytes, lanes',
    ),
    "unknown key": (f'{{"task": [{A}]}}', r"the file has an unknown key 'task': did you mean 'tasks'\?"),
    "unknown task key": (
        '{"tasks": [{"id": "a", "time": 1}]}',
        r"tasks\[0\] has an unknown key 'time': did you mean 'time_s'\?",
    ),
    "unknown edge key": (
        f'{{"tasks": [{A}, {B}], "edges": [{{"source": "a", "dst": "b"}}]}}',
        r"edges\[0\] has an unknown key 'source'.*known: src, dst, bytes",
    ),
    "key twice": ('{"tasks": [{"id": "a", "id": "b", "time_s": 1}]}', r"key 'id' is given twice"),
    "no id": ('{"tasks": [{"time_s": 1}]}', r"tasks\[0\] has no 'id'"),
    "no time": ('{"tasks": [{"id": "a"}]}', r"tasks\[0\] has no 'time_s'"),
    "id obeyed by a terminal": (
        '{"tasks": [{"id": "a\\u001b[2J", "time_s": 1}]}',
        r"tasks\[0\].id is 'a.*control character",
    ),
    "empty id": ('{"tasks": [{"id": "", "time_s": 1}]}', r'tasks\[0\].id is "": an id is a text that is not empty'),
    "id a fraction": ('{"tasks": [{"id": 1.5, "time_s": 1}]}', r"tasks\[0\].id is 1.5: an id is a text"),
    "duplicate id": (f'{{"tasks": [{A}, {B}, {A}]}}', r"task id 'a' occurs twice, as tasks\[0\] and tasks\[2\]"),
    "number and text of one id": (
        '{"tasks": [{"id": "1", "time_s": 1}, {"id": 1, "time_s": 1}]}',
        r"task id '1' occurs twice",
    ),
    "NaN time": ('{"tasks": [{"id": "a", "time_s": NaN}]}', r"holds NaN, which is no JSON number: numbers are finite"),
    "infinite time": ('{"tasks": [{"id": "a", "time_s": -Infinity}]}', r"holds -Infinity"),
    "overflowing time": ('{"tasks": [{"id": "a", "time_s": 1e999}]}', r"time_s of task 'a' is Infinity: .* finite"),
    "negative time": (
        '{"tasks": [{"id": "a", "time_s": -1}]}',
        r"time_s of task 'a' is -1: it must be a finite number",
    ),
    "time a text": ('{"tasks": [{"id": "a", "time_s": "1"}]}', r'time_s of task \'a\' is "1"'),
    "time a truth value": ('{"tasks": [{"id": "a", "time_s": true}]}', r"time_s of task 'a' is true"),
    "time null": ('{"tasks": [{"id": "a", "time_s": null}]}', r"time_s of task 'a' is null"),
    "endless time": (f'{{"tasks": [{{"id": "a", "time_s": {"9" * 400}}}]}}', r"time_s of task 'a' is 9+: it must be"),
    "absurd time": (f'{{"tasks": [{{"id": "a", "time_s": {"9" * 9000}}}]}}', r"holds a number of thousands of digits"),
    "half a byte": (
        '{"tasks": [{"id": "a", "time_s": 1, "memory_bytes": 1.5}]}',
        r"memory_bytes of task 'a' is 1.5: it must be a whole number",
    ),
    "negative bytes": ('{"tasks": [{"id": "a", "time_s": 1, "memory_bytes": -1}]}', r"memory_bytes of task 'a' is -1"),
    "no lane": (
        '{"tasks": [{"id": "a", "time_s": 1, "lanes": []}]}',
        r"lanes of task 'a' is empty: allow at least one",
    ),
    "lane too high": ('{"tasks": [{"id": "a", "time_s": 1, "lanes": [2]}]}', r"'a' holds 2: lanes are numbered 0..1"),
    "lane a text": (
        '{"tasks": [{"id": "a", "time_s": 1, "lanes": ["0"]}]}',
        r"'a' holds \"0\": lanes are numbered 0..1",
    ),
    "unknown source": (
        f'{{"tasks": [{A}, {B}], "edges": [{{"src": "aa", "dst": "b"}}]}}',
        r"edges\[0\].src is 'aa', which is no task: did you mean 'a'\?",
    ),
    "unknown target": (
        f'{{"tasks": [{A}], "edges": [{{"src": "a", "dst": "z"}}]}}',
        r"edges\[0\].dst is 'z', which is no",
    ),
    "negative edge bytes": (
        f'{{"tasks": [{A}, {B}], "edges": [{{"src": "a", "dst": "b", "bytes": -5}}]}}',
        r"edges\[0\].bytes is -5",
    ),
    "cycle": (
        f'{{"tasks": [{A}, {B}], "edges": [{{"src": "a", "dst": "b"}}, {{"src": "b", "dst": "a"}}]}}',
        r"the tasks form a cycle: (a -> b -> a|b -> a -> b)",
    ),
    "loop": (f'{{"tasks": [{A}], "edges": [{{"src": "a", "dst": "a"}}]}}', r"the tasks form a cycle: a -> a"),
    "too deep": ("[" * 200_000, r"nested too deeply"),
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_bad_json_is_refused_in_one_line_that_names_the_place(tmp_path: Path, what: str) -> None:
    text, message = BAD_JSON[what]
    path = written(tmp_path, text)
    with pytest.raises(BadFile, match=message) as caught:
        read_problem(path, lanes=2)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_damage_to_a_file_ends_in_anything_but_a_graph_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["json", "stg", "jsp"]))
    sources = {
        "json": json.dumps(GRAPH),
        "stg": "2\n0 0 0\n1 5 1 0\n2 3 1 1\n3 0 1 2\n",
        "jsp": "2 2\n0 3 1 2\n1 4 0 1\n",
    }
    text = sources[kind]
    at, end = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    damaged = text[:at] + data.draw(st.text(alphabet='01-.e+#"{}[],: \nNaN\x00é', max_size=4)) + text[end:]
    path = tmp_path_factory.mktemp("graphs") / "damaged"
    path.write_text(damaged, encoding="utf-8")
    try:
        costs = read_problem(path, format=kind, lanes=3 if kind != "jsp" else None)
    except PararevError as e:
        assert "\n" not in str(e)
    else:
        assert isinstance(costs, SchedulingProblem)


def test_a_call_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(GRAPH))
    with pytest.raises(BadInput, match=r"graph.json does not say how many lanes there are: give the number"):
        read_problem(path)
    for lanes in (0, -1, 10**9):
        with pytest.raises(BadInput, match=rf"{lanes} lanes: a problem has 1 to 1024"):
            read_problem(path, lanes=lanes)
    with pytest.raises(BadInput, match=r"a memory limit of -1 bytes"):
        read_problem(path, lanes=3, memory_limit_bytes=-1)
    with pytest.raises(UnknownName, match=r"no problem format is called 'jsn': did you mean json\?"):
        read_problem(path, lanes=3, format="jsn")
    with pytest.raises(BadInput, match=r"the name 'la01' does not tell the format"):
        read_problem(INSTANCES / "la01")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"gone.json: cannot be read: No such file"):
        read_problem(tmp_path / "gone.json", lanes=1)
    with pytest.raises(BadFile, match=r"is no regular file"):
        read_problem(tmp_path, format="json", lanes=1)
    (tmp_path / "binary.json").write_bytes(b"\x93NUMPY\xff")
    with pytest.raises(BadFile, match=r"byte 0 is not UTF-8"):
        read_problem(tmp_path / "binary.json", lanes=1)


def test_a_file_over_the_size_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(limits.TASK_GRAPH_BYTES + 1)  # sparse: takes no room
    with pytest.raises(BadFile, match=rf"larger than {limits.TASK_GRAPH_BYTES} bytes"):
        read_problem(path, lanes=1)


def test_more_times_than_memory_holds_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TIMES", 8)
    with pytest.raises(BadFile, match=r"3 tasks on 3 lanes: at most 8 times are held"):
        read_problem(written(tmp_path, json.dumps(GRAPH)), lanes=3)


@pytest.mark.parametrize("path", sorted(INSTANCES.glob("*.stg")), ids=lambda p: p.name)
def test_a_standard_task_graph_has_the_tasks_edges_and_critical_path_that_it_states(path: Path) -> None:
    costs = read_problem(path, lanes=4)
    trailer = dict(line[1:].split(":", 1) for line in path.read_text().splitlines() if line[:2] == "# " and ":" in line)
    stated = {key.strip(): float(trailer[key].split()[0]) for key in trailer if key.split()[0] in ("Edges", "CP")}
    assert len(costs.tasks) == int(path.name.split("_")[0])
    assert len(costs.edges) == stated["Edges"]
    ends: dict[int, float] = {}
    for i in costs.topological_order():
        ends[i] = costs.tasks[i].best_s + max((ends[e.src] for e in costs.edges if e.dst == i), default=0.0)
    assert max(ends.values()) == stated["CP Length"]
    assert costs.lanes == 4 and task_graph_files.ASSUMED_UNIT in costs.assumptions


def test_a_job_shop_has_one_lane_per_machine_and_one_chain_per_job() -> None:
    costs = read_problem(INSTANCES / "ft06.jsp")
    assert (costs.lanes, len(costs.tasks), len(costs.edges)) == (6, 36, 30)
    first = costs.tasks[0]  # "2 1" begins the first row: machine 2, time 1
    assert (first.task, first.times_s) == ("0.0", (math.inf, math.inf, 1.0, math.inf, math.inf, math.inf))
    assert [(e.src, e.dst) for e in costs.edges[:6]] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7)]


def test_a_file_without_a_telling_ending_is_read_by_its_format() -> None:
    costs = read_problem(INSTANCES / "la01", format="jsp", lanes=5)
    assert (costs.lanes, len(costs.tasks)) == (5, 50)
    with pytest.raises(BadFile, match=r"la01: 4 lanes asked for, but every machine is a lane: .* say 5"):
        read_problem(INSTANCES / "la01", format="jsp", lanes=4)


STG = "2\n0 0 0\n1 5 1 0\n2 3 1 1\n3 0 1 2\n"
BAD_STG = {
    "words": ("two\n", r"line 1: 'two' is not a row of numbers"),
    "comments only": ("# nothing\n", r"holds nothing but comments"),
    "a full first line": (STG[2:], r"line 1: must hold the number of tasks alone, not 3 numbers"),
    "cut off": (STG[:20], r"says 2 tasks, which with the two dummies makes 4 rows: found 3"),
    "ids out of order": (STG.replace("\n2 3", "\n4 3"), r"line 4: must hold id 2, its time"),
    "too few predecessors": (STG.replace("2 3 1 1", "2 3 2 1"), r"line 4: must hold id 2"),
    "negative time": (
        STG.replace("1 5 1", "1 -5 1"),
        r"line 3: time of task 1 is -5.0: it must be a finite number >= 0",
    ),
    "NaN time": (STG.replace("1 5 1", "1 nan 1"), r"line 3: time of task 1 is NaN"),
    "unknown predecessor": (STG.replace("2 3 1 1", "2 3 1 9"), r"line 4: task 2 names predecessor 9: tasks are 1..2"),
    "half a predecessor": (STG.replace("2 3 1 1", "2 3 1 0.5"), r"line 4: a predecessor of task 2 is 0.5"),
    "a dummy with work": (STG.replace("0 0 0", "0 4 0"), r"line 2: task 0 is a dummy: its time must be 0, not 4"),
    "cycle": (STG.replace("1 5 1 0", "1 5 1 2"), r"the tasks form a cycle: (1 -> 2 -> 1|2 -> 1 -> 2)"),
    "endless count": ("1e999\n", r"line 1: the number of tasks is inf"),
}
JSP = "# two\n2 2\n0 3 1 2\n1 4 0 1\n"
BAD_JSP = {
    "one number first": (
        JSP.replace("2 2", "2"),
        r"line 2: must hold the numbers of jobs and of machines, not 1 numbers",
    ),
    "no machine": ("1 0\n", r"line 1: 0 machines: a problem has 1 to 1024"),
    "too many machines": ("1 1000000\n0 1\n", r"line 1: 1000000 machines"),
    "a job missing": (JSP[: JSP.index("1 4")], r"says 2 jobs, one per row: found 1"),
    "a row cut off": (JSP[:-2], r"line 4: must hold 2 pairs of machine and time, found 3 numbers"),
    "unknown machine": (JSP.replace("1 4", "2 4"), r"line 4: operation 0 of job 1: machine 2: machines are 0..1"),
    "negative machine": (JSP.replace("1 4", "-1 4"), r"line 4: operation 0 of job 1: machine is -1"),
    "infinite time": (JSP.replace("1 4", "1 inf"), r"line 4: operation 0 of job 1: time is Infinity"),
}


@pytest.mark.parametrize(
    ("kind", "what"), [("stg", w) for w in BAD_STG] + [("jsp", w) for w in BAD_JSP], ids=lambda v: v.replace(" ", "-")
)
def test_bad_rows_are_refused_in_one_line_that_names_the_line(tmp_path: Path, kind: str, what: str) -> None:
    text, message = (BAD_STG if kind == "stg" else BAD_JSP)[what]
    path = written(tmp_path, text, f"bad.{kind}")
    with pytest.raises(BadFile, match=message) as caught:
        read_problem(path, lanes=2 if kind == "stg" else None)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
