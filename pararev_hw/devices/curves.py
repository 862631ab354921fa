"""The GPU cost model's parameters as published measurements fixed them, for cards that were measured and others.

`benchmarks/fit_published_gpus.py` writes `fitted/gpu.yaml`. The law of kernel times is one for all cards; what a card
sustains of its datasheet is its own where it was measured, and the median of the measured cards elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from pararev_hw.devices.gpu_law import CARD, CLOCKS, POWER
from pararev_hw.strict_yaml import SafeLoader
from pararev_hw.types import DeviceParameter, Provenance

_MEASURED = (
    "measured by others, fitted by benchmarks/fit_published_gpus.py to timm's steps on an RTX 3090 (Apache-2.0), "
    "DeepBench (Apache-2.0), NeuSight (MIT) and pytorch-gpu-benchmark (MIT)"
)
_PRIOR = "no published time depends on it: where the fit of benchmarks/fit_published_gpus.py started"
_CLOCKED = "published epochs under power limits (ml-energy/zeus, Apache-2.0), datasheets, and cards bound by power"
_TRANSFERRED = "median of the cards that benchmarks/fit_published_gpus.py was fitted to: this one was not measured"


_POWERS = (
    "measured by others, fitted by benchmarks/published_power.py to the board powers of four cards at several power "
    "limits (ml-energy/zeus, Apache-2.0)"
)


@cache
def _fitted(file: str = "gpu.yaml") -> Mapping[str, Any]:
    text = resources.files("pararev_hw.devices.fitted").joinpath(file).read_text(encoding="utf-8")
    fitted: Mapping[str, Any] = yaml.load(text, Loader=SafeLoader)
    return fitted


def fitted_parameters(card: str, given: Mapping[str, float]) -> dict[str, DeviceParameter]:
    """What a card of that name takes from the fit, beyond the figures that its file gives."""
    fitted = _fitted()
    parameters = {name: _parameter(entry) for table in ("law", "host") for name, entry in fitted[table].items()}
    measured = fitted["cards"].get(card, {})
    for share in CARD:
        parameters[share] = _parameter(measured[share]) if share in measured else _transferred(share)
    if not measured:
        parameters |= {name: DeviceParameter(fitted["other_cards"][name], _CLOCKED, "assumed") for name in CLOCKS}
    power = _fitted("gpu_power.yaml")
    parameters |= {name: DeviceParameter(power[name], _POWERS, "published") for name in POWER}
    parameters["expected_error.power"] = DeviceParameter(
        power["expected_error"], f"{_POWERS}: errors on networks held out", "published"
    )
    errors = fitted["expected_error"]
    for quantity, value in errors.get(card, errors["other_cards"]).items():
        source = "errors on families held out" if card in errors else "errors on cards held out"
        parameters[f"expected_error.{quantity}"] = DeviceParameter(value, f"{_MEASURED}: {source}", "published")
    return {name: parameter for name, parameter in parameters.items() if name not in given}


_HOST_TITLES = {
    "rtx3090": "the host of timm's RTX 3090",
    "a": "the host of the first RTX 2080 Ti of pytorch-gpu-benchmark",
    "b": "the host of the second RTX 2080 Ti of pytorch-gpu-benchmark",
    "c": "the host of the TITAN Xp of pytorch-gpu-benchmark",
    "d": "the host of the GTX 1080 Ti of pytorch-gpu-benchmark",
}


@cache
def fitted_hosts() -> Mapping[str, tuple[str, Mapping[str, DeviceParameter]]]:
    """Title and figures of the hosts behind published steps."""
    entries = _fitted()["hosts"]
    return {
        f"published-{key}": (title, {name: _parameter(entry) for name, entry in entries[key].items()})
        for key, title in _HOST_TITLES.items()
        if key in entries
    }


def is_measured(card: str) -> bool:
    """Whether published times of a card of that name entered the fit."""
    return card in _fitted()["cards"]


def _transferred(share: str) -> DeviceParameter:
    """What a card sustains by the cards that were measured."""
    return DeviceParameter(_fitted()["other_cards"][share], _TRANSFERRED, "assumed")


def _parameter(entry: Mapping[str, Any]) -> DeviceParameter:
    provenance: Provenance = "published" if entry["learnt"] else "assumed"
    return DeviceParameter(entry["value"], entry.get("source", _MEASURED if entry["learnt"] else _PRIOR), provenance)
