"""The best tiling of a product for a memory of any size: an exact search, done once, as a staircase over capacity.

A product's loops are cut into tiles of images (or rows of one image), output channels and input channels. What a memory
of some capacity has to be given and has to give away, in bytes, follows from the tile sizes and from which operand
stays while the innermost loop over tiles runs. With t tiles along the free side of the input, u along the sum, v along
the output channels,

    output stays:  input x v        second x t      output once
    input stays:   input once       second x t      output u times, u - 1 times out and back in as partial sums
    second stays:  input x v        second once     output u times

which covers all six loop orders (a loop of one tile changes nothing). An operand that changes while tiles run takes
two tiles of room, so that the next one arrives behind the work; one that never changes takes one. Of all tile sizes
only the smallest one for each number of tiles matters, which leaves about 2 sqrt(size) of them per loop; of rows also
a larger one that fetches fewer rows twice.

Least traffic first, then least room. Loop orders and reuse: Parashar et al., Timeloop, ISPASS 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pararev_hw import limits
from pararev_hw.costmodels.accelerator.products import Product
from pararev_hw.costmodels.traffic import Floats, Ints


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes of a word of each operand; an operand of 0 bytes is somewhere else and neither moves nor takes room."""

    input: float
    second: float
    output: float
    sum: float  # of a partial sum


@dataclass(frozen=True, slots=True)
class Staircase:
    """Traffic as a function of capacity: entry s holds from `room_bytes[s]` on. Arrays [steps].

    `tile` [steps, 4] holds the images, rows, output channels and input channels of a tile.
    """

    room_bytes: Floats
    input_bytes: Floats
    second_bytes: Floats
    output_write_bytes: Floats
    output_read_bytes: Floats
    tile: Ints

    def at(self, capacity_bytes: Floats) -> NDArray[np.intp]:
        """Which entry holds at each capacity; -1 where not even the smallest tile fits."""
        return np.searchsorted(self.room_bytes, capacity_bytes, side="right") - 1


def tile_sizes(size: int) -> tuple[int, ...]:
    """The smallest tile for each number of tiles that a loop of that size can be cut into, ascending.

    Of a loop so long that there are too many of them, some.
    """
    if size > limits.TILES**2 // 4:
        counts = np.unique(np.geomspace(1, size, limits.TILES).astype(np.int64)).tolist()
        return tuple(sorted({1, *(-(-size // c) for c in counts)}))
    sizes = {1, size}
    count = 1
    while count < size:
        tile = -(-size // count)
        sizes.add(tile)
        if tile == 1:
            break
        count = -(-size // (tile - 1))
    return tuple(sorted(sizes))


@lru_cache(maxsize=4096)
def staircase(p: Product, widths: Widths) -> Staircase:
    """The least traffic of a product for every capacity. Raises nothing: a capacity below the first entry fits none."""
    places, output_tiles, input_tiles = _compared(_places(p), tile_sizes(p.outputs), tile_sizes(p.inputs))
    outputs, inputs = np.array(output_tiles), np.array(input_tiles)
    # axes: places, output channels, input channels
    in_words, second_words, out_words = float(p.input_words), float(p.second_words), float(p.output_words)
    per_image = np.array([rows for _, _, rows, _ in places], np.float64)[:, None, None]
    tile_images = np.array([b for b, _, _, _ in places])[:, None, None]
    tile_rows = np.array([y for _, y, _, _ in places])[:, None, None]
    tile_in_rows = np.array([r for _, _, _, r in places])[:, None, None]
    tile_n, tile_c = outputs[None, :, None], inputs[None, None, :]
    place_trips = -(-p.images // tile_images) * -(-p.rows // tile_rows)
    n_trips, c_trips = -(-p.outputs // tile_n), -(-p.inputs // tile_c)

    moved_in = in_words / p.in_rows * per_image * widths.input  # with the halo, once
    moved_second = second_words * widths.second
    in_tile = tile_images * tile_c * tile_in_rows * p.in_columns * widths.input
    if p.kind == "weight_gradient":
        free, sums = c_trips, place_trips
        second_tile = tile_images * tile_rows * p.columns * tile_n * widths.second
        out_tile = tile_n * tile_c * p.taps
    else:
        free, sums = place_trips, c_trips
        second_tile = tile_n * tile_c * p.taps * widths.second
        out_tile = tile_images * tile_rows * p.columns * tile_n
    stays = widths.output > 0
    grouped = p.groups > 1
    room = (
        in_tile * np.where((free > 1) | (sums > 1) | grouped, 2, 1)
        + second_tile * np.where((n_trips > 1) | (sums > 1) | grouped, 2, 1)
        + out_tile * np.where((free > 1) | (n_trips > 1) | grouped, 2, 1) * (widths.sum if stays else 0.0)
    )
    final = float(out_words * widths.output)
    spill = out_words * (sums - 1) * (widths.sum if stays else 0.0)  # one way
    ways = (  # input, second, spilled one way
        (moved_in * n_trips, moved_second * free, 0.0),
        (moved_in * 1, moved_second * free, spill),
        (moved_in * n_trips, moved_second * 1, spill),
    )
    shape = np.broadcast_shapes(room.shape, place_trips.shape, n_trips.shape, c_trips.shape)
    totals = np.stack([np.broadcast_to(a + b + 2 * c, shape) for a, b, c in ways]).reshape(3, -1)
    way, total = totals.argmin(0), totals.min(0)
    room = np.broadcast_to(room, shape).reshape(-1)

    order = np.lexsort((total, room))
    least = np.minimum.accumulate(total[order])
    first = np.concatenate(([True], least[1:] < least[:-1]))
    chosen = order[first]
    last_of_room = np.concatenate((room[chosen][1:] > room[chosen][:-1], [True]))
    chosen = chosen[last_of_room]

    def of_chosen(term: int) -> Floats:
        flat = [np.broadcast_to(w[term], shape).reshape(-1)[chosen] for w in ways]
        picked: Floats = np.stack(flat)[way[chosen], np.arange(len(chosen))].astype(np.float64)
        return picked

    spilled = of_chosen(2)
    at = np.unravel_index(chosen, shape)
    tile = np.stack([tile_images[at[0], 0, 0], tile_rows[at[0], 0, 0], outputs[at[1]], inputs[at[2]]], axis=1)
    return Staircase(room[chosen].astype(np.float64), of_chosen(0), of_chosen(1), spilled + final, spilled, tile)


Places = Sequence[tuple[int, int, int, int]]


def _compared(
    places: Places, outputs: Sequence[int], inputs: Sequence[int]
) -> tuple[Places, Sequence[int], Sequence[int]]:
    """The tiles to compare: all, or evenly fewer of them where their combinations are too many; the smallest stay."""
    axes: list[Sequence[Any]] = [places, outputs, inputs]
    if math.prod(map(len, axes)) > limits.TILINGS:
        axes[0] = sorted(places, key=lambda p: p[0] * p[3])
    while math.prod(map(len, axes)) > limits.TILINGS:
        k = max(range(3), key=lambda j: len(axes[j]))
        axes[k] = [*axes[k][:-1:2], axes[k][-1]]
    return axes[0], axes[1], axes[2]


def _places(p: Product) -> list[tuple[int, int, int, int]]:
    """Tiles of places: (images, rows, input rows fetched per image in all, input rows of the largest tile).

    Several whole images, or some rows of one. Whole images fetch every input row; rows fetch what they need, so that
    neighbours fetch their common rows twice. Of tiles of one count a larger one fetches less where it needs more rows
    than the input has (4 rows of a 3x3 kernel: 3 + 1 fetch 4 + 3 input rows, 2 + 2 fetch 4 + 4) or a stride divides it
    better; it takes more room, so only those that fetch less than every smaller one stay.
    """
    cuts = [(b, p.rows, p.in_rows, p.in_rows) for b in tile_sizes(p.images)]
    fewest: dict[int, int] = {}  # input rows fetched, for each number of tiles
    for y in range(1, p.rows) if p.rows <= limits.TILES else tile_sizes(p.rows)[:-1]:
        full, rest = divmod(p.rows, y)
        fetched = full * p.input_rows(y) + (p.input_rows(rest) if rest else 0)
        tiles = full + (rest > 0)
        if fetched < fewest.get(tiles, fetched + 1):
            fewest[tiles] = fetched
            cuts.append((1, y, fetched, p.input_rows(y)))
    return cuts
