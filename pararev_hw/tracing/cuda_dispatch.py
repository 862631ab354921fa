"""CUDA's dispatch on any machine: the casts of its autocast and its attention kernels.

A step is traced on fake tensors of device "cpu", whatever it is traced for. Left alone it would follow the CPU's lists:
autocast would keep softmax, norms, losses, sums and powers in 16 bits, attention would be the CPU's kernel. Inside
`cuda_dispatch()` the operators concerned have CUDA's rules registered in place of the CPU's, so that every route to
them (modules, functions, methods, operators called inside of composite ones) takes the ops that it takes on a GPU.

The lists are those of `ATen/autocast_mode.h` of torch 2.11 to 2.13. What both devices cast alike is left to torch.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pararev_hw.torch_private import autocasts_on_cpu, schema, scoped_library, without_cpu_autocast
from pararev_hw.tracing import cuda_recurrent

_aten: Any = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)

# AT_FORALL_FP32: inputs of 16 bits are cast to float32 first, and autograd keeps those copies.
IN_FLOAT32 = """
acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar pow.Tensor_Tensor
pow.Scalar softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm.dim nuclear_norm nuclear_norm.dim
cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss
smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss
multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp upsample_nearest1d
upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa
_upsample_bicubic2d_aa norm.Scalar norm.ScalarOpt_dim
""".split()

# AT_FORALL_FP32_SET_OPT_DTYPE: the result is float32, the input is read as it is.
TO_FLOAT32 = """
prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm
linalg_matrix_norm.str_ord sum sum.dim_IntList
""".split()

# AT_FORALL_PROMOTE: in the widest datatype among the inputs.
PROMOTED = "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add".split()

# What CPU autocast runs in float32, or promotes, and CUDA's leaves alone.
AS_THEY_COME = """
cat stack index_copy grid_sampler_2d grid_sampler_3d avg_pool3d max_pool3d adaptive_avg_pool3d
adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d max_unpool2d max_unpool3d reflection_pad1d
reflection_pad2d replication_pad1d replication_pad2d replication_pad3d
""".split()

# On CUDA the softmax of float16 writes float32 itself; of bfloat16 a cast goes before it.
_FUSED_CAST = {"softmax.int": "_softmax", "log_softmax.int": "_log_softmax"}


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """Whose ops a traced step takes: the CPU's, or CUDA's (`cuda`), on images that lie channels last or as they come.

    `flash_attention` False: a GPU older than compute capability 8.0, which has the memory-efficient kernel alone.
    """

    cuda: bool = False
    channels_last: bool = False
    flash_attention: bool = True

    def applied(self) -> contextlib.AbstractContextManager[None]:
        """A context in which CPU tensors follow the rules."""
        return cuda_dispatch(self.flash_attention) if self.cuda else contextlib.nullcontext()


CPU_RULES = DispatchRules()


@contextlib.contextmanager
def cuda_dispatch(flash_attention: bool = True) -> Iterator[None]:
    """Within it, ops on CPU tensors are those that CUDA tensors would run."""
    with scoped_library("aten", "IMPL") as library, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*[Oo]verriding a previously registered kernel.*")
        for name in (*IN_FLOAT32, *TO_FLOAT32):
            op = _overload(name)
            if autocasts_on_cpu(op):
                continue  # the CPU casts it too
            rule = _in_float32(op) if name in IN_FLOAT32 else _to_float32(op, _FUSED_CAST.get(name))
            library.impl(name, rule, "AutocastCPU")
        for name in PROMOTED:
            library.impl(name, _promoted(_overload(name)), "AutocastCPU")
        for name in AS_THEY_COME:
            library.impl(name, torch.library.fallthrough_kernel, "AutocastCPU")
        attention = _attention(flash_attention)
        for key in ("AutogradCPU", "CPU"):
            library.impl("scaled_dot_product_attention", attention, key)
        cuda_recurrent.register(library)
        yield


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(_aten, packet), overload or "default")


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.float32) if tensor.dtype in _HALF else tensor


def _each(value: Any, cast: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A value with its tensors cast."""
    if isinstance(value, torch.Tensor):
        return cast(value)
    return type(value)([_each(v, cast) for v in value]) if isinstance(value, list | tuple) else value


def _in_float32(op: Any) -> Callable[..., Any]:
    def rule(*args: Any, **kwargs: Any) -> Any:
        with without_cpu_autocast():
            return op(*_each(args, _widened), **{name: _each(value, _widened) for name, value in kwargs.items()})

    return rule


def _promoted(op: Any) -> Callable[..., Any]:
    widened = _in_float32(op)

    def rule(*args: Any, **kwargs: Any) -> Any:
        tensors = [t for a in (*args, *kwargs.values()) for t in (a if isinstance(a, list | tuple) else (a,))]
        if any(isinstance(t, torch.Tensor) and t.dtype is torch.float32 for t in tensors):
            return widened(*args, **kwargs)
        with without_cpu_autocast():
            return op(*args, **kwargs)

    return rule


def _to_float32(op: Any, fused: str | None) -> Callable[..., Any]:
    names = [argument.name for argument in schema(op).arguments]

    def rule(*args: Any, **kwargs: Any) -> Any:
        arguments = dict(zip(names, args, strict=False)) | kwargs
        x = arguments[names[0]]
        with without_cpu_autocast():
            if x.dtype not in _HALF or arguments.get("dtype") is not None:
                return op(*args, **kwargs)
            if fused is not None and x.dtype is torch.float16:
                return getattr(_aten, fused).default(x, arguments["dim"], True)
            return op(**{**arguments, "dtype": torch.float32})

    return rule


def _attention(flash: bool) -> Callable[..., torch.Tensor]:
    """`scaled_dot_product_attention` with the backend that CUDA takes: flash, memory-efficient, else plain products."""

    def rule(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        width = query.shape[-1]
        half = query.dtype in _HALF
        batched = query.dim() == 4 and not enable_gqa and key.shape[-1] == value.shape[-1] == width
        if flash and batched and half and attn_mask is None and width <= 256 and width % 8 == 0:
            return _overload("_scaled_dot_product_flash_attention")(
                query, key, value, dropout_p, is_causal, False, scale=scale
            )[0]
        if batched and width % (8 if half else 4) == 0 and query.dtype is not torch.float64:
            keeps = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
            return _overload("_scaled_dot_product_efficient_attention")(
                query, key, value, _bias(attn_mask, query, key), keeps, dropout_p, is_causal, scale=scale
            )[0]
        return _overload("_scaled_dot_product_attention_math")(
            query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
        )[0]

    return rule


def _bias(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    """What a mask adds to the scores, in the queries' datatype and the scores' shape."""
    if mask is None:
        return None
    if mask.dtype is torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    return mask.expand(*query.shape[:2], query.shape[-2], key.shape[-2])
