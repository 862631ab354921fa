"""Which fit gives the time of an elementwise function that was not measured."""

from __future__ import annotations

import pytest

from pararev_hw.costmodels.calibrated.op_times import fit_key
from pararev_hw.types import Fit, OpType


def op(name: str, kind: str = "elementwise") -> OpType:
    return OpType(name, kind, "float32", ((8, 8),), ((8, 8),), (), 0, 64, 256, 256)


def fits(*groups: str) -> dict[tuple[str, str], Fit]:
    return {(g, "float32"): Fit(g, "float32", {}, 9, 9, 0.1, 0.2, 0.0) for g in groups}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("aten.sin.default", "aten.tanh.default"),
        ("aten.log_.default", "aten.tanh.default"),
        ("aten.exp.default", "aten.exp.default"),
        ("aten.add.Tensor", "elementwise"),
        ("aten.sign.default", "elementwise"),
    ],
)
def test_a_function_that_was_measured_stands_in_for_one_that_was_not(name: str, group: str) -> None:
    measured = fits("elementwise", "aten.exp.default", "aten.tanh.default")
    assert fit_key(op(name), measured) == (group, "float32")
    assert fit_key(op("aten.sin.default"), fits("elementwise")) == ("elementwise", "float32")


def test_an_op_of_another_kind_is_no_function() -> None:
    assert fit_key(op("aten.sin.default", "loss"), fits("loss", "aten.tanh.default")) == ("loss", "float32")
