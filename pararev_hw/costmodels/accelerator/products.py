"""Matrix work as loop nests: what a convolution, its two gradients, or a matrix product is made of.

A product multiplies an *input* `[images, inputs, rows, columns]` with a *second* operand and sums into an *output*:

    forward           output[b, n, y, x] += input[b, c, y', x'] * weight[n, c, tap]     sums over c and tap
    input gradient    the same with roles changed: input = output gradient, n = input channel, c = output channel
    weight gradient   weight[n, c, tap]  += input[b, c, y', x'] * gradient[b, n, y, x]  sums over b, y and x

As the array of processing elements sees it, it is `groups` matrix products of `[m, k] x [k, n]`. Rows of an image that
neighbouring tiles share (the halo) are part of each tile's input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pararev_hw.sizes import largest_divisor
from pararev_hw.types import OpType

Pass = Literal["forward", "input_gradient", "weight_gradient"]


@dataclass(frozen=True, slots=True)
class Product:
    """One product. `rows` x `columns` are the places of an image that tiles divide, `in_rows` x `in_columns` those of
    the input; `stride` and `reach` say how many input rows a few rows need. `m`, `n`, `k` are per group. Of a product
    whose loops are not known, only the MACs mean something."""

    kind: Pass
    groups: int
    images: int
    outputs: int  # channels n of each group
    inputs: int  # channels c of each group
    taps: int
    rows: int
    columns: int
    in_rows: int
    in_columns: int
    stride: int
    reach: int
    m: int
    n: int
    k: int
    has_loops: bool = True

    @property
    def macs(self) -> int:
        return self.groups * self.m * self.n * self.k

    @property
    def input_words(self) -> int:
        return self.groups * self.images * self.inputs * self.in_rows * self.in_columns

    @property
    def second_words(self) -> int:
        if self.kind == "weight_gradient":
            return self.groups * self.images * self.outputs * self.rows * self.columns
        return self.groups * self.outputs * self.inputs * self.taps

    @property
    def output_words(self) -> int:
        if self.kind == "weight_gradient":
            return self.groups * self.outputs * self.inputs * self.taps
        return self.groups * self.images * self.outputs * self.rows * self.columns

    def input_rows(self, rows: int) -> int:
        """Input rows that so many neighbouring rows need."""
        if self.kind == "input_gradient":
            return min(self.in_rows, (rows + self.reach - 2) // self.stride + 1)
        return min(self.in_rows, (rows - 1) * self.stride + self.reach)


def products(t: OpType) -> tuple[Product, ...]:
    """The products of a matrix op: none for any other, one of its MACs alone where its loops are not known."""
    if t.flops <= 0:
        return ()
    products_: tuple[Product, ...] = ()
    if t.kind == "conv":
        products_ = (
            (_convolution(t, t.input_shapes[0], t.output_shapes[0], t.input_shapes[1]),) if _is_conv(t, 2) else ()
        )
    elif t.kind == "conv_backward" and _is_conv(t, 3):
        products_ = _gradients(t)
    elif t.kind == "gemm":
        products_ = _matrix_product(t)
    if sum(p.macs for p in products_) != t.true_macs:
        return (_bare(t),)
    return products_


def _is_conv(t: OpType, tensors: int) -> bool:
    return len(t.input_shapes) >= tensors and all(len(s) > 2 for s in t.input_shapes[:tensors])


def _attribute(t: OpType, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return dict(t.attributes).get(name, default)


def _convolution(t: OpType, x: tuple[int, ...], y: tuple[int, ...], w: tuple[int, ...]) -> Product:
    """Forward. A transposed convolution scatters: its loops run over the input's places, as torch counts them."""
    groups, stride, dilation = _geometry(t)
    transposed = _attribute(t, "transposed", (0,)) == (1,)
    channels = (w[1], w[0] // groups) if transposed else (w[0] // groups, w[1])
    places = x if transposed else y
    outputs, inputs = channels
    taps, columns = math.prod(w[2:]), math.prod(places[3:])
    return Product(
        kind="forward", groups=groups, images=x[0], outputs=outputs, inputs=inputs, taps=taps,
        rows=places[2], columns=columns, in_rows=x[2], in_columns=math.prod(x[3:]),
        stride=1 if transposed else stride, reach=1 if transposed else (w[2] - 1) * dilation + 1,
        m=x[0] * places[2] * columns, n=outputs, k=inputs * taps,
    )  # fmt: skip


def _gradients(t: OpType) -> tuple[Product, ...]:
    """Input and weight gradient, those that `output_mask` asks for. Tensors: output gradient, input, weight."""
    y, x, w = t.input_shapes[:3]
    if _attribute(t, "transposed", (0,)) == (1,):
        return ()
    mask = _attribute(t, "output_mask", (1, 1, 0))
    forward = _convolution(t, x, y, w)
    groups, stride, dilation = _geometry(t)
    f = forward
    products_ = []
    if mask[0]:
        products_.append(
            Product(
                kind="input_gradient",
                groups=groups,
                images=x[0],
                outputs=f.inputs,
                inputs=f.outputs,
                taps=f.taps,
                rows=x[2],
                columns=math.prod(x[3:]),
                in_rows=y[2],
                in_columns=math.prod(y[3:]),
                stride=stride,
                reach=(w[2] - 1) * dilation + 1,
                m=f.m,
                n=f.inputs,
                k=f.outputs * f.taps,
            )
        )
    if mask[1]:
        products_.append(
            Product(
                kind="weight_gradient",
                groups=groups,
                images=x[0],
                outputs=f.outputs,
                inputs=f.inputs,
                taps=f.taps,
                rows=f.rows,
                columns=f.columns,
                in_rows=f.in_rows,
                in_columns=f.in_columns,
                stride=f.stride,
                reach=f.reach,
                m=f.inputs * f.taps,
                n=f.outputs,
                k=f.m,
            )
        )
    return tuple(products_)


def _geometry(t: OpType) -> tuple[int, int, int]:
    """Groups, stride and dilation of the rows."""
    return _attribute(t, "groups", (1,))[0], _attribute(t, "stride", (1,))[0], _attribute(t, "dilation", (1,))[0]


def _matrix_product(t: OpType) -> tuple[Product, ...]:
    """`[m, k] x [k, n]`, once or for each matrix of a batch."""
    pair = [s for s in t.input_shapes if len(s) in (2, 3)][-2:]
    if len(pair) < 2 or len(pair[0]) != len(pair[1]):
        return ()
    a, b = pair
    return (_flat("forward", math.prod(a[:-2]), a[-2], b[-1], a[-1]),)


def _bare(t: OpType) -> Product:
    """An op whose loops are not known: its MACs in a shape that most arrays hold well."""
    k = largest_divisor(t.true_macs, _MOST_BARE)
    n = largest_divisor(t.true_macs // k, _MOST_BARE)
    return _flat("forward", 1, t.true_macs // (k * n), n, k, has_loops=False)


_MOST_BARE = 1024  # of outputs, and of inputs


def _flat(kind: Pass, groups: int, m: int, n: int, k: int, *, has_loops: bool = True) -> Product:
    return Product(
        kind=kind, groups=groups, images=m, outputs=n, inputs=k, taps=1, rows=1, columns=1, in_rows=1, in_columns=1,
        stride=1, reach=1, m=m, n=n, k=k, has_loops=has_loops,
    )  # fmt: skip
