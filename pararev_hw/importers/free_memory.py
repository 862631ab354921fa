"""Refusing what the memory does not hold, before the system ends the process for filling it."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from pararev_hw.errors import Infeasible
from pararev_hw.measurement.environment import available_bytes, data_bytes
from pararev_hw.progress import Progress
from pararev_hw.reports import units

_TENSOR = re.compile(r"tried to allocate (\d+) bytes")  # torch's words


def check_free_memory(need_bytes: int, clause: str, advice: str, progress: Progress) -> None:
    """Tell what memory something needs, where the system tells what is free. Raises Infeasible where there is not so
    much. `clause` is a sentence up to the size, as "net: a study of 20,000 tasks needs"."""
    have_bytes = available_bytes()
    if have_bytes is None:
        return
    sizes = f"some {units.size(need_bytes)} of memory here, {units.size(have_bytes)} are free"
    if need_bytes > have_bytes:
        raise Infeasible(f"{clause} {sizes}: {advice}")
    progress(f"{clause} {sizes}")


@contextmanager
def within_free_memory(name: str) -> Iterator[None]:
    """Lets the process grow by as much memory as is free, where the system tells. Raises Infeasible, with what `name`
    needs and what there is, for whatever asks for more."""
    have, before = available_bytes(), data_bytes()
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
        grown = max(0, (data_bytes() or 0) - before)
        need = max(have, grown + (int(tensor[1]) if tensor else 0))
        raise Infeasible(
            f"{name} needs more than {units.size(need)} of memory, {units.size(have)} are free: a smaller network "
            "needs less"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
