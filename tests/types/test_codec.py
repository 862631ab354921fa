"""Every noun comes back from its file equal; what is not one is refused in one line."""

from __future__ import annotations

import json
import math
import textwrap
import typing
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pararev_hw as ph
from pararev_hw import pipeline
from pararev_hw.api.files import NOUNS
from pararev_hw.api.studies import SweepRun
from pararev_hw.devices import load_device
from pararev_hw.errors import BadFile, BadInput
from pararev_hw.reports.sweep import write_sweep
from pararev_hw.reports.validation import validation_document
from pararev_hw.schedulers.document import bare_schedule_document
from pararev_hw.types import (
    BlockGraph,
    Comparison,
    Device,
    DeviceParameter,
    Profile,
    Schedule,
    SchedulingProblem,
    TaskCost,
    Validation,
)
from pararev_hw.types.codec import from_json, to_json
from pararev_hw.types.graph import InMemory
from tests.helpers.hand_built_graphs import pararev_stage
from tests.helpers.scheduling_problems import problems

ROOT = Path(__file__).parents[2]

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    float: FLOATS,
    int: st.integers(-(2**62), 2**62),
    bool: st.booleans(),
    type(None): st.none(),
    Any: TEXTS,
    object: st.none(),
    InMemory: st.builds(InMemory),
}


def drawn(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, from the type alone."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        # a schedule's front holds schedules: here none
        parts = {
            f.name: st.just(()) if hints[f.name] == tuple[kind, ...] else drawn(hints[f.name]) for f in fields(kind)
        }
        return st.fixed_dictionaries(parts).map(lambda given: constructed(kind, given)).filter(lambda v: v is not None)
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return st.sampled_from(inside)
    if origin is tuple:
        if inside[-1] is Ellipsis:
            return st.lists(drawn(inside[0]), max_size=2).map(tuple)
        return st.tuples(*map(drawn, inside))
    if origin is not None and isinstance(origin, type) and issubclass(origin, typing.Mapping):  # type: ignore[arg-type]
        return st.dictionaries(drawn(inside[0]), drawn(inside[1]), max_size=2)
    return st.one_of(*map(drawn, inside))  # a union


def constructed(kind: Any, values: dict[str, Any]) -> Any:
    """The noun of these fields; None where they make none."""
    try:
        return kind(**values)
    except BadInput:
        return None


INSTANCES = ("Plan", "SchedulingProblem", "Study", "Comparison", "Schedule")  # what only algorithms make
EVERY = [noun for name, noun in NOUNS.items() if name not in INSTANCES]


@pytest.mark.parametrize("noun", EVERY, ids=lambda n: n.__name__)
@given(data=st.data())
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_noun_comes_back_equal(noun: type[Any], data: st.DataObject) -> None:
    value = data.draw(drawn(noun))
    text = to_json(value)
    again = from_json(text, noun)
    assert again == value
    assert json.loads(text)["noun"] == noun.__name__
    if hasattr(value, "_repr_html_") and noun is not BlockGraph:  # whose ops must be of its types, as none drawn are
        assert_balanced(value._repr_html_())


def _drawn_schedule(data: st.DataObject) -> Schedule:
    """One whose ratios of times, which are written beside it, are finite."""
    names = ("makespan_s", "sequential_s", "lower_bound_s")
    return replace(data.draw(drawn(Schedule)), **{name: data.draw(st.floats(1e-9, 1e9)) for name in names})


@given(data=st.data())
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_validation_and_a_schedule_in_the_keys_of_scripts_are_read_back_equal(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("written") / "result.json"
    validation = data.draw(drawn(Validation))
    file.write_text(json.dumps(validation_document(validation)), encoding="utf-8")
    assert ph.load(file) == validation
    schedule = replace(_drawn_schedule(data), front=(_drawn_schedule(data),))
    problem = SchedulingProblem("lanes", 1, (), ())
    file.write_text(json.dumps(bare_schedule_document(schedule, problem)), encoding="utf-8")
    assert ph.load(file) == schedule


def test_a_sweep_in_the_keys_of_scripts_is_read_back_without_its_pictures(tmp_path: Path) -> None:
    spec = """
        name: two
        device: edge8
        networks: [pararevsnn21, revsresnet21]
        batch: 1
        spikes: "0.2"
        modes: infer
        parameters: {network.width: [0.1], lanes: [1, 2], memory_bandwidth_bytes_per_s: [1e9, 17e9]}
        objectives: [latency, energy]
        constraints: [lanes < 9]
    """
    (tmp_path / "two.yaml").write_text(textwrap.dedent(spec), encoding="utf-8")
    result = ph.sweep(tmp_path / "two.yaml", tmp_path / "out", workers=1).result
    assert result.workloads and result.recommended and result.base
    write_sweep(result, tmp_path / "out")  # as the command line does
    again = ph.load(tmp_path / "out")
    assert isinstance(again, SweepRun)
    assert again.result == replace(result, sample=(), explanations=())
    assert list(again.pareto()) == list(result.pareto)
    (tmp_path / "out" / "sweep.json").write_text('{"combinations": 1, "evaluated": 1, "pareto": 3, "objectives": [1]}')
    with pytest.raises(BadFile, match=r"sweep\.json: name is missing"):
        ph.load(tmp_path / "out")
    ph.save(load_device("edge8"), tmp_path / "out" / "sweep.json")
    with pytest.raises(BadFile, match=r"sweep\.json: holds no sweep's results"):
        ph.load(tmp_path / "out")


def assert_balanced(page: str) -> None:
    """Every tag that is opened is closed, so that no text of a file was taken for one."""
    open_tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Tags().feed(page)
    assert not open_tags


@given(problem=problems())
@settings(max_examples=12, deadline=None)
def test_scheduling_problems_and_their_schedules_come_back_equal(problem: SchedulingProblem) -> None:
    from pararev_hw import schedulers

    assert from_json(to_json(problem), SchedulingProblem) == problem
    schedule = schedulers.run(problem, "heft")
    assert from_json(to_json(schedule), type(schedule)) == schedule


def test_what_a_user_saves_is_loaded_equal(tmp_path: Path) -> None:
    file = tmp_path / "noun.json"
    device = load_device("edge8")
    study = pipeline.study(pararev_stage(3, 0.2), device)
    plan = ph.schedule(study.graph, device)
    profile = ph.load_device(ROOT / "tests" / "golden" / "version_0_1_0" / "profile.json")
    assert isinstance(profile, Profile)
    compared = Comparison(device, (study, study))
    for noun in (study, compared, study.graph, device, plan, plan.schedule, plan.costs, plan.predict(), profile):
        ph.save(noun, file)
        assert ph.load(file) == noun
        assert type(ph.load(file)) is type(noun)
    assert ph.load_device(file) == profile  # a profile and a device are files that are named as devices
    ph.save(study.graph, file)
    assert ph.load_graph(file) == study.graph
    file.write_text('{"noun": "Sofa", "fields": {}}', encoding="utf-8")
    with pytest.raises(BadFile, match="holds a 'Sofa', which this release does not know"):
        ph.load(file)
    file.write_text('{"latency_s": 3}', encoding="utf-8")
    with pytest.raises(BadFile, match="holds no result that can be read back"):
        ph.load(file)


def test_a_lane_where_a_task_may_not_run_survives() -> None:
    problem = SchedulingProblem("toy", 2, (TaskCost("a", (1.0, math.inf)),), ())
    text = to_json(problem)
    assert "Infinity" not in text and from_json(text, SchedulingProblem) == problem


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"noun": "Sofa"}, "holds a 'Sofa', not a 'Device'"),
        ({"schema_version": 99}, "schema_version is 99: this release reads 1"),
        ({"schema_version": True}, "schema_version is True"),
        ({"fields": []}, "x.json: "),
        ({"fields": {"name": "a"}}, "is missing"),
    ],
)
def test_a_changed_document_is_refused_in_one_line(change: dict[str, Any], fault: str) -> None:
    parameter = DeviceParameter(1.0, "somebody", "assumed")
    document = json.loads(to_json(Device("a", "cpu", "A", 1, {"memory_bytes": parameter})))
    with pytest.raises(BadFile, match=fault) as caught:
        from_json(json.dumps(document | change), Device, "x.json")
    assert "\n" not in str(caught.value)
    document["fields"]["lane"] = 2
    with pytest.raises(BadFile, match="unknown key 'lane': did you mean 'lanes'"):
        from_json(json.dumps(document), Device, "x.json")
