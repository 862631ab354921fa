"""A user's script under `mypy --strict`: slips are told; that it passes is for the repository's own check."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("user_script.py")
SLIPS = {"timesteps=4": "timestep=4", "seconds=1": "secnds=1", "ph.devices()": "ph.devics()", "macs: int": "macs: str"}


def test_the_repositorys_own_strict_check_reads_the_users_script() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert settings["strict"]
    assert SCRIPT in [ROOT / name for name in settings["files"]]


@pytest.mark.slow
def test_slips_in_a_users_script_are_told(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    text = SCRIPT.read_text(encoding="utf-8")
    slips = text
    for right, wrong in SLIPS.items():
        assert right in text
        slips = slips.replace(right, wrong)
    (tmp_path / "right.py").write_text(text, encoding="utf-8")
    (tmp_path / "slips.py").write_text(slips, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nfollow_imports = silent\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "right.py", "slips.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    told = re.findall(r"^(\w+)\.py:\d+: error: (.*)$", done.stdout, flags=re.MULTILINE)
    assert [name for name, _ in told] == ["slips"] * len(SLIPS)
    for words in ('"timestep"', '"secnds"', '"devics"', "variable has type"):
        assert any(words in message for _, message in told)


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "pararev_hw" / "py.typed").exists()
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
