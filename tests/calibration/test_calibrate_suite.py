"""The suite covers what networks run, its cases are what a trace would hold, and its held-out part is fixed."""

from __future__ import annotations

import itertools

import pytest
import torch

from pararev_hw import models
from pararev_hw.calibration.suite import ROUNDS, entries, in_turn
from pararev_hw.calibration.suite.entry import HELD_OUT_EVERY, Draw
from pararev_hw.costmodels.calibrated.features import coefficient_names, coordinates, group, work_terms
from pararev_hw.tracing import optimizer_named, trace_step
from pararev_hw.training.step import Loop
from pararev_hw.types import BlockGraph

NETWORKS = ("pararevsnn21", "revsresnet21", "msresnet18", "pararevsnn24_dvs", "revsresnet24_dvs", "msresnet20_dvs")


def trace(name: str, mode: str, dtype: str, optimizer: str) -> BlockGraph:
    with torch.device("meta"):
        network = models.create(name, width=0.125, timesteps=2)
        x = torch.empty((2, 1, 2, 32, 32) if "dvs" in name else (1, 3, 16, 16))
    return trace_step(
        network, x, loop=Loop(optimizer=optimizer_named(optimizer)) if mode == "train" else None, dtype=dtype
    ).graph


def measured() -> set[tuple[str, str]]:
    """Group and datatype of one case of every entry."""
    found = set()
    for entry in entries("cpu"):
        case, _ = next(entry.cases())
        t = case.op_type()
        found.add((group(t), t.dtype))
    return found


@pytest.fixture(scope="module")
def groups() -> set[tuple[str, str]]:
    return measured()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("mode", "dtype", "optimizer"),
    [
        ("train", "float32", "sgd"),
        ("train", "bfloat16", "sgd"),
        ("infer", "float32", "sgd"),
        ("infer", "bfloat16", "sgd"),
    ],
)
def test_every_op_of_the_zoo_is_measured(
    name: str, mode: str, dtype: str, optimizer: str, groups: set[tuple[str, str]]
) -> None:
    found = trace(name, mode, dtype, optimizer)
    # a view costs the same whatever it looks at, and a value brought to the host computes nothing
    names = {g for g, _ in groups}
    missing = {
        (group(t), t.dtype)
        for t in found.op_types
        if t.kind != "host" and (group(t) not in names if t.kind == "view" else (group(t), t.dtype) not in groups)
    }
    assert not missing


@pytest.mark.parametrize("optimizer", ["sgd-plain", "adam", "adamw", "sgd-foreach", "adamw-foreach"])
def test_every_op_of_the_optimizers_is_measured(optimizer: str, groups: set[tuple[str, str]]) -> None:
    found = trace("msresnet18", "train", "float32", optimizer)
    update = {found.op_types[op.type] for op in found.ops if op.phase == "update"}
    assert not {(group(t), t.dtype) for t in update if t.kind not in ("host", "view")} - groups


def test_a_case_is_the_op_that_a_trace_holds() -> None:
    found = {t.name: t for t in trace("msresnet18", "train", "float32", "sgd").op_types}
    compared = set()
    for entry in entries("cpu"):
        t = next(entry.cases())[0].op_type()
        if t.name in found and t.dtype == found[t.name].dtype:
            compared.add(t.kind)
            if t.kind in ("conv", "conv_backward", "norm", "norm_backward", "reduction", "pool", "pool_backward"):
                laid_out = {"channels_last", "layout", "output_layout"}  # as only some cases are
                names = {n for n, _ in t.attributes} - laid_out
                assert names == {n for n, _ in found[t.name].attributes} - laid_out, t.name
            assert t.kind == found[t.name].kind or found[t.name].kind == "neuron"
    assert compared >= {"conv", "conv_backward", "norm", "norm_backward", "elementwise"}


def test_every_case_has_as_many_amounts_and_coordinates_as_its_group() -> None:
    shape: dict[str, tuple[int, int]] = {}
    for entry in entries("cpu"):
        for case, _ in itertools.islice(entry.cases(), 2):
            t = case.op_type()
            own = tuple(n for n in coefficient_names(t) if n not in ("l2_s_per_byte", "dram_s_per_byte", "cold_s"))
            own = tuple(n for n in own if n != "branch_s_per_element")
            assert len(work_terms(t)) == len(own)
            assert all(a >= 0 for a in work_terms(t))
            assert shape.setdefault(group(t), (len(own), len(coordinates(t)))) == (len(own), len(coordinates(t)))


def test_the_suite_is_the_same_every_time_and_a_fifth_is_held_out() -> None:
    once, again = (list(in_turn(entries("cpu"))) for _ in range(2))
    assert [(c, h) for _, c, h in once] == [(c, h) for _, c, h in again]
    assert len(once) == sum(e.count for e in entries("cpu"))
    share = sum(held_out for *_, held_out in once) / len(once)
    assert share == pytest.approx(1 / HELD_OUT_EVERY, abs=0.02)


def test_a_short_budget_sees_every_entry() -> None:
    todo = entries("cpu")
    first = itertools.islice(in_turn(todo), sum(-(-e.count // ROUNDS) for e in todo))
    assert {e.name for e, *_ in first} == {e.name for e in todo}
    assert len({e.name for e in todo}) == len(todo)


def test_shapes_are_log_uniform() -> None:
    draw = Draw("a test")
    values = [draw.log(4, 4096) for _ in range(4000)]
    assert min(values) >= 4 and max(values) <= 4096
    for low in (4, 16, 64, 256, 1024):  # each a fifth of the logarithmic range
        assert sum(low <= v < 4 * low for v in values) / len(values) == pytest.approx(0.2, abs=0.05)
