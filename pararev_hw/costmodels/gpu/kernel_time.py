"""How long a kernel takes on a GPU: a law with few parameters, each a parameter of the device.

    seconds(kernel) = (compute^p + traffic^p)^(1/p) + layout conversion + latency

    compute, of a matrix product, is that of its best tile and split of k:
        waves x tile m x tile n x 2 (k / splits + startup) (1 + operand cost (1 / tile m + 1 / tile n)) / rate
        waves = smoothed ceil(tiles x splits x groups / multiprocessors) x multiprocessors
        rate  = peak x sustained share of the device x share of the kernel's class
      every tile costs as much as a full one; products on CUDA cores take the tiles that cuBLAS has for the card's
      generation, and batched ones split no sums
      operands that tensor cores cannot load whole multiply it by the unaligned slowdown, and 16-bit operands on a
      card without tensor cores, which converts each, by the half slowdown
    3 x 3 windows of stride 1 take Winograd's algorithm on CUDA cores where that is faster: for tiles of 2 x 2 results,
      16 products of tiles x channels x channels (2.25 times fewer flops), and passes over their transformed operands
    compute, of attention and of direct convolutions, is their flops over the rate of their class; the rate of grouped
      ones grows with the channels of a group, and wide groups fill tiles of 128 channels
    traffic = bytes / (bandwidth x sustained share of the device x share of the kernel's class)
    a kernel with one block of threads for each channel takes (1 + half rate blocks x multiprocessors / blocks) times as
      long
    a matrix product on CUDA cores that would draw more (flops of whole tiles x energy of an operation, and bytes x
      energy of the main memory, / seconds) than a board's limit leaves above idle power runs at lower clocks: an
      operation takes energy by the square of the clocks, since the voltage falls with them, and below the voltage
      floor no less; memory does not notice. Weights beyond the cache are read again for each row of tiles
    layout conversion: tensor cores want images channels last; where they are not, they are read and written once more

`p` says how well compute and traffic overlap (infinite: wholly). Small tiles load more operand bytes per flop (operand
cost), the loop over k fills a pipeline first (startup), and the last wave leaves multiprocessors idle; "smoothed"
because blocks of neighbouring waves overlap. "tensor" are the tensor cores, "cuda" the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.gpu.kernels import Kernel
from pararev_hw.devices.gpu_law import ATTENTION, DIRECT, MATRIX_CLASSES, PRODUCTS, UNITS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Values = Mapping[str, float]
Tiles = tuple[tuple[int, int], ...]

TILES = (
    (256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (128, 32), (32, 128), (64, 64), (64, 32), (32, 64),
    (128, 16), (16, 128),
)  # fmt: skip
_CONVOLUTION_TILES = TILES[:7]  # of cuDNN's kernels for CUDA cores
_NARROW, _NARROW_TILES = 32, TILES[10:]  # of convolutions with fewer channels
_WINOGRAD_TILES = ((32, 64),)  # tiles of 2 x 2 pixels, and channels: a block of threads does all 16 products
SPLITS = (1, 2, 4, 8, 16, 32, 64)
_LEAST_K = 64  # of a split
_NARROW_GROUPS = frozenset(kind for kind in DIRECT if kind.startswith("grouped") and "wide" not in kind)
_WIDE_GROUPS = frozenset(kind for kind in DIRECT if kind.startswith("grouped_wide"))
_WIDE_TILE = 128  # channels
_OF_16_BITS = ("float16", "bfloat16")
_LEAST_CLOCKS = 0.05  # over full ones: no board goes below
_NO_MEMORY = 1e-12  # power over that of arithmetic, which changes no clocks
_LEAST_J = 1e-24  # of a kernel's arithmetic
_K_STEP = 16  # depth of a tensor core's instruction


@dataclass(frozen=True, slots=True)
class Card:
    """What the datasheet says of a GPU. `tensor_flops_per_s` holds the datatypes that have tensor cores."""

    tensor_flops_per_s: Mapping[str, float]
    cuda_flops_per_s: Mapping[str, float]  # "float32" at least
    bandwidth_bytes_per_s: float
    multiprocessors: int
    power_w: float = math.inf  # of the board's limit, what is left above idle power
    node_energy: float = 1.0  # energy of an operation of its process node, over that at 16 nm
    dram_energy_j_per_byte: float = 0.0
    cache_bytes: float = math.inf
    tiles: Mapping[str, Tiles] = field(default_factory=dict)  # of products on CUDA cores, by kind; all where not given


@dataclass(frozen=True, slots=True)
class _Products:
    """Matrix products on one kind of unit."""

    unit: str
    at: Ints  # where they stand among all kernels
    share: tuple[str, ...]
    m: Floats
    n: Floats
    k: Floats
    groups: Floats
    flops: Floats
    bytes: Floats
    peak: Floats
    slowdown: tuple[str, ...]  # name of that of unaligned or 16-bit operands, "" where there is none
    passes: str  # name of how often `laid_out_bytes` are read or written before and after
    laid_out_bytes: Floats
    splits: Floats  # at most, of the sum over k
    takes: NDArray[np.bool_]  # [TILES, products]: which tiles each may take

    def padded_flops(
        self, multiprocessors: int, operand_cost: float, startup: float, smoothing: float
    ) -> tuple[Floats, Floats, Floats]:
        """Flops of the best tile and split, tiles and waves filled up and the tile's own losses included, those that
        its tiles execute, and how many rows of such tiles there are."""
        best, executed, rows = np.full(len(self.at), np.inf), np.zeros(len(self.at)), np.ones(len(self.at))
        for (tile_m, tile_n), takes in zip(TILES, self.takes, strict=True):
            if not takes.any():
                continue
            rows_of_tiles, columns_of_tiles = np.ceil(self.m / tile_m), np.ceil(self.n / tile_n)
            tiles = rows_of_tiles * columns_of_tiles * self.groups
            whole_tiles = self.m * self.n * self.groups / (tile_m * tile_n)
            per_k = 2 * tile_m * tile_n * (1 + operand_cost * (1 / tile_m + 1 / tile_n))
            for splits in SPLITS:
                waves = tiles * splits / multiprocessors
                filled = (np.ceil(waves) + smoothing * waves) / (1 + smoothing) * multiprocessors
                flops = filled * per_k * (np.ceil(self.k / splits / _K_STEP) * _K_STEP + startup)
                if splits > 1:
                    flops = np.where((self.k >= _LEAST_K * splits) & (splits <= self.splits), flops, np.inf)
                better = takes & (flops < best)
                best = np.where(better, flops, best)
                executed = np.where(better, self.flops * tiles / whole_tiles, executed)
                rows = np.where(better, rows_of_tiles, rows)
        return best, executed, rows

    def dram_bytes(self, rows_of_tiles: Floats, cache_bytes: float) -> Floats:
        """What goes through the main memory: weights that the cache does not hold once for each row of tiles."""
        again = np.array([name.endswith(".product") for name in self.share], bool)
        elements = self.groups * (self.m * self.k + self.k * self.n + self.m * self.n)
        weights = self.bytes / elements * self.k * self.n
        missed = weights**2 / (weights**2 + cache_bytes**2)
        return self.bytes + np.where(again, weights * (rows_of_tiles - 1) * missed, 0.0)


@dataclass(frozen=True, slots=True)
class _Plain:
    """Kernels whose arithmetic is simply flops over a rate, or that only move memory (peak infinite)."""

    at: Ints
    compute_share: tuple[str, ...]
    bandwidth_share: tuple[str, ...]
    flops: Floats
    peak: Floats
    slowdown: tuple[str, ...]  # name of that of 16-bit operands, "" where there is none
    bytes: Floats
    sustained: tuple[str, ...]
    relative_width: Floats  # channels of a group over 64, 1 where the rate does not depend on them
    idle: Floats  # multiprocessors over blocks of threads, 0 where the blocks are enough
    half_rate: tuple[str, ...]


class KernelTimes:
    """Seconds of many kernels on one card, under any values of the law's parameters.

    What depends on neither is worked out once; the best tiles are remembered, since a fit asks for the same again.
    """

    def __init__(self, kernels: Sequence[Kernel], card: Card) -> None:
        self.card, self.count = card, len(kernels)
        self._products = tuple(p for unit in UNITS if len((p := _products(kernels, card, unit)).at))
        self._winograd = _winograd(kernels, card)
        self._plain = _plain(kernels, card)
        self._padded: dict[tuple[str, str, float, float, float], tuple[Floats, Floats, Floats]] = {}

    def seconds(self, value: Values) -> Floats:
        """Seconds of each kernel, without the launch."""
        out = np.zeros(self.count)
        for p in self._products:
            out[p.at] = self._product_seconds(p, value)
        if len(self._winograd.at):
            faster = self._product_seconds(self._winograd, value)
            out[self._winograd.at] = np.minimum(out[self._winograd.at], faster)
        q = self._plain
        compute, traffic = self._plain_seconds(value)
        waiting = 1 + q.idle * _looked_up(value, q.half_rate)
        out[q.at] = _overlapped(compute, traffic, value["overlap_exponent.cuda"]) * waiting
        return out

    def _product_seconds(self, p: _Products, value: Values) -> Floats:
        bandwidth = self.card.bandwidth_bytes_per_s * value["bandwidth_sustained_share"]
        rate = p.peak * value[f"{p.unit}_sustained_share"] * _looked_up(value, p.share)
        padded, executed, rows_of_tiles = self._padded_flops(p, value)
        compute = padded / rate * _looked_up(value, p.slowdown)
        traffic = p.bytes / (bandwidth * value[f"matrix_bandwidth_share.{p.unit}"])
        exponent, latency = value[f"overlap_exponent.{p.unit}"], value[f"matrix_latency_s.{p.unit}"]
        out = _overlapped(compute, traffic, exponent) + latency
        if p.unit == "cuda" and math.isfinite(self.card.power_w):
            joules = np.maximum(executed * value["flop_energy_j"] * self.card.node_energy, _LEAST_J)
            memory = p.dram_bytes(rows_of_tiles, self.card.cache_bytes) * self.card.dram_energy_j_per_byte
            clocks = clocks_within(self.card.power_w * out / joules, value["voltage_floor"], memory / joules)
            out = _overlapped(compute / clocks, traffic, exponent) + latency
        return out + p.laid_out_bytes * value[p.passes] / bandwidth

    def _plain_seconds(self, value: Values) -> tuple[Floats, Floats]:
        """Arithmetic and traffic of the kernels that are no matrix product, at the sustained rates of their classes."""
        q = self._plain
        rate = q.peak * _looked_up(value, q.sustained) * _looked_up(value, q.compute_share)
        rate *= q.relative_width ** value["group_width_exponent"]
        bandwidth = self.card.bandwidth_bytes_per_s * value["bandwidth_sustained_share"]
        compute: Floats = q.flops / rate * _looked_up(value, q.slowdown)
        return compute, q.bytes / (bandwidth * _looked_up(value, q.bandwidth_share))

    def filled_seconds(self, value: Values) -> tuple[Floats, Floats]:
        """How much of each kernel's time it would take if what binds it ran at the sustained rate of its class: of
        kernels bound by arithmetic, and of those bound by traffic. Latency, operand loads, and multiprocessors that a
        last wave leaves idle are no part of it."""
        arithmetic, traffic = np.zeros(self.count), np.zeros(self.count)
        bandwidth = self.card.bandwidth_bytes_per_s * value["bandwidth_sustained_share"]
        for p in self._products:
            rate = p.peak * value[f"{p.unit}_sustained_share"] * _looked_up(value, p.share)
            arithmetic[p.at] = p.flops / rate
            traffic[p.at] = p.bytes / (bandwidth * value[f"matrix_bandwidth_share.{p.unit}"])
        arithmetic[self._plain.at], traffic[self._plain.at] = self._plain_seconds(value)
        filled = np.minimum(np.maximum(arithmetic, traffic), self.seconds(value))
        return np.where(arithmetic > traffic, filled, 0.0), np.where(arithmetic > traffic, 0.0, filled)

    def uses(self, unit: str) -> bool:
        """Whether a matrix product runs on cores of that kind."""
        return any(p.unit == unit for p in self._products)

    def share_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The share of compute and the share of bandwidth that each kernel's time depends on, "" for none."""
        compute, bandwidth = [""] * self.count, [""] * self.count
        for p in self._products:
            for i, name in zip(p.at.tolist(), p.share, strict=True):
                compute[i] = name
        q = self._plain
        for i, rate, traffic in zip(q.at.tolist(), q.compute_share, q.bandwidth_share, strict=True):
            compute[i], bandwidth[i] = rate, traffic
        return tuple(compute), tuple(bandwidth)

    def _padded_flops(self, p: _Products, value: Values) -> tuple[Floats, Floats, Floats]:
        names = ("tile_operand_cost", "tile_startup", "wave_smoothing")
        operand_cost, startup, smoothing = (value[f"{name}.{p.unit}"] for name in names)
        key = (p.unit, p.passes, operand_cost, startup, smoothing)
        if key not in self._padded:
            if len(self._padded) > 16:
                self._padded.clear()
            self._padded[key] = p.padded_flops(self.card.multiprocessors, *key[2:])
        return self._padded[key]


def clocks_within(power: Floats, voltage_floor: float, memory: Floats | float = 0.0) -> Floats:
    """Clocks, over full ones, at which a chip draws that power, where its arithmetic at full clocks draws 1: with the
    clocks the voltage falls, and the power with their cube, down to the floor; below it with the clocks alone. What its
    `memory` draws at full clocks falls with the clocks.

        clocks^3 + memory x clocks = power      by hyperbolic sines, which lose no digits
    """
    memory = np.maximum(memory, _NO_MEMORY)
    share = np.clip(power, 0.0, 1.0 + memory)
    cubic = 2 * np.sqrt(memory / 3) * np.sinh(np.arcsinh(1.5 * share / memory * np.sqrt(3 / memory)) / 3)
    floor = max(voltage_floor, _LEAST_CLOCKS)
    clocks: Floats = np.where(cubic > floor, cubic, share / (floor**2 + memory))
    return np.clip(clocks, _LEAST_CLOCKS, 1.0)


def _overlapped(compute: Floats, traffic: Floats, exponent: float) -> Floats:
    """The longer of the two, and some of the shorter: the norm of that exponent, at least 1, where they add up."""
    exponent = max(exponent, 1.0)
    longer, shorter = np.maximum(compute, traffic), np.minimum(compute, traffic)
    ratio = np.divide(shorter, longer, out=np.zeros_like(longer), where=longer > 0)
    whole: Floats = longer * (1 + ratio**exponent) ** (1 / exponent)
    return whole


def _looked_up(value: Values, names: Sequence[str]) -> Floats:
    unique = {name: value[name] if name else 1.0 for name in set(names)}
    return np.array([unique[name] for name in names], np.float64)


def _column(kernels: Sequence[Kernel], name: str) -> Floats:
    return np.array([getattr(kernel, name) for kernel in kernels], np.float64)


def tensor_rate(kernel: Kernel, card: Card) -> float | None:
    """Peak of the tensor cores for a matrix kernel, None where they do not run it. PyTorch lets cuDNN take TF32 for
    float32 convolutions by default (`torch.backends.cudnn.allow_tf32`) and keeps float32 for matrix products."""
    convolution = kernel.kind in MATRIX_CLASSES and "product" not in kernel.kind
    dtype = "tfloat32" if kernel.dtype == "float32" and convolution else kernel.dtype
    if dtype == "bfloat16" and dtype not in card.tensor_flops_per_s:
        return None
    return card.tensor_flops_per_s.get(dtype)


def _products(kernels: Sequence[Kernel], card: Card, unit: str) -> _Products:
    at = [
        i
        for i, kernel in enumerate(kernels)
        if kernel.kind in MATRIX_CLASSES and (tensor_rate(kernel, card) is not None) == (unit == "tensor")
    ]
    members = [kernels[i] for i in at]
    peaks = [tensor_rate(kernel, card) or _cuda_rate(kernel.dtype, card) for kernel in members]
    return _Products(
        unit=unit,
        at=np.array(at, np.int64),
        share=tuple(f"{unit}_share.{kernel.kind}" for kernel in members),
        m=_column(members, "m"),
        n=_column(members, "n"),
        k=_column(members, "k"),
        groups=_column(members, "groups"),
        flops=_column(members, "flops"),
        bytes=_column(members, "bytes"),
        peak=np.array(peaks, np.float64),
        slowdown=tuple(_unaligned(kernel) if unit == "tensor" else _half(kernel, card) for kernel in members),
        passes="layout_conversion_passes",
        laid_out_bytes=np.array(
            [float(k.layout_bytes) if unit == "tensor" and not k.channels_last else 0.0 for k in members]
        ),
        splits=np.array([_most_splits(kernel, unit) for kernel in members], np.float64),
        takes=_takes([_tiles(kernel, unit, card) for kernel in members]),
    )


def _winograd(kernels: Sequence[Kernel], card: Card) -> _Products:
    """The convolutions that Winograd's algorithm can do on CUDA cores, as its 16 products. Images are transformed into
    16 values for each tile of 4, and weights into 16 for each 9."""
    at = [i for i, kernel in enumerate(kernels) if kernel.winograd_tiles and tensor_rate(kernel, card) is None]
    members = [kernels[i] for i in at]
    weight = np.array([kernel.kind.endswith("_weight") for kernel in members], bool)
    m, n, k = (_column(members, name) for name in "mnk")
    tiles, images = _column(members, "winograd_tiles"), _column(members, "layout_bytes")
    return _Products(
        unit="cuda",
        at=np.array(at, np.int64),
        share=tuple(f"winograd_share.{kernel.kind.rpartition('_')[2]}" for kernel in members),
        m=np.where(weight, m, tiles),
        n=np.where(weight, np.ceil(n / 9), n),
        k=np.where(weight, tiles, np.ceil(k / 9)),
        groups=np.where(weight, 16.0, 1.0),
        flops=_column(members, "flops") / 2.25,
        bytes=_column(members, "bytes"),
        peak=np.array([_cuda_rate(kernel.dtype, card) for kernel in members], np.float64) / np.where(weight, 1, 16),
        slowdown=tuple(_half(kernel, card) for kernel in members),
        passes="winograd_transform_passes",
        laid_out_bytes=np.where(weight, 16 / 4 * images, 0) + 16 / 9 * (_column(members, "bytes") - images),
        splits=np.where(weight, SPLITS[-1], 1),
        takes=_takes([TILES if of_weight else _WINOGRAD_TILES for of_weight in weight]),
    )


def _tiles(kernel: Kernel, unit: str, card: Card) -> Tiles:
    if unit == "tensor" or kernel.kind in PRODUCTS:
        return TILES if unit == "tensor" else card.tiles.get(kernel.kind, TILES)
    narrow = min(kernel.m, kernel.n) < _NARROW
    return (*_CONVOLUTION_TILES, *_NARROW_TILES) if narrow else _CONVOLUTION_TILES


def _takes(tiles: Sequence[Tiles]) -> NDArray[np.bool_]:
    return np.array([[tile in of_product for of_product in tiles] for tile in TILES], bool)


def _most_splits(kernel: Kernel, unit: str) -> int:
    """cuDNN splits the sum of a weight's gradient over multiprocessors, and no other convolution's on CUDA cores;
    cuBLAS those of products, but not of batched ones there."""
    splits = unit == "tensor" or kernel.kind == "product" or "_weight" in kernel.kind
    return SPLITS[-1] if splits else 1


def _unaligned(kernel: Kernel) -> str:
    """A convolution that converts its images pads them with it; one that does not must take them as they are."""
    if kernel.aligned:
        return ""
    return "unaligned_slowdown." + ("last" if kernel.channels_last else "plain")


def _half(kernel: Kernel, card: Card) -> str:
    """Cards without tensor cores for a datatype of 16 bits do its arithmetic in float32."""
    if kernel.dtype not in _OF_16_BITS or kernel.dtype in card.tensor_flops_per_s:
        return ""
    if kernel.kind in DIRECT:
        return "half_slowdown.direct"
    direction = kernel.kind.removesuffix("_last").rpartition("_")[2]
    return f"half_slowdown.{'product' if kernel.kind in PRODUCTS else direction}"


def _cuda_rate(dtype: str, card: Card) -> float:
    return card.cuda_flops_per_s.get(dtype, card.cuda_flops_per_s["float32"])


def _filled(kernel: Kernel) -> float:
    """How much of its tiles' channels a convolution of wide groups uses."""
    width = min(kernel.m, kernel.n)
    return width / (-(-width // _WIDE_TILE) * _WIDE_TILE) if kernel.kind in _WIDE_GROUPS else 1.0


def _block_limited(kernel: Kernel) -> str:
    return "batch_norm" if kernel.kind.startswith("batch_norm") else kernel.kind


def _plain(kernels: Sequence[Kernel], card: Card) -> _Plain:
    at = [i for i, kernel in enumerate(kernels) if kernel.kind not in MATRIX_CLASSES]
    members = [kernels[i] for i in at]
    units = ["tensor" if k.kind in ATTENTION and tensor_rate(k, card) is not None else "cuda" for k in members]
    computes = [kernel.kind in ATTENTION or kernel.kind in DIRECT for kernel in members]
    peaks = [
        (tensor_rate(k, card) if unit == "tensor" else None) or _cuda_rate(k.dtype, card)
        for k, unit in zip(members, units, strict=True)
    ]
    return _Plain(
        at=np.array(at, np.int64),
        compute_share=tuple(
            f"{u}_share.{k.kind}" if c else "" for k, u, c in zip(members, units, computes, strict=True)
        ),
        bandwidth_share=tuple(
            f"matrix_bandwidth_share.{u}" if k.kind in ATTENTION else f"bandwidth_share.{k.kind}"
            for k, u in zip(members, units, strict=True)
        ),
        flops=np.array([k.flops / _filled(k) * c for k, c in zip(members, computes, strict=True)], np.float64),
        peak=np.array(peaks, np.float64),
        slowdown=tuple(_half(k, card) if k.kind in DIRECT else "" for k in members),
        bytes=_column(members, "bytes"),
        sustained=tuple(f"{unit}_sustained_share" for unit in units),
        relative_width=np.array([min(k.m, k.n) / 64 if k.kind in _NARROW_GROUPS else 1.0 for k in members]),
        idle=np.array([card.multiprocessors / k.blocks if k.blocks else 0.0 for k in members]),
        half_rate=tuple(f"half_rate_blocks.{_block_limited(k)}" if k.blocks else "" for k in members),
    )
