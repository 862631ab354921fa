"""Every public function says in Google style what it takes and gives, with an example that runs."""

import doctest
import inspect
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest

import pararev_hw as ph
from pararev_hw.types import BlockGraph, Prediction, Schedule, Table

ROOT = Path(__file__).parents[2]
ROOMS = {name for name in ph.__all__ if isinstance(getattr(ph, name), ModuleType)}
FUNCTIONS = {f"ph.{name}": getattr(ph, name) for name in ph.__all__ if inspect.isfunction(getattr(ph, name))}
METHODS = {
    f"{cls.__name__}.{name}": getattr(cls, name)
    for cls, names in (
        (BlockGraph, ("totals", "layers", "to_networkx")),
        (ph.Plan, ("predict",)),
        (Prediction, ("plot_memory",)),
        (Schedule, ("plot_timeline",)),
    )
    for name in names
}
SHOWN = {**FUNCTIONS, **METHODS, "ph.TraceOptions": ph.TraceOptions, "Table": Table}


@pytest.mark.parametrize("name", SHOWN)
def test_the_example_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    matplotlib.use("Agg")
    item = SHOWN[name]
    documented = item.fget if isinstance(item, property) else item
    found = [t for t in doctest.DocTestFinder(recurse=False).find(documented, name, globs={}) if t.examples]
    assert found, f"{name} has no example"
    runner = doctest.DocTestRunner(verbose=False)
    report: list[str] = []
    for test in found:
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_docstring_names_every_argument(name: str) -> None:
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    for section in ("Args:", "Returns:", "Raises:", "Example:"):
        assert f"\n{section}\n" in text, f"{name} says nothing of {section}"
    common = set(ph.TraceOptions.__dataclass_fields__) if name == "ph.trace" else set()
    common |= {"seconds", "seed", "iterations", "workers", "latency_bound", "points"} if "schedule" in name else set()
    for parameter in set(inspect.signature(function).parameters) - common:
        assert f"\n    {parameter}: " in text, f"{name} says nothing of {parameter}"


def test_rooms_are_what_is_left() -> None:
    assert {"devices", "models", "schedulers"} == ROOMS
