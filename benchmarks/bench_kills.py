"""What is lost when a verb is stopped at a random moment? Every verb that writes, killed again and again.

    python benchmarks/bench_kills.py [--kills 60] [--losses 10] [--verbs sweep report ...] [--seed 0]

Each run is a fork of one process that has everything imported, so that the signal (SIGKILL, SIGTERM and SIGINT in
turn) falls into the verb's own work. After each: it is over within 10 s and says no traceback; every file under its
final name is whole; after a signal that can be handled no draft is left. A sweep is killed again and again in one
folder, and then finishes with the rows of one that was never stopped; what the store of timed operations held is
still there. Then workers are lost: of sweeps in two processes and of sweeps on a Dask cluster, where the scheduler is
lost too, one is killed at a random moment; the same command again gives the rows of a sweep that lost none.
Exit status 1 where something was lost.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[1]))

PATIENCE_S = 10.0
NETWORK = """
import torch
from torch import nn

def make(batch: int = 2):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)), torch.rand(batch, 3, 8, 8)
"""
SWEEP = """
device: edge8
networks: net.py:make
spikes: 0.1
parameters:
  lanes: [1, 2, 4, 8]
  memory_bandwidth_bytes_per_s: {from: 1e9, to: 100e9, scale: log}
  pe_rows: [4, 8, 16, 32]
objectives: [latency, energy]
method: {name: random, samples: 60000, seed: 1}
"""


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb, what it writes, and what must hold after every kill besides that files are whole."""

    arguments: Callable[[Path], tuple[object, ...]]
    resumes: bool = False  # the same folder again and again
    endured: Callable[[Path], int] = field(default=lambda folder: 0)  # never less than before


def _rows(folder: Path) -> int:
    from pyarrow import parquet

    return sum(parquet.read_metadata(p).num_rows for p in folder.glob("out/**/*.parquet"))


def _timed(folder: Path) -> int:
    return sum(len(json.loads(p.read_text())["ops"]) for p in folder.glob("cache/**/measured-*.json"))


VERBS = {
    "trace": Verb(lambda f: ("trace", f"{f}/net.py:make", "-o", f / "graph.json")),
    "schedule": Verb(
        lambda f: ("schedule", f"{f}/net.py:make", "--device", "edge8", "--spikes", "none", "-o", f / "out")
    ),
    "report": Verb(lambda f: ("report", f"{f}/net.py:make", "--device", "edge8", "--spikes", "none", "-o", f / "out")),
    "sweep": Verb(lambda f: ("sweep", f / "sweep.yaml", "-o", f / "out", "--workers", 1), resumes=True, endured=_rows),
    "store": Verb(
        lambda f: ("schedule", f"{f}/net.py:make", "--device", "cpu", "--measure", "--spikes", "none"),
        resumes=True,
        endured=_timed,
    ),
    "calibrate": Verb(lambda f: ("calibrate", "--device", "cpu", "--minutes", 0.1, "-o", f / "cpu.json")),
    "validate": Verb(lambda f: ("validate", f"{f}/net.py:make", "--profile", "cpu", "--minutes", 0.1, "-o", f / "out")),
}


def prepared(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(NETWORK)
    (folder / "sweep.yaml").write_text(SWEEP)
    return folder


def start(verb: Verb, folder: Path) -> int:
    """The verb in a fork of this process, its messages in a file; the child's id."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        messages = os.open(folder / "messages.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(messages, 1)
        os.dup2(messages, 2)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        sys.argv = ["pararev-hw", *map(str, verb.arguments(folder))]
        from pararev_hw import cli

        signal.signal(signal.SIGINT, signal.default_int_handler)
        cli.main()
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)
    os._exit(0)


def waited(child: int, seconds: float) -> bool:
    """Whether the child ended within that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.005)
    return False


def faults(folder: Path, number: int) -> Iterator[str]:
    """What is not as it must be in a folder after a kill by that signal."""
    text = (folder / "messages.txt").read_text(errors="replace") if (folder / "messages.txt").exists() else ""
    if "Traceback" in text or "internal error" in text:
        yield f"says {text[-600:]!r}"
    for file in folder.rglob("*"):
        if not file.is_file() or file.name in ("net.py", "sweep.yaml", "messages.txt") or "__pycache__" in file.parts:
            continue
        if file.name == "sweep.lock" or (file.name.startswith("measured-") and file.suffix == ".lock"):
            continue  # stays by design: whoever removed it could take it from under another run
        if file.name.startswith(".") or file.suffix in (".part", ".lock", ".tmp"):
            if number != signal.SIGKILL:
                yield f"leaves {file.relative_to(folder)}"
            continue
        try:
            _read(file)
        except Exception as error:
            yield f"{file.relative_to(folder)} is not whole: {type(error).__name__}: {error}"


def _read(file: Path) -> None:
    match file.suffix:
        case ".json":
            json.loads(file.read_text())
        case ".svg":
            ElementTree.fromstring(file.read_text())
        case ".html":
            assert file.read_text().rstrip().endswith("</html>"), "its end is missing"
        case ".parquet":
            from pyarrow import parquet

            parquet.read_table(file)
        case ".csv" | ".py" | ".md" | ".txt" | ".yaml":
            assert file.read_text().endswith("\n"), "its last line has no end"


def table(folder: Path) -> object:
    """The rows of a finished sweep, in order, without what tells runs apart."""
    from pyarrow import parquet

    rows = parquet.read_table(folder / "out" / "results.parquet").to_pandas()
    return rows.sort_values(list(rows.columns)).reset_index(drop=True)


def children(parent: int) -> list[int]:
    """Processes below that one, workers that Python has started for it."""
    below = [int(n) for n in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return [n for n in below if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes()]


def lost_workers(losses: int, draw: random.Random, root: Path) -> Counter[str]:
    """The faults of sweeps in two processes, one of which is killed."""
    outcome = Counter[str]()
    alone = Verb(lambda f: ("sweep", f / "sweep.yaml", "-o", f / "out", "--workers", 1))
    two = Verb(lambda f: ("sweep", f / "sweep.yaml", "-o", f / "out", "--workers", 2))
    assert waited(start(alone, prepared(root / "whole")), 240.0), "the sweep that loses nobody has no end"
    right = table(root / "whole")
    for k in range(losses):
        folder = prepared(root / f"loss-{k}")
        child, victims = start(two, folder), list[int]()
        while not victims and not waited(child, 0.02):
            victims = children(child)
        time.sleep(draw.uniform(0.0, 3.0))
        if victims and Path(f"/proc/{victims[-1]}").exists():
            os.kill(draw.choice(victims), signal.SIGKILL)
        else:
            outcome["ended before"] += 1
        ended = not victims or waited(child, 120.0)
        outcome.update(faults(folder, signal.SIGTERM) if ended else ["has no end without its worker"])
        outcome.update(_finished(alone, folder, right))
    return outcome


def lost_on_cluster(losses: int, draw: random.Random, root: Path) -> Counter[str]:
    """The faults of sweeps on a Dask scheduler with two workers, one of the three killed."""
    outcome = Counter[str]()
    alone = Verb(lambda f: ("sweep", f / "sweep.yaml", "-o", f / "out", "--workers", 1))
    assert waited(start(alone, prepared(root / "whole")), 240.0), "the sweep that loses nobody has no end"
    right = table(root / "whole")
    for k in range(losses):
        folder = prepared(root / f"cluster-{k}")
        address_file = folder / "scheduler.txt"
        file = ("--scheduler-file", address_file)
        running = [_dask(folder, "scheduler", "--port", 0, *file, "--no-dashboard", "--no-show")]
        running += [_dask(folder, "worker", *file, "--nthreads", 1, "--no-nanny", "--no-dashboard") for _ in range(2)]
        try:
            while not address_file.exists() or not address_file.read_text():
                time.sleep(0.05)
            address = json.loads(address_file.read_text())["address"]
            address_file.unlink()
            there = Verb(lambda f, a=address: ("sweep", f / "sweep.yaml", "-o", f / "out", "--cluster", a))  # type: ignore[misc]
            child = start(there, folder)
            if waited(child, draw.uniform(0.5, 8.0)):
                outcome["ended before"] += 1
            else:
                running[k % 3].kill()  # the scheduler every third time
                if not waited(child, 120.0):
                    outcome[f"has no end without its {('scheduler', 'worker', 'worker')[k % 3]}"] += 1
                    os.killpg(child, signal.SIGKILL)
                    os.waitpid(child, 0)
        finally:
            for process in running:
                process.kill()
                process.wait()
        shutil.rmtree(folder / "dask", ignore_errors=True)
        outcome.update(faults(folder, signal.SIGTERM))
        outcome.update(_finished(alone, folder, right))
    return outcome


def _dask(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    where = folder / "dask"
    where.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dask", *map(str, arguments)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, cwd=where, stdout=quiet, stderr=quiet, start_new_session=True)


def _finished(verb: Verb, folder: Path, right: object) -> Iterator[str]:
    """What is wrong with a sweep's rows once it has been asked for again, and cleans up."""
    if not waited(start(verb, folder), 240.0) or not (folder / "out" / "results.parquet").exists():
        yield f"cannot be finished: {(folder / 'messages.txt').read_text()[-300:]!r}"
    elif not table(folder).equals(right):  # type: ignore[attr-defined]
        yield "its rows differ from those of a sweep that was never stopped"
    shutil.rmtree(folder)


def killed(name: str, kills: int, draw: random.Random, root: Path) -> Counter[str]:
    """The faults of so many kills of one verb, and how many runs had ended before their signal came."""
    verb, outcome = VERBS[name], Counter[str]()
    whole, took = root / f"{name}-whole", math.inf
    for _ in range(2):  # the first one also loads what the later ones have in memory
        shutil.rmtree(whole, ignore_errors=True)
        began = time.monotonic()
        assert waited(start(verb, prepared(whole)), 240.0), "the run that is not killed has no end"
        took = min(took, time.monotonic() - began)
    for fault in faults(whole, signal.SIGTERM):
        outcome[f"without a kill: {fault}"] += 1
    folder, most = prepared(root / f"{name}-0"), 0
    for k in range(kills):
        if not verb.resumes and k:
            shutil.rmtree(folder)
            folder = prepared(root / f"{name}-{k}")
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[k % 3]
        child = start(verb, folder)
        if waited(child, draw.uniform(0.0, took)):
            outcome["ended before"] += 1
            if verb.resumes:  # from the start again, where it was done already
                shutil.rmtree(folder / "out", ignore_errors=True)
                shutil.rmtree(folder / "cache", ignore_errors=True)
                most = 0
        else:
            os.kill(child, number)
            if not waited(child, PATIENCE_S):
                outcome[f"runs on {PATIENCE_S:.0f} s after signal {number}"] += 1
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
        for fault in faults(folder, number):
            outcome[fault] += 1
        if verb.resumes:
            there = verb.endured(folder)
            if there < most:
                outcome[f"had {most} rows or operations, has {there}"] += 1
            most = there
    if name == "sweep":
        outcome.update(_finished(verb, folder, table(whole)))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(whole)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=60, help="of each verb")
    parser.add_argument("--losses", type=int, default=10, help="of workers, in processes and on a cluster each")
    parser.add_argument("--verbs", nargs="*", choices=sorted(VERBS), default=sorted(VERBS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    import matplotlib.pyplot  # noqa: F401  what the children would import each for itself
    import pandas  # noqa: F401
    import torch
    from pyarrow import parquet  # noqa: F401

    from pararev_hw import reports, sweeps, validation  # noqa: F401
    from pararev_hw.cli import entry  # noqa: F401

    torch.set_num_threads(1)
    bad = 0
    with tempfile.TemporaryDirectory() as root:
        for name in asked.verbs:
            outcome = killed(name, asked.kills, random.Random(f"{asked.seed} {name}"), Path(root))
            early = outcome.pop("ended before", 0)
            bad += sum(outcome.values())
            print(f"{name}: {asked.kills} kills, {early} after its end: {dict(outcome) or 'nothing lost'}", flush=True)
        for title, lose in (("processes", lost_workers), ("a cluster", lost_on_cluster)):
            if asked.losses:
                outcome = lose(asked.losses, random.Random(f"{asked.seed} {title}"), Path(root))
                early = outcome.pop("ended before", 0)
                bad += sum(outcome.values())
                print(
                    f"{asked.losses} losses in {title}, {early} too late: {dict(outcome) or 'nothing lost'}", flush=True
                )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
