"""What a sweep file may get wrong: one line that says what, where, and what would be right, and exit status 2."""

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararev_hw.errors import PararevError
from pararev_hw.sweeps import expressions, workers
from pararev_hw.sweeps.dominance import _unbeaten, nondominated
from pararev_hw.sweeps.objectives import objective_values
from pararev_hw.sweeps.parameters import Parameter, Space, stepped
from pararev_hw.sweeps.spec import from_yaml
from tests.helpers.command_line import run
from tests.helpers.sweep_helpers import SMALL, small

WRONG = [
    ("sram_bytes_per_lane:", "sram_byte_per_lane:", "sram_bytes_per_lane"),
    ("lanes: [1, 2, 4]", "lanes: []", "parameters.lanes: the range is empty"),
    ("lanes: [1, 2, 4]", "lanes: {from: 8, to: 2}", "the range is empty: from 8 is above to 2"),
    ("lanes: [1, 2, 4]", "lanes: [1.5]", "1.5 must be an integer"),
    ("lanes: [1, 2, 4]", "lanes: [0]", "parameters.lanes: 0 to 0 is outside 1 to"),
    ("lanes: [1, 2, 4]", "lanes: {from: 1, to: 4, step: 2}", "did you mean 'steps'?"),
    ("from: 16 * KiB", "from: 16 * KB", "parameters.sram_bytes_per_lane.from: no parameter is called 'KB'"),
    ("scale: log}", "scale: log, steps: 0}", "steps"),
    (
        "[area <= 9]",
        "[area <= 0.5]",
        "constraints[0]: 'area <= 0.5': none of 200,000 configurations drawn satisfies it",
    ),
    ("[area <= 9]", "[aera <= 9]", "constraints[0]: no parameter is called 'aera': did you mean area"),
    ("[area <= 9]", "[lanes * 2]", "compares nothing"),
    ("[area <= 9]", '[\'__import__("os").system("true") == 0\']', "constraints[0]"),
    (
        "[latency, energy, area]",
        "[latency, enery]",
        "objectives[1]: no objective is called 'enery': did you mean energy",
    ),
    ("[latency, energy, area]", "[latency, latency]", "objectives: one is named twice"),
    ("[latency, energy, area]", "[]", "objectives"),
    ("device: edge8", "device: egde8", "did you mean edge8"),
    ("networks: pararevsnn21", "networks: pararevsnn22", "did you mean pararevsnn21"),
    ("name: small", "nme: small", "unknown key 'nme': did you mean 'name'?"),
    ("name: small", "name: small\nscheduler: hefty", "scheduler: no scheduler is called 'hefty': did you mean heft"),
    ("spikes: 0.15", "spikes: 1.5", "a firing rate is 1.5: it must be between 0 and 1"),
    ("samples: 6000", "sample: 6000", "did you mean 'samples'?"),
    ("{name: random, samples: 6000, seed: 1}", "randm", "method: no method is called 'randm': did you mean random"),
    ("{name: random, samples: 6000, seed: 1}", "grid", "a grid needs steps; or choose method random"),
    ("{name: random, samples: 6000, seed: 1}", "{name: nsga2}", "method.evaluations is missing"),
    ("lanes: [1, 2, 4]", "lanes: [1, nan]", "parameters.lanes[1] is 'nan': it must be a finite number"),
    ("lanes: [1, 2, 4]", "lanes: inf", "parameters.lanes[0] is 'inf': it must be a finite number"),
    ("lanes: [1, 2, 4]", "lanes: [1 / 0]", "parameters.lanes[0] is '1 / 0': it must be a finite number"),
    ("lanes: [1, 2, 4]", "lanes: {from: nan, to: 4, steps: 2}", "parameters.lanes.from is 'nan'"),
    ("lanes: [1, 2, 4]", "lanes: {from: [1], to: 4, steps: 2}", "parameters.lanes.from is a list: it must be a number"),
    ("network.width: 0.0625", "network.batch: [nan]", "parameters.network.batch[0] is 'nan'"),
    ("network.width: 0.0625", "network.timesteps: [-inf]", "parameters.network.timesteps[0] is '-inf'"),
    ("spikes: 0.15", "spikes: nan", "spikes is 'nan': it must be a finite number"),
    ("samples: 6000", "samples: -1", "method.samples is -1: it must be at least 1"),
    ("samples: 6000", "samples: 1.5", "method.samples is 1.5: it must be a whole number"),
    ("samples: 6000, seed: 1", "samples: 6, seed: -3", "method.seed is -3: it must be at least 0"),
    ("networks: pararevsnn21", "networks: [pararevsnn21, 7]", "networks.1 is 7: it must be text"),
    ("batch: 2", "batch: two", "batch is 'two': it must be a whole number"),
    ("pe_rows / 16)", "pe_rows / (lanes - lanes))", "divides by zero: lanes - lanes is 0 in every configuration"),
    ("[area <= 9]", "[1 % (pe_rows * 0) < 1]", "constraints[0]: '1 % (pe_rows * 0) < 1' divides by zero: pe_rows * 0"),
    ("name: small", "name: small\nmemory_limit: 800MB/s", "memory_limit '800MB/s': give bytes or a size with its unit"),
]


@pytest.mark.parametrize(("right", "wrong", "said"), WRONG, ids=[w[1][:40] for w in WRONG])
def test_a_wrong_file_is_refused_in_a_line(right: str, wrong: str, said: str, tmp_path: Path) -> None:
    assert right in SMALL
    file = tmp_path / "small.yaml"
    file.write_text(SMALL.replace(right, wrong), encoding="utf-8")
    ran = run("sweep", file, "-o", tmp_path / "out")
    assert ran.status == 2
    assert said in ran.line, ran.line
    assert ran.line.startswith(f"error: {file}: "), ran.line
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_memory_limit_of_the_command_line_stands_for_the_files_own() -> None:
    limited = from_yaml(SMALL + "memory_limit: 2MiB\n", "small")
    assert limited.memory_limit_bytes == 2 << 20
    asked = from_yaml(SMALL + "memory_limit: 2MiB\n", "small", memory_limit=5)
    assert asked.memory_limit_bytes == 5
    assert len({limited.fingerprint, asked.fingerprint, from_yaml(SMALL, "small").fingerprint}) == 3


def test_an_objective_that_the_device_cannot_give(tmp_path: Path) -> None:
    file = tmp_path / "gpu.yaml"
    file.write_text(
        "device: h200\nnetworks: pararevsnn21\nparameters: {lanes: [1, 2]}\nobjectives: [latency, sram_total]\n"
    )
    ran = run("sweep", file, "-o", tmp_path / "out")
    assert ran.status == 2
    assert "h200 cannot give sram_total: it has no sram_bytes_per_lane" in ran.line


def test_a_grid_too_large_is_counted_and_another_method_named(tmp_path: Path) -> None:
    many = "{from: 1e9, to: 1e11, steps: 1000}"
    names = ("memory_bandwidth_bytes_per_s", "noc_bandwidth_bytes_per_s", "sram_bandwidth_bytes_per_s", "clock_hz")
    lines = "\n".join(f"  {n}: {many.replace('1e11', '2e9') if n == 'clock_hz' else many}" for n in names)
    file = tmp_path / "huge.yaml"
    file.write_text(f"device: edge8\nnetworks: pararevsnn21\nparameters:\n{lines}\nobjectives: [latency]\n")
    ran = run("sweep", file, "-o", tmp_path / "out")
    assert ran.status == 2
    assert "1,000,000,000,000 combinations" in ran.line and "random" in ran.line


@pytest.mark.parametrize("text", ["", "[]", "a: [", "a: {b: *x}", "\x00", "device: 3", "parameters: 7\ndevice: edge8"])
def test_what_is_no_sweep_is_refused(text: str) -> None:
    with pytest.raises(PararevError, match=r"^x\.yaml: "):
        from_yaml(text, "x.yaml")


@given(st.text(max_size=60))
def test_no_text_breaks_the_expression_parser(text: str) -> None:
    try:
        found = expressions.parse(text, dict.fromkeys(("a", "b.c"), "number"), "here")
    except PararevError as error:
        assert str(error).startswith("here")
        return
    assert found({"a": np.ones(3), "b.c": np.ones(3)}, 3).shape == (3,)


@pytest.mark.parametrize(
    "text",
    ["a.__class__", "a[0]", "lambda: 1", "(a := 1)", "[x for x in a]", "f'{a}'", "open('x')", "True"],
)
def test_an_expression_computes_and_does_nothing_else(text: str) -> None:
    with pytest.raises(PararevError):
        expressions.parse(text, dict.fromkeys(("a", "b", "c"), "number"), "here")


SAFE = st.recursive(
    st.integers(0, 9).map(str) | st.sampled_from(["a", "b"]),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=8,
)


@given(SAFE, st.integers(-5, 5), st.integers(-5, 5))
def test_arithmetic_is_python_s_own(text: str, a: int, b: int) -> None:
    found = expressions.parse(text, dict.fromkeys("ab", "number"), "here")(
        {"a": np.array([float(a)]), "b": np.array([float(b)])}, 1
    )
    assert found[0] == eval(text, {"__builtins__": {}}, {"a": a, "b": b})


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_grid_holds_every_combination_once_however_it_is_cut(sizes: list[int], data: st.DataObject) -> None:
    space = Space(tuple(Parameter(f"p{k}", tuple(map(float, range(n)))) for k, n in enumerate(sizes)))
    total = math.prod(sizes)
    cut = data.draw(st.integers(0, total))
    columns = [np.concatenate((space.grid(0, cut)[p.name], space.grid(cut, total)[p.name])) for p in space.parameters]
    seen = list(zip(*(c.tolist() for c in columns), strict=True))
    assert seen == sorted(set(seen)) and len(seen) == total


@given(st.integers(0, 9000), st.integers(1, 3000), st.integers(0, 3000))
def test_draws_do_not_depend_on_how_they_are_cut(start: int, count: int, cut: int) -> None:
    space = Space((Parameter("x", (), 1.0, 100.0, "log"), Parameter("n", (1.0, 2.0, 3.0))))
    middle = min(start + count, start + cut)
    whole = space.random(start, start + count, 7)
    parts = [space.random(a, b, 7) for a, b in ((start, middle), (middle, start + count)) if b > a]
    for name, values in whole.items():
        assert (np.concatenate([p[name] for p in parts]) == values).all()
    assert ((whole["x"] >= 1) & (whole["x"] <= 100)).all()


def test_a_configuration_that_takes_no_time_has_no_power_and_warns_of_nothing() -> None:
    columns = {"total": np.array([2.0, 0.0])}
    outcome = SimpleNamespace(
        latency_s=np.array([4.0, 0.0]), energy_j=columns, peak_bytes=np.ones(2), sequential_s=np.array([8.0, 0.0])
    )
    network = SimpleNamespace(batch=2, parameters=1, macs=1)
    values = objective_values(outcome, network, 1, {})  # type: ignore[arg-type]
    assert (values["power_w"][0], values["speedup"][0], values["energy_per_sample_j"][0]) == (0.5, 2.0, 1.0)
    assert not np.isfinite(values["power_w"][1])


def test_scales() -> None:
    assert stepped(1, 100, "log", 3) == (1, 10, 100)
    assert stepped(0, 1, "linear", 5) == (0, 0.25, 0.5, 0.75, 1)
    assert stepped(3, 40, "powers_of_two", None) == (4, 8, 16, 32)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30), st.integers(1, 3))
def test_the_front_is_what_nothing_beats(rows: list[tuple[int, ...]], k: int) -> None:
    costs = np.array(rows, float)[:, :k]
    beaten = [any((o <= r).all() and (o < r).any() for o in costs) for r in costs]
    assert nondominated(costs).tolist() == [not b for b in beaten]


@pytest.mark.parametrize("values", [2, 4, 10**6])
def test_the_front_of_many_rows_is_what_comparing_them_one_by_one_gives(values: int) -> None:
    costs = np.random.default_rng(values).integers(0, values, (700, 3)).astype(float)
    order = np.lexsort(costs.T[::-1])
    keep = np.zeros(len(costs), np.bool_)
    keep[order] = _unbeaten.plain(3, costs[order].reshape(-1).tolist())
    assert nondominated(costs).tolist() == keep.tolist()
    assert keep.sum() > 1


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    for module in ("optuna", "distributed"):
        monkeypatch.setitem(sys.modules, module, None)
    file = tmp_path / "s.yaml"
    file.write_text(SMALL.replace("{name: random, samples: 6000, seed: 1}", "{name: tpe, evaluations: 20}"))
    ran = run("sweep", file, "-o", tmp_path / "out")
    assert ran.status == 2 and "install pararev-hw[search]" in ran.line
    with pytest.raises(PararevError, match=r"install pararev-hw\[cluster\]"):
        next(workers.cluster(None, [0], "tcp://x"))  # type: ignore[arg-type]


def test_parts_depend_on_the_file_alone() -> None:
    sweep = small(method="{name: random, samples: 1000000}")
    assert sweep.chunk_rows == 16384 and sweep.chunks == 62
    spans = [sweep.span(k) for k in range(sweep.chunks)]
    assert spans[0][0] == 0 and spans[-1][1] == 1_000_000
    assert all(a[1] == b[0] for a, b in pairwise(spans))
