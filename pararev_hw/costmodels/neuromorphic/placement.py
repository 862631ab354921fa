"""Where on the mesh each core stands, so that messages cross few links: greedy, then swaps of two cores.

Cores that take part fill as few tiles as they can, since the barrier grows with the tiles. What comes from outside
enters one link west of the first tile. A message goes along its row first, then along its column.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ENTRANCE = (-1, 0)
_MOST_CORES = 600  # beyond it cores stand in the order of the network, which is a line along the mesh
_SWAPS = 200_000  # pairs of cores that the local search looks at


def placed(traffic: Floats, tiles: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The slot of each core. `traffic[a, b]` are messages between cores, the last row those from outside; `tiles` the
    place of each slot's tile."""
    count = traffic.shape[1]
    if count == 1 or count > _MOST_CORES:
        return np.arange(count)
    places = np.array(tiles[:count], np.float64)
    apart = np.abs(places[:, None, :] - places[None, :, :]).sum(axis=2)
    entrance = np.abs(places - np.array(ENTRANCE)).sum(axis=1)
    both = traffic[:count] + traffic[:count].T
    np.fill_diagonal(both, 0.0)
    return _swapped(_greedy(both, traffic[count], apart, entrance), both, traffic[count], apart, entrance)


def _greedy(both: Floats, outside: Floats, apart: Floats, entrance: Floats) -> NDArray[np.int64]:
    """Core by core, each to the free slot with the fewest hops to those that are placed."""
    count = len(outside)
    slot = np.full(count, -1, np.int64)
    free = np.ones(count, np.bool_)
    for core in range(count):
        done = slot >= 0
        cost = apart[:, slot[done]] @ both[core, done] + entrance * outside[core]
        cost = np.where(free, cost, np.inf)
        slot[core] = int(np.argmin(cost))
        free[slot[core]] = False
    return slot


def _swapped(
    slot: NDArray[np.int64], both: Floats, outside: Floats, apart: Floats, entrance: Floats
) -> NDArray[np.int64]:
    """Swaps two cores as long as that saves hops."""
    count, looked = len(slot), 0
    improved = True
    while improved and looked < _SWAPS:
        improved = False
        for a in range(count):
            looked += count
            # hops of core a at every other core's slot, and of every other core at a's slot
            to_a = both[a]
            now = apart[slot[a], slot] @ to_a + entrance[slot[a]] * outside[a]
            then = apart[np.ix_(slot, slot)] @ to_a + entrance[slot] * outside[a]
            theirs_now = (both * apart[np.ix_(slot, slot)]).sum(axis=1) + entrance[slot] * outside
            theirs_then = both @ apart[slot, slot[a]] + entrance[slot[a]] * outside
            # the pair's own messages cross as many links after the swap as before
            pair = both[a] * apart[slot[a], slot]
            gain = now + theirs_now - then - theirs_then - 2 * pair
            gain[a] = 0.0
            best = int(np.argmax(gain))
            if gain[best] > 1e-9 * max(1.0, float(now)):
                slot[a], slot[best] = slot[best], slot[a]
                improved = True
    return slot


def link_load(traffic: Floats, places: Sequence[tuple[int, int]]) -> tuple[float, float, Floats]:
    """Messages over horizontal links, over vertical links (each link that a message crosses counts), and the load of
    each link. `places` is the tile of each core; messages from outside start at `ENTRANCE`."""
    starts = np.array([*places, ENTRANCE]) - np.array(ENTRANCE)
    a, b = np.nonzero(traffic)
    messages, (x, y), (to_x, to_y) = traffic[a, b], starts[a].T, starts[b].T
    across, along = float((np.abs(to_x - x) * messages).sum()), float((np.abs(to_y - y) * messages).sum())
    columns, rows = starts.max(axis=0) + 2
    loads = [
        _loads(messages, y, x, to_x, (rows, columns)),  # along the row of the sender, eastwards and westwards
        _loads(messages, y, -x, -to_x, (rows, columns)),
        _loads(messages, to_x, y, to_y, (columns, rows)),
        _loads(messages, to_x, -y, -to_y, (columns, rows)),
    ]
    return across, along, np.concatenate([each.ravel() for each in loads])


def _loads(
    messages: Floats, line: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64], shape: tuple[int, int]
) -> Floats:
    """Load of each link of each line, of the messages that go upwards along it."""
    up = end > start
    changes = np.zeros(shape)
    offset = shape[1] - 1 if (start < 0).any() or (end < 0).any() else 0
    np.add.at(changes, (line[up], start[up] + offset), messages[up])
    np.subtract.at(changes, (line[up], end[up] + offset), messages[up])
    return np.asarray(changes.cumsum(axis=1))
