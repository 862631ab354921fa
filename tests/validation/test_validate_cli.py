"""The verb `validate`: exit status, one line for what is wrong, files that are whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pararev_hw.devices import load_device
from pararev_hw.devices.profiles import profile_to_json
from pararev_hw.types import BlockGraph, Profile, StepCost
from pararev_hw.validation import suite as suites
from pararev_hw.validation import validation
from pararev_hw.validation.run_case import MeasuredTrial
from pararev_hw.validation.suite import Trial
from tests.helpers.command_line import run
from tests.helpers.json_schema import schema, wrong
from tests.helpers.validation_helpers import cpu_profile

TINY = """
pararevsnn21      train  float32   0.0625 2  2
revsresnet21      infer  bfloat16  0.0625 2  2
"""


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A quick suite of two networks that take milliseconds, and a folder."""
    monkeypatch.setattr(suites, "_TABLES", {("cpu", "quick"): TINY, ("cpu", "full"): TINY})
    monkeypatch.setattr(validation, "_LIMIT_S", {"quick": 0.1, "full": 0.1})
    return tmp_path


def written(folder: Path, profile: Profile | None = None) -> Path:
    path = folder / "profile.json"
    path.write_text(profile_to_json(profile or cpu_profile()))
    return path


@pytest.mark.machine
def test_a_validation_ends_with_its_files_and_its_status(tiny: Path) -> None:
    out = tiny / "out"
    ran = run("validate", "--profile", written(tiny), "-o", out, "--tolerance", 1000, "--json")
    assert ran.status == 0, ran.err
    document = json.loads(ran.out)
    assert list(wrong(document, schema("validation"))) == []
    assert [c["network"] for c in document["cases"]] == ["pararevsnn21", "revsresnet21"]
    assert document["within"] is True
    assert document["memory"]["mape"] < 0.02
    assert {p.name for p in out.iterdir()} == {"validation.html", "validation.json", "latency.svg", "memory.svg"}
    assert json.loads((out / "validation.json").read_text()) == document
    assert "wrote validation.html" in ran.err


def test_outside_its_tolerance_it_ends_with_status_one(tiny: Path) -> None:
    ran = run("validate", "--profile", written(tiny), "--tolerance", "0.000001", columns=120)
    assert ran.status == 1
    assert "pararevsnn21" in ran.out
    assert "MAPE" in ran.out


def test_interrupted_it_keeps_what_had_ended(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def runner(*_: object) -> object:
        def once(trial: Trial, graph: BlockGraph) -> MeasuredTrial:
            if trial.network == "revsresnet21":
                raise KeyboardInterrupt
            return MeasuredTrial(StepCost(0.1, 1000), (0.1,))

        return once

    monkeypatch.setattr(validation, "runner", runner)
    ran = run("validate", "--profile", written(tiny), "-o", tiny / "out")
    assert ran.status == 130
    document = json.loads((tiny / "out" / "validation.json").read_text())
    assert document["interrupted"] is True
    assert len(document["cases"]) == 1
    assert "revsresnet21" in document["left_out"][0]
    assert "not run: 1 of the suite's cases: interrupted" in ran.err


def test_interrupted_before_anything_ended_it_writes_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> object:
        def once(trial: Trial, graph: BlockGraph) -> object:
            raise KeyboardInterrupt

        return once

    monkeypatch.setattr(validation, "runner", stop)
    ran = run("validate", "--profile", written(tiny), "-o", tiny / "out")
    assert ran.status == 130
    assert not (tiny / "out").exists()


def test_a_gpu_profile_without_that_gpu_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    base = cpu_profile()
    gpu = replace(base, device=load_device("h200"), environment=replace(base.environment, device="NVIDIA H200"))
    ran = run("validate", "--profile", written(tiny, gpu), "-o", tiny / "out")
    assert ran.status == 2
    assert "measured on NVIDIA H200: this machine has no such device" in ran.line


@pytest.mark.parametrize(
    "arguments, says",
    [
        ((), "--profile is missing"),
        (("--profile", "missing.json"), "missing.json: cannot be read"),
        (("--paper", "--profile", "p.json"), "--profile means nothing with --paper"),
        (("--paper", "--minutes", "1"), "--minutes means nothing with --paper"),
        (("--device", "h200"), "--device is for --paper"),
        (("--paper", "--device", "h20"), "h200"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else None,
)
def test_what_cannot_be_meant_is_refused_in_one_line(arguments: tuple[str, ...], says: str) -> None:
    ran = run("validate", *arguments)
    assert ran.status == 2
    assert says in ran.line


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--tolerance", "0"), "tolerance is 0"),
        (("--tolerance", "nan"), "tolerance is nan"),
        (("--minutes", "-1"), "minutes is -1"),
        (("--suite", "fast"), "suite"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else None,
)
def test_values_out_of_range_are_refused(tiny: Path, arguments: tuple[str, ...], says: str) -> None:
    ran = run("validate", "--profile", written(tiny), *arguments)
    assert ran.status == 2
    assert says in ran.line


def test_a_profile_cut_short_is_refused(tiny: Path) -> None:
    path = written(tiny)
    path.write_text(path.read_text()[:-40])
    ran = run("validate", "--profile", path)
    assert ran.status == 2
    assert "cut short" in ran.line


def test_a_fit_on_every_network_of_the_suite_leaves_nothing_to_validate(tiny: Path) -> None:
    profile = cpu_profile(("pararevsnn21 train", "revsresnet21"))
    ran = run("validate", "--profile", written(tiny, profile))
    assert ran.status == 2
    assert "was not fitted on" in ran.line
