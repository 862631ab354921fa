"""One result per element: arithmetic, comparisons, activations and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pararev_hw.calibration.cases import Case, Content, Operand
from pararev_hw.calibration.suite.entry import FEW, USUAL, Draw, SuiteEntry, X, entry
from pararev_hw.types import Hole

Contents = Content | Literal["mask"]


def _elementwise(
    function: str,
    dtype: str,
    *contents: Contents,
    scalars: tuple[object, ...] = (),
    count: int = USUAL,
) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        shape = draw.elements()
        mask = Operand(shape, "bool", "spikes", density=draw.share(0.01, 0.6))
        operands = tuple(mask if c == "mask" else Operand(shape, dtype, c) for c in contents)
        return Case(function, operands, (*map(Hole, range(len(operands))), *scalars))

    name = f"{function} {len(contents)}" if scalars and len(contents) == 1 else function
    return entry(dtype, name, make, count)


def _scalar_tensor(function: str, dtype: str) -> SuiteEntry:
    """An op on a tensor of no dimensions: a counter of batches, a loss."""
    return entry(dtype, f"{function} ()", lambda draw: Case(function, (Operand((), dtype, "ones"),), (X, 1)), FEW // 2)


def _of_networks(dtype: str) -> list[SuiteEntry]:
    """What the zoo's neurons and sums run."""
    two = ["add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor"]
    entries = [_elementwise(f"aten.{f}", dtype, "normal", "positive") for f in two]
    entries += [_elementwise(f"aten.{f}", dtype, "normal", scalars=(1.5,)) for f in two]
    entries += [
        _elementwise(f"aten.{f}", dtype, "normal", scalars=(0.75,)) for f in ("div.Scalar", "rsub.Scalar", "ge.Scalar")
    ]
    entries.append(_elementwise("aten.masked_fill.Scalar", dtype, "normal", "mask", scalars=(0.0,)))
    entries += [_elementwise(f"aten.{f}.default", dtype, "normal") for f in ("neg", "sigmoid", "relu")]
    entries += [
        _elementwise("aten.sigmoid_backward.default", dtype, "normal", "positive"),
        _elementwise("aten.threshold_backward.default", dtype, "normal", "normal", scalars=(0,)),
        _elementwise("aten.add_.Tensor", dtype, "normal", "normal"),
        _elementwise("aten.mul_.Tensor", dtype, "normal", scalars=(1.0,)),
    ]
    return entries


def _of_others() -> list[SuiteEntry]:
    """What networks from elsewhere run, and optimizers that update one parameter at a time."""

    def few(function: str, *contents: Contents, scalars: tuple[object, ...] = ()) -> SuiteEntry:
        return _elementwise(f"aten.{function}", "float32", *contents, scalars=scalars, count=FEW)

    names = ("exp", "sqrt", "tanh", "gelu", "silu", "reciprocal", "abs", "log", "sin", "atan")
    return [
        *(few(f"{f}.default", "positive") for f in names),
        few("gelu_backward.default", "normal", "normal"),
        few("tanh_backward.default", "normal", "positive"),
        few("pow.Tensor_Scalar", "positive", scalars=(2,)),
        few("clamp.default", "normal", scalars=(-1.0, 1.0)),
        few("gt.Scalar", "normal", scalars=(0.0,)),
        few("where.self", "mask", "normal", "normal"),
        few("masked_fill_.Scalar", "normal", "mask", scalars=(0.0,)),
        few("addcmul_.default", "normal", "positive", "positive"),
        few("addcdiv_.default", "normal", "positive", "positive"),
        few("lerp_.Scalar", "normal", "normal", scalars=(0.1,)),
        few("addcmul.default", "normal", "positive", "positive"),
        few("relu_.default", "normal"),
        few("bitwise_not.default", "mask"),
        _scalar_tensor("aten.add_.Tensor", "int64"),
        _scalar_tensor("aten.div.Tensor", "float32"),
    ]


def entries(dtypes: tuple[str, ...]) -> Iterator[SuiteEntry]:
    """Elementwise ops: the zoo's in every datatype, the others in float32."""
    for dtype in dtypes:
        yield from _of_networks(dtype)
    yield from _of_others()


def sum_case(shape: tuple[int, ...], dtype: str = "float32") -> Case:
    """The sum of two tensors."""
    return Case("aten.add.Tensor", (Operand(shape, dtype), Operand(shape, dtype)), (X, Hole(1)))
