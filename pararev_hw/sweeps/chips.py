"""Configurations as device files, so that any verb takes them: `report --device chips/row-17.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pararev_hw.atomic import write_files
from pararev_hw.devices import PARAMETERS
from pararev_hw.devices.files import device_to_yaml
from pararev_hw.sweeps.spec import Sweep
from pararev_hw.types import Device, DeviceParameter, SweepResult

MOST = 50  # device files of the front: the rest can be made from results.parquet


def configured(device: Device, values: Mapping[str, Any], lanes: int, source: str) -> Device:
    """The base device with these figures; a choice may be given by its name. `source` is their source."""
    changed = {}
    for name, value in values.items():
        number = PARAMETERS[name].choices.index(value) if isinstance(value, str) else value
        changed[name] = DeviceParameter(float(number), source, "assumed")
    return replace(device, lanes=lanes, parameters={**device.parameters, **changed})


def write_chips(sweep: Sweep, result: SweepResult, folder: Path) -> None:
    """Device files of the recommended configurations, of some along the front, its first among them, and of the devices
    that their lane orders were decided on."""
    contents: dict[str, str] = {}
    along_front = result.pareto[:: max(1, -(-len(result.pareto) // MOST))]
    chosen = [] if result.recommended is None else [result.recommended]
    chosen += [p for c in result.workloads for p in (c.recommended, c.best, *([c.shared] if c.shared else []))]
    for point in (*along_front, *chosen):
        lanes = int(point.parameters.get("lanes", sweep.device.lanes))
        values = {n: v for n, v in point.parameters.items() if n in sweep.device.parameters}
        name = f"row-{point.row}"
        chip = configured(sweep.device, values, lanes, f"sweep {sweep.name}, row {point.row}")
        title = f"{sweep.device.title}, as in row {point.row} of sweep {sweep.name}"
        contents[f"{name}.yaml"] = device_to_yaml(replace(chip, name=f"{sweep.device.name}-{name}", title=title))
        base = replace(sweep.device, lanes=lanes, name=f"{sweep.device.name}-lanes-{lanes}")
        contents[f"lanes-{lanes}.yaml"] = device_to_yaml(base)
    chips = folder / "chips"
    for old in chips.glob("*.yaml"):
        if old.name not in contents and old.name.startswith(("row-", "lanes-")):
            old.unlink()
    if contents:
        write_files(chips, contents)
