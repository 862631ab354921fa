"""Device files: what is shipped is sourced, what is written is read back, what is wrong is said in one line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw import graph as graphs
from pararev_hw import models
from pararev_hw.devices import (
    PARAMETERS,
    describe,
    device_from_json,
    device_from_yaml,
    device_names,
    device_to_dict,
    device_to_json,
    device_to_yaml,
    load_device,
    needed_parameters,
)
from pararev_hw.errors import BadFile, BadInput, Infeasible, UnknownName
from pararev_hw.tracing import trace_step
from pararev_hw.types import CONTROL, BlockGraph, Device, DeviceParameter
from tests.helpers.costing import costs
from tests.helpers.spiking_layers import mlp

SHIPPED = tuple(name for name in device_names() if name != "cpu")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_device_gives_every_figure_its_kind_needs_and_a_source_for_each(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert set(needed_parameters(device.kind)) <= set(device.parameters) <= set(PARAMETERS)
    for figure in device.parameters.values():
        assert len(figure.source) > 10
        # nothing that ships with the package was measured on the user's machine
        assert figure.provenance in ("published", "assumed")


def test_every_kind_of_device_ships() -> None:
    assert {load_device(name).kind for name in SHIPPED} == {"gpu", "accelerator", "neuromorphic"}


@pytest.mark.parametrize("name", SHIPPED)
def test_description_lists_every_figure_with_unit_and_meaning(name: str) -> None:
    device = load_device(name)
    rows = describe(device)
    assert {row[0]: row[1] for row in rows} == {n: f.value for n, f in device.parameters.items()}
    assert all(unit and source and meaning for _, _, unit, source, _, meaning in rows)


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1).filter(str.strip)
texts = texts.filter(lambda text: not CONTROL.search(text))


def figures(name: str) -> st.SearchStrategy[tuple[str, DeviceParameter]]:
    """A figure that some machine could have, with its name."""
    low, high = PARAMETERS[name].span
    found = st.builds(
        DeviceParameter, st.floats(low, high), texts, st.sampled_from(["measured", "published", "assumed"])
    )
    return st.tuples(st.just(name), found)


devices = st.builds(
    lambda name, title, lanes, notes, extra: replace(
        load_device("edge8"),
        name=name,
        title=title,
        lanes=lanes,
        notes=tuple(notes),
        parameters={**load_device("edge8").parameters, **extra},
    ),
    texts,
    texts,
    st.integers(1, 1000),
    st.lists(texts, max_size=3),
    st.lists(st.sampled_from([n for n, i in PARAMETERS.items() if not i.whole]).flatmap(figures), max_size=5).map(dict),
)


@settings(deadline=None, max_examples=30)  # YAML in pure Python is slow
@given(devices)
def test_written_device_reads_back_equal(device: Device) -> None:
    assert device_from_yaml(device_to_yaml(device), "d.yaml") == device
    assert device_from_json(device_to_json(device), "d.json") == device


def test_device_file_loads_by_path(tmp_path: Path) -> None:
    for name, text in (
        ("a.yaml", device_to_yaml(load_device("h200"))),
        ("a.json", device_to_json(load_device("h200"))),
    ):
        (tmp_path / name).write_text(text)
        assert load_device(tmp_path / name) == load_device("h200")
        assert load_device(str(tmp_path / name)) == load_device("h200")


def test_cpu_is_the_device_that_was_measured() -> None:
    measured = replace(load_device("h200"), name="cpu", kind="cpu")
    assert load_device("cpu", cpu=measured) is measured
    with pytest.raises(BadInput, match="has to be measured"):
        load_device("cpu")


def test_misspelt_device_name_suggests_the_right_one() -> None:
    with pytest.raises(UnknownName, match="'h20': did you mean h200"):
        load_device("h20")


def _spoilt(**changes: object) -> str:
    """The text of edge8 with some of its keys replaced; a dotted key reaches into a figure, None removes."""
    data = device_to_dict(load_device("edge8"))
    for path, value in changes.items():
        into, *rest = data, *path.split("__")
        for key in rest[:-1]:
            into = into[key]
        if value is None:
            del into[rest[-1]]
        else:
            into[rest[-1]] = value
    return yaml.safe_dump(data)


GOOD = {"value": 1.0, "source": "somebody", "standing": "assumed"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_spoilt(titel="x"), "unknown key 'titel': did you mean 'title'?"),
        (_spoilt(figures__memory_byte=GOOD), "unknown key 'memory_byte' at figures: did you mean 'memory_bytes'?"),
        (
            _spoilt(figures__memory_bytes__vale=1.0, figures__memory_bytes__value=None),
            "unknown key 'vale' at figures.memory_bytes: did you mean 'value'?",
        ),
        (_spoilt(figures__memory_bytes__value=-1.0), "figures.memory_bytes.value is -1.0: "),
        (_spoilt(figures__memory_bytes__value=float("nan")), "figures.memory_bytes.value is nan: "),
        (_spoilt(figures__memory_bytes__value=float("inf")), "figures.memory_bytes.value is inf: "),
        (_spoilt(figures__memory_bytes__value=10**400), "figures.memory_bytes.value is "),
        (_spoilt(figures__memory_bytes__value=True), "figures.memory_bytes.value is True: "),
        (_spoilt(figures__memory_bytes__value="8 GB"), "figures.memory_bytes.value is '8 GB': it must be a number"),
        (_spoilt(figures__noc_bandwidth_bytes_per_s__value=0.0), "figures.noc_bandwidth_bytes_per_s.value is 0: "),
        (_spoilt(figures__memory_bandwidth_bytes_per_s__value=1e-300), "must be between 1000 and 1e+18 byte/s"),
        (_spoilt(figures__memory_bandwidth_bytes_per_s__value=1e300), "must be between 1000 and 1e+18 byte/s"),
        (_spoilt(figures__noc_latency_s__value=3600.0), "must be between 0 and 10 s"),
        (_spoilt(name="edge\x1b[2J"), r"name is 'edge\x1b[2J': a control character"),
        (_spoilt(title="two\nlines"), r"title is 'two\nlines': a control character"),
        (_spoilt(notes=["fine\nlines", "\x9b31m"]), r"notes.1 is '\x9b31m': a control character"),
        (_spoilt(figures__memory_bytes__source="p. 2\u202e"), r"source is 'p. 2\u202e': a control character"),
        (_spoilt(figures__memory_bytes__source=None), "figures.memory_bytes.source is missing"),
        (_spoilt(figures__memory_bytes__source="  "), "figures.memory_bytes.source is blank"),
        (
            _spoilt(figures__memory_bytes__standing="guessed"),
            "figures.memory_bytes.standing is 'guessed': it must be 'measured', 'published' or 'assumed'",
        ),
        (_spoilt(figures__memory_bytes=5.0), "figures.memory_bytes is 5.0: it must be a mapping"),
        (_spoilt(figures=[]), "figures is a list: it must be a mapping"),
        (_spoilt(figures__memory_bytes=None), "figures lacks memory_bytes: a device of kind accelerator needs"),
        (_spoilt(figures__systolic__value=0.5), "figures.systolic.value must be 0 or 1"),
        (
            _spoilt(figures__dataflow__value="weight-stationery"),
            "figures.dataflow.value is 'weight-stationery': it must be one of output-stationary, weight-stationary, ",
        ),
        (_spoilt(figures__dataflow__value=1.0), "figures.dataflow.value is 1.0: it must be one of output-stationary, "),
        (_spoilt(figures__zero_skipping__value=0.5), "figures.zero_skipping.value must be 0 or 1"),
        (_spoilt(kind="tpu"), "kind is 'tpu': it must be 'gpu', 'cpu', 'accelerator' or 'neuromorphic'"),
        (_spoilt(lanes=0), "lanes is 0: it must be at least 1"),
        (_spoilt(lanes="8"), "lanes is '8': it must be a whole number"),
        (_spoilt(lanes=10**9), "lanes is 1000000000: it must be at most 1024"),
        (_spoilt(schema_version=2), "schema_version is 2, but this release reads up to 1"),
        (_spoilt(schema_version=None), "schema_version is missing"),
        (device_to_yaml(load_device("edge8"))[:700], "d.yaml: "),
        (device_to_yaml(load_device("edge8")) + "lanes: 9\n", "key 'lanes' is given twice"),
        ("", "holds no device"),
        ("- a\n- b\n", "holds no device"),
        ("lanes: !!python/object/apply:os.system ['true']\n", "not valid YAML in line 1"),
        ("[" * 5000, "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("a: 2026-99-99\n", "not valid YAML"),
    ],
)
def test_bad_device_file_is_refused_in_one_line_that_says_what_and_where(text: str, said: str) -> None:
    with pytest.raises(BadFile) as caught:
        device_from_yaml(text, "d.yaml")
    message = str(caught.value)
    assert message.startswith("d.yaml: ")
    assert said in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON in line 1"),
        ('{"lanes": 1, "lanes": 2}', "key 'lanes' is given twice"),
        ("[" * 100_000, "not valid JSON"),
        ('{"schema_version": 9}', "schema_version is 9"),
        ('{"schema_version": 1, "nam": "x"}', "unknown key 'nam': did you mean 'name'?"),
    ],
)
def test_bad_device_json_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(BadFile) as caught:
        device_from_json(text, "d.json")
    assert str(caught.value).startswith("d.json: ") and said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", range(0, 3000, 61))
def test_half_written_device_file_is_never_taken_for_a_whole_one(cut: int) -> None:
    device = load_device("edge8")
    with pytest.raises(BadFile):
        device_from_yaml(device_to_yaml(device)[:cut], "d.yaml")
    with pytest.raises(BadFile):
        device_from_json(device_to_json(device)[:cut], "d.json")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.yaml").mkdir()
    for name, said in (
        ("big.yaml", "larger than"),
        ("binary.yaml", "not UTF-8"),
        ("folder.yaml", "cannot be read"),
        ("none.yaml", "cannot be read: No such file"),
    ):
        with pytest.raises(BadFile, match=said) as caught:
            load_device(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))


def test_numbers_may_be_written_as_people_write_them() -> None:
    text = device_to_yaml(load_device("edge8")).replace("value: 8000000000.0", "value: 8e9")
    assert "8e9" in text
    assert device_from_yaml(text, "d.yaml").value("memory_bytes") == 8e9


def test_prediction_stands_no_better_than_its_weakest_figure() -> None:
    device = load_device("edge8")
    assert device.provenance == "assumed"
    measured = {n: replace(f, provenance="measured") for n, f in device.parameters.items()}
    assert replace(device, parameters=measured).provenance == "measured"


@pytest.fixture(scope="module")
def spiking_graph() -> BlockGraph:
    network = models.create("pararevsnn21", width=0.0625, num_classes=10, timesteps=1)
    graph = trace_step(network, torch.empty(2, 3, 16, 16), loop=None).graph
    return graphs.attach(graph, graphs.assumed(graph, 0.2))


def _one_of_each_sort() -> list[str]:
    """The first shipped device of each set of figures: many GPUs differ in their values alone."""
    sorts = {(d.kind, frozenset(d.parameters)): d.name for d in map(load_device, reversed(SHIPPED))}
    return sorted(sorts.values())


@pytest.mark.parametrize("name", _one_of_each_sort())
@pytest.mark.parametrize("end", [0, 1])
def test_at_the_ends_of_what_a_machine_can_have_times_and_energies_stay_finite(
    name: str, end: int, spiking_graph: BlockGraph
) -> None:
    """Each figure of a device at its least (then its most): no warning of numpy's, no time that no float holds."""
    shipped = load_device(name)
    graph = mlp() if shipped.kind == "neuromorphic" else spiking_graph
    for at, figure in shipped.parameters.items():
        odd = replace(shipped, parameters={**shipped.parameters, at: replace(figure, value=PARAMETERS[at].span[end])})
        odd = device_from_json(device_to_json(odd), "d.json")
        try:
            problem = costs(graph, odd)
        except (BadInput, Infeasible):  # no memory, or parts of it that are more than the whole
            rooms = ("neurons_per_core", "synapse_bytes_per_core", "axons_in_per_core", "axons_out_per_core")
            too_small = {(room, 0) for room in ("sram_bytes_per_lane", *rooms)}
            assert (at, end) in too_small | {("sram_weight_share", 1), ("weight_bits", 1)}
            continue
        assert all(math.isfinite(c.best_s) and math.isfinite(sum(c.energy_j.values())) for c in problem.tasks)
