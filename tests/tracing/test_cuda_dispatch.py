"""A step traced for a GPU takes CUDA's ops: checked against CUDA's published autocast lists, on small networks."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pararev_hw.errors import TraceError
from pararev_hw.tracing import DispatchRules, trace_step
from pararev_hw.tracing.cuda_dispatch import AS_THEY_COME, IN_FLOAT32, PROMOTED, TO_FLOAT32
from pararev_hw.tracing.recorder import memory_layout

CUDA = DispatchRules(cuda=True)


class Attention(nn.Module):
    """Softmax attention written out, with a norm and a power: what autocast's lists treat apart."""

    def __init__(self, fused: bool = False, mask: bool = False) -> None:
        super().__init__()
        self.norm, self.qkv, self.head = nn.LayerNorm(64), nn.Linear(64, 192), nn.Linear(64, 10)
        self.fused, self.mask = fused, mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        if self.fused:
            q, k, v = (t.unsqueeze(1) for t in (q, k, v))
            mask = torch.zeros(q.shape[-2], q.shape[-2], dtype=q.dtype, device=q.device) if self.mask else None
            y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).squeeze(1)
        else:
            y = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return self.head((y**2).mean(1))


def ops(
    model: nn.Module, dtype: str, rules: DispatchRules, shape: tuple[int, ...] = (2, 16, 64)
) -> dict[str, set[str]]:
    """Op name -> datatypes of its first output."""
    graph = trace_step(model, torch.empty(shape, device="meta"), dtype=dtype, rules=rules).graph
    found: dict[str, set[str]] = {}
    for t in graph.op_types:
        found.setdefault(t.name.split(".")[1], set()).add(t.dtype)
    return found


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_autocast_follows_cudas_lists(dtype: str) -> None:
    cpu, gpu = ops(Attention(), dtype, DispatchRules()), ops(Attention(), dtype, CUDA)
    assert cpu["_softmax"] == {dtype}
    assert gpu["_softmax"] == {"float32"}
    assert gpu["_log_softmax"] == {"float32"}
    assert gpu["native_layer_norm"] == {"float32"}
    assert gpu["pow"] == {"float32"}
    assert gpu["bmm"] == gpu["addmm"] == {dtype}


def _has_rule(name: str, device: str) -> bool:
    full = name if "." in name or torch._C._dispatch_has_kernel(f"aten::{name}") else f"{name}.default"
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{full}", f"Autocast{device}")


def test_every_cast_of_cudas_lists_is_made() -> None:
    """Against the header that torch brings along."""
    header = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text()
    lists = {
        name: {".".join(entry.replace(" ", "").split(",")) for entry in re.findall(r"_\(([\w, ]+)\)", body)}
        for name, body in re.findall(r"#define AT_FORALL_(\w+)\(_\)((?:[^\n]*\\\n)*[^\n]*)", header)
    }
    cast = (lists["FP32"] - set(IN_FLOAT32)) | (lists["FP32_SET_OPT_DTYPE"] - set(TO_FLOAT32))
    missing = [n for n in cast if not _has_rule(n, "CPU")]
    assert [n for n in missing if "dimname" not in n.lower()] == []  # dimensions by name, until torch 2.12
    assert lists["PROMOTE"] == set(PROMOTED) and len(lists["FP32"]) > 40


def test_what_cudas_autocast_leaves_alone_has_a_rule_on_the_cpu_alone() -> None:
    assert [n for n in AS_THEY_COME if not _has_rule(n, "CPU") or _has_rule(n, "CUDA")] == []


class Mixed(nn.Module):
    """One function of what a convolution gives in 16 bits, beside something in float32."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3, padding=1), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x), x.new_ones(2, 4, 8, 8))


def _rows(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x, dtype=torch.int64)


F = nn.functional
IN_HALVES = {
    "reflection_pad2d": lambda h, w: F.pad(h, (1, 1, 1, 1), "reflect"),
    "replication_pad2d": lambda h, w: F.pad(h, (1, 1, 1, 1), "replicate"),
    "max_pool3d_with_indices": lambda h, w: F.max_pool3d(h, 2),
    "avg_pool3d": lambda h, w: F.avg_pool3d(h, 2),
    "grid_sampler_2d": lambda h, w: F.grid_sample(h, h[:, :2].movedim(1, -1), align_corners=False),
}
WIDENED = {
    "bilinear": ("_trilinear", lambda h, w: F.bilinear(h, w, w.new_ones(3, 8, 8))),
    "scatter_add": ("scatter_add", lambda h, w: w.scatter_add(1, _rows(w), h)),
    "index_put": ("index_put", lambda h, w: w.index_put((_rows(w[:, 0, 0, 0]),), h)),
    "addcmul": ("addcmul", lambda h, w: torch.addcmul(h, h, w)),
    "rms_norm": ("mean", lambda h, w: F.rms_norm(h, (8,))),
    "exact": ("_upsample_nearest_exact2d", lambda h, w: F.interpolate(h, scale_factor=2, mode="nearest-exact")),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", IN_HALVES)
def test_pools_and_pads_of_halves_stay_in_halves(name: str, dtype: str) -> None:
    seen = ops(Mixed(IN_HALVES[name]), dtype, CUDA, (2, 3, 8, 8))
    assert seen[name] == {dtype}


@pytest.mark.parametrize("name", WIDENED)
def test_mixed_inputs_are_promoted_and_norms_widened(name: str) -> None:
    op, function = WIDENED[name]
    seen = ops(Mixed(function), "bfloat16", CUDA, (2, 3, 8, 8))
    assert seen[op] == {"float32"}


def test_float16_softmax_casts_in_the_kernel_and_bfloat16_before_it() -> None:
    for dtype, reads in (("float16", 2), ("bfloat16", 4)):
        graph = trace_step(Attention(), torch.empty(2, 16, 64, device="meta"), dtype=dtype, rules=CUDA).graph
        softmax = next(t for t in graph.op_types if t.name == "aten._softmax.default")
        assert (softmax.read_bytes, softmax.write_bytes) == (2 * 16 * 16 * reads, 2 * 16 * 16 * 4)


def test_copies_for_float32_are_kept_for_backward() -> None:
    x = torch.empty(8, 256, 64, device="meta")
    saved = {
        rules.cuda: trace_step(Attention(), x, dtype="float16", rules=rules).graph.memory.saved_bytes
        for rules in (DispatchRules(), CUDA)
    }
    # at least: the attention weights in 4 bytes instead of 2, and the squared tensor's copy of 4 bytes
    assert saved[True] >= saved[False] + 2 * 8 * 256 * 256 + 2 * 8 * 256 * 64


@pytest.mark.parametrize(
    ("dtype", "mask", "flash", "op"),
    [
        ("float16", False, True, "_scaled_dot_product_flash_attention"),
        ("float16", False, False, "_scaled_dot_product_efficient_attention"),
        ("float16", True, True, "_scaled_dot_product_efficient_attention"),
        ("float32", False, True, "_scaled_dot_product_efficient_attention"),
    ],
)
def test_attention_takes_cudas_kernels(dtype: str, mask: bool, flash: bool, op: str) -> None:
    rules = DispatchRules(cuda=True, flash_attention=flash)
    found = ops(Attention(fused=True, mask=mask), dtype, rules)
    assert op in found and f"{op}_backward" in found
    assert not [name for name in found if name.endswith("for_cpu")]


def test_cpus_rules_are_back_after_the_trace() -> None:
    ops(Attention(), "float16", CUDA)
    with torch.autocast("cpu", torch.bfloat16):
        x = torch.ones(2, 4, dtype=torch.bfloat16)
        assert x.softmax(-1).dtype is torch.bfloat16
    assert ops(Attention(), "float16", DispatchRules())["_softmax"] == {"float16"}


def test_float32_inference_is_the_same_on_both_but_for_attention() -> None:
    x = torch.empty(2, 16, 64, device="meta")
    cpu, gpu = (trace_step(Attention(), x, loop=None, rules=r).graph for r in (DispatchRules(), CUDA))
    assert [cpu.op_types[o.type].name for o in cpu.ops] == [gpu.op_types[o.type].name for o in gpu.ops]


def test_channels_last_reaches_every_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Flatten())
    x = torch.empty(2, 8, 8, 8, device="meta")
    for last in (False, True):
        graph = trace_step(model, x, rules=DispatchRules(cuda=True, channels_last=last)).graph
        laid_out = [t for t in graph.op_types if t.kind in ("conv", "norm")]
        assert len(laid_out) == 3
        for t in laid_out:
            layout = dict(t.attributes).get("layout", (0,) * len(t.input_shapes))
            assert (layout[0] == 1) == last, t


def test_memory_layouts() -> None:
    x = torch.empty(2, 3, 4, 5)
    assert memory_layout(x.shape, x.stride()) == 0
    y = x.contiguous(memory_format=torch.channels_last)
    assert memory_layout(y.shape, y.stride()) == 1
    assert memory_layout(x[..., :3].shape, x[..., :3].stride()) == 2
    assert memory_layout(x.transpose(1, 2).shape, x.transpose(1, 2).stride()) == 2
    assert memory_layout(x.transpose(2, 3).shape, x.transpose(2, 3).stride()) == 3
    assert memory_layout(x[:, :1].expand(2, 7, 4, 5).shape, x[:, :1].expand(2, 7, 4, 5).stride()) == 4
    assert memory_layout((1, 1), (7, 9)) == 0


def test_what_a_network_raises_is_told_with_its_own_line() -> None:
    class Scattering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            return torch.zeros(2, 3).scatter_reduce(0, torch.zeros(2, 3, dtype=torch.int64), y, "amax")

    with pytest.raises(TraceError, match=r"while it was traced \(test_cuda_dispatch.py:\d+\): scatter\(\)"):
        trace_step(Scattering(), torch.empty(2, 4), dtype="bfloat16", rules=DispatchRules(cuda=True))
