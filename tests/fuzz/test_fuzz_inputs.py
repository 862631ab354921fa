"""Damaged and hostile inputs of every kind: one line and status 1 or 2, never status 3, never a traceback.

Ten seconds by default, a minute with `-m slow`, an hour with `make fuzz` (PARAREV_FUZZ_SECONDS). The seed is fixed:
the n-th input is the same on every run.
"""

import io
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pararev_hw.devices import device_names, load_device
from pararev_hw.devices.files import device_to_json, device_to_yaml
from tests.helpers.command_line import run
from tests.helpers.sweep_helpers import SMALL

SECONDS = float(os.environ.get("PARAREV_FUZZ_SECONDS", "60"))
TASKS = {"tasks": [{"id": "a", "time_s": 1.0}, {"id": "b", "time_s": 2.0}], "edges": [{"src": "a", "dst": "b"}]}
STG = "2\n0 0 0\n1 3 1 0\n2 4 1 1\n3 0 1 2\n"
WORDS = [
    "1e999",
    "-1",
    "nan",
    "\x00",
    "\ud800",
    "!!bool x",
    "&a [*a]",
    "{}",
    "[]",
    "null",
    "9" * 400,
    "0",
    "'",
    "\t",
    "*",
]
BYTES = [b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"{" * 2000, b"[" * 2000, b"\x1b[31m", b"0" * 5000]


def damaged_text(text: str, draw: random.Random) -> bytes:
    """A text with a part cut, doubled, replaced by a hostile word, or with bytes of no text in it."""
    at, to = sorted(draw.randrange(len(text) + 1) for _ in range(2))
    to = min(to, at + 40)
    match draw.randrange(5):
        case 0:
            changed = text[:at]
        case 1:
            changed = text[:to] + text[at:]
        case 2:
            changed = text[:at] + draw.choice(WORDS) + text[to:]
        case 3:
            lines = text.splitlines(keepends=True)
            draw.shuffle(lines)
            changed = "".join(lines)
        case _:
            return text[:at].encode() + draw.choice(BYTES) + text[to:].encode()
    return changed.encode("utf-8", errors="surrogatepass")


def damaged_array(draw: random.Random) -> bytes:
    into = io.BytesIO()
    np.save(into, np.ones((2, 3, 32, 32), np.float32))
    data = bytearray(into.getvalue())
    for _ in range(draw.randrange(1, 4)):
        data[draw.randrange(128)] = draw.randrange(256)
    return bytes(data)


def sweep_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    file = folder / "sweep.yaml"
    file.write_bytes(damaged_text(SMALL.replace("6000", "8"), draw))
    return ("sweep", file, "-o", folder / "out", "--workers", 1)


def device_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    device = load_device(draw.choice([n for n in device_names() if n != "cpu"]))
    ending, text = draw.choice([(".yaml", device_to_yaml(device)), (".json", device_to_json(device))])
    file = folder / f"device{ending}"
    file.write_bytes(damaged_text(text, draw))
    return ("devices", file)


def tasks_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    ending, text = draw.choice([(".json", json.dumps(TASKS)), (".stg", STG)])
    file = folder / f"tasks{ending}"
    file.write_bytes(damaged_text(text, draw))
    return ("schedule", file, "--lanes", 2)


def array_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    file = folder / "input.npy"
    file.write_bytes(damaged_array(draw))
    return ("trace", "pararevsnn21", "--width", "0.0625", "--batch", 2, "--spikes", file, "-o", folder / "graph.json")


def options_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    option = draw.choice(["--width", "--batch", "--timesteps", "--seed", "--input-shape", "--num-classes", "--spikes"])
    value = draw.choice(["1e300", "-1", "nan", "0", "x", "9" * 30, "1,2", "\x00", "inf", ""])
    return ("trace", "pararevsnn21", option, value, "-o", folder / "graph.json")


CASES: tuple[Callable[[random.Random, Path], tuple[object, ...]], ...] = (
    *(device_case,) * 6,
    *(tasks_case,) * 6,
    *(options_case,) * 2,
    sweep_case,
)


def fuzz(seconds: float, folder: Path, cases: tuple[Callable[[random.Random, Path], tuple[object, ...]], ...]) -> int:
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        draw = random.Random(count)
        arguments = draw.choice(cases)(draw, folder)
        ran = run(*arguments)
        shown = f"input {count}: {arguments}: {ran.err}"
        assert ran.status in (0, 1, 2), shown
        assert "Traceback" not in ran.err, shown
        if ran.status == 2:
            assert ran.err.startswith("error: ") and ran.err.count("\n") == 1 and len(ran.err) < 2000, shown
            assert ran.out == "", shown
        assert not list(folder.glob("**/*.part")), shown
        count += 1
    return count


def test_ten_seconds_of_damaged_files(tmp_path: Path) -> None:
    assert fuzz(10.0, tmp_path, (device_case, tasks_case)) > 20


@pytest.mark.slow
def test_fuzz(tmp_path: Path) -> None:
    assert fuzz(SECONDS, tmp_path, (*CASES, array_case)) > 20
