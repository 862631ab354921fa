"""A sweep in words: values with their units, configurations as people name them, the answer in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pararev_hw.reports import units
from pararev_hw.types import SweepAxis, SweepPoint, SweepResult, WorkloadChoice

MOST_NAMED = 4  # parameters in a sentence

_PHRASES: Mapping[str, tuple[str, str]] = {  # one, several
    "lanes": ("{} core", "{} cores"),
    "sram_bytes_per_lane": ("{} of SRAM per core", "{} of SRAM per core"),
    "memory_bandwidth_bytes_per_s": ("a main memory of {}", "a main memory of {}"),
    "noc_bandwidth_bytes_per_s": ("a network on chip of {}", "a network on chip of {}"),
    "sram_bandwidth_bytes_per_s": ("an SRAM of {}", "an SRAM of {}"),
    "pe_rows": ("{} PE row", "{} PE rows"),
    "pe_columns": ("{} PE column", "{} PE columns"),
    "clock_hz": ("a clock of {}", "a clock of {}"),
    "network.timesteps": ("T = {}", "T = {}"),
    "network": ("{}", "{}"),
    "network.coupling": ("{} coupling", "{} coupling"),
    "network.form": ("the {} form", "the {} form"),
    "network.rate": ("a firing rate of {}", "a firing rate of {}"),
    "network.width": ("width {}", "width {}"),
    "network.depth": ("depth {}", "depth {}"),
    "mode": ("{}", "{}"),
}


def value(quantity: Any, unit: str) -> str:
    """A value with its unit, for people: "256 KiB", "68.0 GB/s", "16", "parallel"."""
    if quantity is None:
        return units.UNKNOWN
    if isinstance(quantity, str):
        return quantity
    match unit:
        case "s":
            return units.seconds(quantity)
        case "B":
            return units.size(quantity)
        case "J":
            return units.joules(quantity)
        case "mm2":
            return f"{units.digits(float(quantity))} mm²"
        case "" | "1":
            return (
                f"{quantity:.0f}"
                if float(quantity).is_integer() and abs(quantity) < 1e6
                else units.digits(float(quantity))
            )
        case _:
            return _with_unit(float(quantity), unit)


_PREFIXED = frozenset(("B/s", "J s", "J/B", "W", "W/B", "Hz", "flop/s"))  # units that take m, n, k or G


def _with_unit(quantity: float, unit: str) -> str:
    if unit in _PREFIXED:
        text = units.prefixed(quantity)
        return f"{text}{'' if ' ' in text else ' '}{unit}"
    return f"{quantity:.0f} {unit}" if quantity.is_integer() and quantity < 1e6 else f"{quantity:.3g} {unit}"


def objective(axis: SweepAxis) -> str:
    """What an objective is called."""
    return axis.label or axis.name


def short(axis: SweepAxis) -> str:
    """A column's name without what its values say anyway: "sram", "memory bandwidth"."""
    name = objective(axis).removeprefix("network.")
    for ending in ("_bytes_per_s", "_bytes_per_lane", "_per_s", "_bytes", "_hz"):
        name = name.removesuffix(ending)
    return name.replace("_", " ")


def configuration(result: SweepResult, point: SweepPoint, axes_shown: tuple[SweepAxis, ...] | None = None) -> str:
    """A configuration by the parameters that matter: "8 cores with 256 KiB of SRAM each and 16 PE rows"."""
    axes = axes_shown if axes_shown is not None else telling(result)
    parts: list[str] = []
    for axis in axes:
        text = value(point.parameters[axis.name], axis.unit)
        if axis.name == "mode" and parts:
            parts[-1] += f" ({text})"  # after the network's name
            continue
        one, several = _PHRASES.get(axis.name, (f"{short(axis)} {{}}", f"{short(axis)} {{}}"))
        words = (one if text == "1" else several).format(text)
        parts.append(words.replace(" per core", _of_each(point) if "lanes" in {a.name for a in axes} else " per core"))
    if not parts:
        return "the only configuration"
    if len(parts) == 1:
        return parts[0]
    first, rest = parts[0], parts[1:]
    return f"{first} with {rest[0]}" if len(rest) == 1 else f"{first} with {', '.join(rest[:-1])} and {rest[-1]}"


def _of_each(point: SweepPoint) -> str:
    """After cores that were named: what each of them has, or the only one."""
    return "" if point.parameters["lanes"] == 1 else " each"


WORKLOAD = ("network", "mode")  # what a chip is for, not what it is


def telling(result: SweepResult) -> tuple[SweepAxis, ...]:
    """The parameters that matter most to any objective, cores first, at most MOST_NAMED, beside networks and modes."""

    def weight(axis: SweepAxis) -> float:
        return max((share_within(shares, axis.name) for shares in result.sensitivity.values()), default=0.0)

    choices = [a for a in result.parameters if a.name not in WORKLOAD] or list(result.parameters)
    most = sorted(choices, key=lambda a: -weight(a))[:MOST_NAMED]
    telling_axes = [a for a in most if weight(a) >= 0.01] or most[:1]
    return tuple(sorted(telling_axes, key=lambda a: (a.name != "lanes", -weight(a))))


def share_within(shares: Mapping[str, float | None], name: str) -> float:
    """How much of an objective's variance a parameter explains, of that which is left for each network and mode."""
    rest = 1.0 if name in WORKLOAD else 1.0 - sum(shares.get(w) or 0.0 for w in WORKLOAD)
    share = shares.get(name) or 0.0
    return share / rest if rest > 0 else share


def share_of_best(axis: SweepAxis, best: float, reached: float) -> float:
    """How much of the best value a configuration reaches, a share of one."""
    if axis.maximise:
        best, reached = reached, best
    return best / reached if reached > 0 else 1.0


def recommended(result: SweepResult) -> SweepPoint:
    """The knee of the front over all objectives, or what equals it with less hardware."""
    return result.pareto[0] if result.recommended is None else result.recommended


ALIKE = 0.01  # relative: what is as good as the best in the first objective


def best(result: SweepResult) -> SweepPoint:
    """The best in the first objective; of those within 1 % of it, the one that costs least in the other objectives."""
    return best_of(result.pareto, result.objectives) if result.best is None else result.best


def best_of(front: Sequence[SweepPoint], objectives: Sequence[SweepAxis]) -> SweepPoint:
    """The same of any front that is sorted by the first objective."""
    first, *others = objectives
    leader = front[0].objectives[first.name]
    alike = [p for p in front if share_of_best(first, leader, p.objectives[first.name]) >= 1 - ALIKE]

    def cost(p: SweepPoint) -> float:
        logs = [(-1 if o.maximise else 1) * math.log(max(p.objectives[o.name], 1e-300)) for o in others]
        return round(sum(logs), 9)

    return min(alike, key=lambda p: (cost(p), p.row)) if others else front[0]


def answer(result: SweepResult) -> str:
    """The sweep in a sentence or two: which configuration to take, what it costs, and what the best would take."""
    if not result.pareto:
        return f"None of {result.evaluated:,} configurations is possible."
    overall = _overall(result)
    if not result.workloads:
        return overall
    rest = overall if _begins_with_network(result, overall) else f"{overall[:1].lower()}{overall[1:]}"
    return f"Whatever the {_workload_noun(result)}: {rest}"


def _workload_noun(result: SweepResult) -> str:
    return " and ".join(name for name in WORKLOAD if name in result.workloads[0].workload)


def _overall(result: SweepResult) -> str:
    leader, chosen = best(result), recommended(result)
    first = result.objectives[0]
    axes = named_axes(result, leader, chosen)
    others = result.objectives[1:]
    if chosen.row == leader.row or not others:
        subject = _begun(result, configuration(result, leader, axes))
        sentence = f"{subject}: the best {objective(first)}, {_values(result, leader)}"
        if others:
            sentence += f"; it is also the best compromise with {listed([objective(o) for o in others])}"
        return f"{sentence}."
    weighed = f"Recommended for {listed([objective(o) for o in result.objectives])} together"
    ratios = [
        f"{units.times(chosen.objectives[o.name] / at_best)} its {objective(o)}"
        for o in result.objectives
        if (at_best := leader.objectives[o.name])
    ]
    return (
        f"{weighed}: {configuration(result, chosen, axes)}: {_values(result, chosen)}. "
        f"The best {objective(first)}: {configuration(result, leader, axes)}: {_values(result, leader)}; "
        f"the recommended one has {listed(ratios)}."
    )


def workload_lines(result: SweepResult) -> tuple[str, ...]:
    """Where several networks were swept: what to take for each, and for all of them together."""
    lines = [_for_workload(result, choice) for choice in result.workloads]
    return (*lines, *shared_lines(result))


def workload(choice: WorkloadChoice) -> str:
    """What a workload is called: "pararevsnn21", "pararevsnn21 (train)"."""
    names = [v for name, v in choice.workload.items() if name != "mode"]
    mode = choice.workload.get("mode")
    return f"{names[0]} ({mode})" if names and mode else names[0] if names else str(mode)


def workload_axes(result: SweepResult) -> tuple[SweepAxis, ...]:
    """The parameters by which the answers of all workloads are told apart, beside the workloads themselves."""
    points = [p for c in result.workloads for p in (c.best, c.recommended, *([c.shared] if c.shared else []))]
    return _without_workload(result, named_axes(result, *points))


def shared_lines(result: SweepResult) -> tuple[str, ...]:
    """The configuration that serves all workloads, and what each of them loses by it."""
    pairs = [(c.recommended, c.shared) for c in result.workloads if c.shared is not None]
    if not pairs:
        return ()
    shared = pairs[0][1]
    axes = _without_workload(result, named_axes(result, shared, *(p for p, _ in pairs)))
    ratios = []
    for o in result.objectives:
        of_each = [q.objectives[o.name] / p.objectives[o.name] for p, q in pairs if p.objectives[o.name]]
        if of_each:
            low, high = units.times(min(of_each)), units.times(max(of_each))
            ratios.append(f"{low if low == high else f'{low} to {high}'} the {objective(o)}")
    return (
        f"One configuration for all {len(pairs)} of them (by the geometric means): "
        f"{configuration(result, shared, axes)}: {listed(ratios)} of what is recommended for each.",
    )


def _for_workload(result: SweepResult, choice: WorkloadChoice) -> str:
    first, leader, chosen = result.objectives[0], choice.best, choice.recommended
    axes = _without_workload(result, named_axes(result, leader, chosen))
    what = f"{_begun(result, workload(choice))}: {configuration(result, chosen, axes)}: {_values(result, chosen)}"
    if chosen.row == leader.row or len(result.objectives) < 2:
        return f"{what}, the best {objective(first)}."
    return f"{what}; the best {objective(first)}: {configuration(result, leader, axes)}: {_values(result, leader)}."


def _without_workload(result: SweepResult, axes: Sequence[SweepAxis]) -> tuple[SweepAxis, ...]:
    names = {name for c in result.workloads for name in c.workload}
    return tuple(a for a in axes if a.name not in names)


def _values(result: SweepResult, point: SweepPoint) -> str:
    """A configuration's objectives: "100 ms, 820 mJ"."""
    return ", ".join(value(point.objectives[o.name], o.unit) for o in result.objectives)


def named_axes(result: SweepResult, *points: SweepPoint) -> tuple[SweepAxis, ...]:
    """The parameters by which these points are told apart: those that matter, the network and the number of cores where
    several were swept, and every one in which the points differ."""
    most = {a.name for a in telling(result)}

    def named(a: SweepAxis) -> bool:
        return a.name in most or a.name in (*WORKLOAD, "lanes") or len({p.parameters[a.name] for p in points}) > 1

    def place(a: SweepAxis) -> tuple[bool, bool]:
        return (a.name not in WORKLOAD, a.name != "lanes")

    return tuple(sorted((a for a in result.parameters if named(a)), key=place))


def base_name(result: SweepResult) -> str:
    """What the base device is called in pictures: with its network and mode, where there are several."""
    names = [str(result.base.parameters[a.name]) for a in result.parameters if result.base and a.name in WORKLOAD]
    return f"base device ({', '.join(names)})" if names else "base device"


def listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def hidden(result: SweepResult, shown_count: int) -> str:
    """What a table of so many of the front's rows leaves out; "" where nothing is."""
    alike = sum(p.alike for p in result.pareto)
    parts = []
    if shown_count < len(result.pareto):
        parts.append(f"{shown_count} of {len(result.pareto):,} rows of the front are shown; all are in pareto.csv")
    if all(p.row != recommended(result).row for p in result.pareto):
        parts.append(
            "the recommended configuration equals a row of the front within 1 % in every objective, with less hardware"
        )
    if alike > len(result.pareto):
        parts.append(
            f"{alike:,} configurations lie on the front: those within 0.1 % of each other in every objective stand in "
            "one row, the one with the least hardware; and one that another equals within 1 % in every objective, with "
            "over 1 % less of one, stands in the row of that other"
        )
    return ". ".join(map(_capital, parts))


def counts(result: SweepResult) -> str:
    """How many configurations there were and what became of them."""
    sentence = f"{result.evaluated:,} configurations, {len(result.pareto):,} on the Pareto front"
    if not result.failed:
        return f"{sentence}, all possible."
    reasons = "; ".join(f"{count:,}: {reason}" for reason, count in list(result.reasons.items())[:5])
    return f"{sentence}, {result.failed:,} impossible ({reasons})."


def _begun(result: SweepResult, text: str) -> str:
    """The beginning of a sentence: with a capital, unless it is a network's name."""
    return text if _begins_with_network(result, text) else _capital(text)


def _begins_with_network(result: SweepResult, text: str) -> bool:
    return any(text.startswith(name) for c in result.workloads if (name := c.workload.get("network")) is not None)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
