"""Schedulers by name: who runs where and in which order.

A scheduler is one file with `schedule(problem) -> Schedule` and one line in the table below. It makes lane orders and
hands them to `evaluate.evaluate_orders`; the conformance tests (`tests/schedulers/test_schedulers.py`) pick it up by
themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pararev_hw import keywords
from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.schedulers import (
    asap,
    exact,
    forward_backward,
    heft,
    local_search,
    memory_list,
    memory_min,
    pareto,
    sequential,
)
from pararev_hw.types import Schedule, SchedulingProblem, Table
from pararev_hw.types.callable_room import make_callable


@dataclass(frozen=True, slots=True)
class Scheduler:
    """An algorithm, what it does in one line, and what it can.

    `uses_memory`: it plans with the memory that tasks hold, also where there is no limit. `proves`: it can show that
    its schedule is the best, or how far it is from that, beyond the bound that every schedule states.
    """

    schedule: Callable[..., Schedule]
    description: str
    uses_memory: bool = False
    proves: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """The options that it takes, by name."""
        return tuple(inspect.signature(self.schedule).parameters)[1:]


SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType(
    {
        "sequential": Scheduler(sequential.schedule, "one task at a time on the fastest lane (the baseline)"),
        "asap": Scheduler(asap.schedule, "in program order, each task on the lane where it can start first"),
        "heft": Scheduler(
            heft.schedule, "HEFT: tasks by longest path to the end, each where it ends first, gaps included"
        ),
        "forward-backward": Scheduler(
            forward_backward.schedule, "list scheduling, improved by backward and forward passes"
        ),
        "memory-list": Scheduler(
            memory_list.schedule,
            "list scheduling within a memory limit, without dead ends",
            uses_memory=True,
        ),
        "local-search": Scheduler(local_search.schedule, "iterated local search from the best list schedule (seeded)"),
        "exact": Scheduler(
            exact.schedule, "constraint programming (CP-SAT): proves the optimum or bounds the gap", proves=True
        ),
        "memory-min": Scheduler(memory_min.schedule, "least peak memory within a latency bound", uses_memory=True),
        "pareto": Scheduler(
            pareto.schedule, "Pareto front of latency and memory, one schedule per point", uses_memory=True
        ),
    }
)


@keywords.exact
def names() -> tuple[str, ...]:
    """The schedulers there are, simplest first."""
    return tuple(SCHEDULERS)


def listing() -> Table[str]:
    """The schedulers, a row each."""
    cells = tuple((n, s.description, options_of(n)) for n, s in SCHEDULERS.items())
    return Table("schedulers", names(), ("name", "description", "options"), cells)


@keywords.exact
def describe(name: str) -> str:
    """What a scheduler does, in one line. Raises UnknownName."""
    return _find(name).description


@keywords.exact
def options_of(name: str) -> tuple[str, ...]:
    """The options that a scheduler takes. Raises UnknownName."""
    return _find(name).options


def uses_memory(name: str) -> bool:
    """Whether a scheduler plans with the memory that tasks hold, limit or not. Raises UnknownName."""
    return _find(name).uses_memory


@keywords.exact
def run(problem: SchedulingProblem, name: str, **options: Any) -> Schedule:
    """The schedule that the scheduler of that name gives.

    Raises UnknownName, BadInput for an option that the scheduler does not have, and Infeasible where the problem does
    not fit its memory limit.
    """
    algorithm = _find(name).schedule
    takes = options_of(name)
    for option in options:
        if option not in takes:
            takes_text = f"it takes {', '.join(takes)}" if takes else "it takes none"
            raise BadInput(f"scheduler {name!r} has no option {option!r}: {takes_text}")
    return keywords.exact(algorithm)(problem, **options)


def _find(name: str) -> Scheduler:
    if name not in SCHEDULERS:
        raise unknown_name("scheduler", name, names())
    return SCHEDULERS[name]


make_callable(__name__)  # pararev_hw.schedulers() is schedulers.listing()
