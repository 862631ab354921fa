"""What `--measure` timed on this machine, in one file of the cache folder: times of ops by signature.

The file's name holds a digest of the machine and of the library versions, and the file says both in words: another
machine's file, or one of another torch, is never read. Writers take turns on a lock and rename a whole file into place,
so that a reader sees the old one or the new one. A file that cannot be read is measured anew.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2s
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pararev_hw.atomic import write_file
from pararev_hw.errors import BadFile
from pararev_hw.measurement.quick import cpu_name
from pararev_hw.types import OpTime, ReplayedStep
from pararev_hw.types.profile import Estimate
from pararev_hw.versions import installed_version

STORE_VERSION = 5
MAX_BYTES = 256 << 20
_LOCK_S = 20.0
_SETTINGS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX")


@dataclass(frozen=True, slots=True)
class Measurements:
    """Times of ops by key, seconds beside an op by phase, and the steps that were replayed by the graph's digest."""

    ops: Mapping[str, OpTime] = field(default_factory=dict)
    host: Mapping[str, Estimate] = field(default_factory=dict)
    graphs: Mapping[str, ReplayedStep] = field(default_factory=dict)


def machine_description() -> dict[str, str]:
    """What an op's time depends on beside itself: the processor, the libraries, and settings that choose kernels."""
    import torch  # heavy, and only a measurement needs it

    described = {
        "cpu": cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "pararev_hw": installed_version("pararev-hw"),
    }
    return described | {name: os.environ[name] for name in _SETTINGS if name in os.environ}


def store_path(folder: Path, machine: Mapping[str, str]) -> Path:
    """The file of that machine."""
    digest = blake2s(json.dumps(dict(sorted(machine.items()))).encode(), digest_size=8).hexdigest()
    return folder / f"measured-{digest}.json"


def read_store(path: Path, machine: Mapping[str, str]) -> tuple[Measurements, str | None]:
    """What the file holds for that machine, and why it holds nothing where it was ignored."""
    try:
        return _read(path, machine)
    except OSError as error:
        return Measurements(), f"{path}: cannot be read ({error.strerror}): measured anew"


def _read(path: Path, machine: Mapping[str, str]) -> tuple[Measurements, str | None]:
    """As `read_store`. Raises OSError where the system cannot read it: what it holds may be sound."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return Measurements(), f"{path}: larger than {MAX_BYTES} bytes: ignored"
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Measurements(), None
    except (ValueError, RecursionError):
        return Measurements(), f"{path}: is not whole: measured anew"
    try:
        if document["version"] != STORE_VERSION or document["machine"] != dict(machine):
            return Measurements(), f"{path}: was written by another machine or version: ignored"
        ops = {str(k): _op_time(v) for k, v in document["ops"].items()}
        host = {str(k): Estimate(float(v[0]), v[1]) for k, v in document["host"].items()}
        graphs = {str(k): _replayed_step(v) for k, v in document["graphs"].items()}
        return Measurements(ops, host, graphs), None
    except Exception:
        # whatever else a file may hold, it is none of ours
        return Measurements(), f"{path}: is no store of measurements: measured anew"


def _op_time(values: Any) -> OpTime:
    seconds, count, spread, reordered = values
    if not (0 <= seconds < math.inf and count >= 1 and 0 <= spread < math.inf and 0 <= reordered < math.inf):
        raise ValueError(values)
    return OpTime(float(seconds), int(count), float(spread), float(reordered))


def _replayed_step(values: Any) -> ReplayedStep:
    seconds, replays, spread, pace_s, beside_s = values
    if not (0 < seconds < math.inf and replays >= 1 and 0 <= spread < math.inf and 0 < pace_s < math.inf):
        raise ValueError(values)
    if beside_s is not None and not 0 <= beside_s < math.inf:
        raise ValueError(values)
    return ReplayedStep(float(seconds), int(replays), float(spread), float(pace_s), beside_s)


def add_to_store(path: Path, machine: Mapping[str, str], new: Measurements) -> tuple[Measurements, str | None]:
    """Adds `new` to the file, whatever others wrote meanwhile; and why that could not be, if it could not.

    The newest time of an op replaces an older one. Gives what the file then holds (else `new`).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_S):
            old, _ = _read(path, machine)
            merged = Measurements({**old.ops, **new.ops}, {**old.host, **new.host}, {**old.graphs, **new.graphs})
            _write(path, machine, merged)
            return merged, None
    except Timeout:
        return new, f"{path}: another process keeps it locked: this measurement is not stored"
    except BadFile as error:
        return new, f"{error}: this measurement is not stored"
    except OSError as error:
        return new, f"{path}: cannot be read or written ({error.strerror or error}): this measurement is not stored"


def _write(path: Path, machine: Mapping[str, str], measurements: Measurements) -> None:
    document = {
        "version": STORE_VERSION,
        "machine": dict(machine),
        "ops": {k: list(asdict(t).values()) for k, t in sorted(measurements.ops.items())},
        "host": {k: [e.value, e.sigma] for k, e in sorted(measurements.host.items())},
        "graphs": {k: list(asdict(s).values()) for k, s in sorted(measurements.graphs.items())},
    }
    write_file(path, json.dumps(document, allow_nan=False))
