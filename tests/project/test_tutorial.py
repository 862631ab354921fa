"""docs/tutorial.ipynb runs from top to bottom, and the numbers that it shows are those that come out."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


NOTE = json.loads(NOTEBOOK.read_text("utf-8"))
CELLS: list[dict[str, Any]] = [cell for cell in NOTE["cells"] if cell["cell_type"] == "code"]


def words(text: str) -> set[str]:
    """The words of an output, whatever the width of the screen that it was laid out for."""
    return {word for word in text.split() if word != "\\"}


def run_cell(source: str, names: dict[str, Any]) -> tuple[str, object]:
    """What the cell prints, and the value of its last line."""
    magic, _, text = source.partition("\n")
    if magic.startswith("%%writefile "):
        Path(magic.split()[1]).write_text(text, encoding="utf-8")
        return "", None
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, str(NOTEBOOK), "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)
    return printed.getvalue(), value


def test_the_tutorial_runs_and_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "tutorial"}
    same_torch = torch.__version__.startswith(NOTE["metadata"]["torch"])  # another release may run other operations
    compared = 0
    try:
        for cell in CELLS:
            printed, value = run_cell("".join(cell["source"]), names)
            if "measured" in cell["metadata"].get("tags", ()):
                continue  # a time of this machine
            for output in cell["outputs"]:
                if output["output_type"] == "stream" and printed:
                    assert words(printed) == words("".join(output["text"])) or not same_torch
                    compared += 1
                elif output["output_type"] == "execute_result" and "text/plain" in output["data"]:
                    assert words(repr(value)) == words("".join(output["data"]["text/plain"])) or not same_torch
                    compared += 1
    finally:
        plt.close("all")
        sys.modules.pop("two_branches", None)
    assert compared >= 6
    assert names["execution"].difference == 0.0


def test_every_cell_of_the_tutorial_was_run() -> None:
    assert all(cell["execution_count"] is not None for cell in CELLS)
