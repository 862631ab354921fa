"""How long commands take a user: processor seconds and memory of a fresh process each, now and before in one run.

    python benchmarks/bench_commands.py [--before FOLDER] [--repeats 3] [--only "trace"] [--tasks 1000000]

`--before` is a checkout of an older version. The least of the repeats counts: whatever else the machine does only adds.
`--tasks` also schedules layered `.stg` and `.json` files of so many tasks on 8 lanes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 100  # tasks in a layer
COMMANDS = (
    ("models",),
    ("devices",),
    ("schedule", "graph.json", "--lanes", "2"),
    ("trace", "pararevsnn37", "--spikes", "0.2", "-o", "traced.json"),
    ("trace", "pararevsnn37", "-o", "traced.json"),
    ("trace", "pararevsnn165", "--timesteps", "16", "--spikes", "0.2", "-o", "traced.json"),  # 47,425 operations
    ("report", "pararevsnn37", "--spikes", "0.2", "-o", "report"),
    ("report", "pararevsnn37", "-o", "report"),
    ("report", "pararevsnn37", "--device", "edge8", "--spikes", "0.2", "-o", "report"),
    ("sweep", str(ROOT / "examples" / "sweeps" / "edge.yaml"), "--fresh", "-o", "sweep"),
)
GRAPH = '{"tasks": [{"id": "a", "time_s": 1}, {"id": "b", "time_s": 2}], "edges": [{"src": "a", "dst": "b"}]}'


@dataclass(frozen=True, slots=True)
class Ran:
    """Processor seconds, and the most memory in MiB, of a process."""

    seconds: float
    mib: float


def ran(checkout: Path, command: tuple[str, ...], folder: Path) -> Ran:
    """One run of the command line of a checkout, one thread. Raises where it fails."""
    # an installed package is there as bytecode
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment = {**inherited, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pararev_hw.cli", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: pararev-hw {' '.join(command)} ended with {process.returncode} in {checkout}")
    return Ran(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def least(checkout: Path, command: tuple[str, ...], folder: Path, repeats: int) -> Ran:
    return min((ran(checkout, command, folder) for _ in range(repeats)), key=lambda r: r.seconds)


def write_stg(path: Path, tasks: int) -> None:
    """Layers of WIDTH tasks of 1 to 99, each after two of the layer before, between the two tasks of no time."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{tasks}\n0 0 0\n")
        for i in range(1, tasks + 1):
            above = ((i - 1) // WIDTH - 1) * WIDTH + 1
            before = [0] if above < 0 else sorted({above + draw.randrange(WIDTH) for _ in range(2)})
            file.write(f"{i} {draw.randrange(1, 100)} {len(before)} {' '.join(map(str, before))}\n")
        last = range((tasks - 1) // WIDTH * WIDTH + 1, tasks + 1)
        file.write(f"{tasks + 1} 0 {len(last)} {' '.join(map(str, last))}\n")


def write_json(path: Path, tasks: int) -> None:
    """Layers of WIDTH tasks with memory, each after one to five of the layer before."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"tasks": [')
        for i in range(tasks):
            row = {"id": f"t{i}", "time_s": draw.randrange(1, 100), "memory_bytes": draw.randrange(1, 1000)}
            file.write(f"{', ' * (i > 0)}{json.dumps(row)}")
        file.write(f'], "edges": [{{"src": "t0", "dst": "t{tasks - 1}"}}')
        for i in range(WIDTH, tasks):
            above = (i // WIDTH - 1) * WIDTH
            for before in sorted(draw.sample(range(above, above + WIDTH), draw.randint(1, 5))):
                file.write(f', {{"src": "t{before}", "dst": "t{i}"}}')
        file.write("]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of an older version")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="commands that begin so")
    parser.add_argument("--tasks", type=int, default=0, help="tasks of an .stg file")
    asked = parser.parse_args()
    checkouts = [ROOT] if asked.before is None else [asked.before.absolute(), ROOT]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "graph.json").write_text(GRAPH, encoding="utf-8")
        commands = [*COMMANDS]
        if asked.tasks:
            write_stg(folder / "large.stg", asked.tasks)
            write_json(folder / "large.json", asked.tasks)
            for file, scheduler in (("large.stg", "heft"), ("large.json", "heft"), ("large.json", "memory-list")):
                commands.append(("schedule", file, "--lanes", "8", "--scheduler", scheduler))
        for command in (c for c in commands if " ".join(c).startswith(asked.only)):
            repeats = 1 if any(word.startswith("large.") for word in command) else asked.repeats
            results = [least(c, command, folder, repeats) for c in checkouts]
            shown = " -> ".join(f"{r.seconds:.2f} s, {r.mib:.0f} MiB" for r in results)
            print(f"pararev-hw {' '.join(command)}: {shown}", flush=True)


if __name__ == "__main__":
    main()
