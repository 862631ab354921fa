"""The shortest makespan of a small problem, found by CP-SAT from a model written for the tests alone."""

from __future__ import annotations

from ortools.sat.python import cp_model

from pararev_hw.types import SchedulingProblem

SCALE = 4  # times are multiples of 1/4


def optimum(costs: SchedulingProblem, seconds: float = 60.0) -> float:
    """Proved optimal makespan. Every task takes the same time on all lanes; memory is what `costs.buffers` say."""
    model = cp_model.CpModel()
    times = [round(c.times_s[0] * SCALE) for c in costs.tasks]
    delays = [round(e.delay_s * SCALE) for e in costs.edges]
    horizon = sum(times) + sum(delays)
    start = [model.new_int_var(0, horizon, "") for _ in times]
    end = [s + t for s, t in zip(start, times, strict=True)]
    makespan = model.new_int_var(0, horizon, "")
    for e in end:
        model.add(makespan >= e)
    if any(delays):
        on = [[model.new_bool_var("") for _ in range(costs.lanes)] for _ in times]
        for k in range(costs.lanes):
            model.add_no_overlap(
                [
                    model.new_optional_fixed_size_interval_var(start[i], t, on[i][k], "")
                    for i, t in enumerate(times)
                    if t
                ]
            )
        for lanes in on:
            model.add_exactly_one(lanes)
    else:
        intervals = [model.new_fixed_size_interval_var(start[i], t, "") for i, t in enumerate(times) if t]
        model.add_cumulative(intervals, [1] * len(intervals), costs.lanes)
    for e, delay in zip(costs.edges, delays, strict=True):
        model.add(start[e.dst] >= end[e.src])
        if delay:
            for k in range(costs.lanes):
                model.add(start[e.dst] >= end[e.src] + delay).only_enforce_if(on[e.src][k], ~on[e.dst][k])
    if costs.memory_limit_bytes is not None:
        alive = []
        for b in costs.buffers:
            born, gone = model.new_int_var(0, horizon, ""), model.new_int_var(0, horizon, "")
            model.add_min_equality(born, [start[i] for i in b.tasks])
            model.add_max_equality(gone, [end[i] for i in b.tasks])
            alive.append(model.new_interval_var(born, model.new_int_var(0, horizon, ""), gone, ""))
        model.add_cumulative(alive, [b.bytes for b in costs.buffers], costs.memory_limit_bytes)
    model.minimize(makespan)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 8
    solver.parameters.max_time_in_seconds = seconds
    status = solver.solve(model)
    assert status == cp_model.OPTIMAL, solver.status_name(status)
    return solver.objective_value / SCALE
