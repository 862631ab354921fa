"""Measuring ops in their place: steps of drawn networks are replayed with a timestamp after every op.

One replay times all ops of a step at once, each with its data where the step leaves them. A few replays of a small
network tell as much as some hundred ops measured one by one, in a tenth of the time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from pararev_hw.calibration.drawn_networks import DrawnNetwork, drawn_networks
from pararev_hw.calibration.failures import reason_missed
from pararev_hw.calibration.ops import Missed
from pararev_hw.costmodels.calibrated.branch_density import mask_densities
from pararev_hw.costmodels.calibrated.cache_model import code_miss_share, miss_bytes
from pararev_hw.costmodels.calibrated.features import branches, family, group
from pararev_hw.costmodels.calibrated.pace_response import at_own_speed, op_exponents, work_seconds
from pararev_hw.costmodels.traffic import Floats, traffic
from pararev_hw.execution.replay_timing import op_times
from pararev_hw.types import BlockGraph, Estimate, OpSample

REPLAYS = 5
MOST_NETWORKS = 300  # a longer calibration measures ops one by one instead
_MOST_FLOPS = 3e9  # of a step: larger networks tell no more, and take long
_ENOUGH = 300  # samples of a group of ops: more tell nothing new
_SHORT_OP_S = 20e-6  # of the ops of a step in the mean, which tell what a timestamp takes better than longer ones
_LEAST_LEFT = 0.2  # of an op's seconds, whatever the timestamp beside it took, or mapping memory in
_SIXTEENTHS, _FOURTHS = 16, 4  # of an op's bytes and code: uses of an op that fetch alike count as one sample


@dataclass(frozen=True, slots=True)
class Replayed:
    """A drawn network's step, replayed: seconds of each op without what mapping memory in took, [replays, ops], how
    many times as slowly as at its own speed the machine ran meanwhile, [replays], and how much memory was mapped in
    while each op ran, [ops]; None: next to none."""

    network: DrawnNetwork
    graph: BlockGraph
    seconds: Floats
    slowness: Floats
    faulted_bytes: Floats | None = None

    def work_by_kind(self, call_seconds: float) -> Mapping[str, Floats]:
        """Seconds of the ops of each kind beside their calls, [replays], of kinds that do more than be called."""
        kinds = np.array([family(self.graph.op_types[op.type]) for op in self.graph.ops])
        own_s = np.median(self.seconds / self.slowness[:, None], axis=0)
        works = {
            str(k): work_seconds(self.seconds[:, kinds == k], self.slowness, own_s[kinds == k], call_seconds)
            for k in np.unique(kinds)
        }
        return {kind: work for kind, work in works.items() if work is not None}


def replayed_networks(
    pace_s: float, until: Callable[[], bool], fault_s_per_byte: float = 0.0
) -> Iterator[Replayed | Missed]:
    """Drawn networks in turn, replayed while `until` does not say that the time is over.

    `pace_s` is what the fixed piece of Python takes at the machine's own speed, `fault_s_per_byte` what memory costs
    that is mapped in. A network that raises is missed and the rest go on; raises DeviceLost where the device is gone.
    """
    stamps_s: list[float] = []
    for network in islice(drawn_networks(), MOST_NETWORKS):
        if until():
            return
        try:
            graph = network.traced()
            if sum(graph.op_types[op.type].true_flops for op in graph.ops) <= _MOST_FLOPS:
                seconds, paces, longer_s, faulted_bytes = op_times(graph, REPLAYS)
                slowness = paces / pace_s
                if not stamps_s or np.median(seconds.sum(1)) < _SHORT_OP_S * len(graph.ops):
                    stamps_s.append(longer_s / float(np.median(slowness)))
                bare = without_stamps(seconds, float(np.median(stamps_s)), slowness)
                bare = np.maximum(bare - fault_s_per_byte * faulted_bytes, _LEAST_LEFT * bare)
                yield Replayed(network, graph, bare, slowness, faulted_bytes)
        except Exception as error:
            # a library may refuse a shape with any error; what it said goes into the profile
            yield Missed(network.name, reason_missed(error))


def without_stamps(seconds: Floats, stamp_s: float, slowness: Floats) -> Floats:
    """Seconds of ops [replays, ops] without what timestamps beside them take, which is more than the clock says of
    itself when it is read again and again: between ops it leaves the caches, and they lose others."""
    left: Floats = np.maximum(seconds - max(stamp_s, 0.0) * slowness[:, None], _LEAST_LEFT * seconds)
    return left


def op_samples(
    replayed: Sequence[Replayed], host: Mapping[str, Estimate], capacities: tuple[float, float]
) -> Iterator[OpSample]:
    """Samples of ops at the machine's own speed, of each group of ops as many as tell something new."""
    return enough([*_samples(one, host, capacities)] for one in replayed)


def network_samples(
    replayed: Sequence[Replayed], host: Mapping[str, Estimate], capacities: tuple[float, float]
) -> Mapping[str, Sequence[OpSample]]:
    """Samples of ops at the machine's own speed, by the name of their network."""
    return {one.network.name: [*_samples(one, host, capacities)] for one in replayed}


def enough(samples: Iterable[Sequence[OpSample]]) -> Iterator[OpSample]:
    """Of each group of ops as many samples as tell something new."""
    counts: Counter[tuple[str, str, bool]] = Counter()
    for sample in chain.from_iterable(samples):
        key = (group(sample.op), sample.op.dtype, sample.held_out)
        counts[key] += 1
        if counts[key] <= _ENOUGH:
            yield sample


def _samples(one: Replayed, host: Mapping[str, Estimate], capacities: tuple[float, float]) -> Iterator[OpSample]:
    """One sample for each op of a replayed step that is used alike: same type, same data in the caches."""
    graph = one.graph
    l2, dram = miss_bytes(graph, traffic(graph), capacities)
    code = code_miss_share(graph)
    density = mask_densities(graph)
    own_s = at_own_speed(one.seconds, one.slowness[:, None], op_exponents(graph, host), host)
    uses: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for k, op in enumerate(graph.ops):
        moved = max(graph.op_types[op.type].read_bytes + graph.op_types[op.type].write_bytes, 1)
        fetched = (round(_SIXTEENTHS * l2[k] / moved), round(_SIXTEENTHS * dram[k] / moved), round(_FOURTHS * code[k]))
        uses[(op.type, *fetched)].append(k)
    for (type_number, *_), ops in uses.items():
        t = graph.op_types[type_number]
        seconds = own_s[:, ops].mean(1)
        if np.median(seconds) <= 0:
            continue  # the step runs it ahead of itself
        per_replay = tuple(float(f"{s:.4g}") for s in seconds.tolist())
        yield OpSample(
            op=t,
            cold=False,
            held_out=one.network.held_out,
            noisy=False,  # small ops in their place always spread: the fit learns by how much
            seconds=per_replay,
            density=float(density[ops].mean()) if branches(t) else None,
            fetched_bytes=(float(round(l2[ops].mean())), float(round(dram[ops].mean()))),
            fetched_code=float(f"{code[ops].mean():.3g}"),
        )
