"""Populations of neurons split until each part fits a core: over output channels, and over places where inputs are
too many for one core.

    neurons     of the part
    synapses    weights of its output channels; a convolution's kernels are kept once in each core
    axons in    inputs that reach the part: all channels, and the places that its kernels see
    axons out   its neurons x the cores of the parts that read them

Readers are split first, since their cores are what a sender's outgoing axons are counted by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.neuromorphic.chip import Room
from pararev_hw.errors import Infeasible
from pararev_hw.graph.spiking_network import Population, Projection, SpikingNetwork

Floats = NDArray[np.float64]
_ROUNDS = 8  # recurrent networks: a part's axons out depend on parts that depend on it


@dataclass(frozen=True, slots=True)
class Split:
    """A population in `groups` x the product of `tiles` equal parts, by channels and by places; `need` is of one."""

    groups: int
    tiles: tuple[int, ...]
    need: Room

    @property
    def parts(self) -> int:
        return self.groups * math.prod(self.tiles)

    def shares(self, channels: int, places: Sequence[int]) -> Floats:
        """The share of the population's neurons in each part."""
        share = sizes(channels, self.groups) / channels
        for size, n in zip(places, self.tiles, strict=True):
            share = np.outer(share, sizes(size, n) / size).ravel()
        return share


class Splitter:
    """Splits the populations of one network for cores of one kind."""

    def __init__(self, network: SpikingNetwork, limit: Room, weight_bytes: float, chip_name: str) -> None:
        self.network, self.limit, self.weight_bytes, self.chip_name = network, limit, weight_bytes, chip_name
        self.owned = owned_projections(network)

    def split(self, least_parts: Mapping[int, int] | None = None) -> tuple[Split, ...]:
        """The fewest parts for each population, but at least so many where they are named. Raises Infeasible."""
        least = least_parts or {}
        count = len(self.network.populations)
        splits: dict[int, Split] = {}
        for _ in range(_ROUNDS):
            before = dict(splits)
            for k in reversed(range(count)):
                splits[k] = self._fewest(k, splits, least.get(k, 1))
            if splits == before:
                break
        return tuple(splits[k] for k in range(count))

    def shares(self, k: int, split: Split) -> Floats:
        """The share of the population's neurons in each of its parts."""
        main = self._main(k)
        return split.shares(self._channels(k), (1,) if main is None else main.out_places)

    def most_parts(self, k: int) -> int:
        """How many parts a population can be split into."""
        return self._channels(k) * max(math.prod(t) for t in self._tilings(k))

    def _channels(self, k: int) -> int:
        main = self._main(k)
        return self.network.populations[k].neurons if main is None else main.channels

    def _main(self, k: int) -> Projection | None:
        """The projection whose shape the population has: the widest."""
        fed = [self.network.projections[j] for j in self.network.populations[k].projections]
        return max(fed, key=lambda p: p.outputs, default=None)

    def _fewest(self, k: int, splits: Mapping[int, Split], least: int) -> Split:
        channels, best = self._channels(k), None
        readers = sum(self._cores_reached(r, splits) for r in self.network.readers(k))
        smallest = None
        for tiles in self._tilings(k):
            low, high = -(-least // math.prod(tiles)), channels
            if low > channels or (best is not None and math.prod(tiles) * low >= best.parts):
                continue  # no fewer parts than the best has
            fine = self._need(k, channels, tiles, readers)
            smallest = fine
            if fine.lacking(self.limit) is not None:
                continue
            while low < high:
                middle = (low + high) // 2
                if self._need(k, middle, tiles, readers).lacking(self.limit) is None:
                    high = middle
                else:
                    low = middle + 1
            split = Split(low, tiles, self._need(k, low, tiles, readers))
            if best is None or split.parts < best.parts:
                best = split
        if best is None:
            assert smallest is not None
            raise Infeasible(self._refusal(self.network.populations[k], smallest))
        return best

    def _tilings(self, k: int) -> list[tuple[int, ...]]:
        """Ways to cut the places: 1, 2, 4, ... along the first and the second axis, the coarsest first."""
        main = self._main(k)
        places = (1,) if main is None else main.out_places
        axes = [_powers(size) if axis < 2 else [1] for axis, size in enumerate(places)]
        tilings: list[tuple[int, ...]] = [()]
        for axis in axes:
            tilings = [(*t, n) for t in tilings for n in axis]
        return sorted(tilings, key=lambda t: (math.prod(t), max(t)))

    def _need(self, k: int, groups: int, tiles: tuple[int, ...], readers: float) -> Room:
        """Of the largest part, each of whose spikes goes to `readers` cores."""
        population, channels = self.network.populations[k], self._channels(k)
        main = self._main(k)
        places = (1,) if main is None else main.out_places
        share = math.ceil(channels / groups) / channels
        for size, n in zip(places, tiles, strict=False):
            share *= math.ceil(size / n) / size
        neurons = math.ceil(population.neurons * share)
        weights = axons = 0.0
        for j in self.owned[k]:
            p = self.network.projections[j]
            weights += p.weights * math.ceil(p.channels / groups) / p.channels
            axons += math.ceil(p.inputs * float(reach(p, groups, tiles).max()))
        if population.direct:
            weights += neurons
            axons += neurons
        return Room(neurons, weights * self.weight_bytes, axons, math.ceil(neurons * readers))

    def _cores_reached(self, projection: int, splits: Mapping[int, Split]) -> float:
        """How many parts of the reading population one spike goes to, on average."""
        owner = next((k for k, projections in enumerate(self.owned) if projection in projections), None)
        if owner is None or owner not in splits:
            return 1.0
        split = splits[owner]
        return float(reach(self.network.projections[projection], split.groups, split.tiles).sum())

    def _refusal(self, population: Population, smallest: Room) -> str:
        limit = smallest.lacking(self.limit) or "neurons"
        names = {
            "neurons": "neurons",
            "synapse_bytes": "bytes of weights",
            "axons_in": "inputs (axons in)",
            "axons_out": "axons out (its neurons times the cores that read them)",
        }
        layers = ", ".join(self.network.projections[j].layer for j in population.projections) or population.name
        need, have = getattr(smallest, limit), getattr(self.limit, limit)
        return (
            f"{layers} does not fit {self.chip_name}: its smallest part needs {need:,.0f} {names[limit]}, and a core "
            f"has {have:,.0f}; more chips do not help, a narrower layer or smaller groups do"
        )


def owned_projections(network: SpikingNetwork) -> tuple[tuple[int, ...], ...]:
    """The projections whose synapses stand with each population: a current that several collect is made at the first
    of them, and passed on."""
    assigned: set[int] = set()
    owned = []
    for population in network.populations:
        remaining = tuple(j for j in population.projections if j not in assigned)
        assigned.update(remaining)
        owned.append(remaining)
    return tuple(owned)


@lru_cache(maxsize=4096)
def reach(projection: Projection, groups: int, tiles: tuple[int, ...]) -> Floats:
    """The share of a projection's inputs that reaches each part, channel group by channel group and in each tile by
    tile: all channels (those of its own groups), and the places that the kernels of the tile see."""
    share = 1.0 if projection.groups == 1 else max(1 / groups, 1 / projection.groups)
    by_tile = np.ones(1)
    axes = zip(
        projection.in_places,
        projection.out_places,
        projection.kernel,
        projection.stride,
        projection.padding,
        tiles,
        strict=False,
    )
    for places, out, kernel, stride, padding, n in axes:
        ends = np.cumsum(sizes(out, n))
        starts = ends - sizes(out, n)
        low = np.maximum(starts * stride - padding, 0)
        high = np.minimum((ends - 1) * stride - padding + kernel, places)
        by_tile = np.outer(by_tile, np.maximum(high - low, 0) / places if n > 1 else np.ones(1)).ravel()
    return np.tile(by_tile * share, groups)


def sizes(count: int, parts: int) -> NDArray[np.int64]:
    """How many of `count` things each of so many parts has: equal, or one more."""
    return np.bincount(np.arange(count) * parts // max(1, count), minlength=parts)


def _powers(size: int) -> list[int]:
    ways = [1]
    while ways[-1] * 2 <= size:
        ways.append(ways[-1] * 2)
    return ways if ways[-1] == size else [*ways, size]
