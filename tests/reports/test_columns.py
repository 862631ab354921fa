"""What a report says of many tasks by column is what it would say row by row, to the last bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararev_hw.reports import columns
from pararev_hw.types import Edge, Placement
from tests.helpers import hand_built_study

TIMES = st.floats(0, 1e6, allow_subnormal=False)


@given(st.lists(st.tuples(st.integers(0, 2), TIMES, TIMES, st.booleans()), max_size=20))
def test_placements_come_back_to_the_last_bit(drawn: list[tuple[int, float, float, bool]]) -> None:
    placements, free_s = [], [0.0] * 3
    for k, (lane, gap_s, time_s, waits) in enumerate(drawn):
        start_s = free_s[lane] + gap_s if waits else free_s[lane]
        placements.append(Placement(f"t{k}", lane, start_s, start_s + time_s))
        free_s[lane] = start_s + time_s
    packed = columns.placement_columns(placements, {p.task: k for k, p in enumerate(placements)})
    rows = columns._placement_rows(packed, [p.task for p in placements])
    assert rows == [{"task": p.task, "lane": p.lane, "start_s": p.start_s, "end_s": p.end_s} for p in placements]


def test_an_end_that_no_duration_gives_is_given() -> None:
    start_s, end_s = 1.7295521619234933, 131074.6955187148  # both neighbours of their difference miss the end
    packed = columns.placement_columns([Placement("a", 0, start_s, end_s)], {"a": 0})
    assert packed["ends"] == {"placement": [0], "end_s": [end_s]}
    assert columns._placement_rows(packed, ["a"])[0]["end_s"] == end_s


def test_a_task_that_follows_another_at_once_has_no_start_and_shares_its_duration() -> None:
    placements = [Placement("a", 0, 0.0, 1.0), Placement("b", 1, 0.5, 1.5), Placement("c", 0, 1.0, 2.0)]
    assert columns.placement_columns(placements, {"a": 0, "b": 1}) == {
        "task": [0, 1, "c"],  # c is none of the report's tasks: a choice made it
        "lane": [0, 1, 0],
        "durations_s": [1.0],
        "duration": [0, 0, 0],
        "starts": {"placement": [1], "start_s": [0.5]},
        "ends": {"placement": [], "end_s": []},
    }


def test_tasks_that_do_the_same_in_another_step_stand_once() -> None:
    task = hand_built_study.study().graph.tasks[0]
    name = columns.task_id(task.block, task.branch, task.phase, 1)
    tasks = [replace(task, id=name), replace(task, id=f"{name}#2"), replace(task, id=f"{name}#3", flops=task.flops + 1)]
    packed = columns.task_columns(tasks)
    assert (packed["kind"], packed["number"]) == ([0, 0, 1], [1, 2, 3])
    assert packed["kinds"]["flops"] == [task.flops, task.flops + 1]
    assert [row["id"] for row in columns._task_rows(packed)] == [t.id for t in tasks]


@pytest.mark.parametrize("name", ["another name", "b.f:forward#x", "b:forward#1", ""])
def test_ids_that_do_not_follow_from_what_a_task_is_are_given(name: str) -> None:
    task = replace(hand_built_study.study().graph.tasks[0], id=name)
    packed = columns.task_columns([task])
    assert packed["id"] == [name] and "number" not in packed
    assert columns._task_rows(packed)[0]["id"] == name


def test_edges_name_each_size_once() -> None:
    packed = columns.edge_columns([Edge(0, 1, 5), Edge(0, 2, 0), Edge(1, 2, 5)])
    assert packed == {"src": [0, 0, 1], "dst": [1, 2, 2], "sizes_bytes": [5, 0], "size": [0, 1, 0]}


def test_tasks_are_given_by_how_far_each_is_from_the_one_before() -> None:
    assert columns._task_steps([0, 1, 5, 2]) == {"task_step": [1, 1, 4, -3]}
    assert columns._task_steps([0, "fused", 2]) == {"task": [0, "fused", 2]}
    assert columns._task_steps([]) == {"task_step": []}
