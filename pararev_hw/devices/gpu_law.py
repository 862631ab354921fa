"""The parameters of the GPU cost model: classes of kernels, what the law of their time needs, what a host needs.

`pararev_hw.costmodels.gpu` says what each does. Names, units and meanings stand here, since device files give them.
"""

from __future__ import annotations

from collections.abc import Mapping

UNITS = ("tensor", "cuda")  # cores that do a kernel's arithmetic

DIRECTIONS = ("forward", "input", "weight")


def _by_direction(*forms: str) -> tuple[str, ...]:
    """The classes of a convolution and its gradients; `_last`, images that lie channels last, stands at the end."""
    stems = [(form.removesuffix("_last"), "_last" * form.endswith("_last")) for form in forms]
    return tuple(f"{stem}_{direction}{last}" for stem, last in stems for direction in DIRECTIONS)


CONVOLUTIONS = _by_direction(
    "pointwise", "pointwise_strided", "window", "window_strided", "window_dilated", "grouped", "grouped_packed",
    "grouped_packed_last",
)  # fmt: skip
# Convolutions whose arithmetic is no matrix product: depthwise ones, by PyTorch's kernels or cuDNN's, and grouped ones
# that lie channels last and whose groups do not fill a tile of tensor cores together.
DIRECT = _by_direction(
    "depthwise", "depthwise_large", "depthwise_cudnn", "depthwise_last", "depthwise_large_last", "grouped_last",
    "grouped_wide_last",
)  # fmt: skip
PRODUCTS = ("product", "batched_product")
ATTENTION = ("attention", "attention_backward")
MATRIX_CLASSES = (*PRODUCTS, *CONVOLUTIONS)
BLOCK_LIMITED = ("batch_norm", "depthwise_weight")  # a block of threads for each channel, or each channel and tap
MEMORY_CLASSES = (
    "elementwise", "broadcast", "mixed_layouts", "cast", "copy", "rows", "transpose", "concatenate", "fill",
    "softmax", "softmax_ragged", "softmax_long", "softmax_backward",
    "layer_norm", "layer_norm_backward", "group_norm", "group_norm_backward",
    "batch_norm", "batch_norm_backward", "batch_norm_last", "batch_norm_backward_last", "batch_norm_native",
    "batch_norm_native_backward",
    "row_reduction", "column_reduction", "pool", "pool_backward", "pool_last", "pool_backward_last", "index",
    "index_backward", "optimizer", "other",
)  # fmt: skip

# Parameters of the law, with their units and meanings: what a GPU's file may give.
_OF_UNIT = {
    "tile_operand_cost": ("factor", "cost of loading a tile's operands, in elements of a tile's edge"),
    "tile_startup": ("factor", "steps of k that a tile takes before and after its loop"),
    "wave_smoothing": ("factor", "0: a last wave costs as much as a full one; large: only its share"),
    "overlap_exponent": ("factor", "how well arithmetic overlaps with traffic: 1 not at all, large wholly"),
    "matrix_bandwidth_share": ("factor", "bandwidth that a matrix kernel reaches"),
    "matrix_latency_s": ("s", "time of a matrix kernel that is neither arithmetic nor traffic"),
}
LAW: Mapping[str, tuple[str, str]] = {
    **{
        f"{name}.{unit}": (kind, f"{text}, on {'tensor' if unit == 'tensor' else 'CUDA'} cores")
        for name, (kind, text) in _OF_UNIT.items()
        for unit in UNITS
    },
    **{
        f"unaligned_slowdown.{layout}": (
            "factor",
            f"slowdown of tensor cores by operands that are no whole number of 16-byte pieces, {text}",
        )
        for layout, text in (("plain", "products and converted images"), ("last", "images channels last"))
    },
    "layout_conversion_passes": (
        "factor",
        "passes over a convolution's images to lay them out for tensor cores",
    ),
    "group_width_exponent": ("factor", "growth of the rate of direct grouped convolutions with channels per group"),
    **{
        f"half_rate_blocks.{kind}": ("factor", f"blocks per multiprocessor with which {kind} reaches half its rate")
        for kind in BLOCK_LIMITED
    },
    **{
        f"winograd_share.{d}": ("factor", f"share of the sustained rate of CUDA cores of Winograd's products, {d}")
        for d in DIRECTIONS
    },
    "winograd_transform_passes": ("factor", "passes over transformed images and weights of Winograd's algorithm"),
    **{
        f"half_slowdown.{work}": ("factor", f"slowdown by 16-bit operands on a card without tensor cores: {text}")
        for work, text in (
            ("product", "matrix products"),
            *((d, f"convolutions, {d}") for d in DIRECTIONS),
            ("direct", "convolutions that are no matrix product"),
        )
    },
    **{
        f"{unit}_share.{kind}": ("factor", f"share of the sustained rate of {unit} cores that {kind} reaches")
        for unit in UNITS
        for kind in (*MATRIX_CLASSES, *ATTENTION)
    },
    **{f"cuda_share.{kind}": ("factor", f"share of the sustained rate of CUDA cores: {kind}") for kind in DIRECT},
    **{
        f"bandwidth_share.{kind}": ("factor", f"share of the sustained bandwidth that {kind} reaches")
        for kind in (*MEMORY_CLASSES, *DIRECT)
    },
}

# What tells one card from another beyond its datasheet.
CARD: Mapping[str, tuple[str, str]] = {
    "tensor_sustained_share": (
        "factor",
        "share of the peak that tensor cores sustain: clocks, power, accumulation",
    ),
    "cuda_sustained_share": ("factor", "share of the peak rate that CUDA cores sustain: clocks, power"),
    "bandwidth_sustained_share": ("factor", "share of the peak bandwidth that a long copy reaches"),
}

# What holds the clocks of a card that was not measured; the shares of measured ones are of the clocks that they had.
CLOCKS: Mapping[str, tuple[str, str]] = {
    "flop_energy_j": ("J", "energy of a float32 operation on CUDA cores at 16 nm and full clocks, above idle power"),
    "voltage_floor": ("factor", "clocks, over full ones, below which a chip's voltage falls no further"),
}

# Energy of an operation over that at 16 nm, as foundries state each process node beside an earlier one: TSMC's 12 nm
# 25 % less than 16 nm, 7 nm 60 % less than 16 nm, 5 nm 30 % less than 7 nm; Samsung's 8 nm half of its 14 nm.
NODE_ENERGY: Mapping[int, float] = {16: 1.0, 12: 0.75, 8: 0.5, 7: 0.4, 5: 0.28}

HOST_ROLES = ("forward", "inference", "backward", "accumulation", "update", "view")
HOST: Mapping[str, tuple[str, str]] = {
    f"host_factor.{role}": ("factor", f"host time over that of a forward op with gradients: {text}")
    for role, text in (
        ("inference", "an op without gradients"),
        ("backward", "an op that autograd's engine calls"),
        ("accumulation", "a parameter's gradient added by the engine"),
        ("update", "an op of the optimizer"),
        ("view", "an op that launches nothing"),
    )
}

# What a board draws: idle power + share x filled time x (limit - idle power), and no more than its limit lets it.
POWER: Mapping[str, tuple[str, str]] = {
    "filled_power_share": (
        "factor",
        "draw of kernels at their sustained rates, over what the board's limit allows above idle power",
    ),
    "power_limit_exponent": (
        "factor",
        "how sharply a draw is held below the board's limit: large, only at the limit itself",
    ),
}
