"""The machine that a step runs on: whether it is there, what it has, and as what device it is predicted."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from pararev_hw.devices import load_hardware
from pararev_hw.errors import BadInput
from pararev_hw.measurement.environment import check_cores, cores
from pararev_hw.pipeline import find_device
from pararev_hw.progress import Progress, silent
from pararev_hw.sizes import counted
from pararev_hw.types import Hardware

MAX_STREAMS = 64
MAX_DEFAULT_LANES = 4  # few networks have more branches side by side, and each lane costs a thread
STAND_IN = "h200"  # predicts for a GPU that nobody described


def check_device(device: str) -> None:
    """Refuse what torch cannot run on here. Raises BadInput."""
    if device not in ("cpu", "cuda"):
        raise BadInput(f"a step cannot run on {device!r}: give --device cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("this machine has no CUDA device that torch can use: give --device cpu")


def lanes_here(device: str, lanes: int | None) -> tuple[int, str]:
    """How many lanes to run on, and why: those asked for, else one for each core of a CPU, two streams of a GPU.

    Raises BadInput for more than the machine has.
    """
    if device == "cuda":
        if lanes is not None and lanes > MAX_STREAMS:
            raise BadInput(f"--lanes {lanes}: a GPU runs at most {MAX_STREAMS} streams here")
        return (2, "two streams, the default on a GPU") if lanes is None else (lanes, "as asked for")
    available = cores()
    if lanes is None:
        most = min(available, MAX_DEFAULT_LANES)
        why = f"this machine has {counted(available, 'core')}"
        return most, why if most == available else f"{why}, and {most} lanes are the most unless --lanes says more"
    check_cores(lanes, available, f"--lanes {lanes}")
    return lanes, "as asked for"


def this_machine(device: str, lanes: int, *, cache: Path | None = None, progress: Progress = silent) -> Hardware:
    """What predicts for "cpu" or "cuda" where the user named no profile.

    The CPU is measured for a few seconds as `lanes` threads, or read from the cache folder; for a GPU a datasheet
    stands in.
    """
    check_device(device)
    if device == "cuda":
        return load_hardware(STAND_IN)
    return find_device("cpu", lanes=lanes, cache=cache, progress=progress)


def keep_memory() -> bool:
    """Let the C library keep what tensors free instead of giving it back to the operating system, for this process.

    Else every large tensor of every step is mapped in anew, page by page: a quarter of the time of a step that is
    16 MiB a tensor. False where the C library is not glibc.
    """
    try:
        set_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # M_ARENA_MAX, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h, the last as high as glibc allows
    return all([set_option(-8, 1), set_option(-1, (1 << 31) - 1), set_option(-3, 32 << 20)])
