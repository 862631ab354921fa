"""Optimizers that update many parameters in one call."""

from __future__ import annotations

from collections.abc import Iterator

from pararev_hw.calibration.cases import Case, Operand
from pararev_hw.calibration.suite.entry import USUAL, Draw, SuiteEntry, entry
from pararev_hw.types import Hole


def _foreach(function: str, lists: int, *rest: object, per_tensor: float | None = None) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        count = draw.log(1, 64)
        shapes = [draw.elements(1 << 17) for _ in range(count)]
        operands = tuple(Operand(s, content="positive") for _ in range(lists) for s in shapes)
        args = tuple([Hole(k * count + j) for j in range(count)] for k in range(lists))
        scalars = ([per_tensor] * count,) if per_tensor is not None else ()
        return Case(function, operands, (*args, *scalars, *rest))

    return entry("float32", function, make, USUAL // 2)


def _add_one(draw: Draw) -> Case:
    """Counters of steps: many tensors of no dimensions and one that is added to all."""
    count = draw.log(1, 128)
    operands = (*(Operand((), content="ones") for _ in range(count)), Operand((), content="ones"))
    return Case("aten._foreach_add_.Tensor", operands, ([Hole(k) for k in range(count)], Hole(count)))


def entries() -> Iterator[SuiteEntry]:
    """What SGD and Adam call when they update many parameters at once."""
    yield from (_foreach("aten._foreach_add_.List", 2), _foreach("aten._foreach_add.List", 2))
    yield from (_foreach("aten._foreach_add_.Scalar", 1, 1.0), _foreach("aten._foreach_mul_.Scalar", 1, 1.0))
    yield from (_foreach("aten._foreach_lerp_.Scalar", 2, 0.1), _foreach("aten._foreach_addcmul_.Scalar", 3, 0.1))
    yield _foreach("aten._foreach_addcdiv_.ScalarList", 3, per_tensor=0.1)
    yield _foreach("aten._foreach_sqrt.default", 1)
    yield _foreach("aten._foreach_div_.ScalarList", 1, per_tensor=1.0)
    yield entry("float32", "aten._foreach_add_.Tensor", _add_one, USUAL // 2)
