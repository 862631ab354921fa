"""What is installed: one import package, with its data, that leaves a user's own `models/` alone."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEASURED_CARD = "devices/profiles/a-card.json"  # as a campaign on a card writes one
pytest.importorskip("setuptools", minversion="77", reason="the build backend, which pip brings along otherwise")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source, built without network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "pararev_hw", source / "pararev_hw", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "pararev_hw" / MEASURED_CARD).parent.mkdir(exist_ok=True)
    (source / "pararev_hw" / MEASURED_CARD).write_text("{}")
    for name in ("models", "schedulers", "costmodels", "reports"):
        (source / name).symlink_to(Path("pararev_hw") / name)
    (source / "tests").mkdir()
    (source / "tests" / "__init__.py").touch()
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", str(built)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, as an installation has it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_one_top_level_name(wheel: Path) -> None:
    assert {name.partition("/")[0] for name in names(wheel)} == {"pararev_hw"}


def test_the_wheel_holds_every_module_and_every_data_file(wheel: Path) -> None:
    here = {str(p.relative_to(ROOT)) for p in (ROOT / "pararev_hw").rglob("*") if p.is_file()}
    here = {name for name in here if "__pycache__" not in name and "/." not in name}
    assert names(wheel) == here | {f"pararev_hw/{MEASURED_CARD}"}
    assert {Path(name).suffix for name in here} >= {".py", ".yaml", ".j2", ".css", ".js"}


def test_an_installation_reports_from_its_own_files(site: Path, tmp_path: Path) -> None:
    code = (
        "import pararev_hw as ph, torch\n"
        f"assert ph.__file__.startswith({str(site)!r}), ph.__file__\n"
        "graph = ph.trace(torch.nn.Linear(4, 4), torch.zeros(2, 4))\n"
        "ph.report(graph, 'edge8', 'out')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_a_user_with_a_models_folder_traces_from_it(site: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.py").write_text("from torch import nn\ndef build(): return nn.Linear(4, 3)\n")
    (tmp_path / "train.py").write_text(
        "import torch\nfrom models.net import build\ndef make(): return build(), torch.zeros(2, 4)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pararev_hw", "trace", "train.py:make", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == 4 * 3 + 3
