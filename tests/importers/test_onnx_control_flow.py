"""If and Loop of ONNX files run as the standard says where constants decide, and are refused in a line elsewhere."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pararev_hw.errors import BadInput
from pararev_hw.importers.onnx_graph import load_onnx
from pararev_hw.target_graph import build_graph
from pararev_hw.trace_options import TraceOptions

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name: str, kind: int = FLOAT, shape: list[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def array(name: str, data: object, kind: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(data, kind), name)


WEIGHT = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)


def membrane(turns: list[onnx.NodeProto], trip: str, condition: str = "") -> onnx.ModelProto:
    """v = 0.5 v + x W, a loop over time; gives the last v and every turn's v + number of the turn."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["current"], name="/layer/MatMul"),
            helper.make_node("Mul", ["v", "leak"], ["kept"]),
            helper.make_node("Add", ["kept", "current"], ["v_next"]),
            helper.make_node("Cast", ["number"], ["number_float"], to=FLOAT),
            helper.make_node("Add", ["v_next", "number_float"], ["row"]),
            *turns,
        ],
        "body",
        [value("number", INT, []), value("go", BOOL, []), value("v")],
        [value("go_on", BOOL, []), value("v_next"), value("row")],
        [array("w", WEIGHT), array("leak", 0.5)],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", [trip, condition, "start"], ["last", "rows"], body=body, name="/Loop")],
        "g",
        [value("x", shape=[2, 4])],
        [value("last"), value("rows")],
        [array("three", 3, np.int64), array("start", np.zeros((2, 4))), array("yes", True, bool)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def gives(model: onnx.ModelProto, folder: Path, x: np.ndarray) -> list[np.ndarray]:
    """What the imported network computes."""
    onnx.save(model, folder / "net.onnx")
    with torch.no_grad():
        out = load_onnx(folder / "net.onnx").network(torch.from_numpy(x))
    return [y.numpy() for y in (out if isinstance(out, tuple) else (out,))]


def turns_of(count: int) -> list[np.ndarray]:
    """The membrane's last value and the rows of all turns, by the equation."""
    v, rows = np.zeros((2, 4), np.float32), []
    for turn in range(count):
        v = 0.5 * v + X @ WEIGHT
        rows.append(v + turn)
    return [v, np.stack(rows)]


X = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
ALWAYS = [helper.make_node("Identity", ["go"], ["go_on"])]
BEFORE_TWO = [helper.make_node("Less", ["number", "one"], ["go_on"])]


def test_a_loop_over_time_runs_its_turns_with_one_set_of_weights(tmp_path: Path) -> None:
    for ours, right in zip(gives(membrane(ALWAYS, "three"), tmp_path, X), turns_of(3), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-6)
    parameters = load_onnx(tmp_path / "net.onnx").network.parameters()
    assert sorted(tuple(p.shape) for p in parameters) == [(2, 4), (4, 4)]  # where the membrane starts, and the weight
    graph = build_graph(str(tmp_path / "net.onnx"), TraceOptions(mode="infer", spikes="none"))
    assert sum(t.macs for t in graph.tasks) == 3 * 2 * 4 * 4  # turns, samples, a weight of 4 x 4


def test_a_loop_may_end_by_its_condition(tmp_path: Path) -> None:
    one = [helper.make_node("Constant", [], ["one"], value=array("", 1, np.int64)), *BEFORE_TWO]
    for ours, right in zip(gives(membrane(one, "", "yes"), tmp_path, X), turns_of(2), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [2, 3])
def test_the_branch_that_sizes_choose_is_taken(rows: int, tmp_path: Path) -> None:
    def branch(op: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node(op, ["x"], ["y"])], op, [], [value("y")])

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Equal", ["rows", "two"], ["is_two"]),
        helper.make_node("If", ["is_two"], ["z"], then_branch=branch("Relu"), else_branch=branch("Neg")),
    ]
    constants = [array("zero", 0, np.int64), array("two", 2, np.int64)]
    graph = helper.make_graph(nodes, "g", [value("x", shape=[rows, 4])], [value("z")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.concatenate([X, X])[:rows]
    np.testing.assert_array_equal(gives(model, tmp_path, x)[0], np.maximum(x, 0) if rows == 2 else -x)


@pytest.mark.parametrize(
    ("turns", "trip", "says"),
    [
        ([helper.make_node("Identity", ["go"], ["go_on"])], "", "more than 200000 nodes once its turns"),
        (
            [
                helper.make_node("ReduceSum", ["v_next"], ["total"], keepdims=0),
                helper.make_node("Greater", ["total", "leak"], ["go_on"]),
            ],
            "three",
            "depends on the network's data",
        ),
    ],
)
def test_what_the_data_decide_and_what_never_ends_is_refused(
    turns: list[onnx.NodeProto], trip: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pararev_hw import limits

    if not trip:
        monkeypatch.setattr(limits, "NETWORK_NODES", 60)
        says = says.replace("200000", "60")
    onnx.save(membrane(turns, trip, "" if trip else "yes"), tmp_path / "net.onnx")
    with pytest.raises(BadInput, match=says):
        load_onnx(tmp_path / "net.onnx")
