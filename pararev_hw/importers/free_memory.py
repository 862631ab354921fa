"""Refusing a network whose weights the memory does not hold, before the system ends the process for filling it."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pararev_hw.errors import Infeasible
from pararev_hw.measurement.environment import available_bytes
from pararev_hw.reports import units

_TENSOR = re.compile(r"tried to allocate (\d+) bytes")  # torch's words


@contextmanager
def within_free_memory(name: str) -> Iterator[None]:
    """Lets the process grow by as much memory as is free, where the system tells. Raises Infeasible, with what `name`
    needs and what there is, for whatever asks for more."""
    have, before = available_bytes(), _data_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if have is None or before is None or (soft != resource.RLIM_INFINITY and soft <= before + have):
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (before + have, hard))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        tensor = _TENSOR.search(str(error))
        if tensor is None and not isinstance(error, MemoryError):
            raise
        grown = max(0, (_data_bytes() or 0) - before)
        need = max(have, grown + (int(tensor[1]) if tensor else 0))
        raise Infeasible(
            f"{name} needs more than {units.size(need)} of memory, {units.size(have)} are free: a smaller network "
            "needs less"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int | None:
    """What RLIMIT_DATA counts: this process's private memory, touched or not; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:")), None)
