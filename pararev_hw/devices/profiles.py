"""Profiles in JSON: a calibrated device, read with every number checked, written back equal. Nothing in it runs.

A profile that is truncated, holds a number outside its physical range, or comes from a later release is refused with
one line that says what, where, and what would be right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pararev_hw import limits
from pararev_hw.devices.curves import is_measured
from pararev_hw.devices.files import device_from_dict, device_names, device_to_dict, load_device
from pararev_hw.documents import fault_in_words, first_fault, parse_json, read_bytes, read_text
from pararev_hw.errors import BadFile, unknown_name
from pararev_hw.keywords import exact
from pararev_hw.types import SCHEMA_VERSION, Device, Estimate, Hardware, Profile, Table

# The end of a coefficient's name is its unit, and says between which values a machine can have it.
RANGES: Mapping[str, tuple[float, float]] = {
    "_flops_per_s": (1e3, 1e17),
    "_bytes_per_s": (1e3, 1e15),
    "_elements_per_s": (1e2, 1e16),
    "_s_per_byte": (0.0, 1e-3),
    "_s_per_flop": (0.0, 1e-3),
    "_s_per_element": (0.0, 1e-2),
    "_j_per_byte": (0.0, 1e-3),
    "_j_per_flop": (0.0, 1e-3),
    "_shift_s": (-1e-3, 1e-2),
    "_s": (0.0, 10.0),
    "_w": (0.0, 1e5),
    "_hz": (0.0, 1e12),
    "_flops": (0.0, 1e15),
    "_bytes": (0.0, 1e15),
    "_elements": (0.0, 1e15),
    "_factor": (1e-3, 1e3),
    "_power": (0.0, 64.0),
    "_share": (0.0, 1.0),
}


def range_of(name: str) -> tuple[float, float] | None:
    """Between which values the coefficient of that name lies; None for a name without a known unit."""
    return next((span for unit, span in RANGES.items() if f"_{name}".endswith(unit)), None)


def is_profile(data: object) -> bool:
    """Whether a JSON document is meant as a profile: only profiles hold fits."""
    return isinstance(data, dict) and "fits" in data


@exact
def read_profile(path: str | Path) -> Profile:
    """The profile in that file. Raises BadFile, one line."""
    return profile_from_json(read_text(Path(path), limits.PROFILE_BYTES, "a profile is JSON"), str(path))


def profile_names() -> tuple[str, ...]:
    """Names of the measured cards whose profiles come with the package (`devices/profiles/NAME.json`), sorted."""
    folder = _measured_cards()
    if not folder.is_dir():
        return ()
    return tuple(sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json")))


def _measured_cards() -> Traversable:
    return resources.files("pararev_hw.devices").joinpath("profiles")


def hardware_names() -> tuple[str, ...]:
    """Names that `load_hardware` knows without a file, sorted; `cpu` is the machine itself and has to be measured."""
    return tuple(sorted((*device_names(), *profile_names())))


@exact
def load_hardware(name_or_path: str | Path) -> Hardware:
    """The device or measured card of that name, or what a device file or a profile holds.

    Raises UnknownName, BadInput or BadFile.
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.suffix == ".json" and _holds_profile(path):
        return read_profile(path)
    if name in profile_names():
        text = _measured_cards().joinpath(f"{name}.json").read_text(encoding="utf-8")
        return profile_from_json(text, f"{name}.json")
    if path.suffix not in (".json", ".yaml", ".yml") and name not in device_names():
        raise unknown_name("device", name, hardware_names())
    return load_device(name_or_path)


def listing() -> Table[str]:
    """The devices and measured cards that come with the package, and this machine, a row each."""
    columns = ("name", "kind", "lanes", "parameters", "times", "expected_error", "title")
    return Table("devices", hardware_names(), columns, tuple(map(_listed, hardware_names())))


def _listed(name: str) -> tuple[str | int | float | None, ...]:
    """A row of `listing`: `times` says where those of a GPU's steps come from; the error is of training steps."""
    if name == "cpu":
        return (name, "cpu", 1, "measured", "measured", None, "this machine, measured when it is first asked for")
    device = bare_device(load_hardware(name))
    error = device.parameters.get("expected_error.train")
    source = "measured (published)" if is_measured(name) else "transferred"
    times = (None, None) if error is None else (source, error.value)
    return (name, device.kind, device.lanes, device.provenance, *times, device.title)


def _holds_profile(path: Path) -> bool:
    """Whether the file speaks of fits, as every profile does, whole or cut short."""
    try:
        return b'"fits"' in read_bytes(path, limits.PROFILE_BYTES, "a profile is JSON")
    except BadFile:
        return False  # the device reader says what is wrong with it


def profile_from_json(text: str, where: str) -> Profile:
    """The profile that a JSON text describes. Raises BadFile, one line that begins with `where`."""
    data = parse_json(text, where)
    if not is_profile(data):
        raise BadFile(f"{where}: holds no profile: a profile has fits")
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BadFile(f"{where}: schema_version is {version}, but this release reads up to {SCHEMA_VERSION}")
    if version != SCHEMA_VERSION:
        raise BadFile(f"{where}: schema_version is {str(version)[:40]}: it must be {SCHEMA_VERSION}")
    device = device_from_dict(data.get("device"), f"{where}: device")
    if device.kind not in ("cpu", "gpu"):
        raise BadFile(f"{where}: device.kind is {device.kind!r}: a profile is measured on a cpu or a gpu")
    names = {f.name for f in fields(Profile)}
    unknown = sorted(set(data) - names)
    if unknown:
        raise BadFile(f"{where}: unknown key {unknown[0]!r}: known: {', '.join(sorted(names))}")
    try:
        profile = _adapter().validate_json(json.dumps(data | {"device": asdict(device)}))
    except ValidationError as error:
        raise BadFile(f"{where}: {_one_line(error)}") from None
    _check_ranges(profile, where)
    return profile


def profile_to_json(profile: Profile) -> str:
    """The profile as JSON that `profile_from_json` reads back to an equal profile."""
    return json.dumps(_plain(profile), allow_nan=False, separators=(",", ":"))


def _plain(profile: Profile) -> dict[str, Any]:
    return asdict(profile) | {"device": device_to_dict(profile.device)}


@cache
def _adapter() -> TypeAdapter[Profile]:
    return TypeAdapter(Profile)


def _estimates(profile: Profile) -> Iterator[tuple[str, str, Estimate]]:
    """Every estimate of the profile: where it stands, its name, and itself."""
    for part in ("host", "corrections"):
        for name, estimate in getattr(profile, part).items():
            yield f"{part}.{name}", name, estimate
    for fit in profile.fits:
        for name, estimate in fit.coefficients.items():
            yield f"fits[{fit.group} {fit.dtype}].{name}", name, estimate


def _check_ranges(profile: Profile, where: str) -> None:
    for at, name, estimate in _estimates(profile):
        span = range_of(name)
        if span is None:
            raise BadFile(f"{where}: {at} has no unit that is known: a name ends in one of {', '.join(RANGES)}")
        if not span[0] <= estimate.value <= span[1]:
            raise BadFile(f"{where}: {at} is {estimate.value:g}: it must be between {span[0]:g} and {span[1]:g}")
    for name, points in profile.curves.items():
        if not all(math.isfinite(v) and v >= 0 for point in points for v in point):
            raise BadFile(f"{where}: curves.{name} holds a number below 0 or not finite")
    if any(not 0 <= s < math.inf for step in profile.steps for s in (*step.seconds, step.ops_s)):
        raise BadFile(f"{where}: steps holds a time below 0 or not finite")
    if profile.environment.threads < 1:
        raise BadFile(f"{where}: environment.threads is {profile.environment.threads}: it must be at least 1")


def _one_line(error: ValidationError) -> str:
    fault = first_fault(error)
    at = ".".join(map(str, fault["loc"]))
    return f"{at} is missing: was it cut out?" if fault["type"] == "missing" else fault_in_words(fault, at)


def profile_document(profile: Profile) -> dict[str, Any]:
    """What `calibrate --json` prints: the profile without its raw samples."""
    whole = _plain(profile)
    return {k: v for k, v in whole.items() if k not in ("samples", "pairs")} | {"samples": len(profile.samples)}


def bare_device(hardware: Hardware) -> Device:
    """The device itself: that of a profile, or what was given."""
    return hardware if isinstance(hardware, Device) else hardware.device
