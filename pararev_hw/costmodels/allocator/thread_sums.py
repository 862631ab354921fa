"""What threads that share the gradient of a convolution's weights sum apart, in buffers of their own.

The rules are those of oneDNN 3.7 to 3.12 (src/cpu/x64): kernels of AVX2 give groups of threads jobs, blocks of the
weights, and split the images among the threads of a group (`reduce_balancer_t`); those of AVX-512 take the split that
moves the least memory (`balance`). Of 16 bits, and of images that lie channels last, nothing is known: as for one
thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pararev_hw.costmodels.allocator.convolution_sizes import Convolution

_JOB_BUFFER = 1 << 21  # numbers that jobs of one group may have, of all threads
_POINT_JOBS = 8  # jobs of 1x1 weights
_WEIGHTS, _POINT_WEIGHTS = 8, 12  # how often weights are counted as moved
_LEAST_ROWS = 9  # of a result whose rows are split
_PAGE = 4096  # that each group's threads wait on; on a page such a buffer begins


def thread_sums_bytes(conv: Convolution, x_block: int, y_block: int, point: bool) -> int:
    """Beside the gradient itself, where it is computed in such blocks of channels. `point`: by a kernel of 1x1."""
    if conv.threads == 1 or conv.half:
        return 0
    if conv.depthwise:
        across = min(-(-conv.groups // y_block), conv.threads)
        return conv.w_bytes(1, y_block) * (min(max(1, conv.threads // across), conv.batch) - 1)
    if y_block < 16 or x_block == 8:
        return _by_jobs(conv, x_block, point)
    apart = _split(conv, x_block, y_block, point) - 1
    bias = 0 if point else conv.item * -(-conv.y_channels // y_block) * y_block
    return apart * (conv.w_bytes(x_block, y_block) + bias) + (2 * _PAGE if apart else 0)


def _depth(conv: Convolution) -> int:
    """Images of each volume of the result."""
    return conv.result[0] if len(conv.result) > 2 else 1


# ---------------------------------------------------------------------------------------------------------------
# AVX2


def _by_jobs(conv: Convolution, x_block: int, point: bool) -> int:
    """Blocks of 8 channels, or all of an image of few."""
    x_blocks, y_blocks = (-(-n // b) for n, b in ((conv.x_group, x_block), (conv.y_group, 8)))
    within = x_block if x_block > 1 else conv.x_group
    if x_block == 1:
        x_blocks = 1
    if not point:
        job = conv.taps * within * 8
        groups, threads, jobs = _balance(
            conv.threads, job, conv.groups * x_blocks * y_blocks, conv.batch * _depth(conv), _JOB_BUFFER
        )
        return 4 * groups * (threads - 1) * jobs * job + 2 * _PAGE + groups * _PAGE if threads > 1 else 0
    x_at_once, y_at_once = _divided(x_blocks, 9), _divided(y_blocks, 32)
    job = x_at_once * y_at_once * 64
    jobs = -(-x_blocks // x_at_once) * -(-y_blocks // y_at_once)
    most = conv.threads * job * _POINT_JOBS
    groups, threads, jobs = _balance(conv.threads, job, jobs, conv.batch * conv.y_pixels, most)
    return 4 * groups * threads * jobs * job + _PAGE + groups * _PAGE if threads > 1 else 0


def _divided(blocks: int, most: int) -> int:
    """At most so many blocks at once, as far as they are halves and thirds of all."""
    while blocks > most and (blocks % 2 == 0 or blocks % 3 == 0):
        blocks //= 2 if blocks % 2 == 0 else 3
    return blocks


def _balance(threads: int, job: int, jobs: int, reduced: int, buffer: int) -> tuple[int, int, int]:
    """Groups of threads, threads of a group and jobs of a group, of so many jobs of that size."""
    least = max(1, jobs // threads)
    most = max(1, buffer // (threads * job))

    def split(jobs_of_group: int) -> tuple[int, int, int]:
        groups = min(jobs // jobs_of_group, threads)
        return groups, min(threads // groups, reduced), -(-jobs // groups)

    best, cost = split(least), jobs * job * reduced
    for candidate in map(split, range(least, jobs)):
        _, in_group, jobs_of_group = candidate
        if in_group > 1 and jobs_of_group > most:
            continue
        new = job * jobs_of_group * (-(-reduced // in_group) + (in_group != 1))
        if new < cost:
            best, cost = candidate, new
    return best


# ---------------------------------------------------------------------------------------------------------------
# AVX-512


@dataclass(frozen=True, slots=True)
class _Traffic:
    """Rows of image and result that threads may split, numbers of a row of one block, and of a block of weights."""

    x_rows: int
    x_row: int
    y_rows: int
    y_row: int
    strides: int
    weights: int
    x_blocks: int
    y_blocks: int

    def cost(self, rows: int, y: int, x: int) -> int:
        """Numbers that each thread moves, where so many split rows, blocks of y and blocks of x."""
        x_blocks, y_blocks = -(-self.x_blocks // x), -(-self.y_blocks // y)
        image = -(-self.x_rows // rows) * x_blocks * self.x_row // self.strides
        return image + -(-self.y_rows // rows) * y_blocks * self.y_row + self.weights * x_blocks * y_blocks

    def computed(self, rows: int, y: int, x: int) -> int:
        return -(-self.y_rows // rows) * -(-self.x_blocks // x) * -(-self.y_blocks // y)


def _split(conv: Convolution, x_block: int, y_block: int, point: bool) -> int:
    """Threads among which the images, or their rows, are split."""
    if conv.threads < conv.groups:
        return 1
    threads = conv.threads // conv.groups
    traffic = _point_traffic(conv, x_block, y_block) if point else _traffic(conv, x_block, y_block)
    rows = traffic.y_rows if point else conv.batch * _depth(conv) * max(1, traffic.y_rows // conv.batch // _LEAST_ROWS)
    splits = []
    for n in range(1, min(threads, rows) + 1):
        for y in range(1, min(threads // n, traffic.y_blocks) + 1):
            splits.append((n, y, min(threads // n // y, traffic.x_blocks)))
    best, moved = (1, 1, 1), traffic.cost(1, 1, 1)
    for candidate in splits:
        if traffic.cost(*candidate) <= moved:
            best, moved = candidate, traffic.cost(*candidate)
    computed = traffic.computed(*best)
    for candidate in () if point else splits:
        new = traffic.computed(*candidate)
        if (new <= computed and traffic.cost(*candidate) < 1.1 * moved) or 4 * new <= 3 * computed:
            best, computed = candidate, new
    split = best[0]
    return min(conv.batch if point else rows, conv.threads) if conv.threads // 2 < split < conv.threads else split


def _traffic(conv: Convolution, x_block: int, y_block: int) -> _Traffic:
    within = x_block if x_block > 1 else conv.x_group
    by_rows = len(conv.result) == 2 and conv.dilation[0] == 1 and conv.result[0] > _LEAST_ROWS
    x_split, y_split = (conv.image[0], conv.result[0]) if by_rows else (1, 1)
    return _Traffic(
        x_rows=conv.batch * x_split,
        x_row=within * conv.x_pixels // x_split,
        y_rows=conv.batch * y_split,
        y_row=y_block * conv.y_pixels // y_split,
        strides=math.prod(conv.stride),
        weights=_WEIGHTS * conv.taps * within * y_block,
        x_blocks=-(-conv.x_group // within),
        y_blocks=-(-conv.y_group // y_block),
    )


def _point_traffic(conv: Convolution, x_block: int, y_block: int) -> _Traffic:
    pixels = conv.y_pixels
    at_once = _divider(pixels, 7, 16)
    if pixels % at_once:
        at_once = _divider(conv.result[-1], 4, conv.result[-1], greatest=False)
    at_once = 1 if at_once > 256 else at_once
    rows = conv.batch * -(-pixels // at_once)
    return _Traffic(
        x_rows=rows,
        x_row=x_block * at_once,
        y_rows=rows,
        y_row=y_block * at_once,
        strides=1,
        weights=_POINT_WEIGHTS * x_block * y_block,
        x_blocks=-(-conv.x_channels // x_block),
        y_blocks=-(-conv.y_channels // y_block),
    )


def _divider(value: int, least: int, most: int, greatest: bool = True) -> int:
    """Of parts from `least` to `most` the one that leaves the smallest rest: the greatest such, or the least
    (oneDNN's `best_divider`)."""
    most = max(1, min(most, value))
    parts = range(max(1, min(least, most)), most + 1)
    sign = -1 if greatest else 1
    return min(parts, key=lambda part: (-(-value // part) * part / value, sign * part))
