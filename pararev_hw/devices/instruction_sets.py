"""Which instructions a CPU library may use: it decides which kernels oneDNN takes, and so what they allocate.

The names are oneDNN's own, as ONEDNN_MAX_CPU_ISA takes them. What a library takes at run time is the least of what the
processor has and what that variable allows.
"""

from __future__ import annotations

import os
from enum import IntEnum

from pararev_hw.types import Device, Hardware

LIMIT_VARIABLE = "ONEDNN_MAX_CPU_ISA"


class InstructionSet(IntEnum):
    """Instruction sets of x86 processors, each with everything that those before it have."""

    SSE41 = 0
    AVX = 1
    AVX2 = 2
    AVX2_VNNI = 3
    AVX2_VNNI_2 = 4
    AVX512_CORE = 5
    AVX512_CORE_VNNI = 6
    AVX512_CORE_BF16 = 7
    AVX512_CORE_FP16 = 8
    AVX512_CORE_AMX = 9
    AVX512_CORE_AMX_FP16 = 10

    @property
    def channels(self) -> int:
        """Channels in one block of a convolution's layout in float32 (two registers of SSE4.1, one of the others)."""
        return 16 if self >= InstructionSet.AVX512_CORE else 8

    @property
    def lanes(self) -> int:
        """Numbers in one register in float32."""
        return 4 if self < InstructionSet.AVX else self.channels

    def computes(self, dtype: str) -> bool:
        """Whether oneDNN computes in that datatype; where it does not, PyTorch's own kernels do."""
        if dtype == "float32":
            return True
        if dtype == "bfloat16":
            return self >= InstructionSet.AVX512_CORE or self == InstructionSet.AVX2_VNNI_2
        if dtype == "float16":
            return self >= InstructionSet.AVX512_CORE_FP16 or self == InstructionSet.AVX2_VNNI_2
        return False


# Where nothing is said of a machine: of the processors that networks are trained on, most have it.
USUAL = InstructionSet.AVX512_CORE

# Names that oneDNN gave up, or that mean the same kernels here.
_SYNONYMS = {
    "AVX10_1_512": InstructionSet.AVX512_CORE_FP16,
    "AVX10_1_512_AMX": InstructionSet.AVX512_CORE_AMX,
    "AVX10_1_512_AMX_FP16": InstructionSet.AVX512_CORE_AMX_FP16,
    "AVX10_2_512": InstructionSet.AVX512_CORE_FP16,
    "AVX10_2": InstructionSet.AVX512_CORE_FP16,
    "AVX10_2_512_AMX_2": InstructionSet.AVX512_CORE_AMX_FP16,
    "AVX10_2_AMX_2": InstructionSet.AVX512_CORE_AMX_FP16,
}

# Features, as torch names them, that oneDNN asks a processor for; the last set that has all of its features is taken.
_CORE = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")
_FEATURES = {
    InstructionSet.AVX: ("avx",),
    InstructionSet.AVX2: ("avx2",),
    InstructionSet.AVX2_VNNI: ("avx2", "avx_vnni"),
    InstructionSet.AVX2_VNNI_2: ("avx2", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"),
    InstructionSet.AVX512_CORE: _CORE,
    InstructionSet.AVX512_CORE_VNNI: (*_CORE, "avx512_vnni"),
    InstructionSet.AVX512_CORE_BF16: (*_CORE, "avx512_vnni", "avx512_bf16"),
    InstructionSet.AVX512_CORE_FP16: (*_CORE, "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    InstructionSet.AVX512_CORE_AMX: (*_CORE, "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    InstructionSet.AVX512_CORE_AMX_FP16: (*_CORE, "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_fp16"),
}


def instruction_set(name: str) -> InstructionSet | None:
    """The instruction set of that name, in any case; None for a name that is none."""
    upper = name.upper()
    return InstructionSet.__members__.get(upper, _SYNONYMS.get(upper))


def instruction_set_of(hardware: Hardware) -> InstructionSet:
    """What libraries take on that CPU, wherever this runs: as its device says; of a profile that does not, what
    PyTorch itself used there."""
    device = hardware if isinstance(hardware, Device) else hardware.device
    if "instruction_set" in device.parameters:
        return InstructionSet(int(device.value("instruction_set")))
    if not isinstance(hardware, Device):
        capability = hardware.environment.driver.removeprefix("oneDNN, ")
        return _OF_CAPABILITY.get(capability, USUAL)
    return USUAL


# of torch.backends.cpu.get_cpu_capability()
_OF_CAPABILITY = {
    "DEFAULT": InstructionSet.SSE41,
    "AVX2": InstructionSet.AVX2,
    "AVX512": InstructionSet.AVX512_CORE,
}


def instruction_set_here() -> InstructionSet:
    """What oneDNN takes on this machine, in this process."""
    allowed = os.environ.get(LIMIT_VARIABLE) or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    limit = instruction_set(allowed)
    return _of_processor() if limit is None else min(limit, _of_processor())


def _of_processor() -> InstructionSet:
    """The widest set of this processor, as PyTorch tells its features."""
    import torch  # heavy, and only a look at this machine needs it

    features = torch.cpu.get_capabilities()
    widest = InstructionSet.SSE41
    for candidate, needed in _FEATURES.items():
        if all(features.get(name) for name in needed):
            widest = candidate
    return widest
