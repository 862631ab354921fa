"""A calibration keeps what it has: when the time is over, on Ctrl-C, out of memory, or when the device goes away."""

from __future__ import annotations

import fcntl
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pararev_hw.calibration import calibrate, held_in, ops, session, subprocess_steps
from pararev_hw.calibration.held_in import HeldIn
from pararev_hw.calibration.residuals import held_out_errors, kind_residuals
from pararev_hw.costmodels.calibrated import fit
from pararev_hw.devices.profiles import load_hardware, profile_from_json, profile_to_json
from pararev_hw.errors import BadInput
from pararev_hw.tracing import trace_step
from pararev_hw.types import Profile
from tests.helpers.command_line import run
from tests.helpers.costing import op_seconds
from tests.helpers.known_machine import KNOWN_MACHINE, NETWORK, STEP_S, op_s


@pytest.fixture(autouse=True)
def _a_machine_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "THIS_MACHINE", KNOWN_MACHINE)


def with_probes(monkeypatch: pytest.MonkeyPatch, **probes: Any) -> None:
    monkeypatch.setattr(session, "THIS_MACHINE", replace(KNOWN_MACHINE, **probes))


def survives(profile: Profile) -> Profile:
    assert profile_from_json(profile_to_json(profile), "p.json") == profile
    return profile


def test_a_profile_has_fits_steps_and_what_they_were_made_from() -> None:
    before = torch.get_num_threads()
    profile, interrupted = calibrate("cpu", 1.0)
    survives(profile)
    assert not interrupted
    assert torch.get_num_threads() == before
    assert {f.group for f in profile.fits} >= {"aten.relu.default", "aten.mul.Tensor", "aten.view.default"}
    assert profile.held_in == ("plain",)
    assert profile.environment.threads == 1 and profile.environment.torch == torch.__version__
    assert profile.steps[0].ops_s > 0 and profile.steps[0].flops > 0
    assert all(s.seconds for s in profile.samples)
    assert {r.kind for r in kind_residuals(profile)} == {"elementwise", "view"}
    assert sum(1 for _ in held_out_errors(profile)) == sum(s.held_out for s in profile.samples)


def test_the_fit_finds_what_the_machine_takes() -> None:
    """Held-out shapes, and an operation of a shape that no entry of the suite has."""
    profile, _ = calibrate("cpu", 1.0)
    held_out = [s for s in profile.samples if s.held_out]
    assert len(held_out) > 20
    assert max(abs(error) for _, error in held_out_errors(profile)) < 0.05
    graph = trace_step(torch.nn.ReLU(), torch.empty(3, 7, 100_003), loop=None).graph
    (op,) = graph.op_types
    assert sum(op_seconds(graph, replace(profile, corrections={}))) == pytest.approx(op_s(op), rel=0.05)


def test_a_step_that_was_held_in_is_predicted_as_it_was_measured() -> None:
    profile, _ = calibrate("cpu", 1.0)
    assert sum(op_seconds(held_in.traced(NETWORK, "cpu"), profile)) == pytest.approx(STEP_S, rel=0.2)


def test_on_one_core_no_two_threads_are_timed_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take turns: half of what one gets would count as all that there is."""
    asked: list[int] = []

    def pairs(*_: object) -> Iterator[Any]:
        asked.append(1)
        return iter(())

    for lanes in (1, 2):
        device = replace(KNOWN_MACHINE.device("cpu"), lanes=lanes)
        with_probes(monkeypatch, pairs=pairs, device=lambda _, device=device: device)
        calibrate("cpu", 1.0)
        assert len(asked) == lanes - 1


def after(count: int, raised: BaseException) -> Callable[..., Iterator[Any]]:
    """The measuring of ops, with an exception after so many of them."""

    def measured(*arguments: Any) -> Iterator[Any]:
        for k, sample in enumerate(KNOWN_MACHINE.ops(*arguments)):
            if k == count:
                raise raised
            yield sample

    return measured


def test_ctrl_c_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_probes(monkeypatch, ops=after(60, KeyboardInterrupt()))
    path = tmp_path / "p.json"
    found = run("calibrate", "--device", "cpu", "-o", path, "--minutes", "1")
    assert found.status == 130
    assert "holds 60 measurements" in found.err
    profile = load_hardware(path)
    assert isinstance(profile, Profile)
    assert len(profile.samples) == 60 and profile.steps == () and profile.fits
    assert any("interrupted" in line for line in profile.missing)
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_waits_for_none_of_the_long_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long_fits: list[str] = []
    monkeypatch.setattr(fit, "fit_hyperparameters", lambda *_: long_fits.append("neighbours"))
    monkeypatch.setattr(session, "interval_factor", lambda *_: long_fits.append("families left out"))
    calibrate("cpu", 1.0)
    assert {*long_fits} == {"neighbours", "families left out"}
    long_fits.clear()
    with_probes(monkeypatch, ops=after(60, KeyboardInterrupt()))
    profile, interrupted = calibrate("cpu", 1.0)
    assert interrupted and profile.fits and long_fits == []


def test_ctrl_c_before_anything_was_measured_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_probes(monkeypatch, ops=after(0, KeyboardInterrupt()))
    path = tmp_path / "p.json"
    path.write_text("the old one")
    assert run("calibrate", "--device", "cpu", "-o", path, "--minutes", "1").status == 130
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_that_goes_away_costs_the_rest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = RuntimeError("CUDA error: unspecified launch failure")
    calls = iter(range(10**6))

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) > 40:
            raise gone
        return ops_measure(*arguments, **options)

    ops_measure = ops.measure
    monkeypatch.setattr(ops, "measure", failing)
    with_probes(monkeypatch, ops=ops.measured_ops)
    profile, interrupted = calibrate("cpu", 1.0)
    survives(profile)
    assert not interrupted
    assert profile.samples and not profile.steps
    assert any("the device is gone: CUDA error" in line for line in profile.missing)


def test_a_case_that_does_not_fit_in_memory_is_missed_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(10**6))

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) in (3, 4, 5):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")
        return ops_measure(*arguments, **options)

    ops_measure = ops.measure
    monkeypatch.setattr(ops, "measure", failing)
    with_probes(monkeypatch, ops=ops.measured_ops)
    profile, _ = calibrate("cpu", 1.0)
    survives(profile)
    assert any("out of memory" in line for line in profile.missing)
    assert profile.steps and len(profile.samples) > 60


def test_the_time_is_kept_and_what_was_not_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()  # a clock of its own: the time is over at the 41st look at it
    monkeypatch.setattr(session.Budget, "share", lambda *_: lambda: next(looks) > 40)
    with_probes(monkeypatch, ops=ops.measured_ops)
    profile, _ = calibrate("cpu", 1.0)
    survives(profile)
    assert any(line.endswith("the time was over") for line in profile.missing)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--device", "tpu"), "'tpu'"),
        (("--device", "cpu", "--minutes", "0"), "minutes is 0"),
        (("--device", "cpu", "--minutes", "nan"), "minutes is nan"),
    ],
)
def test_nonsense_is_refused_in_one_line(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    found = run("calibrate", *arguments, "-o", tmp_path / "p.json")
    assert found.status == 2
    assert says in found.line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused_in_one_line(tmp_path: Path) -> None:
    found = run("calibrate", "--device", "cuda", "-o", tmp_path / "p.json")
    assert found.status == 2
    assert "torch finds no GPU here" in found.line


def test_two_calibrations_never_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    with open(tmp_path / ".p.json.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = run("calibrate", "--device", "cpu", "-o", path, "--minutes", "1")
    assert found.status == 2
    assert "another calibration is writing it" in found.line
    assert not path.exists()


def test_json_is_the_whole_result_without_raw_samples(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    found = run("calibrate", "--device", "cpu", "-o", path, "--minutes", "1", "--json", "--plots", tmp_path / "plots")
    assert found.status == 0, found.err
    document = json.loads(found.out)
    profile = load_hardware(path)
    assert isinstance(profile, Profile)
    assert document["samples"] == len(profile.samples)
    assert [f["group"] for f in document["fits"]] == [f.group for f in profile.fits]
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == ["curves.svg", "residuals.svg"]


def test_a_profile_schedules_a_network(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(profile_to_json(calibrate("cpu", 1.0)[0]))
    arguments = ("--width", "0.0625", "--batch", "2", "-T", "2", "--lanes", "1", "--json", "--scheduler", "sequential")
    found = run("schedule", "pararevsnn21", "--device", path, *arguments)
    assert found.status == 0, found.err
    assert json.loads(found.out)["makespan_s"] > 0


def test_nothing_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with_probes(monkeypatch, suite=lambda _: ())
    with pytest.raises(BadInput, match="nothing could be measured"):
        calibrate("cpu", 1.0)


def test_steps_are_measured_in_a_process_of_their_own_and_what_fails_is_said() -> None:
    tiny = HeldIn("plain", "infer", "float32", 0.0625, 1, 1)
    unknown = HeldIn("no-such-network", "infer", "float32", 0.0625, 1, 1)
    good, bad = subprocess_steps.timed_in_subprocess((tiny, unknown), 0, 0.05, lambda: False)
    assert good.timing is not None and good.timing.median_s > 0
    assert bad.timing is None and "no-such-network" in bad.failed


def test_a_process_that_is_told_to_stop_measures_no_more() -> None:
    tiny = HeldIn("plain", "infer", "float32", 0.0625, 1, 1)
    assert len(list(subprocess_steps.timed_in_subprocess((tiny,) * 50, 0, 0.05, lambda: True))) == 1
