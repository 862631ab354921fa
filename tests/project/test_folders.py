"""The folders beside the package lead into it: what they list is what there is, and every link goes somewhere."""

import re
from pathlib import Path

import pytest

from pararev_hw import devices, models, schedulers
from tests.project.test_docs import script

ROOT = Path(__file__).parents[2]
FOLDERS = ("models", "schedulers", "costmodels", "reports")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    made: dict[str, str] = script("make_folders").pages()
    return made


def test_every_folder_is_what_the_code_says_today(pages: dict[str, str]) -> None:
    assert tuple(pages) == FOLDERS
    for folder, text in pages.items():
        assert (ROOT / folder / "README.md").read_text(encoding="utf-8") == text, "run python docs/make_folders.py"


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_lead_to_the_code(folder: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / folder / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / folder / link).exists()] == []


def test_every_network_scheduler_and_device_has_a_line() -> None:
    for folder, names in (
        ("models", models.names()),
        ("schedulers", schedulers.names()),
        ("costmodels", devices.device_names()),
    ):
        text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        assert [n for n in names if f"| `{n}` |" not in text] == []
