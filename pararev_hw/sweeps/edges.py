"""What a sweep's ranges leave open: which of them end where its answers lie, and which change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pararev_hw.reports import sweep_phrasing
from pararev_hw.sweeps.parameters import Parameter
from pararev_hw.sweeps.spec import span_of
from pararev_hw.types import SweepAxis, SweepPoint, SweepResult

MATTERS = 0.01  # share of an objective's variance from which on a parameter matters
NOTHING = 1e-9  # share of an objective's variance that is rounding
CLOSE = 0.05  # of a range without steps, on its own scale: draws hardly ever reach its very end


def edges(result: SweepResult, parameters: Sequence[Parameter]) -> tuple[str, ...]:
    """A line for each end of a range, of parameters that matter, where an answer of the sweep lies: the best or the
    recommended configuration, of the whole sweep and of each workload, or the one for all workloads."""
    axes = {a.name: a for a in result.parameters}
    answers = _answers(result)
    lines = []
    for p in parameters:
        shares = [sweep_phrasing.share_within(s, p.name) for s in result.sensitivity.values()]
        if max(shares, default=0.0) < MATTERS or (p.values and isinstance(p.values[0], str)):
            continue
        ends = [float(v) for v in p.values] or [p.low, p.high]
        for end, upper in ((max(ends), True), (min(ends), False)):
            if end in span_of(p.name):  # there is nothing beyond it
                continue
            there = [(word, where) for word, where, point in answers if _lies_at(p, point, end)]
            if there:
                lines.append(_line(there, p, axes[p.name], end, upper))
    return tuple(lines)


def idle(result: SweepResult) -> tuple[str, ...]:
    """A line for each parameter of a grid that changes no objective."""
    if result.method != "grid":
        return ()  # draws show every parameter some share by chance
    return tuple(
        f"varying {a.name} changes no objective here"
        for a in result.parameters
        if all(abs(shares.get(a.name) or 0.0) < NOTHING for shares in result.sensitivity.values())
    )


def _answers(result: SweepResult) -> list[tuple[str, str, SweepPoint]]:
    """What an answer is called, what it is the answer for where there are several, the configuration."""
    whole = "all rows" if result.workloads else ""
    answers = [("best", whole, sweep_phrasing.best(result)), ("recommended", whole, sweep_phrasing.recommended(result))]
    for c in result.workloads:
        name = sweep_phrasing.workload(c)
        answers += [("best", name, c.best), ("recommended", name, c.recommended)]
    shared = next((c.shared for c in result.workloads if c.shared is not None), None)
    return [*answers, *([("shared", "", shared)] if shared is not None else [])]


def _lies_at(p: Parameter, point: SweepPoint, end: float) -> bool:
    value = float(point.parameters[p.name])
    if not p.continuous:
        return abs(value - end) <= 1e-9 * abs(end)
    if p.scale == "log":
        return abs(math.log(value / end)) <= CLOSE * math.log(p.high / p.low)
    return abs(value - end) <= CLOSE * (p.high - p.low)


def _line(there: Sequence[tuple[str, str]], p: Parameter, axis: SweepAxis, end: float, upper: bool) -> str:
    names: dict[tuple[str, ...], list[str]] = {}  # of workloads -> which of their answers
    for word in dict.fromkeys(word for word, _ in there):
        names.setdefault(tuple(name for x, name in there if x == word and name), []).append(word)
    subjects = [
        f"the {' and the '.join(words)} configuration{f' of {sweep_phrasing.listed([*of])}' if of else ''}"
        for of, words in names.items()
    ]
    place = f"{'close to' if p.continuous else 'on'} the edge of {p.name}"
    side, further = ("largest", "larger") if upper else ("smallest", "smaller")
    tried = "of the range" if p.continuous else "that was tried"
    text = sweep_phrasing.value(end, axis.unit)
    untold = "; what that does to accuracy is not modelled" if p.name.startswith("network.") else ""
    return (
        f"{', and '.join(subjects)} {'lie' if len(there) > 1 else 'lies'} {place}: {text} is the {side} "
        f"{tried}, and a {further} one may be better{untold}"
    )
