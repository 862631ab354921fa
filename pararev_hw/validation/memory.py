"""The peak memory of one real step, as the allocator itself records it."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import torch

from pararev_hw.measurement.allocations import allocated_bytes
from pararev_hw.validation.stepping import RealStep


def peak_bytes(step: RealStep, device: str, before_bytes: int = 0) -> int:
    """Most bytes alive at once during one step in the steady state, parameters and optimizer state included.

    On CUDA `torch.cuda.max_memory_allocated` less `before_bytes`, as `cuda_bytes_before` tells; on a CPU
    the sum of the allocator's events as torch's profiler records them, and what was alive before the step.
    """
    step.forget()
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step.run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before_bytes
    most, _ = allocated_bytes(step.run)
    return most + storage_bytes(step.persistent())


def cuda_bytes_before() -> int:
    """Bytes allocated on the GPU before a network comes, the workspaces that cuBLAS keeps for the process among them:
    one for each thread that multiplies, forward and backward."""
    layer = torch.nn.Linear(16, 16, device="cuda")
    layer(torch.ones(16, 16, device="cuda")).sum().backward()
    torch.cuda.synchronize()
    del layer
    gc.collect()
    return torch.cuda.memory_allocated()


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages under the tensors, shared ones once."""
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())
