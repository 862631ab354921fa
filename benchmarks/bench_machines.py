"""How far predictions are off on other machines, played on this one: instruction sets, allocators, a busy neighbour.

    python benchmarks/bench_machines.py run here measure -o results/
    python benchmarks/bench_machines.py run sse41 profile-60 -o results/
    python benchmarks/bench_machines.py table results/

A piece is "measure" (operations timed in place), "profile-60" or "profile-180" (seconds of `calibrate`); then steps of
zoo networks and of `strangers.py` are predicted and really taken, one thread, within `--minutes`. Each piece leaves a
file of its own, so that they can be run one by one; the table holds what is there. `--minutes 2` gives each network
some 3 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

ROOT = Path(__file__).parents[1]
_MALLOC = "glibc.malloc.mmap_threshold={0}:glibc.malloc.trim_threshold={0}:glibc.malloc.top_pad={1}"

MACHINES: Mapping[str, Mapping[str, str]] = {
    "here": {},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    "sse41-avx2": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "avx2"},
    "small-malloc": {"GLIBC_TUNABLES": _MALLOC.format(128 << 10, 0)},
    "large-malloc": {"GLIBC_TUNABLES": _MALLOC.format(1 << 30, 64 << 20)},
    "two-threads": {"OMP_NUM_THREADS": "2"},
    "busy": {},  # and a neighbour that multiplies matrices
}
PIECES = {"measure": None, "profile-60": 1.0, "profile-180": 3.0}
ZOO = ("pararev37", "pararev21", "rev37", "rev21_wide", "ms34", "events24")
_BUSY = "import torch\ntorch.set_num_threads(1)\na = torch.rand(1200, 1200)\nwhile True:\n    a @ a\n"


def _zoo(name: str, width: float, timesteps: int) -> nn.Module:
    from pararev_hw.models import create

    return create(name, width=width, timesteps=timesteps)


def pararev37(batch: int = 2) -> Any:
    return _with_images(_zoo("pararevsnn37", 0.25, 2), batch)


def pararev21(batch: int = 5) -> Any:
    return _with_images(_zoo("pararevsnn21", 0.25, 3), batch)


def rev37(batch: int = 3) -> Any:
    return _with_images(_zoo("revsresnet37", 0.1875, 2), batch)


def rev21_wide(batch: int = 3) -> Any:
    return _with_images(_zoo("revsresnet21", 0.375, 2), batch)


def ms34(batch: int = 3) -> Any:
    return _with_images(_zoo("msresnet34", 0.1875, 2), batch)


def events24(batch: int = 2) -> Any:
    import torch

    net = _zoo("pararevsnn24_dvs", 0.375, 3)
    return net, (torch.rand(3, batch, 2, 128, 128) < 0.1).float()


def _with_images(net: nn.Module, batch: int) -> Any:
    import torch

    return net, torch.rand(batch, 3, 32, 32)


def targets() -> list[str]:
    from strangers import STRANGERS

    return [f"{__file__}:{name}" for name in ZOO] + [f"{ROOT}/benchmarks/strangers.py:{f.__name__}" for f in STRANGERS]


@contextmanager
def _neighbour(machine: str) -> Iterator[None]:
    if machine != "busy":
        yield
        return
    # on a core that this process is not held to, where there is one
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
    busy = subprocess.Popen([sys.executable, "-c", _BUSY])
    if others:
        os.sched_setaffinity(busy.pid, others)
    try:
        time.sleep(2)
        yield
    finally:
        busy.terminate()
        busy.wait()


def run(machine: str, piece: str, folder: Path, minutes: float) -> None:
    """One piece on one machine, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache, _neighbour(machine):
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **MACHINES[machine]}
        environment |= {"XDG_CACHE_HOME": cache, "PYTHONPATH": str(ROOT)}
        profile = folder / f"{machine}-{piece}.profile.json"
        how: list[str] = ["--device", "cpu", "--measure"]
        if PIECES[piece] is not None:
            length = str(PIECES[piece])
            _command("calibrate", "--device", "cpu", "--minutes", length, "-o", str(profile), environment=environment)
            how = ["--profile", str(profile)]
        result = _command("validate", *targets(), *how, "--minutes", str(minutes), "--json", environment=environment)
    (folder / f"{machine}-{piece}.json").write_text(result)


def _command(*words: str, environment: Mapping[str, str]) -> str:
    """What the command prints. One that was interrupted (130), or that found an error too large (1), prints as well."""
    command = [sys.executable, "-m", "pararev_hw.cli", *words]
    ended = subprocess.run(command, env=dict(environment), stdout=subprocess.PIPE, text=True)
    if ended.returncode not in (0, 1, 130):
        raise SystemExit(ended.returncode)
    return ended.stdout


def errors(cases: Sequence[Mapping[str, Any]], quantity: str) -> list[float]:
    return [abs(c["error"][quantity]) for c in cases if c["error"][quantity] is not None]


def row(machine: str, piece: str, document: Mapping[str, Any]) -> str:
    from pararev_hw.reports.validation import validation_from_document

    cases = document["cases"]
    zoo = [c for c in cases if c["network"].startswith("bench_machines")]
    strangers = [c for c in cases if c not in zoo]
    every = errors(cases, "latency")
    inside = [
        abs(c["error"]["latency"]) <= c["expected_error"]
        for c in cases
        if c["error"]["latency"] is not None and c["expected_error"] is not None
    ]
    memory = errors(cases, "memory")
    taus = document["latency"]["kendall_tau"], validation_from_document(document, machine).kendall_tau_told_apart
    cells = [
        machine,
        piece,
        str(len(every)),
        *(f"{sum(e) / len(e):.1%}" if e else "-" for e in (errors(zoo, "latency"), errors(strangers, "latency"))),
        f"{sum(e <= 0.12 for e in every) / len(every):.0%}",
        f"{max(every):.0%}",
        *("-" if tau is None else f"{tau:.2f}" for tau in taus),
        f"{sum(inside) / len(inside):.0%}" if inside else "-",
        f"{sum(memory) / len(memory):.2%}",
        f"{max(memory):.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def table(folder: Path) -> None:
    """The table of the pieces that lie in `folder`."""
    heads = ("machine", "predicted from", "steps", "zoo", "strangers", "within 12 %", "largest", "τ", "τ told apart",
             "in interval", "memory", "largest")  # fmt: skip
    print(f"| {' | '.join(heads)} |")
    print(f"|---|---|{'---:|' * (len(heads) - 2)}")
    for machine in MACHINES:
        for piece in PIECES:
            path = folder / f"{machine}-{piece}.json"
            if path.exists():
                print(row(machine, piece, json.loads(path.read_text())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run", help="one piece on one machine")
    runs.add_argument("machine", choices=MACHINES)
    runs.add_argument("piece", choices=PIECES)
    runs.add_argument("-o", "--output", type=Path, required=True)
    runs.add_argument("--minutes", type=float, default=2.0, help="of the real steps")
    verbs.add_parser("table", help="what there is, as Markdown").add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.verb == "run":
        run(given.machine, given.piece, given.output, given.minutes)
    else:
        table(given.folder)


if __name__ == "__main__":
    main()
