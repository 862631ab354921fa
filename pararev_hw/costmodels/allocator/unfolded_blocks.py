"""How much of an image oneDNN unfolds at a time where it computes a convolution as a matrix product.

Channels and pixels are taken in blocks that fit the core's second-level cache. Of a few candidate blocks the library
takes the one that it expects to be the most efficient: little memory traffic, few padded elements, large products. The
estimate is that of `gemm_convolution_utils.cpp` of oneDNN 3.7 to 3.12 for one thread, its rounding to float32 included:
where candidates are near each other, it decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from pararev_hw.costmodels.allocator.convolution_sizes import Convolution

_LEAST_OUTPUTS = 8  # output channels of a block
_PIXELS = 48  # a multiple of which suits the library's products
_BEYOND_CACHE = 20  # how much dearer an access is where no block fits the cache
_STRIDED = 8  # how much dearer it is to unfold with a stride
_ROOT = 14.5  # the sum of the weights of what the estimate multiplies


def unfolded_at_once(conv: Convolution, lanes: int, cache_bytes: int) -> tuple[int, int]:
    """Input channels of a group, and pixels of the result, on a processor with so many floats in a register."""
    plane = conv.y_pixels // (conv.result[0] if len(conv.result) > 2 else 1)
    pixels = conv.batch * conv.groups * conv.y_pixels  # of all images and groups
    few = conv.stride[-1] == 1 and conv.x_group * conv.taps <= 0.05 * conv.y_group
    if len(conv.kernel) > 2 or not (pixels >= lanes or plane < pixels // plane or few):
        return conv.x_group, plane
    stride = conv.stride[-1] * (conv.stride[-2] if len(conv.stride) > 1 else 1)
    sizes = _Product(conv.x_group, conv.y_group, conv.taps, plane, pixels, stride, conv.stride[-1] > 1)
    return _best_block(sizes, lanes, cache_bytes // conv.item)


def unfolded_at_once_last(conv: Convolution, lanes: int, cache_bytes: int) -> int:
    """Pixels of the result, of all input channels of a group, where images lie channels last: rows in fours, or a part
    of one row."""
    room = cache_bytes // conv.item
    rows, width = conv.result[-2] if len(conv.result) > 1 else 1, conv.result[-1]
    if conv.dilated or conv.x_group * conv.y_group * conv.taps >= room // 2:
        return rows * width
    depth = conv.x_group * conv.taps
    row = 5 * (depth * width + 2 * (conv.x_group * conv.image[-1] + conv.y_group * width))
    row += conv.y_group * width + conv.x_group * conv.image[-1]
    block = _even_blocks(rows, -(-room // (row * conv.item)), 4)
    if block > 1 or -(-room // (row * conv.item)) > 1:
        return max(1, block) * width
    pixel = depth + 2 * (conv.x_group + conv.y_group)
    return max(1, _even_blocks(width, -(-room // (pixel * conv.item)), lanes))


def _even_blocks(count: int, most: int, step: int) -> int:
    """At most so many at a time, in steps, as leave little of the last block empty; 0 where none does."""
    block = count if most >= count else max(1, max(1, most) // step * step)
    while block > 0 and (1 + count / _up(count, block)) / 2 < 0.9:
        block = (block - step) // step * step if block >= step else 0
    return block


@dataclass(frozen=True, slots=True)
class _Product:
    """A matrix product over unfolded images: of `taps` times inputs by outputs, for each of `pixels`."""

    inputs: int
    outputs: int
    taps: int
    plane: int  # pixels of one image
    pixels: int
    stride: int  # of both extents together
    strided: bool


@cache
def _best_block(product: _Product, lanes: int, room: int) -> tuple[int, int]:
    """Inputs and pixels of the best block, where the cache holds `room` numbers."""
    best, inputs, pixels = np.float32(0), product.inputs, 1
    for k, (most_outputs, most_pixels) in enumerate(_candidates(product, lanes, room)):
        outputs = min(product.outputs, max(_LEAST_OUTPUTS, most_outputs))
        block = min(product.plane, product.pixels, max(lanes, most_pixels))
        held = _inputs_held(product, outputs, block, room)
        taken = max(1, product.inputs // -(-product.inputs // max(1, held)))
        efficiency = _efficiency(product, (taken, outputs, block), lanes, _BEYOND_CACHE if held < 1 else 1)
        if efficiency > best:
            best, inputs, pixels = efficiency, taken, block
        if k == 0 and (inputs, outputs, pixels) == (product.inputs, product.outputs, product.pixels):
            break  # all of it fits
    return inputs, pixels


def _candidates(product: _Product, lanes: int, room: int) -> Iterator[tuple[int, int]]:
    """Outputs and pixels of the blocks that are tried."""
    outputs, pixels, per_pixel = product.outputs, product.pixels, product.stride + product.taps
    yield outputs, pixels
    weights = product.taps * outputs

    def pixels_beside(inputs: int, given_outputs: int) -> int:
        return _toward_zero(room - weights * inputs, per_pixel * inputs + given_outputs)

    def within(least: int, most: int, value: int) -> int:
        return max(least, min(most, value))

    inputs = product.inputs
    block = within(_LEAST_OUTPUTS, outputs, _toward_zero(room - (per_pixel * lanes + weights) * inputs, lanes))
    yield from _rounded(block, within(lanes, pixels, pixels_beside(inputs, block)), lanes)
    most = max(1, room // (2 * _LEAST_OUTPUTS * per_pixel + 2 * weights))
    if most < inputs:
        taken = inputs // max(1, inputs // most)
        of_pixels = max(1, _toward_zero(room - 2 * weights * taken, 2 * taken * per_pixel))
        block = room // 2 // of_pixels
        if block > outputs:
            block, of_pixels = outputs, within(lanes, pixels, pixels_beside(taken, outputs))
        elif of_pixels > pixels:
            spare = room - (per_pixel * pixels + weights) * taken
            block, of_pixels = within(_LEAST_OUTPUTS, outputs, _toward_zero(spare, pixels)), pixels
        yield from _rounded(block, of_pixels, lanes)
    yield from _rounded(outputs, max(lanes, pixels_beside(inputs, outputs) // lanes * lanes), lanes)


def _rounded(outputs: int, pixels: int, lanes: int) -> Iterator[tuple[int, int]]:
    """The block, and those of round sizes about it."""
    yield outputs, pixels
    yield outputs // _LEAST_OUTPUTS * _LEAST_OUTPUTS, pixels // _PIXELS * _PIXELS
    up = _up(outputs, _LEAST_OUTPUTS)
    yield up, pixels // _PIXELS * _PIXELS
    yield up, _up(pixels, lanes)
    yield up, _up(pixels, _PIXELS)


def _inputs_held(product: _Product, outputs: int, block: int, room: int) -> int:
    """Input channels of which the cache holds what the block needs."""
    image, column = product.stride * block, product.taps * block
    apart = _toward_zero(room - outputs * block, image + column + product.taps * product.outputs)
    if block < product.pixels:
        return apart
    held = room // (image + column)
    if outputs < product.outputs:
        held = min(held, _toward_zero(room - outputs * block, column + product.taps * outputs))
    return held if held >= product.inputs else apart


def _efficiency(product: _Product, block: tuple[int, int, int], lanes: int, access: int) -> np.float32:
    """What the library expects of a block of inputs, outputs and pixels."""
    number = np.float32
    inputs, outputs, pixels = block
    depth, whole_depth = inputs * product.taps, product.inputs * product.taps
    image = product.inputs * _up(product.pixels * product.stride, lanes)
    padded_pixels = _up(pixels, lanes)
    passes = 1 if inputs == product.inputs else 2 * -(-product.inputs // inputs) - 1
    written = access * product.outputs * _up(product.pixels, lanes) * passes
    unfolded = number(product.taps * image) * (number(padded_pixels) / number(pixels))
    columns = int(number(access) * (unfolded + unfolded)) * (_STRIDED if product.strided else 1)
    weights = access * product.outputs * _up(whole_depth, lanes)
    traffic = access * product.taps * image + columns + weights + written
    work = number(product.pixels) / number(lanes) * number(product.outputs) * number(whole_depth)
    share = (number(pixels) * number(outputs) * number(depth)) / (
        number(product.outputs) * number(product.pixels) * number(whole_depth)
    )
    computed = number(pixels) / number(lanes) * number(outputs) * number(depth)
    operands = padded_pixels * depth + outputs * _up(depth, lanes) + outputs * padded_pixels
    filled = (
        _filled(product.outputs, outputs)
        * _filled(min(product.plane, product.pixels), pixels)
        * _filled(product.inputs, inputs)
        * _filled(pixels, 3 * lanes)
    )
    whole = filled * (work / number(traffic)) * number(np.sqrt(share)) * (computed / number(operands))
    return number(float(whole) ** (1 / _ROOT))


def _filled(count: int, block: int) -> np.float32:
    """The share of whole blocks that is used."""
    return np.float32(count) / np.float32(_up(count, block))


def _up(count: int, block: int) -> int:
    return -(-count // block) * block


def _toward_zero(a: int, b: int) -> int:
    """The quotient as C takes it."""
    return int(a / b)
