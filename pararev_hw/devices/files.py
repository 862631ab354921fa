"""Devices in YAML and JSON: read, written back, described.

    schema_version: 1
    name: edge8
    kind: accelerator
    title: Generic 8-core accelerator
    lanes: 8
    figures:
      memory_bytes: {value: 8.0e9, source: "a datasheet, p. 2", standing: published}

A file is refused with one line that says what, where, and what would be right: an unknown key or figure, a number that
is negative or not finite, a missing source, a figure that the kind of device needs.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from pararev_hw import limits
from pararev_hw.devices.curves import fitted_parameters
from pararev_hw.devices.parameters import PARAMETERS, needed_parameters
from pararev_hw.documents import fault_in_words, first_fault, parse_json, parse_yaml, read_text, shown, unknown_key
from pararev_hw.errors import BadFile, BadInput, unknown_name
from pararev_hw.keywords import exact
from pararev_hw.strict_yaml import SafeDumper
from pararev_hw.types import CONTROL, SCHEMA_VERSION, Device, DeviceParameter, Provenance

# YAML 1.1 reads 67e12 as text (it wants 6.7e+13); YAML 1.2 and every reader take it for the number it is.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def _number(value: object) -> object:
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _plain(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError(f"is {shown(text)}: a control character in it would be obeyed by a terminal")
    return text


def _plain_lines(text: str) -> str:
    """Of text that may have lines, as a YAML block has them."""
    _plain(text.replace("\n", " ").replace("\t", " "))
    return text


class _FigureModel(_Strict):
    value: Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
    source: Annotated[str, Field(min_length=1), AfterValidator(_plain_lines)]
    standing: Provenance

    @field_validator("source")
    @classmethod
    def _not_blank(cls, source: str) -> str:
        if not source.strip():
            raise ValueError("is blank: say where the number comes from")
        return source


class _DeviceModel(_Strict):
    schema_version: Literal[1]
    name: Annotated[str, Field(min_length=1), AfterValidator(_plain)]
    kind: Literal["gpu", "cpu", "accelerator", "neuromorphic"]
    title: Annotated[str, Field(min_length=1), AfterValidator(_plain)]
    lanes: Annotated[int, Field(ge=1)]
    curves: Literal["published"] | None = None
    figures: dict[str, _FigureModel]
    notes: list[Annotated[str, AfterValidator(_plain_lines)]] = []


ALIASES = {"loihi1-like": "loihi1"}  # names of earlier releases


@exact
def device_names() -> tuple[str, ...]:
    """Names that `load_device` knows without a file, sorted; `cpu` is the machine itself and has to be measured."""
    here = resources.files("pararev_hw.devices")
    return tuple(sorted(["cpu", *(f.name.removesuffix(".yaml") for f in here.iterdir() if f.name.endswith(".yaml"))]))


@exact
def load_device(name_or_path: str | Path, *, cpu: Device | None = None) -> Device:
    """The device of that name, or the one described by a `.yaml`, `.yml` or `.json` file.

    `cpu` is what the name "cpu" stands for: the measured device of this machine, see
    `pararev_hw.measurement.quick_cpu_device`. Raises UnknownName, BadInput or BadFile.
    """
    name = str(name_or_path)
    if name == "cpu":
        if cpu is None:
            raise BadInput(
                "device 'cpu' is this machine and has to be measured: pass cpu=measurement.quick_cpu_device()"
            )
        return cpu
    if Path(name).suffix in {".yaml", ".yml"}:
        return device_from_yaml(_read(Path(name)), name)
    if Path(name).suffix == ".json":
        return device_from_json(_read(Path(name)), name)
    name = ALIASES.get(name, name)
    if name not in device_names():
        raise unknown_name("device", name, device_names())
    text = resources.files("pararev_hw.devices").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return device_from_yaml(text, f"{name}.yaml")


def _read(path: Path) -> str:
    return read_text(path, limits.DEVICE_FILE_BYTES, "a device file is a few KiB of YAML or JSON")


@exact
def device_from_yaml(text: str, where: str) -> Device:
    """The device that a YAML text describes. Raises BadFile, one line that begins with `where`."""
    return device_from_dict(parse_yaml(text, where), where)


@exact
def device_from_json(text: str, where: str) -> Device:
    """The device that a JSON text describes. Raises BadFile, one line that begins with `where`."""
    return device_from_dict(parse_json(text, where), where)


def device_from_dict(data: object, where: str) -> Device:
    """The device that plain data describe, as YAML and JSON hold them. Raises BadFile."""
    if not isinstance(data, dict):
        raise BadFile(f"{where}: holds no device: a mapping with name, kind, title, lanes and figures is expected")
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BadFile(f"{where}: schema_version is {version}, but this release reads up to {SCHEMA_VERSION}")
    try:
        model = _DeviceModel.model_validate(_words_as_numbers(data, where))
    except ValidationError as err:
        raise BadFile(f"{where}: {_one_line(err)}") from None
    return _checked(model, where)


def _words_as_numbers(data: dict[Any, Any], where: str) -> dict[Any, Any]:
    """The data with each word of a figure that has choices replaced by its number. Raises BadFile for another word."""
    parameters = data.get("figures")
    if not isinstance(parameters, dict):
        return data
    numbers = dict(parameters)
    for name, figure in parameters.items():
        choices = PARAMETERS[name].choices if name in PARAMETERS else ()
        if choices and isinstance(figure, dict) and "value" in figure:
            word = figure["value"]
            if word not in choices:
                allowed = ", ".join(choices)
                raise BadFile(f"{where}: figures.{name}.value is {shown(word)}: it must be one of {allowed}")
            numbers[name] = {**figure, "value": float(choices.index(word))}
    return {**data, "figures": numbers}


def _checked(model: _DeviceModel, where: str) -> Device:
    for name in model.figures:
        if name not in PARAMETERS:
            raise BadFile(f"{where}: {unknown_key(name, tuple(PARAMETERS), 'figures')}")
    if model.kind != "neuromorphic" and model.lanes > limits.LANES:
        raise BadFile(f"{where}: lanes is {shown(model.lanes)}: it must be at most {limits.LANES}")
    figures = {name: figure.value for name, figure in model.figures.items()}
    fitted = fitted_parameters(model.name, figures) if model.curves is not None else {}
    missing = [name for name in needed_parameters(model.kind) if name not in model.figures and name not in fitted]
    if missing:
        raise BadFile(f"{where}: figures lacks {', '.join(missing)}: a device of kind {model.kind} needs them")
    for name, figure in model.figures.items():
        if PARAMETERS[name].unit == "0 or 1" and figure.value not in (0.0, 1.0):
            raise BadFile(f"{where}: figures.{name}.value must be 0 or 1")
        low, high = PARAMETERS[name].span
        if not low <= figure.value <= high:
            unit = PARAMETERS[name].unit
            raise BadFile(
                f"{where}: figures.{name}.value is {figure.value:g}: it must be between {low:g} and {high:g} {unit}"
            )
    device_parameters = {n: DeviceParameter(f.value, f.source, f.standing) for n, f in model.figures.items()}
    parameters = dict(sorted((fitted | device_parameters).items()))
    return Device(
        model.name, model.kind, model.title, model.lanes, parameters, tuple(model.notes), model.schema_version
    )


_FIELDS = {"": tuple(_DeviceModel.model_fields), "figure": tuple(_FigureModel.model_fields)}


def _one_line(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in our words."""
    fault = first_fault(error)
    *parents, last = map(str, fault["loc"])
    if fault["type"] == "extra_forbidden":
        return unknown_key(last, _FIELDS["figure" if parents else ""], ".".join(parents))
    return fault_in_words(fault, ".".join((*parents, last)))


@exact
def device_to_dict(device: Device) -> dict[str, Any]:
    """The device as plain data, what its YAML and JSON files hold."""
    return {
        "schema_version": device.schema_version,
        "name": device.name,
        "kind": device.kind,
        "title": device.title,
        "lanes": device.lanes,
        "notes": list(device.notes),
        "figures": {
            name: {"value": PARAMETERS[name].shown(f.value), "source": f.source, "standing": f.provenance}
            for name, f in sorted(device.parameters.items())
        },
    }


@exact
def device_to_yaml(device: Device) -> str:
    """The device as YAML that `device_from_yaml` reads back to an equal device."""
    text: str = yaml.dump(device_to_dict(device), Dumper=SafeDumper, sort_keys=False, allow_unicode=True, width=120)
    return text


@exact
def device_to_json(device: Device) -> str:
    """The device as JSON that `device_from_json` reads back to an equal device."""
    return json.dumps(device_to_dict(device), indent=2)


@exact
def describe(device: Device) -> tuple[tuple[str, float, str, str, Provenance, str], ...]:
    """Rows (name, value, unit, source, standing, meaning) of every figure, in the order of the schema."""
    return tuple(
        (name, f.value, info.unit, f.source, f.provenance, info.meaning)
        for name, info in PARAMETERS.items()
        if (f := device.parameters.get(name)) is not None
    )
