"""Loops over numbers that run compiled where there is much to do, and as plain Python elsewhere, with the same results.

A loop is written once, in what Python and numba share: it takes numbers and arrays, makes lists, and returns lists.
Plain Python is given lists in place of arrays, which it reads faster. Both do the same operations on the same 64-bit
numbers in the same order (numba neither reorders sums nor fuses products with them unless it is told to), so no result
depends on which of the two ran.

Loading numba takes half a second, so it waits until a process has had that much to do. Where it is not installed, or
has no place to keep what it compiled, plain Python does it all.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FunctionType
from typing import Any

SMALL = 2_000  # steps below which one call gains nothing from numba
FEW = 100  # steps below which even a loop that is compiled and loaded gains nothing over the time its arguments take
PATIENCE = 60_000  # steps of plain Python, a few tenths of a second, after which numba is loaded
LOADING = 350_000  # steps of a loop that is called often, by then as long as loading it takes
COMPILING = 2_000_000  # steps after which a loop that is called often is compiled where that was never done
ONE_LOADED = 10_000  # the same where numba is loaded for another loop already
ONE_COMPILED = 300_000  # the same where it must be compiled, of which later processes on this machine have the use

LOADING_S = 1.5  # processor seconds that numba and a first compiled loop take to load
COMPILING_S = 12.0  # the same for compiling the largest loop

_affords: ContextVar[Callable[[float], bool]] = ContextVar("affords", default=lambda _: True)


@contextmanager
def compile_while(affords: Callable[[float], bool]) -> Iterator[None]:
    """Inside, loops run as plain Python where `affords` says that there is no time for so many processor seconds."""
    before = _affords.set(affords)
    try:
        yield
    finally:
        _affords.reset(before)


class Loop:
    """A function of numbers and arrays that may be compiled."""

    _patience = PATIENCE  # what all loops of the process share
    _numba_runs = False  # whether some loop of the process runs compiled: the first call of one loads most of numba

    def __init__(self, function: Callable[..., Any]) -> None:
        self.plain = function
        self.__doc__ = function.__doc__
        self._compiled: Callable[..., Any] | None = None
        self._often = 0  # steps that were asked for in small calls
        self._is_loaded = False

    def __call__(self, steps: int, *arguments: Any) -> Any:
        """The function's result; `steps` says about how much work it is."""
        compiled = self.compiled_for(steps)
        return self.plain(*map(as_list, arguments)) if compiled is None else compiled(*arguments)

    def compiled_for(self, steps: int) -> Callable[..., Any] | None:
        """The compiled function where it pays for so many steps, otherwise None."""
        if steps < SMALL:
            return self._compiled if steps >= FEW and self._quick_to_load(steps) else None
        if self._compiled is None and "numba" not in sys.modules:
            Loop._patience -= steps
            if Loop._patience > 0:
                return None
        return self._loaded()

    def expect(self, steps: int) -> None:
        """So many steps in small calls are to come: the first of them may be worth the compiled function."""
        self._often = max(self._often, min(steps, LOADING))

    def compiled_for_many(self, steps: int) -> Callable[..., Any] | None:
        """The compiled function for one of many small calls, once they have been enough work to load it, or far more
        where this machine has not compiled it yet; otherwise None."""
        if self._often < COMPILING:
            self._often += steps
            if self._often < LOADING or (self._often < COMPILING and not self.at_hand):
                return None
            self._often = COMPILING
        return self._loaded()

    def _quick_to_load(self, steps: int) -> bool:
        """Whether the compiled function is loaded, or was asked for often and loads in some milliseconds now."""
        if not self._is_loaded and Loop._numba_runs:
            self._often += steps
            if self._often >= ONE_COMPILED or (self._often >= ONE_LOADED and self.at_hand):
                self._loaded()
        return self._is_loaded

    def _loaded(self) -> Callable[..., Any] | None:
        if not self._is_loaded and not self._is_affordable():
            return None
        compiled = self.compile()
        if compiled is not None:
            Loop._numba_runs = self._is_loaded = True
        return compiled

    def _is_affordable(self) -> bool:
        """Whether there is time to load it, or to compile it where that was never done."""
        affords = _affords.get()
        return (Loop._numba_runs or affords(LOADING_S)) and (affords(COMPILING_S) or self.at_hand)

    def compile(self) -> Callable[..., Any] | None:
        """The compiled function; None where there is no numba."""
        if self._compiled is None:
            try:
                import numba
            except ImportError:
                return None
            _load_without_scipy()
            self._compiled = _jitted(numba, self.plain)
        return self._compiled

    @property
    def at_hand(self) -> bool:
        """Whether it is compiled already, in this process or on this machine, so that it costs no time but to load."""
        compiled = self.compile()
        if getattr(compiled, "signatures", None):
            return True
        index = getattr(getattr(getattr(compiled, "_cache", None), "_cache_file", None), "_index_path", None)
        return index is not None and Path(index).exists()


def _load_without_scipy() -> None:
    """Load what numba has for arrays. It would load SciPy's linear algebra, which takes as long as half of numba, to
    see whether it is there; where products of matrices are compiled it asks again."""
    linalg = importlib.import_module("numba.np.linalg")
    asks = getattr(linalg, "ensure_blas", None)
    if asks is None:  # another release's name
        return
    linalg.ensure_blas = lambda: None  # type: ignore[attr-defined]
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = asks  # type: ignore[attr-defined]


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, marked: a loop of the same module that calls it is compiled with it."""
    function.__dict__["part_of_a_loop"] = True
    return function


def _jitted(numba: Any, function: Any) -> Callable[..., Any]:
    """The compiled function, and with it the parts that it calls."""
    names = {n: function.__globals__.get(n) for n in function.__code__.co_names}
    parts = {n: _jitted(numba, f) for n, f in names.items() if getattr(f, "part_of_a_loop", False)}
    if parts:
        parts = {**function.__globals__, **parts}
        function = FunctionType(function.__code__, parts, function.__name__, function.__defaults__)
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True)(function)
    except RuntimeError:  # no folder in which it may keep what it compiles
        compiled = numba.njit(function)
    return compiled


def loop(function: Callable[..., Any]) -> Loop:
    """The function as a `Loop`."""
    return Loop(function)


def as_list(argument: Any) -> Any:
    """Arrays as lists, anything else as it is."""
    return argument.tolist() if hasattr(argument, "tolist") else argument
