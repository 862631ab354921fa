"""A sweep file, read and checked: what is swept, over what, under which constraints, for which objectives.

Everything that can be refused is refused here, before anything is traced: one line that begins with the file and the
key, and says what would be right.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from keyword import iskeyword
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pararev_hw import limits
from pararev_hw.devices import PARAMETERS, load_device
from pararev_hw.devices.files import device_to_dict
from pararev_hw.documents import fault_in_words, first_fault, parse_yaml, read_text, unknown_key
from pararev_hw.errors import BadFile, BadInput, PararevError, unknown_name
from pararev_hw.sizes import parsed_bytes
from pararev_hw.sweeps import expressions
from pararev_hw.sweeps.expressions import Expression
from pararev_hw.sweeps.objectives import OBJECTIVES, Objective
from pararev_hw.sweeps.parameters import Parameter, Scale, Space, stepped
from pararev_hw.types import Device, DeviceParameter

FORMAT = 2  # of results: another one is not gone on with
COUPLINGS = ("parallel", "reversible", "store")
METHODS = ("grid", "random", "nsga2", "tpe")
DISCRETE = ("network.batch", "network.timesteps", "network.depth")  # whole numbers that make another graph
CHOICES: Mapping[str, tuple[str, ...]] = {
    "network.coupling": COUPLINGS,
    "network.form": ("unfused", "fused", "merged"),
}
NETWORK = (*DISCRETE, "network.width", *CHOICES, "network.rate")


@dataclass(frozen=True, slots=True)
class Method:
    """How configurations are chosen. `count` rows in all; a search asks for `population` of them at a time."""

    name: Literal["grid", "random", "nsga2", "tpe"]
    count: int
    seed: int = 0
    population: int = 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """A checked sweep. `space` begins with "network" and "mode", then what makes another graph, then the rest."""

    name: str
    device: Device
    scheduler: str
    spikes: str
    batch: int | None
    space: Space
    derived: tuple[tuple[str, Expression], ...]
    constraints: tuple[Expression, ...]
    objectives: tuple[Objective, ...]
    method: Method
    fingerprint: str
    folder: Path = Path()  # of the sweep file: network files are looked up beside it
    text: str = ""  # of the sweep file
    where: str = ""  # the file, or what stands for it: begins every complaint
    memory_limit_bytes: int | None = None  # what a step may need at most, where the devices have more

    @property
    def rows(self) -> int:
        return self.method.count

    @property
    def chunk_rows(self) -> int:
        """Rows of a part: a generation of a search; else a size that depends on the number of rows alone."""
        if self.method.population:
            return self.method.population
        return min(32768, max(1024, 1 << max(0, math.ceil(self.rows / 64) - 1).bit_length()))

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk_rows)

    def span(self, chunk: int) -> tuple[int, int]:
        """The rows of a part, [from, to)."""
        return chunk * self.chunk_rows, min(self.rows, (chunk + 1) * self.chunk_rows)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)


class _Range(_Strict):
    from_: object = Field(alias="from")
    to: object
    scale: Literal["linear", "log", "powers_of_two"] = "linear"
    steps: int | None = Field(default=None, ge=1, le=1_000_000)


class _Method(_Strict):
    name: str
    samples: int | None = Field(default=None, ge=1)
    evaluations: int | None = Field(default=None, ge=1)
    population: int | None = Field(default=None, ge=2, le=100_000)
    seed: int = Field(default=0, ge=0, lt=1 << 32)


class _File(_Strict):
    schema_version: Literal[1] = 1
    name: str | None = None
    device: str
    networks: str | list[str]
    modes: str | list[str] = "train"
    batch: int | None = Field(default=None, ge=1)
    spikes: str | float | int = "auto"
    scheduler: str = "heft"
    memory_limit: str | int | None = None
    parameters: dict[str, Any]
    derived: dict[str, str] = {}
    constraints: list[str] = []
    objectives: list[str] = Field(min_length=1)
    method: str | _Method = "grid"


def load(path: Path, memory_limit: int | None = None) -> Sweep:
    """The sweep in a YAML file. Raises BadFile, BadInput or UnknownName in one line."""
    text = read_text(path, limits.SWEEP_FILE_BYTES, "a sweep file is a few KiB of YAML")
    return from_yaml(text, str(path), path.parent, memory_limit)


def from_yaml(text: str, where: str, folder: Path = Path(), memory_limit: int | None = None) -> Sweep:
    """The sweep that a YAML text describes; device files are found beside it. `where` begins every complaint.

    `memory_limit` in bytes stands for the file's own.
    """
    data = parse_yaml(text, where)
    if not isinstance(data, dict):
        raise BadFile(
            f"{where}: holds no sweep: a mapping with device, networks, parameters and objectives is expected"
        )
    if memory_limit is not None:
        data = {**data, "memory_limit": memory_limit}
    try:
        model = _File.model_validate(data)
    except ValidationError as error:
        raise BadFile(f"{where}: {_one_line(error)}") from None
    with complaints_begin(where):
        return replace(_checked(model, where, folder), text=text, where=where)


@contextmanager
def complaints_begin(where: str) -> Iterator[None]:
    """Puts `where` before the message of an error that does not begin with it."""
    try:
        yield
    except PararevError as error:
        message = str(error)
        if message.startswith(where):
            raise
        raise type(error)(f"{where}: {message}") from error.__cause__


def _checked(model: _File, where: str, folder: Path) -> Sweep:
    from pararev_hw import schedulers

    if model.scheduler not in schedulers.names():
        raise BadInput(f"{where}: scheduler: {unknown_name('scheduler', model.scheduler, schedulers.names())}")
    device = _device(model.device, folder)
    listed = [_listed("network", model.networks), _listed("mode", model.modes)]
    for mode in listed[1].values:
        if mode not in ("train", "infer"):
            raise BadInput(f"modes: {unknown_name('mode', str(mode), ('train', 'infer'))}")
    varied = [_parameter(name, given_values, device) for name, given_values in model.parameters.items()]
    space = Space((*listed, *sorted(varied, key=_slowness)))
    names = tuple(p.name for p in space.parameters)
    kinds = {name: _kind(name) for name in (*names, *("lanes", *device.parameters))}
    derived: list[tuple[str, Expression]] = []
    for name, text in model.derived.items():
        if name in kinds or name in _TAKEN or not name.isidentifier() or iskeyword(name):
            raise BadInput(f"derived.{name}: the name is taken or no name: choose another, as in area_mm2")
        expression = expressions.parse(text, kinds, f"{where}: derived.{name}")
        derived.append((name, expression))
        kinds[name] = "truth" if expression.truth else "number"
    constraints = tuple(
        expressions.parse(text, kinds, f"{where}: constraints[{k}]") for k, text in enumerate(model.constraints)
    )
    for k, constraint in enumerate(constraints):
        if not constraint.truth:
            raise BadInput(f"constraints[{k}]: {constraint.text!r} compares nothing: write it as in area_mm2 <= 20")
    objectives = tuple(_objective(text, device, varied, dict(derived), k) for k, text in enumerate(model.objectives))
    if len({o.column for o in objectives}) < len(objectives):
        raise BadInput("objectives: one is named twice")
    spikes = str(model.spikes)
    limit = None if model.memory_limit is None else parsed_bytes(str(model.memory_limit), "memory_limit")
    sweep = Sweep(
        name=model.name or Path(where).stem,
        device=_completed(device, varied),
        scheduler=model.scheduler,
        spikes=spikes,
        batch=model.batch,
        space=space,
        derived=tuple(derived),
        constraints=constraints,
        objectives=objectives,
        method=_method(model.method, space),
        fingerprint="",
        folder=folder,
        memory_limit_bytes=limit,
    )
    _check_spikes(sweep)
    content = {
        "sweep": model.model_dump(mode="json", by_alias=True, exclude=None if limit is not None else {"memory_limit"}),
        "device": device_to_dict(device),
        "format": FORMAT,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return replace(sweep, fingerprint=digest)


# Columns of results and words of expressions, which a derived quantity cannot be called.
_TAKEN = frozenset(
    (
        "row",
        "failed",
        *OBJECTIVES,
        *(o.column for o in OBJECTIVES.values()),
        *expressions.CONSTANTS,
        *expressions.FUNCTIONS,
    )
)


def _kind(name: str) -> expressions.Kind:
    words = name in ("network", "mode", *CHOICES) or (name in PARAMETERS and bool(PARAMETERS[name].choices))
    return "text" if words else "number"


def _check_spikes(sweep: Sweep) -> None:
    if sweep.spikes in ("auto", "digits", "none"):
        if sweep.spikes != "auto" and any(p.name == "network.rate" for p in sweep.space.parameters):
            raise BadInput(f"spikes: {sweep.spikes}, and network.rate is varied: leave one of them out")
        return
    rate = expressions.number(sweep.spikes, "spikes")
    if not 0 <= rate <= 1:
        raise BadInput(f"spikes: a firing rate is {rate:g}: it must be between 0 and 1")


def _device(name: str, folder: Path) -> Device:
    beside = folder / name
    if name == "cpu":
        raise BadInput("device: cpu is measured anew on each machine: write it to a file, and name that")
    return load_device(beside if Path(name).suffix and beside.is_file() else name)


def _completed(device: Device, varied: list[Parameter]) -> Device:
    """The base device with the figures that it lacks and that are varied, at their first value."""
    parameters = dict(device.parameters)
    for p in varied:
        if p.name in PARAMETERS and p.name not in parameters:
            first = p.values[0] if p.values else p.low
            value = float(PARAMETERS[p.name].choices.index(first) if isinstance(first, str) else first)
            parameters[p.name] = DeviceParameter(value, "the sweep varies it; the base device has none", "assumed")
    return replace(device, parameters=parameters)


def _listed(name: str, names: str | list[str]) -> Parameter:
    values = (names,) if isinstance(names, str) else tuple(names)
    if not values or len(set(values)) < len(values):
        raise BadInput(f"{name}s: {'none is named' if not values else 'one is named twice'}")
    return Parameter(name, values)


def _slowness(p: Parameter) -> int:
    """What makes another graph changes slowest, then the lanes: configurations beside each other share their order."""
    return 0 if p.name in NETWORK else 1 if p.name == "lanes" else 2


# figures of the plain roofline, which a chip that describes its cores does not read
_OF_NO_CORE = ("matrix_", "conv_", "bandwidth_half_work")


def parameter_names(device: Device) -> tuple[str, ...]:
    """What may be varied on that device."""
    cores = "pe_rows" in device.parameters
    useful = [
        n
        for n, info in PARAMETERS.items()
        if (n in device.parameters or not info.needed_by or device.kind in info.needed_by)
        and not (cores and n.startswith(_OF_NO_CORE))
    ]
    return ("lanes", *useful, *NETWORK)


def _parameter(name: str, entry: object, device: Device) -> Parameter:
    at = f"parameters.{name}"
    allowed = parameter_names(device)
    if name not in allowed:
        raise unknown_name("parameter", name, allowed)
    if entry == []:
        raise BadInput(f"{at}: the range is empty: give at least one value")
    choices = CHOICES.get(name) or (PARAMETERS[name].choices if name in PARAMETERS else ())
    if choices:
        words = entry if isinstance(entry, list) else [entry]
        for word in words:
            if word not in choices:
                raise BadInput(f"{at}: {unknown_name('value', str(word), choices)}")
        return _unique(at, Parameter(name, tuple(map(str, words))))
    if isinstance(entry, dict):
        parameter = _ranged(name, entry, at)
    else:
        values = entry if isinstance(entry, list) else [entry]
        parameter = Parameter(name, tuple(expressions.number(v, f"{at}[{k}]") for k, v in enumerate(values)))
    if name in NETWORK and parameter.continuous:
        raise BadInput(f"{at}: every value is another network: list them, or give steps")
    low, high = (parameter.low, parameter.high) if parameter.continuous else _ends(parameter)
    if _whole(name):
        if parameter.continuous:
            raise BadInput(f"{at}: a range of whole numbers needs steps, or scale: powers_of_two")
        for v in parameter.values:
            if float(v) != int(float(v)):
                raise BadInput(f"{at}: {v} must be an integer")
    span = span_of(name)
    if not span[0] <= low <= high <= span[1]:
        raise BadInput(f"{at}: {low:g} to {high:g} is outside {span[0]:g} to {span[1]:g}")
    return _unique(at, parameter)


def _whole(name: str) -> bool:
    return name in ("lanes", *DISCRETE) or (name in PARAMETERS and PARAMETERS[name].whole)


def span_of(name: str) -> tuple[float, float]:
    """The smallest and the largest value that a parameter may take."""
    if name in PARAMETERS:
        low, high = PARAMETERS[name].span
        return (low, high)
    return {"lanes": (1, limits.LANES), "network.rate": (0, 1), "network.width": (1e-3, limits.WIDTH)}.get(
        name, (1, 1e6)
    )


def _ends(p: Parameter) -> tuple[float, float]:
    numbers = [float(v) for v in p.values]
    return min(numbers), max(numbers)


def _unique(at: str, p: Parameter) -> Parameter:
    if not p.continuous and len(set(p.values)) < len(p.values):
        raise BadInput(f"{at}: a value is given twice")
    return p


def _ranged(name: str, entry: dict[object, object], at: str) -> Parameter:
    try:
        model = _Range.model_validate(entry)
    except ValidationError as error:
        raise BadInput(f"{at}: {_one_line(error, ('from', 'to', 'scale', 'steps'))}") from None
    low, high = expressions.number(model.from_, f"{at}.from"), expressions.number(model.to, f"{at}.to")
    scale: Scale = model.scale
    if low > high:
        raise BadInput(f"{at}: the range is empty: from {low:g} is above to {high:g}")
    if scale != "linear" and low <= 0:
        raise BadInput(f"{at}.from is {low:g}: a range on scale {scale} begins above 0")
    if scale == "powers_of_two" and model.steps is not None:
        raise BadInput(f"{at}.steps: scale powers_of_two takes every power of two: leave steps out")
    values = stepped(low, high, scale, model.steps)
    if scale == "powers_of_two" and not values:
        raise BadInput(f"{at}: the range is empty: there is no power of two from {low:g} to {high:g}")
    if not values and low == high:
        values = (low,)
    if _whole(name):
        values = tuple(dict.fromkeys(float(round(v)) for v in values))
    return Parameter(name, values, low, high, "log" if scale == "log" else "linear")


_UNIT_OF_ENDING = {"_mm2": "mm2", "_s": "s", "_j": "J", "_bytes": "B"}  # of derived quantities


def _objective(
    text: str, device: Device, varied: list[Parameter], derived: Mapping[str, Expression], k: int
) -> Objective:
    words = text.split()
    maximise = len(words) == 2 and words[0] in ("maximise", "maximize")
    name = words[1] if maximise else text
    if name in derived and not derived[name].truth:
        ending = next((e for e in _UNIT_OF_ENDING if name.endswith(e) and name != e), "")
        label = name.removesuffix(ending).replace("_", " ")
        return Objective(name, name, _UNIT_OF_ENDING.get(ending, ""), label, derived[name].text, maximise)
    if name not in OBJECTIVES:
        raise BadInput(f"objectives[{k}]: {unknown_name('objective', name, (*OBJECTIVES, *derived))}")
    objective = OBJECTIVES[name]
    has = {*device.parameters, *(p.name for p in varied)}
    missing = [n for n in objective.needs if n not in has]
    if missing:
        raise BadInput(f"objectives[{k}]: {device.name} cannot give {name}: it has no {', '.join(missing)}")
    return replace(objective, maximise=True) if maximise else objective


def _method(entry: str | _Method, space: Space) -> Method:
    model = _Method(name=entry) if isinstance(entry, str) else entry
    if model.name not in METHODS:
        raise BadInput(f"method: {unknown_name('method', model.name, METHODS)}")
    options = {
        "grid": (),
        "random": ("samples",),
        "nsga2": ("evaluations", "population"),
        "tpe": ("evaluations", "population"),
    }
    for key in ("samples", "evaluations", "population"):
        if getattr(model, key) is not None and key not in options[model.name]:
            raise BadInput(f"method.{key}: {model.name} takes {' and '.join(options[model.name]) or 'no such option'}")
    if model.name == "grid":
        free = [p.name for p in space.parameters if p.continuous]
        if free:
            raise BadInput(f"parameters.{free[0]}: a grid needs steps; or choose method random, nsga2 or tpe")
        count = space.combinations or 0
        if count > limits.ROWS:
            raise BadInput(
                f"method: a grid of {count:,} combinations is more than {limits.ROWS:,}: "
                "write method: {name: random, samples: 100000}, or nsga2 with evaluations"
            )
        return Method("grid", count)
    if model.name == "random":
        if model.samples is None:
            raise BadInput("method.samples is missing: how many configurations are to be drawn?")
        return Method("random", _at_most(model.samples, "samples"), model.seed)
    if model.evaluations is None:
        raise BadInput("method.evaluations is missing: how many configurations may be tried?")
    population = min(model.evaluations, model.population or (100 if model.name == "nsga2" else 20))
    name: Literal["nsga2", "tpe"] = "nsga2" if model.name == "nsga2" else "tpe"
    return Method(name, _at_most(model.evaluations, "evaluations"), model.seed, population)


def _at_most(count: int, key: str) -> int:
    if count > limits.ROWS:
        raise BadInput(f"method.{key} is {count:,}: at most {limits.ROWS:,}")
    return count


def _one_line(error: ValidationError, keys: tuple[str, ...] | None = None) -> str:
    """The first thing pydantic found wrong, in our words."""
    fault = first_fault(error)
    if fault["type"] != "extra_forbidden":  # of what may be text or have parts, a fault in a part says more
        same_key = (e for e in error.errors(include_url=False) if e["loc"][0] == fault["loc"][0])
        fault = dict(max(same_key, key=lambda e: len(e["loc"])))
    parts = [str(p) for p in fault["loc"] if p not in ("str", "list[str]", "_Method")]
    at = ".".join(parts)
    if fault["type"] == "extra_forbidden":
        model = _Method if parts[0] == "method" else _File
        return unknown_key(at, keys or tuple(f.alias or n for n, f in model.model_fields.items()))
    return fault_in_words(fault, at)
