"""The machine that a step runs on: whether it is there, what it has, and as what device it is predicted."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

from pararev_hw.devices import load_hardware
from pararev_hw.errors import BadInput
from pararev_hw.measurement import cache_name, quick_cpu_device, read_cached, write_cached
from pararev_hw.types import Hardware

STAND_IN = "h200"  # predicts for a GPU that nobody described


def check_device(device: str) -> None:
    """Refuse what torch cannot run on here. Raises BadInput."""
    if device not in ("cpu", "cuda"):
        raise BadInput(f"a step cannot run on {device!r}: give --device cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("this machine has no CUDA device that torch can use: give --device cpu")


def this_machine(
    device: str, lanes: int, *, cache: Path | None = None, progress: Callable[[str], None] = lambda _: None
) -> Hardware:
    """What predicts for "cpu" or "cuda" where the user named no profile.

    The CPU is measured for a few seconds as `lanes` threads, or read from the cache folder; for a GPU a datasheet
    stands in.
    """
    check_device(device)
    if device == "cuda":
        return load_hardware(STAND_IN)
    kept = None if cache is None else read_cached(cache / cache_name(lanes))
    if kept is not None:
        return kept
    progress("measuring this machine's CPU")
    found = quick_cpu_device(lanes)
    if cache is not None:
        try:
            write_cached(cache / cache_name(lanes), found)
        except OSError:
            return found  # an unwritable cache costs the next run a measurement, nothing else
    return found


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
