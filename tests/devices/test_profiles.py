"""A profile survives its file, is refused where it cannot be true, and sets the times that predictions are made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pararev_hw import pipeline
from pararev_hw.devices import load_device
from pararev_hw.devices.profiles import (
    hardware_names,
    listing,
    load_hardware,
    profile_from_json,
    profile_names,
    profile_to_json,
)
from pararev_hw.errors import BadFile, UnknownName
from pararev_hw.tracing import trace_step
from pararev_hw.types import BlockGraph, Environment, Estimate, Fit, Profile
from tests.helpers.costing import op_seconds


def profile() -> Profile:
    """A made-up profile: convolutions at 1 Tflop/s and 1 GB/s behind 10 us each, the rest as the H200's file says."""
    coefficients = {
        "overhead_s": Estimate(1e-5, 1e-6),
        "compute_s_per_flop": Estimate(1e-12, 1e-14),
        "read_s_per_byte": Estimate(1e-9, None),
        "write_s_per_byte": Estimate(1e-9, None),
    }
    return Profile(
        device=load_device("h200"),
        environment=Environment("a test", "none", "", "2.13.0", 1, {}),
        host={"dispatch_s": Estimate(5e-6)},
        fits=(Fit("conv", "float32", coefficients, 40, 10, 0.05, 0.2, -0.01),),
        corrections={},
        curves={"copy": ((1024.0, 1e9), (1048576.0, 1e11))},
        samples=(),
        pairs=(),
        steps=(),
        held_in=(),
        missing=("energy: no counter",),
        seed=0,
    )


def graph() -> BlockGraph:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    return trace_step(model, torch.empty(2, 3, 16, 16), loop=None).graph


def test_a_profile_survives_its_file() -> None:
    assert profile_from_json(profile_to_json(profile()), "p.json") == profile()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(schema_version=99), "99"),
        (lambda d: d.update(colour="red"), "colour"),
        (lambda d: d["fits"][0]["coefficients"]["compute_s_per_flop"].update(value=1e30), "compute_s_per_flop"),
        (lambda d: d["fits"][0]["coefficients"]["overhead_s"].update(value=-1.0), "overhead_s"),
        (lambda d: d["fits"][0].pop("group"), "group"),
        (lambda d: d["device"].update(kind="toaster"), "kind"),
        (lambda d: d.pop("environment"), "environment"),
    ],
)
def test_an_edited_profile_is_refused_in_one_line_that_names_the_place(change: Any, says: str) -> None:
    document = json.loads(profile_to_json(profile()))
    change(document)
    with pytest.raises(BadFile, match=says) as caught:
        profile_from_json(json.dumps(document), "p.json")
    assert str(caught.value).startswith("p.json: ")
    assert "\n" not in str(caught.value)


def test_a_truncated_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(profile_to_json(profile())[:400] + '"fits"')
    with pytest.raises(BadFile, match="cut short"):
        load_hardware(path)


def test_fitted_ops_take_what_their_prices_say_and_the_others_what_the_roofline_says() -> None:
    traced = graph()
    found = op_seconds(traced, profile(), "graph")
    plain = op_seconds(traced, profile().device, "graph")
    # first convolution: 3 -> 8 channels, 14 x 14 outputs, 3 x 3 taps; outputs count as 16 channels, few inputs as few
    # the second: 8 -> 4 channels, 14 x 14 outputs, 1 tap; both count as 16
    flops = [2 * 2 * 14 * 14 * 9 * 3 * 16, 2 * 2 * 14 * 14 * 16 * 16]
    convolutions = []
    for op, seconds, base in zip(traced.ops, found, plain, strict=True):
        t = traced.op_types[op.type]
        if t.kind == "conv":
            convolutions.append((seconds, 1e-5 + (t.read_bytes + t.write_bytes) / 1e9))
        else:
            assert seconds == base
    assert [s for s, _ in convolutions] == pytest.approx(
        [rest + f / 1e12 for f, (_, rest) in zip(flops, convolutions, strict=True)]
    )


def test_a_profile_is_a_device_wherever_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(profile_to_json(profile()))
    hardware = pipeline.find_device(str(path))
    assert hardware == profile()
    traced = graph()
    slow = pipeline.predict(pipeline.plan(traced, hardware, "sequential", launch="graph"))
    fast = pipeline.predict(pipeline.plan(traced, load_device("h200"), "sequential", launch="graph"))
    assert slow.latency_s > fast.latency_s
    assert slow.latency_s == pytest.approx(sum(op_seconds(traced, profile(), "graph")))


def test_slower_coefficients_never_make_a_step_faster() -> None:
    traced = graph()
    base = profile()
    (fit,) = base.fits
    slower = {**fit.coefficients, "read_s_per_byte": Estimate(1e-8)}
    changed = replace(base, fits=(replace(fit, coefficients=slower),))
    before, after = (sum(op_seconds(traced, p, "graph")) for p in (base, changed))
    assert after > before


def test_a_measured_card_of_the_package_is_named_like_any_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = profile()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a-card.json").write_text(profile_to_json(made))
    monkeypatch.setattr("pararev_hw.devices.profiles._measured_cards", lambda: tmp_path / "profiles")
    assert profile_names() == ("a-card",)
    assert load_hardware("a-card") == made
    monkeypatch.setattr("pararev_hw.devices.profiles.device_names", lambda: ("cpu",))
    assert hardware_names() == ("a-card", "cpu")
    assert [row[:3] for row in listing().cells] == [("a-card", "gpu", 2), ("cpu", "cpu", 1)]
    with pytest.raises(UnknownName, match="did you mean a-card"):
        load_hardware("a-cart")
