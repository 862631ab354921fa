"""Triton kernels compiled for NVIDIA GPUs without one: registers, spills, shared memory by the assembler's report."""

from __future__ import annotations

import inspect
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 90, 100)
DTYPES = {"fp64": "fp64", "fp32": "fp32", "bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class KernelResources:
    """What one compiled kernel takes of a multiprocessor, per thread (registers, spills) and per block (shared)."""

    kernel: str
    dtype: str
    architecture: str  # "sm_90"
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int


def kernel_resources(timesteps: int = 4, architectures: tuple[int, ...] = ARCHITECTURES) -> tuple[KernelResources, ...]:
    """Forward and backward of the spiking neuron (LIF, hard reset, ATan) for every architecture and datatype.

    Raises ImportError where Triton is not installed, RuntimeError where a kernel does not compile.
    """
    from pararev_hw.kernels import triton_neurons as kernels

    return tuple(
        _compiled(kernel, dtype, architecture, timesteps)
        for kernel in (kernels.forward, kernels.backward)
        for dtype in DTYPES
        for architecture in architectures
    )


def _compiled(kernel: Any, dtype: str, architecture: int, timesteps: int) -> KernelResources:
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pararev_hw.kernels.triton_neurons import BLOCK

    element = {"fp64": tl.float64, "fp32": tl.float32, "bf16": tl.bfloat16}[dtype]
    constants = {
        "T": timesteps, "CHARGE": 1, "SOFT": False, "DETACH": True, "HAS_V": False, "HAS_LAST": False,
        "THRESHOLD": 1.0, "FIRES": 1.0, "TAKES": 1.0, "REST": 0.0, "TAU": 2.0, "KEEP": 0.5, "SURROGATE": 0,
        "A": 3.1, "B": 1.0, "ROUNDED": element, "WIDE": tl.float64 if dtype == "fp64" else tl.float32, "SIZE": BLOCK,
    }  # fmt: skip
    names = list(inspect.signature(kernel.fn).parameters)
    signature = {
        name: "constexpr" if name in constants else f"*{_pointee(name, dtype)}" if name.endswith("_ptr") else "i32"
        for name in names
    }
    source = ASTSource(kernel, signature, {name: constants[name] for name in names if name in constants})
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    return _report(kernel.fn.__name__, dtype, compiled.asm["ptx"], compiled.metadata.shared)


def _pointee(name: str, dtype: str) -> str:
    return "fp32" if name == "drate_ptr" and dtype != "fp64" else DTYPES[dtype]


def _report(kernel: str, dtype: str, ptx: str, shared_bytes: int) -> KernelResources:
    """What the assembler says of a kernel, with the options that Triton gives it."""
    from triton import knobs

    architecture = re.search(r"\.target\s+(sm_\w+)", ptx)
    if architecture is None:
        raise RuntimeError(f"{kernel}: its PTX names no target")
    # Triton brings an assembler for older and one for newer architectures; the older one refuses newer PTX
    complaints = []
    for tool in (knobs.nvidia.ptxas_blackwell, knobs.nvidia.ptxas):
        run = _assembled(tool.path, architecture[1], ptx)
        if run.returncode == 0:
            return _resources(kernel, dtype, architecture[1], run.stderr, shared_bytes)
        complaints.append((run.stderr.strip().splitlines() or ["no reason given"])[0])
    raise RuntimeError(f"{kernel} for {architecture[1]}: {'; '.join(complaints)}")


def _assembled(tool: str, architecture: str, ptx: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [tool, "-v", f"--gpu-name={architecture}", str(path), "-o", f"{path}.cubin"]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def _resources(kernel: str, dtype: str, architecture: str, report: str, shared_bytes: int) -> KernelResources:
    registers = re.search(r"Used (\d+) registers", report)
    stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    if registers is None or stack is None:
        raise RuntimeError(f"{kernel} for {architecture}: the assembler's report is not understood")
    return KernelResources(
        kernel,
        dtype,
        architecture,
        int(registers[1]),
        int(stack[2]) + int(stack[3]),
        int(stack[1]),
        shared_bytes,
    )


def table(resources: tuple[KernelResources, ...]) -> str:
    """The report as Markdown."""
    rows = [
        f"| {r.kernel} | {r.dtype} | {r.architecture} | {r.registers} | {r.spill_bytes} | {r.shared_bytes} |"
        for r in resources
    ]
    heads = "| kernel | datatype | architecture | registers per thread | spilled bytes | shared memory, bytes |"
    return "\n".join([heads, "|---|---|---|---|---|---|", *rows])
