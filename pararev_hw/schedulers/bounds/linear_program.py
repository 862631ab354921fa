"""Linear programs over bounds of pairs, by HiGHS as SciPy brings it.

`scipy.optimize` takes half a second to load, for a solver that takes milliseconds. So the solver's own module is loaded
by itself, and SciPy's front door stands in where a release keeps it elsewhere.
"""

from __future__ import annotations

import sys
from importlib import util
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pararev_hw.types.problem_arrays import Floats, Ints

_SOLVER = "scipy.optimize._highspy._core"
_PRIMAL = 4  # the primal simplex, from y = 0 and without presolve, takes half of the default's time on these programs


def most_of_pairs(worth: Floats, most: Floats, first: Ints, second: Ints, together: Floats) -> Floats | None:
    """The y from 0 to `most` of the greatest sum of worth * y, with y[first[k]] + y[second[k]] <= together[k] for each
    pair k, up to the solver's rounding; None where it finds none."""
    solver = _solver()
    try:
        return (
            _by_scipy(worth, most, first, second, together)
            if solver is None
            else _by_highs(solver, worth, most, first, second, together)
        )
    except (AttributeError, TypeError):  # another release's names
        return _by_scipy(worth, most, first, second, together)


def _solver() -> Any:
    """HiGHS, None where SciPy keeps it elsewhere."""
    if _SOLVER in sys.modules:
        return sys.modules[_SOLVER]
    scipy = PathFinder.find_spec("scipy")
    for place in (scipy.submodule_search_locations or ()) if scipy is not None else ():
        spec = PathFinder.find_spec(_SOLVER, [str(Path(place, "optimize", "_highspy"))])
        if spec is not None and spec.loader is not None:
            module: ModuleType = util.module_from_spec(spec)
            sys.modules[_SOLVER] = module  # its types can be registered once: `scipy.optimize` is to find it here
            try:
                spec.loader.exec_module(module)
            except ImportError:
                del sys.modules[_SOLVER]
                return None
            return module
    return None


def _by_highs(solver: Any, worth: Floats, most: Floats, first: Ints, second: Ints, together: Floats) -> Floats | None:
    program = solver.HighsLp()
    pairs, by_task, start = len(first), *_columns(first, second, len(worth))
    program.num_col_, program.num_row_ = len(worth), pairs
    program.a_matrix_.num_col_, program.a_matrix_.num_row_ = len(worth), pairs
    program.a_matrix_.format_ = solver.MatrixFormat.kColwise
    program.col_cost_, program.col_lower_, program.col_upper_ = -worth, np.zeros(len(worth)), most
    program.row_lower_, program.row_upper_ = np.full(pairs, -solver.kHighsInf), together
    program.a_matrix_.start_, program.a_matrix_.index_ = start, by_task
    program.a_matrix_.value_ = np.ones(2 * pairs)
    options = solver.HighsOptions()
    options.output_flag = options.log_to_console = False
    options.presolve, options.solver, options.simplex_strategy = "off", "simplex", _PRIMAL
    highs = solver._Highs()
    highs.passOptions(options)
    if highs.passModel(program) == solver.HighsStatus.kError or highs.run() == solver.HighsStatus.kError:
        return None
    if highs.getModelStatus() != solver.HighsModelStatus.kOptimal:
        return None
    return np.array(highs.getSolution().col_value)


def _columns(first: Ints, second: Ints, count: int) -> tuple[Ints, Ints]:
    """The pairs that each of `count` numbers is in, one after the other, and where each one's begin."""
    member = np.concatenate((first, second))
    pair = np.tile(np.arange(len(first)), 2)
    order = np.lexsort((pair, member))
    start = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(member, minlength=count), out=start[1:])
    return pair[order].astype(np.int32), start.astype(np.int32)


def _by_scipy(worth: Floats, most: Floats, first: Ints, second: Ints, together: Floats) -> Floats | None:
    from scipy.optimize import linprog  # late: see above
    from scipy.sparse import csr_array

    pairs = np.tile(np.arange(len(first)), 2)
    matrix = csr_array((np.ones(len(pairs)), (pairs, np.concatenate((first, second)))), shape=(len(first), len(worth)))
    bounds = np.column_stack((np.zeros(len(worth)), most))
    limits = (matrix, together) if len(first) else (None, None)
    solution: Floats | None = linprog(-worth, *limits, bounds=bounds, method="highs").x
    return solution
