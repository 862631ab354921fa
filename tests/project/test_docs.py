"""The documentation is true: its blocks run, its links lead somewhere, its reference is what the code says.

A block that is not run is marked by a comment of its own on the line above it: `<!-- illustrative: why -->`.
"""

import importlib.util
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import yaml

from tests.helpers.command_line import SMALL, Ran, run
from tests.helpers.json_schema import schema, wrong
from tests.helpers.two_cores import give_two_cores

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
SCHEMAS = ROOT / "docs" / "reference" / "schemas"
NOT_RUN = re.compile(r"<!-- illustrative: \S.* -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where it stands, what it is, what it says, and whether it is only an illustration."""

    page: Path
    line: int
    language: str
    text: str
    illustrative: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    start = -1
    for k, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start < 0:
            start = k
            continue
        before = lines[start - 1] if start else ""
        yield Block(page, start + 1, lines[start][3:], "\n".join(lines[start + 1 : k]), bool(NOT_RUN.fullmatch(before)))
        start = -1
    assert start < 0, f"{page}:{start + 1}: a block that never ends"


BLOCKS = tuple(b for page in PAGES for b in blocks_of(page))


def those(language: str) -> list[Any]:
    return [pytest.param(b, id=str(b)) for b in BLOCKS if b.language == language and not b.illustrative]


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, the status it says it ends with, and what it is said to print."""

    words: tuple[str, ...]
    status: int
    shown: tuple[str, ...]


def commands_of(block: Block) -> Iterator[Command]:
    """`$ command  # exit status 1`, then lines of its output, in which `...` stands for anything."""
    text = block.text.replace("\\\n", " ")
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        said = re.search(r"# exit status (\d+)", line)
        yield Command(tuple(shlex.split(line, comments=True)), int(said[1]) if said else 0, tuple(filter(None, shown)))


COMMANDS: dict[tuple[str, ...], tuple[Block, Command]] = {}
for _block in BLOCKS:
    if _block.language == "console" and not _block.illustrative:
        for _command in commands_of(_block):
            COMMANDS.setdefault(_command.words, (_block, _command))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository to a reader, and that commands may write into."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("examples", "tests", "docs", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def there(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    give_two_cores(monkeypatch)  # as the pages' commands ask for
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    return workplace


def test_every_block_is_of_a_kind_that_is_run_or_read() -> None:
    assert {b.language for b in BLOCKS} <= {"python", "console", "json", "yaml", "text"}
    assert sum(b.language == "python" for b in BLOCKS) >= 5
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("block", those("python"))
def test_python_block_runs(block: Block, there: Path) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "__docs__"})


@cache
def reader_runs(*arguments: str) -> Ran:
    """What the command gives in the reader's folder: pages that name the same one show the same run."""
    return run(*arguments)


@pytest.mark.parametrize("block, command", [pytest.param(b, c, id=" ".join(c.words)) for b, c in COMMANDS.values()])
def test_console_command_ends_as_the_page_says(block: Block, command: Command, there: Path) -> None:
    program, *arguments = command.words
    if program == "pararev-hw":
        ran = reader_runs(*arguments)
        assert ran.status == command.status, ran.err
        printed = " ".join((ran.out + ran.err).split())
    elif program == "make":
        dry = subprocess.run(["make", "-n", *arguments], capture_output=True, text=True, cwd=ROOT)
        assert dry.returncode == 0, dry.stderr
        printed = dry.stdout
    else:
        assert program == "python", f"{block}: mark it as illustrative, or teach this test to run {program!r}"
        with mock.patch.object(sys, "argv", arguments):
            runpy.run_path(arguments[0], run_name="__main__")
        printed = ""
    for line in command.shown:
        at = 0
        for piece in (" ".join(p.split()) for p in line.split("...")):
            found = printed.find(piece, at)
            assert found >= 0, f"{block} shows {piece!r}, which is not printed"
            at = found + len(piece)


def test_the_answer_that_pages_quote_is_what_the_command_prints(there: Path) -> None:
    ran = reader_runs("report", "pararevsnn37", "--device", "h200", "-o", "out/")
    answer = " ".join(ran.out.split("pararevsnn37 on NVIDIA")[0].split())
    for page in (ROOT / "README.md", ROOT / "docs" / "how-to" / "read-a-report.md"):
        quoted = re.findall(r"(?:^>.*\n)+", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert [" ".join(re.sub(r"^>", "", q, flags=re.MULTILINE).split()) for q in quoted] == [answer]


@pytest.mark.parametrize("block", [*those("json"), *those("yaml")])
def test_data_block_can_be_read(block: Block) -> None:
    assert json.loads(block.text) if block.language == "json" else yaml.safe_load(block.text)


# ---- links, words


def headings(page: Path) -> set[str]:
    """The anchors that the page's headings get."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in headings(target), f"{page.name} links to {link}, a heading that {target.name} lacks"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, todo = set[Path](), [ROOT / "README.md", ROOT / "docs" / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        todo += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert set(PAGES) <= seen


# Written so that this file does not hold what it looks for.
_OF_ONE_MACHINE = re.compile(rf"/({'|'.join(('work', 'root', 'home', 'tmp'))})/")
_REGISTRY = re.compile("|".join((r"py(?:pi)\.\w", r"python(?:hosted)\.\w", r"index(?:-)url")))
_TEXT = {".py", ".md", ".yaml", ".toml", ".json", ".j2", ".css", ".js", ".svg", ".csv", ""}


def ours() -> list[Path]:
    """The repository's own text files."""
    folders = ("pararev_hw", "tests", "docs", "examples", "benchmarks", ".ci")
    found = [p for folder in folders for p in sorted((ROOT / folder).rglob("*")) if p.suffix in _TEXT and p.is_file()]
    top = (p for p in sorted(ROOT.iterdir()) if p.is_file() and p.suffix in _TEXT)
    return [*(p for p in top if p.name != ".git"), *found]  # a file in a linked work tree, which git keeps


@pytest.mark.parametrize("pattern", [_OF_ONE_MACHINE, _REGISTRY], ids=["paths", "registries"])
def test_no_file_names_a_path_of_one_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    files = [p for p in ours() if "__pycache__" not in p.parts]
    assert len(files) > 100
    found = {str(p.relative_to(ROOT)): m[0] for p in files if (m := pattern.search(p.read_text(encoding="utf-8")))}
    assert not found


def test_the_licence_is_the_one_that_the_package_names() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


# ---- the reference


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]  # alone: what else the script imported is there once
    return module


@pytest.mark.parametrize("page", ["cli.md", "devices.md", "json.md"])
def test_generated_page_is_what_the_code_says_today(page: str) -> None:
    written = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert written == script("make_reference").pages()[page], "run python docs/make_reference.py"


def test_leapfrog_figure_is_what_its_script_draws() -> None:
    figures = script("make_figures")
    assert figures.FIGURE.read_text(encoding="utf-8") == figures.leapfrog_svg(), "run python docs/make_figures.py"


def test_a_stage_of_n_pairs_is_drawn_in_2n_and_in_n_plus_1_steps() -> None:
    figures = script("make_figures")
    for n in range(1, 12):
        assert (len(figures.revnet(n)), len(figures.pararev(n))) == (2 * n, n + 1)
        assert sorted(chain(*figures.revnet(n))) == sorted(chain(*figures.pararev(n)))


NET = ("pararevsnn21", *SMALL, "--spikes")


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("graph", ("trace", *NET, "0.2")),
        ("graph", ("trace", *NET, "digits")),
        ("graph", ("trace", *NET, "none", "--granularity", "op")),
        ("schedule", ("schedule", *NET, "none", "--device", "h200")),
        ("schedule", ("schedule", *NET, "0.2", "--device", "loihi1", "--mode", "infer")),
        ("schedule", ("schedule", "examples/task_graph.json", "--lanes", "2")),
        ("report", ("report", *NET, "digits", "--device", "h200", "-o", "made")),
        ("report", ("report", *NET, "none", "--device", "edge8", "--mode", "infer", "-o", "made")),
        ("compare", ("compare", "revsresnet21", *NET, "0.2", "--device", "edge8")),
    ],
    ids=lambda v: v if isinstance(v, str) else " ".join(v),
)
def test_json_output_is_what_its_schema_says(name: str, arguments: tuple[str, ...], there: Path) -> None:
    ran = run(*arguments, "--json")
    assert ran.status == 0, ran.err
    assert list(wrong(json.loads(ran.out), schema(name))) == []


def test_the_task_graph_of_the_examples_is_what_its_schema_says() -> None:
    document = json.loads((ROOT / "examples" / "task_graph.json").read_text(encoding="utf-8"))
    assert list(wrong(document, schema("task-graph"))) == []


@pytest.mark.parametrize(
    "document, said",
    [
        ({"tasks": [{"id": "a"}]}, "$.tasks[0] lacks time_s"),
        ({"tasks": [{"id": "a", "time_s": "1"}]}, "$.tasks[0].time_s is '1', not number"),
        ({"tasks": [{"id": None, "time_s": 1}]}, "$.tasks[0].id is None, not string or integer"),
        ({"tasks": [], "edgs": []}, "$.edgs is not documented"),
        ({"tasks": [{"id": "a", "time_s": 1, "lanes": [True]}]}, "$.tasks[0].lanes[0] is True, not integer"),
    ],
)
def test_a_document_that_differs_from_its_schema_is_told_apart(document: Any, said: str) -> None:
    assert list(wrong(document, schema("task-graph"))) == [said]


@pytest.mark.parametrize("name", [p.name.removesuffix(".schema.json") for p in sorted(SCHEMAS.glob("*.json"))])
def test_schema_describes_every_field_and_uses_only_what_is_checked(name: str) -> None:
    known = {"type", "description", "unit", "properties", "required", "items", "additionalProperties", "const", "enum"}

    def walk(at: Mapping[str, Any]) -> None:
        assert at.keys() <= known | {"$schema", "title", "minimum"}
        assert at["description"] or at.get("title")
        assert set(at.get("required", ())) <= set(at.get("properties", ()))
        for inner in at.get("properties", {}).values():
            walk(inner)
        for key in ("items", "additionalProperties"):
            if isinstance(at.get(key), Mapping):
                walk({"description": "of a list or mapping", **at[key]})

    walk(schema(name))
