"""A GPU, a CPU or an accelerator, each number with its source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pararev_hw.errors import BadInput
from pararev_hw.sizes import counted
from pararev_hw.types.base import SCHEMA_VERSION, Provenance, html_table

PARAMETERS_NAMED = 24  # a sentence that names more is not read


@dataclass(frozen=True, slots=True)
class DeviceParameter:
    """A number of a device with its unit in its name, its source, and how sure it is."""

    value: float
    source: str
    provenance: Provenance

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.value < 0:
            raise BadInput(f"a device parameter is {self.value!r}: it must be finite and not negative")


@dataclass(frozen=True, slots=True, repr=False)
class Device:
    """A GPU, a CPU, or an accelerator: lanes that run tasks, and what they share.

    `parameters` holds every number by its name; pararev_hw.devices lists the names, their units and meaning, and which
    of them a kind of device must have. Ask with `value(name)`.
    """

    name: str
    kind: Literal["gpu", "cpu", "accelerator", "neuromorphic"]
    title: str
    lanes: int
    parameters: Mapping[str, DeviceParameter]
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise BadInput(f"device {self.name!r} has {self.lanes} lanes: at least 1 is needed")

    def __repr__(self) -> str:
        return (
            f"<Device {self.name}: {self.title} ({self.kind}, {counted(self.lanes, 'lane')}, "
            f"{self.provenance} parameters)>"
        )

    def _repr_html_(self) -> str:
        return html_table(
            f"{self.title} ({self.kind}, {counted(self.lanes, 'lane')})",
            *((name, f"{p.value:.6g} ({p.provenance}: {p.source})") for name, p in sorted(self.parameters.items())),
        )

    def value(self, name: str) -> float:
        """The value of the parameter of that name. Raises BadInput where the device has none."""
        if not isinstance(name, str) or name not in self.parameters:
            raise BadInput(f"device {self.name!r} gives no {name}: add it to its YAML")
        return self.parameters[name].value

    def get(self, name: str, default: float) -> float:
        """The value of the parameter of that name, or `default` where the device has none."""
        return self.parameters[name].value if isinstance(name, str) and name in self.parameters else default

    @property
    def plans_memory(self) -> bool:
        """Whether memory is planned task by task before the step runs, as on chips that have no allocator."""
        return self.kind in ("accelerator", "neuromorphic")

    def assumed_parameters(self) -> str | None:
        """In words, which figures nobody has measured or published; None where there are none."""
        names = [name for name, figure in self.parameters.items() if figure.provenance == "assumed"]
        if not names:
            return None
        if len(names) <= PARAMETERS_NAMED:
            return f"{self.name}: assumed, not measured: {', '.join(names)}"
        return f"{self.name}: {len(names)} of its {len(self.parameters)} figures are assumed, not measured"

    @property
    def provenance(self) -> Provenance:
        """The weakest standing among the figures: a prediction is no better than that."""
        grades = {f.provenance for f in self.parameters.values()}
        return "assumed" if "assumed" in grades else "published" if "published" in grades else "measured"
