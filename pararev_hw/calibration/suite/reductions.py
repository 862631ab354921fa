"""Pooling, sums and means, softmax, the loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pararev_hw.calibration.cases import Case, Operand
from pararev_hw.calibration.suite.entry import FEW, Draw, Shape, SuiteEntry, X, Y, Z, entry
from pararev_hw.types import Hole


def _pool_shape(draw: Draw) -> tuple[Shape, int, int, Shape]:
    while True:
        n, c, side, kernel = (
            draw.log(1, 256),
            draw.log(4, 512),
            draw.integer((4, 8, 14, 16, 28, 32, 64)),
            draw.integer((2, 3, 3)),
        )
        if n * c * side * side <= 1 << 22:
            out = (side + 2 * (kernel // 2) - kernel) // 2 + 1 if kernel == 3 else side // 2
            return (n, c, side, side), kernel, kernel // 2 if kernel == 3 else 0, (n, c, out, out)


def _avg_pool(dtype: str, backward: bool) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        shape, kernel, pad, out = _pool_shape(draw)
        window = ([kernel] * 2, [2, 2], [pad] * 2, False, True, None)
        if backward:
            return Case(
                "aten.avg_pool2d_backward.default", (Operand(out, dtype), Operand(shape, dtype)), (X, Y, *window)
            )
        return Case("aten.avg_pool2d.default", (Operand(shape, dtype),), (X, *window))

    return entry(dtype, f"aten.avg_pool2d{'_backward' if backward else ''}.default", make)


def _max_pool(dtype: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        shape, kernel, pad, _ = _pool_shape(draw)
        window = ([kernel] * 2, [2, 2], [pad] * 2)
        return Case("aten.max_pool2d_with_indices.default", (Operand(shape, dtype),), (X, *window))

    return entry(dtype, "aten.max_pool2d_with_indices.default", make)


def _max_pool_backward(dtype: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        shape, kernel, pad, out = _pool_shape(draw)
        index = Operand(out, "int64", "small", below=shape[2] * shape[3])
        window = ([kernel] * 2, [2, 2], [pad] * 2, [1, 1], False)
        function = "aten.max_pool2d_with_indices_backward.default"
        return Case(function, (Operand(out, dtype), Operand(shape, dtype), index), (X, Y, *window, Z))

    return entry(dtype, "aten.max_pool2d_with_indices_backward.default", make)


def _spatial(function: str, dtype: str, *rest: object) -> SuiteEntry:
    return entry(
        dtype, f"{function} spatial", lambda draw: Case(function, (Operand(draw.image(), dtype),), (X, [-1, -2], *rest))
    )


def _sum(dtype: str, dim: int) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        return Case("aten.sum.dim_IntList", (Operand(draw.elements(), dtype),), (X, [dim], True))

    return entry(dtype, f"aten.sum.dim_IntList {'first' if dim == 0 else 'last'}", make)


def _sum_all(dtype: str) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        return Case("aten.sum.default", (Operand(draw.elements(), dtype),), (X,))

    return entry(dtype, "aten.sum.default", make)


def _softmax(function: str, operands: int) -> SuiteEntry:
    def make(draw: Draw) -> Case:
        shape = (draw.log(1, 4096), draw.log(4, 1000))
        if operands == 1:
            return Case(function, (Operand(shape),), (X, 1, False))
        return Case(function, (Operand(shape), Operand(shape)), (X, Y, 1, torch.float32))

    return entry("float32", function, make)


def _nll(draw: Draw) -> Case:
    n, classes = draw.log(1, 512), draw.log(4, 1000)
    operands = (Operand((n, classes)), Operand((n,), "int64", "small", below=classes))
    return Case("aten.nll_loss_forward.default", operands, (X, Y, None, 1, -100))


def _nll_backward(draw: Draw) -> Case:
    n, classes = draw.log(1, 512), draw.log(4, 1000)
    operands = (
        Operand((), content="ones"), Operand((n, classes)), Operand((n,), "int64", "small", below=classes),
        Operand((), content="ones"),
    )  # fmt: skip
    return Case("aten.nll_loss_backward.default", operands, (X, Y, Z, None, 1, -100, Hole(3)))


def entries(dtypes: tuple[str, ...]) -> Iterator[SuiteEntry]:
    """Pooling, sums and means in every datatype; softmax and the loss in float32."""
    for dtype in dtypes:
        yield from (_avg_pool(dtype, False), _avg_pool(dtype, True), _max_pool(dtype), _max_pool_backward(dtype))
        yield from (_spatial("aten.mean.dim", dtype, True), _sum_all(dtype), _sum(dtype, 0), _sum(dtype, -1))
    for name in ("_softmax", "_log_softmax"):
        yield _softmax(f"aten.{name}.default", 1)
        yield _softmax(f"aten.{name}_backward_data.default", 2)
    yield entry("float32", "aten.nll_loss_forward.default", _nll, FEW)
    yield entry("float32", "aten.nll_loss_backward.default", _nll_backward, FEW)
