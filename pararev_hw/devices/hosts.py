"""Hosts: how long the machine that launches a GPU's kernels takes for an op of an eager step.

A host is a name, or a YAML file:

    name: desk
    title: Ryzen 5950X, PyTorch 2.11
    figures:
      host_overhead_s: {value: 7.0e-6, source: "a loop of small ops, timed", standing: measured}

Beside `host_overhead_s`, an op with gradients, it may give `host_factor.ROLE` for ops of other roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pararev_hw import limits
from pararev_hw.devices.curves import fitted_hosts
from pararev_hw.devices.gpu_law import HOST
from pararev_hw.devices.parameters import PARAMETERS
from pararev_hw.documents import fault_in_words, first_fault, parse_json, parse_yaml, read_text, unknown_key
from pararev_hw.errors import BadFile, BadInput, unknown_name
from pararev_hw.types import Device, DeviceParameter, Provenance

_SPAN_S = (1e-7, 1e-2)  # of an op: beyond it a unit slipped
_COPY_BYTES_PER_S = 5e9  # an assumption
_NAMES = ("host_overhead_s", *HOST)
_STANDING: Mapping[Provenance, str] = {
    "assumed": "assumed", "published": "measured by others", "measured": "measured"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Host:
    """A host by what it takes per op. `copy_bytes_per_s`: of a batch to the card, from memory that is not pinned."""

    name: str
    title: str
    parameters: Mapping[str, DeviceParameter]
    copy_bytes_per_s: float = _COPY_BYTES_PER_S


_ASSUMED: Mapping[str, Host] = {
    name: Host(name, title, {"host_overhead_s": DeviceParameter(seconds, source, "assumed")})
    for name, title, seconds, source in (
        ("server", "a server CPU of today", 6e-6, "no measurement: an eager op with autograd takes 4 to 10 us"),
        ("embedded", "the CPU of an embedded board", 25e-6, "no measurement: about four times a server's"),
    )
}


def host_names() -> tuple[str, ...]:
    """Names that `load_host` knows without a file."""
    return tuple(sorted((*_ASSUMED, *fitted_hosts())))


def load_host(name_or_path: str) -> Host:
    """The host of that name, or the one described by a `.yaml`, `.yml` or `.json` file."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml", ".json"):
        text = read_text(path, limits.DEVICE_FILE_BYTES, "a host file is a few lines of YAML or JSON")
        return _host((parse_json if path.suffix == ".json" else parse_yaml)(text, str(path)), str(path))
    if name_or_path in _ASSUMED:
        return _ASSUMED[name_or_path]
    if name_or_path in fitted_hosts():
        title, figures = fitted_hosts()[name_or_path]
        copy = figures["copy_bytes_per_s"].value if "copy_bytes_per_s" in figures else _COPY_BYTES_PER_S
        return Host(name_or_path, title, {n: p for n, p in figures.items() if n in _NAMES}, copy)
    raise unknown_name("host", name_or_path, host_names())


def with_host(device: Device, host: Host) -> Device:
    """The GPU launched by that host, which its title names."""
    if device.kind != "gpu":
        raise BadInput(
            f"device {device.name!r} is of kind {device.kind}: only a GPU has a host apart, leave --host out"
        )
    title = f", {host.title}" if host.title else ""
    pace = host.parameters["host_overhead_s"]
    note = (
        f"Launched by host {host.name}{title}: {pace.value * 1e6:.3g} us per operation, {_STANDING[pace.provenance]}."
    )
    return replace(
        device,
        title=f"{device.title} with host {host.name}",
        parameters={**device.parameters, **host.parameters},
        notes=(*device.notes, note),
    )


def _number(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class _Figure(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    value: Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
    source: Annotated[str, Field(min_length=1)]
    standing: Provenance


class _HostModel(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    title: str = ""
    figures: dict[str, _Figure]


def _host(data: Any, where: str) -> Host:
    if not isinstance(data, dict):
        raise BadFile(f"{where}: holds no host: a mapping with name and figures is expected")
    try:
        model = _HostModel.model_validate(data)
    except ValidationError as error:
        fault = first_fault(error)
        *parents, last = map(str, fault["loc"])
        if fault["type"] == "extra_forbidden":
            fields = _Figure.model_fields if parents else _HostModel.model_fields
            raise BadFile(f"{where}: {unknown_key(last, tuple(fields), '.'.join(parents))}") from None
        raise BadFile(f"{where}: {fault_in_words(fault, '.'.join((*parents, last)))}") from None
    for name, figure in model.figures.items():
        if name not in _NAMES:
            raise BadFile(f"{where}: {unknown_key(name, _NAMES, 'figures')}")
        low, high = _SPAN_S if name == "host_overhead_s" else PARAMETERS[name].span
        if not low <= figure.value <= high:
            unit = PARAMETERS[name].unit
            span = f"between {low:g} and {high:g} {unit}"
            raise BadFile(f"{where}: figures.{name}.value is {figure.value:g}: it must be {span}")
    if "host_overhead_s" not in model.figures:
        raise BadFile(f"{where}: figures lacks host_overhead_s: the host's time for an op of an eager step")
    parameters = {n: DeviceParameter(f.value, f.source, f.standing) for n, f in model.figures.items()}
    return Host(model.name, model.title, parameters)
