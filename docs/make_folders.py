"""Write the README.md of each folder beside the package: `python docs/make_folders.py`.

`models/`, `schedulers/`, `costmodels/` and `reports/` say what there is, with a link to the code of each, and how to
add one. tests/project/test_folders.py makes them again and compares, so none can go stale.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from pararev_hw import costmodels, devices, models, reports, schedulers
from pararev_hw.costmodels import accelerator, allocator, calibrated
from pararev_hw.models.zoo import builder_of

ROOT = Path(__file__).parents[1]
NOTE = "<!-- written by docs/make_folders.py: change the code, then run it again -->"


def pages() -> dict[str, str]:
    """Folder -> text of its README.md."""
    return {
        "models": _models_page(),
        "schedulers": _schedulers_page(),
        "costmodels": _costmodels_page(),
        "reports": _reports_page(),
    }


def _models_page() -> str:
    rows = [
        (f"`{s.name}`", s.family, str(s.timesteps), s.layout, s.method, _link(builder_of(s.name).__module__))
        for s in models()
    ]
    return _joined(
        "# Models",
        NOTE,
        "Networks that can be traced and trained, in [`pararev_hw/models`](../pararev_hw/models). "
        '`pararev_hw.models.create("NAME")` builds one, `pararev-hw models` lists them.',
        _table(("name", "family", "T", "input", "trained by", "code"), rows),
        "## Add a network",
        "Write a module with `SPECS` and `create(spec, ...)`, and name it in `_FAMILIES` of "
        "[`zoo.py`](../pararev_hw/models/zoo.py). The conformance tests of `tests/models` pick it up. Your own network "
        "needs none of this: [trace your own network](../docs/how-to/own-model.md).",
    )


def _schedulers_page() -> str:
    rows = [
        (
            f"`{name}`",
            schedulers.describe(name),
            ", ".join(f"`{o}`" for o in schedulers.options_of(name)),
            _link(schedulers.SCHEDULERS[name].schedule.__module__),
        )
        for name in schedulers.names()
    ]
    return _joined(
        "# Schedulers",
        NOTE,
        "Who runs where and in which order, in [`pararev_hw/schedulers`](../pararev_hw/schedulers). "
        "`pararev-hw schedulers` lists them.",
        _table(("name", "what it does", "options", "code"), rows),
        "## Add a scheduler",
        "Write one file with `schedule(problem) -> Schedule`, and one line in `SCHEDULERS` of "
        "[`__init__.py`](../pararev_hw/schedulers/__init__.py). `tests/schedulers/test_schedulers.py` checks it with "
        "the others: every schedule is legal, and none is faster than the lower bound.",
    )


def _costmodels_page() -> str:
    files = [_row(m) for m in _modules_of(costmodels)]
    rooms = [_row(m) for m in (accelerator, allocator, calibrated)]
    table = devices()
    name, kind, title = (table.columns.index(column) for column in ("name", "kind", "title"))
    rows = [(f"`{cells[name]}`", str(cells[kind]), str(cells[title])) for cells in table.cells]
    return _joined(
        "# Cost models and devices",
        NOTE,
        "Time, memory and energy of a graph on a device, in [`pararev_hw/costmodels`](../pararev_hw/costmodels).",
        _table(("code", "what it gives"), [*files, *rooms]),
        "## Devices",
        "In [`pararev_hw/devices`](../pararev_hw/devices), every number with its source: "
        "[reference](../docs/reference/devices.md). `pararev-hw devices` lists them.",
        _table(("name", "kind", "what it is"), rows),
        "## Add a device or a cost term",
        "A device is a YAML file, beside the others or anywhere: "
        "[describe your own device](../docs/how-to/own-device.md). "
        "A parameter is a line in [`parameters.py`](../pararev_hw/devices/parameters.py) with its unit and meaning. A "
        "cost term is a pure function, called from the cost model that needs it, with a test that shows its sum.",
    )


def _reports_page() -> str:
    rows = [_row(m) for m in _modules_of(reports)]
    return _joined(
        "# Reports",
        NOTE,
        "Pages, pictures, tables and JSON, in [`pararev_hw/reports`](../pararev_hw/reports). "
        "[How to read one](../docs/how-to/read-a-report.md).",
        _table(("code", "what it shows"), rows),
        "## Add a page or a picture",
        "A picture is a function from types to SVG text; a page is a template (`*.html.j2`) and a function that fills "
        "it. Reports see only types: what they show is computed before.",
    )


def _modules_of(package: ModuleType) -> Iterable[Path]:
    assert package.__file__ is not None
    return sorted(p for p in Path(package.__file__).parent.glob("*.py") if not p.name.startswith("_"))


def _row(module: ModuleType | Path) -> tuple[str, str]:
    """A link to the module, and the first sentence of its docstring."""
    path = module if isinstance(module, Path) else Path(inspect.getfile(module))
    text = path.read_text(encoding="utf-8").split('"""')[1]
    return _link_to(path), " ".join(text.split("\n\n")[0].split())


def _link(module: str) -> str:
    return _link_to(ROOT.joinpath(*module.split(".")).with_suffix(".py"))


def _link_to(path: Path) -> str:
    at = path.parent if path.name == "__init__.py" else path
    return f"[`{at.name}`](../{at.relative_to(ROOT).as_posix()})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _joined(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    for folder, text in pages().items():
        (ROOT / folder).mkdir(exist_ok=True)
        (ROOT / folder / "README.md").write_text(text, encoding="utf-8")
