"""Dependencies, grouping, the critical path, and the graph's file."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from dataclasses import replace
from functools import cache
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw import models
from pararev_hw.errors import BadFile
from pararev_hw.graph import critical_path, dumps, from_document, load, op_parallelism, to_document
from pararev_hw.tracing import trace_step
from pararev_hw.tracing.dependencies import dependencies
from pararev_hw.tracing.grouping import Key, Member, each_alone, group
from pararev_hw.types import SCHEMA_VERSION, BlockGraph, LayerSpikes, Spikes

# ---- dependencies


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 6), st.integers(1, 4)), max_size=14))
def test_two_ops_are_ordered_exactly_where_one_writes_bytes_that_the_other_touches(ops: list[Any]) -> None:
    """Against the definition: for every pair, conflict means a path, and a path means a chain of conflicts."""
    accesses = [
        ((), ((s, lo, lo + n),), ()) if not writes else ((), (), ((s, lo, lo + n),)) for writes, s, lo, n in ops
    ]
    after, _ = dependencies(accesses)
    found = nx.DiGraph()
    found.add_nodes_from(range(len(ops)))
    found.add_edges_from((a, k) for k, follow in enumerate(after) for a in follow)
    conflicts = nx.DiGraph()
    conflicts.add_nodes_from(range(len(ops)))
    for j, (w2, s2, lo2, n2) in enumerate(ops):
        for i, (w1, s1, lo1, n1) in enumerate(ops[:j]):
            if s1 == s2 and (w1 or w2) and lo1 < lo2 + n2 and lo2 < lo1 + n1:
                conflicts.add_edge(i, j)
    assert set(nx.transitive_closure(found).edges) == set(nx.transitive_closure(conflicts).edges)


def test_bytes_flow_from_the_writer_whose_bytes_are_read() -> None:
    write_all, write_half = ((), (), ((0, 0, 100),)), ((), (), ((0, 50, 100),))
    after, flows = dependencies([write_all, write_half, ((), ((0, 0, 100),), ())])
    assert after[2] == (0, 1)
    assert {(src, count) for src, dst, _, count in flows if dst == 2} == {(0, 100), (1, 50)}


# ---- grouping


@st.composite
def step(draw: st.DrawFn) -> list[Member]:
    members: list[Member] = []
    for k in range(draw(st.integers(1, 24))):
        after = tuple(sorted(draw(st.sets(st.integers(0, k - 1), max_size=3)))) if k else ()
        key = Key(draw(st.sampled_from("abc")), "", draw(st.sampled_from(["forward", "backward"])))
        members.append(Member(key, after, glue=draw(st.booleans()), view=draw(st.booleans()) and len(after) < 2))
    return members


@settings(max_examples=300, deadline=None)
@given(step())
def test_groups_never_form_a_cycle_and_hold_every_op_that_is_no_loose_view_once(members: list[Member]) -> None:
    groups, of = group(members)
    order = nx.DiGraph()
    order.add_nodes_from(range(len(groups)))
    order.add_edges_from(
        (of[a], of[k]) for k, m in enumerate(members) for a in m.after if of[a] >= 0 and of[k] >= 0 and of[a] != of[k]
    )
    assert nx.is_directed_acyclic_graph(order)
    assert all(a < b for a, b in order.edges), "groups stand in a topological order"
    assert sorted(k for g in groups for k in g.ops) == [k for k, at in enumerate(of) if at >= 0]
    assert all(members[k].view for k, at in enumerate(of) if at < 0)
    for at, g in enumerate(groups):
        assert all(of[k] == at for k in g.ops)


@settings(max_examples=200, deadline=None)
@given(step())
def test_glue_never_makes_a_group_wait_for_what_its_own_work_did_not_need(members: list[Member]) -> None:
    """Where glue joins a group that was there before it, the group followed all that the glue needs already."""
    _, of = group(members)
    order = nx.DiGraph()
    for k, m in enumerate(members):
        needed = {of[a] for a in m.after if of[a] >= 0} - {of[k]}
        joined = any(of[j] == of[k] and not members[j].view for j in range(k))
        if m.glue and not m.view and joined:
            assert needed <= (nx.ancestors(order, of[k]) if of[k] in order else set())
        order.add_edges_from((n, of[k]) for n in needed if of[k] >= 0)


def test_each_alone_makes_a_task_of_every_op_and_leaves_views_with_their_makers() -> None:
    key = Key("a", "", "forward")
    members = [Member(key, ()), Member(key, (0,), view=True), Member(key, (1,)), Member(key, (), view=True)]
    groups, of = each_alone(members)
    assert of == (0, 0, 1, -1)
    assert [g.ops for g in groups] == [(0, 1), (2,)]
    assert [g.number for g in groups] == [1, 2]


# ---- critical path


@cache
def small(name: str) -> BlockGraph:
    torch.manual_seed(1)
    model = models.create(name, width=0.0625, num_classes=10, timesteps=2)
    return trace_step(model, torch.empty(2, 3, 16, 16)).graph


def test_the_critical_path_is_the_longest_of_all_paths() -> None:
    graph = small("pararevsnn37")
    weights = [float((7 * k) % 11 + 1) for k in range(len(graph.tasks))]
    path = critical_path(graph, weights)
    tree = nx.DiGraph()
    tree.add_nodes_from(range(len(graph.tasks)))
    tree.add_edges_from((e.src, e.dst, {"weight": weights[e.dst]}) for e in graph.edges)
    tree.add_edges_from(("start", k, {"weight": weights[k]}) for k in range(len(graph.tasks)))
    assert path.length == pytest.approx(nx.dag_longest_path_length(tree))
    index = {t.id: k for k, t in enumerate(graph.tasks)}
    edges = {(e.src, e.dst) for e in graph.edges}
    assert all((index[a], index[b]) in edges for a, b in zip(path.tasks, path.tasks[1:], strict=False))
    for phase, tasks in path.by_phase.items():
        assert all(graph.tasks[index[t]].phase == phase for t in tasks)


# ---- the file


def test_what_single_operations_allow_is_their_time_over_that_of_their_longest_chain() -> None:
    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin() + x.cos()

    graph = trace_step(Sum(), torch.zeros(2, 3), loop=None, granularity="block").graph
    assert [graph.op_types[op.type].name for op in graph.ops] == [
        "aten.sin.default",
        "aten.cos.default",
        "aten.add.Tensor",
    ]
    assert op_parallelism(graph, [3.0, 2.0, 1.0]) == 6 / 4  # sin beside cos, then their sum
    assert op_parallelism(graph, [0.0, 0.0, 0.0]) == 1


@pytest.mark.parametrize("name", ["pararevsnn37", "msresnet18"])
def test_a_graph_survives_its_file(name: str, tmp_path: Any) -> None:
    graph = small(name)
    path = tmp_path / "graph.json"
    path.write_text(dumps(graph))
    assert load(path) == graph


def test_the_document_says_what_scripts_rely_on() -> None:
    document = to_document(small("pararevsnn21"))
    assert document["schema_version"] == SCHEMA_VERSION
    assert {"ops", "flops", "macs", "sops", "unknown_ops"} <= set(document["totals"])
    assert document["totals"]["macs"] * 2 == document["totals"]["flops"]
    ids = {t["id"] for t in document["tasks"]}
    assert len(ids) == len(document["tasks"])
    assert all(e["src"] in ids and e["dst"] in ids and e["bytes"] >= 0 for e in document["edges"])
    assert set(document["critical_path"]["tasks"]) <= ids
    json.dumps(document, allow_nan=False)


@cache
def tiny() -> BlockGraph:
    """A step of a dozen ops: what a file may get wrong needs no more of them."""
    torch.manual_seed(1)
    stem, head = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4 * 6 * 6, 5)
    model = torch.nn.Sequential(OrderedDict(stem=stem, flat=torch.nn.Flatten(), head=head))
    return trace_step(model, torch.empty(2, 3, 8, 8)).graph


@cache
def tiny_text() -> str:
    return dumps(tiny())


def broken(change: Any) -> str:
    document = json.loads(tiny_text())
    change(document)
    with pytest.raises(BadFile) as caught:
        from_document(document, "graph.json")
    message = str(caught.value)
    assert message.startswith("graph.json: ")
    assert "\n" not in message
    return message


def test_what_is_wrong_with_a_graph_file_is_said_in_one_line() -> None:
    assert "newer" in broken(lambda d: d.update(schema_version=99))
    assert "schema_version" in broken(lambda d: d.pop("schema_version"))
    assert "'tasks'" in broken(lambda d: d.pop("tasks"))
    assert "'flops'" in broken(lambda d: d["tasks"][0].pop("flops"))
    assert "count" in broken(lambda d: d["tasks"][0].update(flops=-1))
    assert "count" in broken(lambda d: d["tasks"][0].update(flops=1.5))
    assert "exist" in broken(lambda d: d["tasks"][0].update(op_indices=[10**9]))
    back = {"bytes": 0, "dst": "stem:forward"}
    assert "backwards" in broken(lambda d: d["edges"].append({"src": d["tasks"][-1]["id"], **back}))
    assert "nowhere" in broken(lambda d: d["edges"].append({"src": "nowhere", **back}))
    assert "one id" in broken(lambda d: d["tasks"].append(copy.deepcopy(d["tasks"][0])))
    assert "op 0" in broken(lambda d: d["ops"]["type"].__setitem__(0, 10**6))
    assert "follows" in broken(lambda d: d["ops"]["after"].__setitem__(0, [5]))
    assert "storage" in broken(lambda d: d["ops"]["reads"].__setitem__(1, [10**9]))
    assert "train, infer" in broken(lambda d: d.update(mode="dream"))
    assert "at least 1" in broken(lambda d: d.update(batch=0))
    assert "at least 1" in broken(lambda d: d.update(timesteps=0))
    assert "from 1" in broken(lambda d: d.update(schema_version=0))
    assert "schema_version" in broken(lambda d: d.update(schema_version=True))
    assert "runs once" in broken(lambda d: d["tasks"][1]["op_indices"].append(d["tasks"][0]["op_indices"][0]))
    assert "peak_op" in broken(lambda d: d["memory"].update(peak_op=len(d["ops"]["type"])))
    assert "before it is born" in broken(lambda d: d["storages"]["born"].__setitem__(-1, len(d["ops"]["type"])))
    assert "integer" in broken(lambda d: d["storages"]["born"].__setitem__(-1, True))
    assert "integer" in broken(lambda d: d["op_types"][0]["attributes"].update(stride=["1"]))
    assert broken(lambda d: d.update(ops=[]))
    assert broken(lambda d: d.update(memory=None))


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 10**5000], ids=["2^63", "-2^63-1", "5000 digits"])
def test_a_number_beyond_64_bits_is_refused_wherever_it_stands(number: int) -> None:
    places = (
        lambda d: d.update(parameters=number),
        lambda d: d["memory"].update(peak_bytes=number),
        lambda d: d["storages"]["bytes"].__setitem__(0, number),
        lambda d: d["storages"]["freed"].__setitem__(0, number),
        lambda d: d["ops"]["type"].__setitem__(0, number),
        lambda d: d["tasks"][0].update(flops=number),
        lambda d: d["edges"][0].update(bytes=number),
        lambda d: d["input_shapes"][0].__setitem__(0, number),
    )
    for place in places:
        assert "bits" in broken(place)


def test_storages_that_64_bits_hold_one_by_one_and_not_together_are_refused() -> None:
    assert "storages hold" in broken(lambda d: d["storages"].update(bytes=[1 << 62] * len(d["storages"]["bytes"])))


@pytest.mark.parametrize("path", [("rate",), ("layers", 0, "density"), ("layers", 0, "channel_density", 0)])
@pytest.mark.parametrize("value", [1.5, -0.1, "0.5", 10**400, True], ids=["1.5", "-0.1", "text", "huge", "true"])
def test_a_spike_rate_or_density_that_is_no_share_is_refused(path: tuple[Any, ...], value: object) -> None:
    graph = tiny()
    layer = LayerSpikes("stem.0", 0.5, 10.0, 20.0, True, (0.5,))
    document = json.loads(dumps(replace(graph, spikes=Spikes(True, "a test", 0.5, (layer,)))))
    assert from_document(document, "graph.json").spikes is not None
    at = document["spikes"]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(BadFile, match="is given where a"):
        from_document(document, "graph.json")


@pytest.mark.parametrize("odd", ["\x1b[2J", "a\nb", "\x9b31m", "\u202egnp"])
def test_text_that_a_terminal_would_obey_is_refused(odd: str) -> None:
    assert "control character" in broken(lambda d: d.update(model=odd))
    assert "control character" in broken(lambda d: d["tasks"][0].update(id=odd, block=odd))
    assert "control character" in broken(lambda d: d["ops"]["module"].__setitem__(0, odd))


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', "[1, 2", "[]", '"x"', "\x00\x01", "1" * 5000])
def test_half_a_file_or_no_graph_at_all_is_refused(text: str, tmp_path: Any) -> None:
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(BadFile):
        load(path)
