"""Where a measurement is made: what a profile records, and what it compares itself with before it is used."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from pararev_hw.errors import BadInput
from pararev_hw.measurement.quick import cpu_name
from pararev_hw.sizes import counted
from pararev_hw.types import Environment


def environment(device: str, threads: int) -> Environment:
    """This machine as torch sees it, for the torch device "cpu" or "cuda"."""
    import torch  # heavy, and only a measurement needs it

    machine = f"{cpu_name()}, {platform.system()} {platform.release()}"
    if device == "cuda":
        name, driver = torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}"
        return Environment(machine, name, _nvml_driver() or driver, torch.__version__, threads, _gpu_clocks_hz())
    capability = torch.backends.cpu.get_cpu_capability()
    return Environment(machine, cpu_name(), f"oneDNN, {capability}", torch.__version__, threads, _cpu_clocks_hz())


def available_bytes() -> int | None:
    """Main memory that can be had without swapping, None where the system does not tell."""
    return _bytes_in(Path("/proc/meminfo"), "MemAvailable")


def data_bytes() -> int | None:
    """What RLIMIT_DATA counts: this process's private memory, touched or not; None where the system does not tell."""
    return _bytes_in(Path("/proc/self/status"), "VmData")


def _bytes_in(file: Path, field: str) -> int | None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:")), None)


def _cpu_clocks_hz() -> Mapping[str, float]:
    """The cores' clocks as the operating system tells them, empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    clocks_hz = [float(line.split(":")[1]) * 1e6 for line in lines if line.startswith("cpu MHz")]
    return {"lowest_hz": min(clocks_hz), "highest_hz": max(clocks_hz)} if clocks_hz else {}


def _nvml_driver() -> str:
    try:
        import pynvml  # an extra: only GPU machines have a use for it

        pynvml.nvmlInit()
        return f"driver {pynvml.nvmlSystemGetDriverVersion()}"
    except Exception:
        return ""  # no NVML, no driver's name: nothing else depends on it


def _gpu_clocks_hz() -> Mapping[str, float]:
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return {
            "sm_hz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) * 1e6,
            "memory_hz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM) * 1e6,
        }
    except Exception:
        return {}  # as above: the clocks are a record, not an input


def check_cores(lanes: int, available: int, source: str) -> None:
    """Raises BadInput for more `lanes` than there are cores; `source` is the device or option that asks for them."""
    if lanes > available:
        raise BadInput(
            f"{source}: this machine has {counted(available, 'core')}, each runs one lane: at most {available}"
        )


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
