"""Write the pages of docs/reference that come from the code: `python docs/make_reference.py`.

`cli.md` from the commands of the command line, `devices.md` from the schema of device figures and the device files,
`json.md` from the JSON Schemas in `schemas/`, which the tests hold real output to. tests/project/test_docs.py makes all
three again and compares, so none can go stale.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, CommandInfo

from pararev_hw import devices
from pararev_hw.cli.entry import app
from pararev_hw.devices import PARAMETERS, Quantity
from pararev_hw.devices.curves import fitted_parameters
from pararev_hw.devices.gpu_law import HOST, LAW
from pararev_hw.types import Device

REFERENCE = Path(__file__).parent / "reference"
KINDS = ("gpu", "cpu", "accelerator", "neuromorphic")
SCHEMAS = ("graph", "schedule", "report", "compare", "sweep", "task-graph", "validation", "paper")
NOTE = "<!-- written by docs/make_reference.py: change the code, then run it again -->"


def pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    return {"cli.md": cli_page(), "devices.md": devices_page(), "json.md": json_page()}


def cli_page() -> str:
    commands = app()
    verbs = [_Verb.of(command) for command in commands.registered_commands]
    parts = [
        "# Command line",
        NOTE,
        str(commands.info.help),
        "Results go to standard output, progress and messages to standard error. With `--json`, standard output holds "
        "one JSON document and nothing else: its keys are in [json.md](json.md).",
        _table(
            ("exit status", "meaning"),
            [
                ("0", "done"),
                ("1", "the thing asked about is false, such as a step that does not fit the memory: one line"),
                ("2", "bad input: one line, `error: what, where, what would be right`"),
                ("3", "an error of ours: one line, and a file that holds what a report of it needs"),
                ("130", "interrupted with Ctrl-C (143: with SIGTERM)"),
            ],
        ),
        _table(("verb", "what it does"), [(f"[`{v.name}`](#{v.name})", v.help) for v in verbs]),
    ]
    for verb in verbs:
        parts += [f"## {verb.name}", verb.help, f"```text\n{verb.usage}\n```"]
        if verb.arguments:
            parts.append(_table(("argument", "meaning"), verb.arguments))
        if verb.options:
            parts.append(_table(("option", "value", "default", "meaning"), verb.options))
    return _joined(parts)


@dataclass(frozen=True, slots=True)
class _Verb:
    name: str
    help: str
    usage: str
    arguments: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str, str, str], ...]

    @staticmethod
    def of(command: CommandInfo) -> _Verb:
        """The verb as its function's annotations describe it, which are the same in every release of Typer."""
        assert command.callback is not None
        hints = get_type_hints(command.callback, include_extras=True)
        arguments, options, usage = [], [], []
        for parameter in inspect.signature(command.callback).parameters.values():
            if get_origin(hints[parameter.name]) is not Annotated:
                continue  # Typer's own context: nothing that a user gives
            kind, info = get_args(hints[parameter.name])
            required = parameter.default is parameter.empty
            if isinstance(info, ArgumentInfo):
                shown = info.metavar or parameter.name.upper()
                usage.append(shown if required else f"[{shown}]")
                arguments.append((f"`{usage[-1]}`", info.help or ""))
            else:
                default = "required" if required else _default(parameter.default)
                # inside Annotated, Typer keeps the first name where a default would stand
                names = ", ".join(f"`{n}`" for n in (info.default, *info.param_decls))
                options.append((names, _value(kind), default, info.help or ""))
        name = command.name or command.callback.__name__
        words = ["pararev-hw", name, *(["[OPTIONS]"] if options else []), *usage]
        summary = " ".join((command.callback.__doc__ or "").split())
        return _Verb(name, summary, " ".join(words), tuple(arguments), tuple(options))


def _default(value: object) -> str:
    return "" if value is None or value is False else f"`{value}`"


def _value(kind: Any) -> str:
    words = {bool: "", int: "whole number", float: "number", str: "text", Path: "path"}
    plain = [k for k in get_args(kind) or (kind,) if k is not NoneType]
    inner = get_args(plain[0])[0] if get_origin(plain[0]) is list else plain[0]
    return words[inner] + (", may be repeated" if inner is not plain[0] else "")


def devices_page() -> str:
    built_in = [devices.load_device(n) for n in devices.device_names() if n != "cpu"]
    parts = [
        "# Devices",
        NOTE,
        "A device is a YAML or JSON file: a few words about it, and figures, each with its source and its standing "
        "(`measured`, `published` or `assumed`). [How to write one](../how-to/own-device.md). The figures are those "
        "of this page and no others; an unknown name is refused.",
        "## The file",
        _table(
            ("key", "type", "meaning"),
            [
                ("`schema_version`", "1", "version of this format"),
                ("`name`", "text", "short name, used in tables and files"),
                ("`kind`", "`gpu`, `cpu`, `accelerator` or `neuromorphic`", "which cost formulas apply"),
                ("`title`", "text", "what it is, used in sentences"),
                ("`lanes`", "whole number, at least 1", "how many tasks run at once: streams, threads or cores"),
                ("`curves`", "`published`, may be left out", "a GPU's kernel times by the published fit, see below"),
                ("`figures`", "mapping", "figure name -> `value`, `source`, `standing`; all three are needed"),
                ("`notes`", "list of texts, may be left out", "what a reader of a report has to know"),
            ],
        ),
        "## The figures",
        "SI units. A suffix after a dot is the datatype that a figure holds for: `matrix_flops_per_s.bfloat16`. "
        "*Needed by* names the kinds of device that cannot do without it; the others may leave it out.",
        _table(("figure", "unit", "meaning", "needed by"), _figure_rows(PARAMETERS.items())),
        "## The devices that come with the package",
        "`cpu` is this machine: it is measured in a few seconds when it is first asked for, and the result is kept in "
        "the user's cache folder (`$XDG_CACHE_HOME/pararev-hw`, else `~/.cache/pararev-hw`). The others are files in "
        "`pararev_hw/devices`. `pararev-hw devices NAME` prints every figure of one with its source.",
        _table(
            ("name", "kind", "lanes", "what it is", "figures: measured, published, assumed"),
            [
                ("`cpu`", "cpu", "1", "this machine", "rates, bandwidth and overheads measured; energies assumed"),
                *((f"`{d.name}`", d.kind, str(d.lanes), d.title, _standings(d)) for d in built_in),
            ],
        ),
    ]
    law = fitted_parameters("", {})
    shared = {name: law[name] for name in (*LAW, *HOST) if name in law}
    parts += [
        "### What all GPUs share",
        "Devices with `curves: published` take these from `pararev_hw/devices/fitted/gpu.yaml`, which "
        "`benchmarks/fit_published_gpus.py` writes. [Where they come from](../validation-published.md).",
        _table(
            ("figure", "value", "standing"), [(f"`{n}`", f"{p.value:.4g}", p.provenance) for n, p in shared.items()]
        ),
        "### Hosts",
        "What launches the kernels of an eager step, for `--host`; a file of your own is YAML with `name` and "
        "`figures` (`host_overhead_s`, and `host_factor.*` where they are known).",
        _table(
            ("name", "what it is", "`host_overhead_s`", "standing"),
            [
                (f"`{h.name}`", h.title, f"{p.value:.3g}", p.provenance)
                for h in map(devices.load_host, devices.host_names())
                for p in (h.parameters["host_overhead_s"],)
            ],
        ),
    ]
    for device in built_in:
        rows = [
            (f"`{name}`", f"{figure.value:.9g}", PARAMETERS[name].unit, figure.provenance, figure.source)
            for name, figure in device.parameters.items()
            if shared.get(name) != figure
        ]
        parts += [f"### {device.name}", *device.notes, _table(("figure", "value", "unit", "standing", "source"), rows)]
    return _joined(parts)


def _figure_rows(figures: Iterable[tuple[str, Quantity]]) -> list[tuple[str, str, str, str]]:
    return [(f"`{name}`", info.unit, info.meaning, _needed(info)) for name, info in figures]


def _needed(info: Quantity) -> str:
    return ", ".join(k for k in KINDS if k in info.needed_by)


def _standings(device: Device) -> str:
    provenances = [f.provenance for f in device.parameters.values()]
    return ", ".join(str(provenances.count(s)) for s in ("measured", "published", "assumed"))


def json_page() -> str:
    parts = [
        "# JSON",
        NOTE,
        "What verbs print with `--json` and write to files. SI units; `null` means not known; more keys may be added "
        "in a release, none changes its meaning without a new `schema_version`. A document of a later version than the "
        "release knows is refused.",
        "The same as JSON Schema (draft 2020-12): "
        + ", ".join(f"[{n}](schemas/{n}.schema.json)" for n in SCHEMAS)
        + ". Devices have a page of their own: [devices.md](devices.md).",
        "`[]` stands for the items of a list, `*` for the keys of a mapping.",
    ]
    for name in SCHEMAS:
        schema = json.loads((REFERENCE / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
        parts += [f"## {schema['title']}", schema["description"]]
        parts.append(_table(("field", "type", "unit", "meaning"), _fields(schema, "")))
    parts += [
        "## Lists",
        "`models --json`, `devices --json` and `schedulers --json` print a list with an object for each: what the "
        "tables of the same verbs show. `devices NAME --json` prints the device as a file that can be read again.",
    ]
    return _joined(parts)


def _fields(schema: Mapping[str, Any], path: str) -> Iterable[tuple[str, str, str, str]]:
    """A row for every field under `schema`, the outer ones first."""
    for name, inner in schema.get("properties", {}).items():
        at = f"{path}{name}"
        optional = "" if name in schema["required"] else "optional; "
        yield f"`{at}`", _type(inner), inner.get("unit", ""), optional + inner["description"]
        yield from _nested(inner, at)


def _nested(schema: Mapping[str, Any], at: str) -> Iterable[tuple[str, str, str, str]]:
    if "items" in schema:
        yield from _nested(schema["items"], f"{at}[]")
    elif isinstance(schema.get("additionalProperties"), Mapping):
        yield from _nested(schema["additionalProperties"], f"{at}.*")
    else:
        yield from _fields(schema, f"{at}.")


def _type(schema: Mapping[str, Any]) -> str:
    words = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"mapping to {_type(schema['additionalProperties'])}"
    return " or ".join(words)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"


def main() -> None:
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
