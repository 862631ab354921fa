"""What a GPU's own counter says a step takes: NVML's total energy, whole steps long enough for its resolution."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch

_LONG_S = 2.0  # the counter moves every 20 to 100 ms: read over this long, its steps are below 5 %

Counter = Callable[[], float]  # joules since some moment


@contextlib.contextmanager
def energy_counter(device: str) -> Iterator[Counter | str]:
    """The counter of that torch device, or why there is none."""
    if not device.startswith("cuda"):
        yield "energy: a CPU gives no counter that every user may read"
        return
    try:
        import pynvml  # an extra: only GPU machines have a use for it
    except ImportError:
        yield "energy: nvidia-ml-py is not installed (pip install 'pararev-hw[gpu]')"
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield f"energy: NVML does not start ({error})"
        return
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        yield f"energy: the board gives no counter ({error})"
    else:
        yield lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3  # millijoules
    finally:
        pynvml.nvmlShutdown()


def energy_j(run: Callable[[], object], step_s: float, counter: Counter) -> float:
    """Joules of one step, whole board, idle power included: the mean over about two seconds of steps."""
    steps = max(1, math.ceil(_LONG_S / max(step_s, 1e-6)))
    torch.cuda.synchronize()
    before = counter()
    for _ in range(steps):
        run()
    torch.cuda.synchronize()
    return (counter() - before) / steps
