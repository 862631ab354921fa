"""docs/reference/texts.md holds every text that a user can meet, as the code says it today."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from typer.models import CommandInfo

import pararev_hw as ph
from pararev_hw.cli.entry import app

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "texts.md"


def test_the_page_is_what_the_code_says_today() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make_texts.py"))["page"]
    assert PAGE.read_text("utf-8") == page(), "run python docs/make_texts.py"


@pytest.mark.parametrize("command", app().registered_commands, ids=lambda c: c.callback.__name__)
def test_what_every_verb_says_of_itself_is_on_the_page(command: CommandInfo) -> None:
    assert command.callback is not None
    assert " ".join((command.callback.__doc__ or "").split()) in PAGE.read_text("utf-8")


def test_an_error_that_is_raised_is_on_the_page() -> None:
    with pytest.raises(ph.BadInput) as error:
        ph.schedule("graph.json", "h200")  # type: ignore[arg-type]
    lines = [re.sub(r"\\\{[^{}]*\\\}", ".+", re.escape(line)) for line in PAGE.read_text("utf-8").splitlines()]
    assert any(line != ".+" and re.fullmatch(line, str(error.value)) for line in lines)
