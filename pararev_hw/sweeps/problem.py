"""A sweep made ready: networks traced, orders decided. It evaluates any chunk of rows, in any process, alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pararev_hw import limits
from pararev_hw.costmodels import working_out_once
from pararev_hw.devices import PARAMETERS
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.progress import Progress, Steps
from pararev_hw.sweeps.columns import FAILURES
from pararev_hw.sweeps.engine import Engine
from pararev_hw.sweeps.objectives import NetworkSize, objective_values
from pararev_hw.sweeps.sources import files_read
from pararev_hw.sweeps.spec import DISCRETE, NETWORK, Sweep
from pararev_hw.sweeps.variants import Variant, graph_of, networks_of, with_rate
from pararev_hw.types import BlockGraph, Study

Table = dict[str, NDArray[Any]]  # column -> values; "failed" holds the reason, "" where there is none


@dataclass(frozen=True, slots=True)
class _Network:
    """A traced variant; `engine` None: no such network, for the reason given."""

    engine: Engine | None
    refused: str
    size: NetworkSize | None = None


@dataclass(slots=True)
class Problem:
    """`networks` are the variants that may occur, traced."""

    sweep: Sweep
    networks: Mapping[Variant, _Network]
    read: frozenset[str] = frozenset()  # files that were opened while the networks were traced

    def rows(self, start: int, stop: int) -> Table:
        """The parameters of a grid's or a random draw's rows."""
        method = self.sweep.method
        space = self.sweep.space
        return space.grid(start, stop) if method.name == "grid" else space.random(start, stop, method.seed)

    def base(self) -> Table:
        """The base device itself, one row: listed parameters of the network at their first value. No constraint."""
        device_values: dict[str, float | str] = {"lanes": float(self.sweep.device.lanes)}
        device_values |= {n: PARAMETERS[n].shown(f.value) for n, f in self.sweep.device.parameters.items()}
        row = {
            p.name: device_values.get(p.name, p.values[0] if p.values else p.low) for p in self.sweep.space.parameters
        }
        free = Problem(replace(self.sweep, constraints=()), self.networks)
        return free.evaluate({name: np.array([value]) for name, value in row.items()})

    def evaluate(self, parameters: Table) -> Table:
        """Parameters, derived quantities, objectives, and why a row failed. Failed rows have NaN objectives."""
        count = len(parameters["network"])
        values = self.values_by_name(parameters, count)
        table = dict(parameters)
        for name, expression in self.sweep.derived:
            values[name] = table[name] = expression(values, count)
        failed = np.full(count, "", dtype=object)
        for constraint in self.sweep.constraints:
            broken = ~constraint(values, count) & (failed == "")
            failed[broken] = f"constraint {constraint.text}"
        objectives = {o.column: np.full(count, np.nan) for o in self.sweep.objectives if o.column not in table}
        for rows, variant, lanes in self._groups(parameters, np.flatnonzero(failed == "")):
            self._fill(rows, variant, lanes, values, objectives, failed)
        return {**table, **objectives, "failed": failed}

    def values_by_name(self, parameters: Table, count: int) -> dict[str, Any]:
        device = self.sweep.device
        fixed = {
            "lanes": float(device.lanes),
            **{n: PARAMETERS[n].shown(f.value) for n, f in device.parameters.items()},
        }
        return {**{n: np.full(count, v) for n, v in fixed.items()}, **parameters}

    def _groups(self, parameters: Table, rows: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], Variant, int]]:
        """Rows of one network and number of lanes each."""
        lanes = parameters.get("lanes")
        keys = [n for n in parameters if n in ("network", "mode", *NETWORK)]
        codes = np.zeros(len(rows), np.int64)
        for name in (*keys, *(["lanes"] if lanes is not None else [])):
            _, code = np.unique(parameters[name][rows], return_inverse=True)
            codes = codes * (int(code.max(initial=0)) + 1) + code.reshape(-1)
        groups = []
        for code in np.unique(codes):
            group = rows[codes == code]
            variant = variant_of({n: parameters[n][group[0]] for n in keys})
            groups.append((group, variant, self.sweep.device.lanes if lanes is None else int(lanes[group[0]])))
        return groups

    def _fill(
        self,
        rows: NDArray[np.int64],
        variant: Variant,
        lanes: int,
        values: Mapping[str, Any],
        objectives: Table,
        failed: NDArray[Any],
    ) -> None:
        network = self.networks[variant]
        if network.engine is None or network.size is None:
            failed[rows] = network.refused
            return
        changed = [p.name for p in self.sweep.space.parameters if p.name in self.sweep.device.parameters]
        outcome = network.engine({n: as_figure(n, values[n][rows]) for n in changed}, lanes, len(rows))
        for code in np.unique(outcome.failure):
            failed[rows[outcome.failure == code]] = FAILURES[code]
        costs = objective_values(outcome, network.size, lanes, {n: v[rows] for n, v in values.items()})
        for column, into in objectives.items():
            into[rows] = np.where(outcome.failure == 0, costs[column], np.nan)


def as_figure(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """A parameter's values as the device's figure holds them: a choice by its number."""
    choices = PARAMETERS[name].choices
    if values.dtype.kind in "US":
        return np.array([choices.index(v) for v in values.tolist()], np.float64)
    return np.asarray(values, np.float64)


def study_of(engine: Engine, sweep: Sweep, values: Mapping[str, Any]) -> Study:
    """The full study of one row. Raises Infeasible."""
    return engine.study(*configuration_of(sweep, values))


def configuration_of(sweep: Sweep, values: Mapping[str, Any]) -> tuple[dict[str, float], int]:
    """The figures of the device that one row changes, and its lanes."""
    varied = [p.name for p in sweep.space.parameters if p.name in sweep.device.parameters]
    figures = {name: float(as_figure(name, np.array([values[name]]))[0]) for name in varied}
    return figures, int(values.get("lanes", sweep.device.lanes))


def variant_of(values: Mapping[str, Any]) -> Variant:
    """The variant of one row, by its network parameters."""
    options: dict[str, Any] = {}
    for name, value in values.items():
        if name not in ("network", "mode", *NETWORK):
            continue
        key = name.removeprefix("network.")
        options[key] = int(value) if name in DISCRETE else float(value) if key in ("width", "rate") else str(value)
    return Variant(**options)


def variants(sweep: Sweep) -> tuple[Variant, ...]:
    """Every network that the sweep may ask for, in the order of the grid."""
    keys = [p for p in sweep.space.parameters if p.name in ("network", "mode", *NETWORK)]
    combinations: list[dict[str, Any]] = [{}]
    for p in keys:
        combinations = [{**f, p.name: v} for f in combinations for v in p.values]
        if len(combinations) > limits.NETWORKS:
            raise BadInput(
                f"the sweep asks for more than {limits.NETWORKS} networks: each is traced; list fewer values"
            )
    return tuple(variant_of(f) for f in combinations)


def prepare(sweep: Sweep, progress: Progress, compute: str | None = None) -> Problem:
    """Trace every network and decide the lane orders of every class. `compute` as `Engine` takes it. Raises BadInput,
    UnknownName, TraceError."""
    networks: dict[Variant, _Network] = {}
    lanes = next((p.values for p in sweep.space.parameters if p.name == "lanes"), (sweep.device.lanes,))
    sweep_variants = variants(sweep)
    graphs: dict[Variant, BlockGraph] = {}
    read: set[str] = set()

    def traced(variant: Variant) -> BlockGraph:
        at_any_rate = replace(variant, rate=None)
        if at_any_rate not in graphs:
            with files_read(networks_of(sweep)) as paths:
                graphs[at_any_rate] = graph_of(variant, sweep, progress)
            read.update(paths)
        return with_rate(graphs[at_any_rate], variant.rate)

    steps = Steps(progress, len(sweep_variants))
    for variant in sweep_variants:
        try:
            graph = traced(variant)
        except Infeasible as error:
            networks[variant] = _Network(None, str(error))
            continue
        steps.begin(f"preparing {variant.title}")
        with working_out_once():
            engine = Engine(graph, sweep.device, sweep.scheduler, sweep.memory_limit_bytes, compute)
            for n in lanes:
                engine.prepare(int(n))
        forward = sum(t.macs for t in graph.tasks if t.phase == "forward")
        networks[variant] = _Network(engine, "", NetworkSize(graph.batch, graph.parameters, forward))
    if all(n.engine is None for n in networks.values()):
        raise BadInput(f"no network of the sweep exists: {next(iter(networks.values())).refused}")
    return Problem(sweep, networks, frozenset(read))


def check_satisfiable(sweep: Sweep) -> None:
    """Refuse constraints that nothing satisfies and expressions that always divide by zero, as far as the first rows of
    the sweep and some draws tell."""
    if not sweep.constraints and not sweep.derived:
        return
    problem = Problem(sweep, {})
    whole = sweep.space.combinations
    count = min(200_000, whole) if whole is not None else 200_000
    rows = sweep.space.grid(0, count) if whole is not None and whole <= count else sweep.space.random(0, count, 0)
    values = problem.values_by_name(rows, count)
    for name, expression in sweep.derived:
        values[name] = expression(values, count)
    constraints = ((f"constraints[{k}]", c) for k, c in enumerate(sweep.constraints))
    for at, expression in (*((f"derived.{name}", e) for name, e in sweep.derived), *constraints):
        if (divisor := expression.zero_divisor(values, count)) is not None:
            raise BadInput(f"{at}: {expression.text!r} divides by zero: {divisor} is 0 in every configuration")
    satisfied = [c(values, count) for c in sweep.constraints]
    if not satisfied or np.logical_and.reduce(satisfied).any():
        return
    shares = [h.mean() for h in satisfied]
    hardest = int(np.argmin(shares))
    scope = "no configuration" if whole == count else f"none of {count:,} configurations drawn"
    verdict = "satisfies it" if shares[hardest] == 0 else "satisfies all constraints at once"
    raise BadInput(
        f"constraints[{hardest}]: {sweep.constraints[hardest].text!r}: {scope} {verdict}: loosen it or widen a range"
    )
