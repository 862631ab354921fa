"""Validation runs what it says on networks that the fit never saw, and one case's trouble is no other's."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pararev_hw import models
from pararev_hw.devices import load_device
from pararev_hw.errors import BadInput, Diverged, Infeasible, UnknownName
from pararev_hw.types import BlockGraph, Estimate, StepCost, StepSample
from pararev_hw.validation import run_case, validation
from pararev_hw.validation.environment_check import differences, here, torch_device
from pararev_hw.validation.memory import peak_bytes, storage_bytes
from pararev_hw.validation.predicting import FLOPS, ROOFLINE, baselines, flops_of, predicted, traced
from pararev_hw.validation.statistics import accuracy, fitted_constant, kendall_tau
from pararev_hw.validation.stepping import check_finite, real_step, replayed
from pararev_hw.validation.suite import Trial, held_out, network_of, suite
from pararev_hw.validation.validation import judge, plan
from tests.helpers.validation_helpers import cpu_profile

TINY = Trial("pararevsnn21", "train", "float32", 0.0625, 2, 2)
positive = st.floats(1e-6, 1e6)
pairs = st.lists(st.tuples(positive, positive), min_size=1, max_size=12)


# ---- statistics


@given(pairs)
def test_the_errors_are_what_they_are_by_hand(found: list[tuple[float, float]]) -> None:
    a = accuracy(found)
    assert a is not None
    errors = [abs(p - m) / m for p, m in found]
    assert a.cases == len(found)
    assert a.mape == pytest.approx(sum(errors) / len(errors))
    assert a.max == pytest.approx(max(errors))
    assert a.within_10pct == sum(abs(p / m - 1) <= 0.1 for p, m in found) / len(found)


def test_mean_error_by_hand() -> None:
    a = accuracy([(1.1, 1.0), (1.6, 2.0), (3.0, 3.0)])  # 10 %, 20 %, 0 %
    assert a is not None
    assert (a.mape, a.max) == (pytest.approx(0.1), pytest.approx(0.2))
    assert accuracy([]) is None


def by_counting(found: list[tuple[float, float]]) -> float | None:
    """Tau-b from its definition: concordant less discordant pairs over the geometric mean of the untied ones."""
    concordant = discordant = tied_p = tied_m = 0
    for (p, m), (q, n) in combinations(found, 2):
        a, b = (p > q) - (p < q), (m > n) - (m < n)
        concordant += a * b > 0
        discordant += a * b < 0
        tied_p += a == 0
        tied_m += b == 0
    total = len(found) * (len(found) - 1) // 2
    scale = math.sqrt((total - tied_p) * (total - tied_m))
    return (concordant - discordant) / scale if scale else None


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=10))
def test_tau_is_what_counting_pairs_gives(found: list[tuple[int, int]]) -> None:
    expected = by_counting([(float(p), float(m)) for p, m in found])
    tau = kendall_tau([(float(p), float(m)) for p, m in found])
    assert tau == (None if expected is None else pytest.approx(expected))


@given(pairs, st.floats(0.1, 10))
def test_a_monotone_change_of_the_predictions_leaves_the_ranking(
    found: list[tuple[float, float]], power: float
) -> None:
    cubes = [(float(round(p, 3) ** 3), m) for p, m in found]
    assert kendall_tau([(float(round(p, 3)), m) for p, m in found]) == kendall_tau(cubes)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=9))
def test_the_constant_has_as_many_steps_above_as_below(found: list[tuple[float, float]]) -> None:
    c = fitted_constant(found)
    assert c is not None
    assert sum(y > c * x * (1 + 1e-9) for x, y in found) <= len(found) / 2
    assert sum(y < c * x * (1 - 1e-9) for x, y in found) <= len(found) / 2


def test_no_constant_without_flops() -> None:
    assert fitted_constant([]) is None
    assert fitted_constant([(0.0, 1.0)]) is None


# ---- the suite


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_suites_cover_what_the_issue_asks_for_and_full_holds_quick(kind: str) -> None:
    quick, full = suite("quick", kind), suite("full", kind)
    assert set(quick) < set(full)
    for trials in (quick, full):
        assert len({t.name for t in trials}) == len(trials)
        assert {models.spec(t.network).family for t in trials} == {"pararevsnn", "revsresnet", "msresnet"}
        assert {t.mode for t in trials} == {"train", "infer"}
        assert {t.dtype for t in trials} == {"float32", "bfloat16"}
        assert {t.launch for t in trials} == ({"eager", "graph"} if kind == "gpu" else {"eager"})
        for attribute in ("width", "batch", "timesteps"):
            assert len({getattr(t, attribute) for t in trials}) >= 3


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(UnknownName, match="quick"):
        suite("quikc", "cpu")


@settings(deadline=None)  # the first example measures the machine
@given(st.lists(st.sampled_from([f"{n}{rest}" for n in models.names() for rest in ("", " train, batch 4", ", x")])))
def test_no_network_of_the_fit_is_ever_run(held_in: list[str]) -> None:
    profile = cpu_profile(held_in)
    seen = {network_of(entry) for entry in held_in}
    try:
        planned = plan(profile, "quick")
    except BadInput:
        assert {t.network for t in suite("quick", "cpu")} <= seen
        return
    run = {trial.network for trial, _ in planned.trials}
    assert not run & seen
    assert len(planned.trials) + len(planned.left_out) == len(suite("quick", "cpu"))
    for trial, what in planned.trials:
        families = {models.spec(n).family for n in seen}
        assert what == ("shape" if models.spec(trial.network).family in families else "network")


def test_a_network_outside_the_zoo_holds_in_no_family() -> None:
    assert held_out("pararevsnn37", ["convnet train"]) == "network"
    assert held_out("pararevsnn37", ["pararevsnn37 train"]) is None


# ---- the real step


class Net(nn.Module):
    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4, bias=False)
        self.broken = broken

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return y / 0.0 * 0.0 if self.broken else y


def step_of(model: nn.Module, mode: str = "train", device: str = "cpu") -> Any:
    return real_step(
        model,
        [torch.empty(2, 8, device="meta")],
        mode=mode,
        dtype="float32",
        optimizer="sgd",
        device=device,
        samples=2,
        classes=4,
    )


def test_the_step_really_trains() -> None:
    torch.manual_seed(0)
    model = Net()
    weight = model.linear.weight.detach().clone()
    step = step_of(model)
    losses = [step.run().item() for _ in range(20)]
    assert losses[-1] < losses[0]
    x, y = step.persistent()[-2:]
    plain = weight.requires_grad_()
    momentum = None
    for loss in losses:  # SGD by hand: lr 0.1, momentum 0.9, weight decay 1e-4
        value = nn.functional.cross_entropy(x @ plain.T, y)
        assert value.item() == pytest.approx(loss, rel=1e-4)
        (gradient,) = torch.autograd.grad(value, plain)
        gradient = gradient + 1e-4 * plain.detach()
        momentum = gradient if momentum is None else 0.9 * momentum + gradient
        plain = (plain.detach() - 0.1 * momentum).requires_grad_()
    assert torch.allclose(plain, model.linear.weight, atol=1e-5)


def test_a_prediction_leaves_the_network_as_it_was() -> None:
    model = Net()
    before = model.linear.weight.detach().clone()
    step = step_of(model, "infer")
    assert not step.run().requires_grad
    assert torch.equal(before, model.linear.weight)
    assert not model.training


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_result_that_is_no_number_is_told(mode: str) -> None:
    step = step_of(Net(broken=True), mode)
    with pytest.raises(Diverged, match="nan after 3 steps"):
        check_finite(step.run(), 3)
    check_finite(step_of(Net(), mode).run(), 3)


def test_recorded_peak_is_the_sum_of_what_is_alive() -> None:
    step = step_of(Net(), "infer")
    step.run()
    assert peak_bytes(step, "cpu") == 4 * (4 * 8 + 2 * 8 + 2 * 4)  # weight, input, output


def test_a_shared_storage_counts_once() -> None:
    t = torch.zeros(10)
    assert storage_bytes([t, t.view(2, 5), t[:3]]) == 40


def test_a_tiny_network_is_really_measured() -> None:
    profile = cpu_profile()
    measured = run_case.runner(profile, "cpu", 0.5, None)(TINY, traced(TINY, "cpu"))
    seconds = measured.seconds
    assert measured.cost.latency_s == sorted(seconds)[len(seconds) // 2] > 0
    assert len(seconds) >= 3 and len(measured.paces_s) >= len(seconds)
    assert measured.cost.energy_j is None
    assert measured.cost.peak_bytes == pytest.approx(
        predicted(traced(TINY, "cpu"), profile, "eager").peak_bytes, rel=0.02
    )


# ---- predictions


def test_the_simpler_predictions_are_the_roofline_and_flops_by_one_constant() -> None:
    graph = traced(TINY, "cpu")
    steps = (StepSample("a", (1.0, 3.0, 2.0), 1.0, flops=10), StepSample("b", (9.0,), 1.0, flops=0))
    profile = cpu_profile(steps=steps)
    found = baselines(graph, profile, "eager")
    assert found[FLOPS] == pytest.approx(0.2 * flops_of(graph))  # 2 s for 10 flops; b tells nothing
    assert found[ROOFLINE] == pytest.approx(predicted(graph, profile, "eager").latency_s)  # no fit: the same
    assert set(baselines(graph, replace(profile, steps=()), "eager")) == {ROOFLINE}


def test_more_samples_are_predicted_to_take_longer_and_more_memory() -> None:
    profile = cpu_profile()
    small, large = (predicted(traced(replace(TINY, batch=b), "cpu"), profile, "eager") for b in (2, 8))
    assert small.latency_s < large.latency_s
    assert small.peak_bytes < large.peak_bytes


# ---- one case after another


def planned(*trials: Trial) -> validation.Plan:
    return validation.Plan("quick", tuple((t, "network") for t in trials), ("before: said so",))


def answering(*answers: object) -> run_case.Run:
    """A run that gives these one after another; exceptions are raised."""
    waiting = list(answers)

    def run(trial: Trial, graph: BlockGraph) -> run_case.MeasuredTrial:
        answer = waiting.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, float)
        return run_case.MeasuredTrial(StepCost(answer, 1000), (answer,))

    return run


def test_a_gpu_profile_predicts_both_ways_to_launch_and_energy_without_a_gpu() -> None:
    base = cpu_profile()
    gpu = replace(base, device=load_device("h200"), environment=replace(base.environment, device="NVIDIA H200"))

    def run(trial: Trial, graph: BlockGraph) -> run_case.MeasuredTrial:
        return run_case.MeasuredTrial(StepCost(0.1, 1 << 20, 2.0), (0.1,))

    both = planned(TINY, replace(TINY, launch="graph"))
    found = judge(gpu, both, run)
    eager, graph = (c.predicted for c in found.cases)
    assert eager is not None and graph is not None
    assert graph.latency_s < eager.latency_s  # no host that launches a thousand small kernels
    assert eager.peak_bytes == graph.peak_bytes
    assert found.energy is not None
    assert set(found.by_group) >= {"eager", "graph"}
    assert found.title == "NVIDIA H200"


def test_a_step_is_predicted_for_the_memory_that_it_was_seen_to_map_in() -> None:
    """1 MiB at 10 ns a byte is 10.5 ms more."""
    profile = replace(cpu_profile(), host={"fault_s_per_byte": Estimate(1e-8)})

    def latency_s(faulted_bytes: int) -> float:
        measured = run_case.MeasuredTrial(StepCost(0.1, 1000), (0.1,), faulted_bytes=faulted_bytes)
        (case,) = judge(profile, planned(TINY), lambda trial, graph: measured).cases
        assert case.predicted is not None
        return case.predicted.latency_s

    assert latency_s(1 << 20) - latency_s(0) == pytest.approx(1e-8 * (1 << 20), rel=1e-6)


TRIALS = tuple(replace(TINY, batch=b) for b in (1, 2, 3))


def test_a_case_that_fails_says_why_and_the_rest_go_on() -> None:
    run = answering(Diverged("its loss is nan after 1 steps"), RuntimeError("out of\nmemory"), 0.1)
    found = judge(cpu_profile(), planned(*TRIALS), run)
    assert [c.failed for c in found.cases] == ["Diverged: its loss is nan after 1 steps", "RuntimeError: out of", None]
    assert found.latency is not None
    assert found.latency.cases == 1
    assert not found.within(1e9)
    assert found.left_out == ("before: said so",)


def test_a_broken_network_among_others_is_reported_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    create = models.create

    def sometimes_broken(name: str, **options: Any) -> nn.Module:
        made = create(name, **options)
        if name == "revsresnet21" and next(made.parameters()).device.type == "cpu":
            with torch.no_grad():
                list(made.parameters())[-1].fill_(math.nan)  # of the classifier: a neuron makes 0 of NaN
        return made

    monkeypatch.setattr(models, "create", sometimes_broken)
    profile = cpu_profile()
    trials = planned(replace(TINY, network="revsresnet21"), TINY)
    found = judge(profile, trials, run_case.runner(profile, "cpu", 0.1, None))
    assert found.cases[0].failed == "Diverged: its loss is nan after 1 steps"
    assert found.cases[1].failed is None
    assert found.cases[1].measured is not None


def test_what_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_case, "available_bytes", lambda: 1000)
    found = judge(cpu_profile(), planned(TINY), answering())
    assert found.cases == ()
    assert found.latency is None
    assert found.left_out[-1].startswith(f"{TINY.name}: it needs ")
    with pytest.raises(Infeasible, match="1000 B are free"):
        run_case.case(TINY, "network", cpu_profile(), answering())


def test_interrupted_cases_that_ended_are_kept() -> None:
    heard: list[str] = []
    run = answering(0.1, KeyboardInterrupt())
    found = judge(cpu_profile(), planned(*TRIALS), run, finished=lambda so_far: heard.append(so_far.cases[-1].name))
    assert found.interrupted
    assert [c.name for c in found.cases] == heard == [TRIALS[0].name]
    assert [line.split(":")[0] for line in found.left_out[1:]] == [t.name for t in TRIALS[1:]]


def test_no_case_starts_after_the_deadline() -> None:
    found = judge(cpu_profile(), planned(*TRIALS), answering(), deadline=time.monotonic() - 1)
    assert found.cases == ()
    assert not found.interrupted
    assert len(found.left_out) == 1 + len(TRIALS)


# ---- this machine


def test_a_profile_of_another_processor_is_refused() -> None:
    profile = cpu_profile()
    other = replace(profile, environment=replace(profile.environment, device="Abacus 1"))
    with pytest.raises(BadInput, match=r"measured on Abacus 1, this machine has .*: calibrate"):
        torch_device(other)
    assert torch_device(profile) == "cpu"


def test_another_torch_is_told() -> None:
    profile = cpu_profile()
    assert differences(profile, here(profile)) == ()
    old = replace(profile, environment=replace(profile.environment, torch="1.0"))
    assert [line.split(":")[0] for line in differences(old, here(old))] == ["torch"]


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.inf, math.nan])
def test_a_time_that_is_none_is_refused(minutes: float) -> None:
    with pytest.raises(BadInput, match="minutes"):
        validation.validate(cpu_profile(), minutes=minutes)


# ---- on a GPU


@pytest.mark.gpu
def test_a_replayed_step_trains_as_the_eager_one_does() -> None:
    losses = []
    for graph in (False, True):
        torch.manual_seed(0)
        step = step_of(Net(), device="cuda")
        step.run()
        if graph:
            step = replayed(step)  # runs three steps before it records one
        else:
            for _ in range(3):
                step.run()
        losses.append([step.run().item() for _ in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("launch", ["eager", "graph"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tiny_network_is_really_measured_on_a_gpu(launch: Any, dtype: str) -> None:
    trial = replace(TINY, launch=launch, dtype=dtype, batch=4)
    measured = run_case.measure_trial(trial, "cuda", 1.0, None, 1, 0)
    assert 0 < measured.cost.latency_s < 10
    assert len(measured.seconds) >= 3
    assert measured.cost.peak_bytes > 0
