"""Names of homes, as tasks are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from pararev_hw.tracing.tape import Scope, Tape
from pararev_hw.types.graph import task_id


@lru_cache(maxsize=1 << 16)
def place(home: Scope) -> Scope:
    """The home without the module path: ops of one place form a task, or a few."""
    return replace(home, module=None, glue=False, module_call=0)


def titles(tape: Tape) -> Mapping[Scope, str]:
    """The name of every place on the tape."""
    calls: dict[Scope, list[int]] = {}
    homes = {id(line.home): line.home for line in tape.lines}  # lines share them, and each takes long to compare
    places = dict.fromkeys(map(place, homes.values()))
    for p in places:
        calls.setdefault(replace(p, call=0), []).append(p.call)
    titles = {}
    for p in places:
        number = sorted(calls[replace(p, call=0)]).index(p.call) + 1
        titles[p] = task_id(p.block, p.branch, p.phase, number)
    return titles
