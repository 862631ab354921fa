"""A validation: trials of a suite against a profile, and what they say together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pararev_hw.errors import BadInput, PararevError
from pararev_hw.measurement.energy import energy_counter
from pararev_hw.progress import Progress, Steps, silent
from pararev_hw.types import Accuracy, Environment, MeasuredDevice, Profile, Validation, ValidationCase
from pararev_hw.validation.environment_check import differences, here, torch_device
from pararev_hw.validation.run_case import Run, case, runner
from pararev_hw.validation.statistics import accuracy
from pararev_hw.validation.suite import HeldOut, Trial, family, held_out, suite

Finished = Callable[[Validation], None]
"""Gets what a validation has come to after each case, as it would be if it were interrupted then."""
Quantity = Literal["latency_s", "peak_bytes", "energy_j"]

_LIMIT_S: Mapping[str, float] = {"quick": 7.0, "full": 15.0}  # of measuring one step


@dataclass(frozen=True, slots=True)
class Plan:
    """What a validation runs, what it does not run and why, and what a reader has to know."""

    suite: str
    trials: tuple[tuple[Trial, HeldOut], ...]
    left_out: tuple[str, ...]


def plan(profile: Profile, name: str) -> Plan:
    """The suite of that name without networks that the profile was fitted on. Raises BadInput where none is left."""
    trials, left_out = [], []
    for trial in suite(name, profile.kind):
        held_out_kind = held_out(trial.network, profile.held_in)
        if held_out_kind is None:
            left_out.append(f"{trial.name}: the calibration ran this network itself")
        else:
            trials.append((trial, held_out_kind))
    if not trials:
        raise BadInput(
            f"the {name} suite has no network that profile {profile.name!r} was not fitted on: "
            f"it holds in {', '.join(profile.held_in)}"
        )
    return Plan(name, tuple(trials), tuple(left_out))


def validate(
    profile: Profile,
    name: str = "quick",
    *,
    minutes: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
    finished: Finished = lambda _: None,
) -> Validation:
    """Really runs the suite on this machine and holds the profile's predictions against it.

    No trial starts after `minutes`. `progress` hears what is being done. When interrupted, what is done so far is the
    result, which says so. Raises BadInput where the profile is of another device, or `minutes` is not positive.
    """
    if minutes is not None and not 0 < minutes < float("inf"):
        raise BadInput(f"minutes is {minutes}: it must be positive and finite")
    device = torch_device(profile)
    planned = plan(profile, name)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    with energy_counter(device) as counter:
        where = here(profile)
        notes = [*differences(profile, where), *([counter] if isinstance(counter, str) else [])]
        run = runner(profile, device, _LIMIT_S[name], None if isinstance(counter, str) else counter, seed)
        return judge(
            profile,
            planned,
            run,
            notes,
            environment=where,
            deadline=deadline,
            progress=progress,
            finished=finished,
        )


def judge(
    profile: Profile,
    planned: Plan,
    run: Run,
    notes: Sequence[str] = (),
    *,
    environment: Environment | None = None,
    deadline: float | None = None,
    progress: Progress = silent,
    finished: Finished = lambda _: None,
) -> Validation:
    """The validation whose trials are measured by `run`, until `deadline` on the monotonic clock."""
    cases: list[ValidationCase] = []
    left_out = list(planned.left_out)
    interrupted = False
    waiting = list(planned.trials)

    def so_far(interrupted: bool) -> Validation:
        reason = "interrupted" if interrupted else "the time was over"
        rest = [f"{trial.name}: {reason} before it was done" for trial, _ in waiting]
        reasons = [*left_out, *rest]
        return summary(profile, planned.suite, cases, reasons, notes, environment=environment, interrupted=interrupted)

    steps = Steps(progress, len(waiting))
    try:
        while waiting:
            trial, held_out_kind = waiting[0]
            if deadline is not None and time.monotonic() >= deadline:
                break
            steps.begin(trial.name)
            try:
                cases.append(case(trial, held_out_kind, profile, run))
            except PararevError as error:  # nothing was run: it cannot be traced, or the memory does not hold it
                left_out.append(f"{trial.name}: {error}")
                waiting.pop(0)
                continue
            waiting.pop(0)
            finished(so_far(interrupted=True))
    except KeyboardInterrupt:
        interrupted = True
    return so_far(interrupted)


def summary(
    profile: Profile | MeasuredDevice,
    name: str,
    cases: Sequence[ValidationCase],
    left_out: Sequence[str] = (),
    notes: Sequence[str] = (),
    *,
    environment: Environment | None = None,
    interrupted: bool = False,
) -> Validation:
    """What the cases say together; `environment` is where they ran, None: where the profile was measured."""
    return Validation(
        device=profile.name,
        title=profile.environment.device or profile.device.title,
        kind=profile.kind,
        suite=name,
        environment=environment or profile.environment,
        cases=tuple(cases),
        latency=accuracy(pairs(cases, "latency_s")),
        memory=accuracy(pairs(cases, "peak_bytes")),
        energy=accuracy(pairs(cases, "energy_j")),
        by_held_out=_grouped(cases, lambda c: (c.held_out,)),
        by_group=_grouped(
            cases, lambda c: (family(c.network), c.mode, c.dtype, *((c.launch,) * (profile.kind == "gpu")))
        ),
        baselines=_baselines(cases),
        left_out=tuple(left_out),
        notes=tuple(notes),
        interrupted=interrupted,
    )


def pairs(cases: Sequence[ValidationCase], quantity: Quantity) -> list[tuple[float, float]]:
    """(predicted, measured) of the cases for which both are known."""
    value_pairs = []
    for c in cases:
        if c.error(quantity) is not None:
            value_pairs.append((float(getattr(c.predicted, quantity)), float(getattr(c.measured, quantity))))
    return value_pairs


def _grouped(cases: Sequence[ValidationCase], names: Callable[[ValidationCase], Sequence[str]]) -> dict[str, Accuracy]:
    """Accuracy of latency by group; a case may belong to several."""
    groups: dict[str, list[ValidationCase]] = {}
    for c in cases:
        for name in names(c):
            groups.setdefault(name, []).append(c)
    accuracy_by_group = {name: accuracy(pairs(members, "latency_s")) for name, members in sorted(groups.items())}
    return {name: a for name, a in accuracy_by_group.items() if a is not None}


def _baselines(cases: Sequence[ValidationCase]) -> dict[str, Accuracy]:
    """Accuracy of latency of each simpler prediction."""
    measured_cases = [c for c in cases if c.measured is not None]
    accuracy_by_baseline = {}
    for name in sorted({name for c in measured_cases for name in c.baselines}):
        baseline_accuracy = accuracy(
            [(c.baselines[name], c.measured.latency_s) for c in measured_cases if c.measured and name in c.baselines]
        )
        if baseline_accuracy is not None:
            accuracy_by_baseline[name] = baseline_accuracy
    return accuracy_by_baseline
