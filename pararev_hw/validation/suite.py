"""Which steps a validation runs: networks over depth, width, batch, T, datatype and mode, never one of the fit's own.

Sizes are such that a step takes 20 ms to 3 s. Neighbours in a table differ in as much as possible, so that a run that
is cut short by its time limit has still seen a bit of everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pararev_hw import models
from pararev_hw.errors import UnknownName, unknown_name

SUITES = ("quick", "full")
Mode = Literal["train", "infer"]
Launch = Literal["eager", "graph"]
HeldOut = Literal["network", "shape"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A step that is predicted and then run."""

    network: str  # of the zoo, or path/to/file.py:factory where `classes` is given
    mode: Mode
    dtype: str
    width: float
    batch: int
    timesteps: int | None  # None: the network has no time axis
    launch: Launch = "eager"
    classes: int | None = None  # None: as the zoo says

    @property
    def name(self) -> str:
        graph = ", graph" if self.launch == "graph" else ""
        steps = "" if self.timesteps is None else f", T {self.timesteps}"
        size = f"width {self.width:g}, batch {self.batch}{steps}"
        return f"{re.split('[/:]', self.network)[-1]} {self.mode}, {size}, {self.dtype}{graph}"


# network, mode, dtype, width, batch, T
_CPU_QUICK = """
pararevsnn37      train  float32   0.25   8   4
msresnet34        train  float32   0.25   4   4
revsresnet37      infer  float32   0.25   16  4
pararevsnn24_dvs  train  float32   0.5    2   6
pararevsnn69      train  float32   0.25   4   4
revsresnet37      train  float32   0.125  8   4
msresnet34        infer  float32   0.5    8   4
pararevsnn37      train  bfloat16  0.25   4   4
pararevsnn37      infer  float32   0.5    4   2
msresnet18        train  float32   0.5    8   4
revsresnet37      train  float32   0.5    2   2
msresnet34        train  float32   0.125  16  2
pararevsnn21      train  float32   0.125  16  8
revsresnet37      infer  bfloat16  0.25   4   2
pararevsnn117     infer  float32   0.25   4   4
revsresnet109     train  float32   0.25   1   2
"""
_CPU_FULL = """
revsresnet109     train  float32   0.25   2   4
msresnet20_dvs    train  float32   0.5    2   4
pararevsnn37      train  float32   0.5    4   4
msresnet34        train  bfloat16  0.25   4   2
revsresnet37      train  float32   0.5    8   4
pararevsnn165     train  float32   0.125  4   2
msresnet18        infer  float32   1.0    2   4
revsresnet24_dvs  infer  float32   1.0    2   8
pararevsnn37      train  float32   1.0    2   4
revsresnet37      infer  float32   0.125  64  8
pararevsnn69      train  float32   0.125  16  4
msresnet34        train  float32   1.0    2   4
pararevsnn24_dvs  train  float32   1.0    4   8
revsresnet37      train  float32   0.25   32  2
pararevsnn21      infer  bfloat16  0.5    4   4
msresnet34        train  float32   0.375  8   1
pararevsnn117     train  float32   0.25   2   4
revsresnet37      train  bfloat16  0.25   8   4
msresnet34        infer  float32   0.25   1   8
pararevsnn37      train  float32   0.1875 6   3
revsresnet109     infer  float32   0.125  16  4
pararevsnn165     infer  float32   0.25   8   4
msresnet18        train  float32   0.125  64  4
revsresnet37      train  float32   0.25   2   10
"""
_GPU_QUICK = """
pararevsnn37      train  float32   1.0    32  4
msresnet34        train  float32   1.0    32  4
revsresnet37      infer  float32   1.0    64  4
pararevsnn24_dvs  train  float32   1.0    16  10
pararevsnn69      train  bfloat16  1.0    16  4
revsresnet37      train  float32   0.5    64  4
msresnet34        infer  bfloat16  1.0    128 4
pararevsnn37      train  float32   2.0    32  4
msresnet18        train  float32   1.0    64  2
revsresnet37      train  float32   1.0    128 4
"""
_GPU_FULL = """
revsresnet109     train  float32   1.0    32  4
msresnet20_dvs    train  float32   2.0    16  16
pararevsnn37      infer  float32   1.0    128 4
msresnet34        train  bfloat16  1.0    128 4
revsresnet37      train  bfloat16  2.0    32  4
pararevsnn165     train  float32   1.0    16  4
msresnet18        infer  float32   1.0    256 4
revsresnet24_dvs  infer  float32   1.0    32  16
pararevsnn117     train  float32   1.0    32  4
revsresnet109     infer  bfloat16  1.0    64  2
pararevsnn69      train  float32   0.5    32  8
pararevsnn21      train  float32   1.0    256 4
revsresnet37      train  float32   1.0    8   4
msresnet34        train  float32   0.5    64  8
pararevsnn37      train  bfloat16  1.0    256 4
"""
_TABLES: Mapping[tuple[str, str], str] = {
    ("cpu", "quick"): _CPU_QUICK,
    ("cpu", "full"): _CPU_QUICK + _CPU_FULL,
    ("gpu", "quick"): _GPU_QUICK,
    ("gpu", "full"): _GPU_QUICK + _GPU_FULL,
}


def suite(name: str, kind: str) -> tuple[Trial, ...]:
    """The trials of the suite of that name on a device of that kind ("cpu" or "gpu", the latter launched both ways).

    Raises UnknownName.
    """
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    launches: tuple[Launch, ...] = ("eager", "graph") if kind == "gpu" else ("eager",)
    rows = [line.split() for line in _TABLES[kind, name].splitlines() if line]
    return tuple(
        Trial(network, "train" if mode == "train" else "infer", dtype, float(width), int(batch), int(steps), launch)
        for network, mode, dtype, width, batch, steps in rows
        for launch in launches
    )


def network_of(held_in: str) -> str:
    """The network that an entry of `Profile.held_in` speaks of: its first word."""
    return held_in.replace(",", " ").split()[0] if held_in.strip() else ""


def held_out(network: str, held_in: Iterable[str]) -> HeldOut | None:
    """What a network of the zoo holds out from a fit on the `held_in` ones: None where the fit saw it itself."""
    fitted_networks = {network_of(entry) for entry in held_in}
    if network in fitted_networks:
        return None
    return "shape" if models.spec(network).family in {family(n) for n in fitted_networks} else "network"


def family(network: str) -> str:
    """The zoo's family of a network."""
    try:
        return models.spec(network).family
    except UnknownName:
        return network  # of a network that is not in the zoo: a family of its own
