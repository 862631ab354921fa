"""Small expressions over parameters, for constraints and derived quantities: `lanes * sram_bytes_per_lane <= 4 * MiB`.

Numbers, names (dots included), + - * / // % **, comparisons, and, or, not, and a few functions. The text is parsed by
Python's own parser and walked node by node; what is not listed here is refused, so nothing of a file is ever run.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pararev_hw import limits
from pararev_hw.documents import shown
from pararev_hw.errors import BadInput, unknown_name

CONSTANTS: Mapping[str, float] = {
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
    "kilo": 1e3,
    "mega": 1e6,
    "giga": 1e9,
    "tera": 1e12,
    "milli": 1e-3,
    "micro": 1e-6,
    "nano": 1e-9,
    "pico": 1e-12,
}

_BINARY: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.true_divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_COMPARE: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int | None]] = {  # and how many arguments; None: at least two
    "min": (lambda *v: reduce(np.minimum, v), None),
    "max": (lambda *v: reduce(np.maximum, v), None),
    "abs": (np.abs, 1),
    "sqrt": (np.sqrt, 1),
    "log2": (np.log2, 1),
    "ceil": (np.ceil, 1),
    "floor": (np.floor, 1),
}

Kind = Literal["number", "text", "truth"]
_KINDS: Mapping[Kind, str] = {"number": "number", "text": "word", "truth": "comparison"}
Values = Mapping[str, Any]
_Node = Callable[[Values], Any]


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. Calling it with columns of parameters gives a column; `names` are those it reads."""

    text: str
    names: frozenset[str]
    truth: bool  # whether it says yes or no

    def __call__(self, values: Values, count: int) -> NDArray[Any]:
        """The expression [count] of columns [count]. Division by zero gives inf or nan, as NumPy has it."""
        node = _compiled(ast.parse(self.text, mode="eval").body, set())
        with np.errstate(all="ignore"):
            column = np.broadcast_to(np.asarray(node(values)), (count,))
        return column.astype(np.bool_ if self.truth else np.float64)

    def zero_divisor(self, values: Values, count: int) -> str | None:
        """What it divides by, where that is zero in every row; None where there is no such."""
        for node in ast.walk(ast.parse(self.text, mode="eval")):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod):
                divisor = Expression(ast.unparse(node.right), self.names, truth=False)
                if not divisor(values, count).any():
                    return divisor.text
        return None


def parse(text: str, kinds: Mapping[str, Kind], where: str) -> Expression:
    """The expression in `text`, over names of these kinds. Raises BadInput or UnknownName, beginning with `where`."""
    if len(text) > limits.EXPRESSION_CHARACTERS:
        raise BadInput(f"{where}: {len(text)} characters: an expression has at most {limits.EXPRESSION_CHARACTERS}")
    names: set[str] = set()
    try:
        body = ast.parse(text.strip(), mode="eval").body
        _compiled(body, names)
    except (SyntaxError, ValueError) as error:  # ValueError: a NUL in the text
        if isinstance(error, BadInput):
            raise BadInput(f"{where}: {error}") from None
        raise BadInput(
            f"{where}: {shown(text)} is no expression: write it as in lanes * sram_bytes_per_lane <= 4 * MiB"
        ) from None
    except (RecursionError, MemoryError):
        raise BadInput(f"{where}: {text[:40]!r}... is nested too deeply") from None
    for name in sorted(names):
        if name not in kinds:
            raise BadInput(f"{where}: {unknown_name('parameter', name, tuple(kinds))}")
    try:
        kind = _kind(body, kinds)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    if kind == "text":
        raise BadInput(f"{where}: {shown(text)} is a word, not a number or a comparison")
    return Expression(text.strip(), frozenset(names), kind == "truth")


def _kind(node: ast.expr, kinds: Mapping[str, Kind]) -> Kind:
    """What a parsed expression gives. Raises BadInput where its parts do not go together."""

    def need(side: ast.expr, kind: Kind) -> None:
        if (actual := _kind(side, kinds)) != kind:
            raise BadInput(f"{shown(ast.unparse(side))} is a {_KINDS[actual]} where a {_KINDS[kind]} belongs")

    match node:
        case ast.Constant(value=str()):
            return "text"
        case ast.Name() | ast.Attribute():
            return kinds.get(_dotted(node), "number")
        case ast.BinOp(left=left, right=right):
            need(left, "number")
            need(right, "number")
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            need(operand, "truth")
            return "truth"
        case ast.UnaryOp(operand=operand):
            need(operand, "number")
        case ast.BoolOp(values=operands):
            for operand in operands:
                need(operand, "truth")
            return "truth"
        case ast.Compare(left=left, ops=ops, comparators=rest):
            kind = _kind(left, kinds)
            for side in rest:
                need(side, kind)
            if kind != "number" and not all(isinstance(op, ast.Eq | ast.NotEq) for op in ops):
                raise BadInput(f"{shown(ast.unparse(node))}: a {_KINDS[kind]} has no order: use == or !=")
            return "truth"
        case ast.Call(args=args):
            for argument in args:
                need(argument, "number")
    return "number"


def number(value: object, where: str) -> float:
    """A number, or an expression of numbers alone such as `64 * KiB`. Raises BadInput."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadInput(f"{where} is {shown(value)}: it must be a number, or one such as 64 * KiB")
    finite: float
    try:
        finite = float(value)  # also of text: YAML 1.1 takes 1e9 for such
    except ValueError:
        finite = float(parse(str(value), {}, where)({}, 1)[0])
    except OverflowError:
        finite = np.inf
    if not np.isfinite(finite):
        raise BadInput(f"{where} is {shown(value)}: it must be a finite number")
    return finite


def _compiled(node: ast.expr, names: set[str]) -> _Node:
    match node:
        case ast.Constant(value=bool()):
            raise BadInput("True and False mean nothing here")
        case ast.Constant(value=int() | float() as value):
            constant = _as_float(value)
            return lambda _: constant
        case ast.Constant(value=str() as word):
            return lambda _: word
        case ast.Name() | ast.Attribute():
            name = _dotted(node)
            if name in CONSTANTS:
                return lambda _: CONSTANTS[name]
            names.add(name)
            return lambda values: values[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b, apply = _number_of(left, names), _number_of(right, names), _BINARY[type(op)]
            return lambda values: apply(a(values), b(values))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _number_of(operand, names)
            return lambda values: np.negative(inner(values))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _number_of(operand, names)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _compiled(operand, names)
            return lambda values: np.logical_not(inner(values))
        case ast.BoolOp(op=op, values=operands):
            parts = [_compiled(o, names) for o in operands]
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return lambda values: reduce(join, (p(values) for p in parts))
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(o) in _COMPARE for o in ops):
            sides = [_compiled(o, names) for o in (left, *rest)]
            tests = [_COMPARE[type(o)] for o in ops]
            return lambda values: reduce(
                np.logical_and,
                (t(a(values), b(values)) for t, a, b in zip(tests, sides, sides[1:], strict=False)),
            )
        case ast.Call(func=ast.Name(id=function), args=args, keywords=[]) if function in FUNCTIONS:
            call, arity = FUNCTIONS[function]
            if (len(args) != arity) if arity is not None else (len(args) < 2):
                raise BadInput(f"{function} takes {'one value' if arity == 1 else 'two values or more'}")
            inners = [_number_of(a, names) for a in args]
            return lambda values: call(*(i(values) for i in inners))
        case ast.Call(func=ast.Name(id=function)):
            raise unknown_name("function", function, tuple(FUNCTIONS))
        case _:
            raise BadInput(
                f"{ast.unparse(node)!r} cannot be used: numbers, names, + - * / // % **, <= and the like can"
            )


def _number_of(node: ast.expr, names: set[str]) -> _Node:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        raise BadInput(f"{node.value!r} is no number")
    return _compiled(node, names)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise BadInput("a number is too large") from None


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{_dotted(value)}.{attr}"
        case _:
            raise BadInput(f"{ast.unparse(node)!r} is no parameter")
