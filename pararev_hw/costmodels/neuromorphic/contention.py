"""One time step, message by message: who waits for whom on the mesh and at the receiving cores.

A core updates its neurons one after another and lets a message go at each spike; a core takes messages one after
another. A message that waits for its receiver fills buffers on its way; a full way holds back its sender:

    flow      messages on their way, each spread evenly over the links of its route, summed over this route's links
    blocked   (flow - (hops + 1) x buffer) x mean work of the messages on their way, where that is above 0
    delay     max(hops x t_hop, flow x mean work / (hops + 1))
    taken     max(receiver free, sent + blocked + delay), and the receiver is busy for the message's work

These are the equations of the semi-analytical timing model of SANA-FE (J. Boyle et al., IEEE TCAD 2025). Where messages
are many, one stands for several: work and sending time are scaled up, and buffers down.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Place = tuple[int, int]
Link = tuple[int, int, int, int]
_MOST_MESSAGES = 3_000


@dataclass(frozen=True, slots=True)
class Mesh:
    """What carries messages: the tile of each core (the last one: where the outside enters), seconds of a hop across
    and along, and messages that one link's buffer holds."""

    places: tuple[Place, ...]
    hop_s: tuple[float, float]
    buffer: float


@dataclass(slots=True)
class _Message:
    source: int
    target: int
    generation_s: float


@dataclass(slots=True)
class _Route:
    links: list[Link]
    hops: int
    delay_s: float


def last_message_s(traffic: Floats, send_s: Floats, receive_s: Floats, message_s: float, mesh: Mesh) -> float:
    """When the last core has worked off its last message. `traffic[a, b]` are messages of one time step, the last row
    those from outside; `send_s` and `receive_s` what each core needs for all it sends and receives."""
    total = float(traffic.sum())
    thinned = max(1.0, total / _MOST_MESSAGES)
    queues = _queues(traffic / thinned, send_s, message_s * thinned)
    received = traffic.sum(axis=0) / thinned
    work_s = np.divide(receive_s, received, out=np.zeros_like(receive_s), where=received > 0)
    routes: dict[tuple[int, int], _Route] = {}
    density: dict[Link, float] = {}
    free_s = np.zeros(len(receive_s))
    on_way: list[tuple[float, int, int, int]] = []  # when it is taken, number, source, target
    waiting_work_s = 0.0
    latest = 0.0
    heads = [(queue[0].generation_s, a) for a, queue in enumerate(queues) if queue]
    heapq.heapify(heads)
    at = [0] * len(queues)
    number = 0
    while heads:
        sent, a = heapq.heappop(heads)
        message = queues[a][at[a]]
        while on_way and on_way[0][0] <= sent:
            _, _, source, target = heapq.heappop(on_way)
            waiting_work_s -= float(work_s[target])
            _spread(density, routes[source, target], -1.0)
        if message.target >= 0:
            key = a, message.target
            if key not in routes:
                routes[key] = _route(a, mesh.places[a], mesh.places[message.target], mesh)
            route = routes[key]
            flow = sum(density.get(link, 0.0) for link in route.links)
            mean_s = waiting_work_s / len(on_way) if on_way else 0.0
            room = (route.hops + 1) * mesh.buffer / thinned
            if flow > room:
                sent += (flow - room) * mean_s
            arrives = sent + max(route.delay_s, flow * mean_s / (route.hops + 1))
            received_s = max(float(free_s[message.target]), arrives)
            free_s[message.target] = received_s + work_s[message.target]
            latest = max(latest, float(free_s[message.target]))
            number += 1
            heapq.heappush(on_way, (received_s, number, a, message.target))
            waiting_work_s += float(work_s[message.target])
            _spread(density, route, 1.0)
        latest = max(latest, sent)
        at[a] += 1
        if at[a] < len(queues[a]):
            heapq.heappush(heads, (sent + queues[a][at[a]].generation_s, a))
    return latest


def _queues(traffic: Floats, send_s: Floats, message_s: float) -> list[list[_Message]]:
    """The messages of each sender in order: those to one receiver spread evenly over its neurons; the last entry of a
    core is the neurons that it updates after its last message."""
    queues: list[list[_Message]] = []
    # parts of a message carry over to the next pair of cores
    counts = np.diff(np.floor(np.cumsum(traffic.ravel()) + 0.5), prepend=0.0).reshape(traffic.shape).astype(np.int64)
    for a in range(traffic.shape[0]):
        order: list[tuple[float, int]] = []
        for target in np.flatnonzero(counts[a]).tolist():
            count = int(counts[a, target])
            order += [((k + 0.5) / count, target) for k in range(count)]
        order.sort()
        outside = a == len(send_s)
        neurons_s = 0.0 if outside else max(0.0, float(send_s[a]) - len(order) * message_s)
        queue: list[_Message] = []
        before = 0.0
        for share, b in order:
            queue.append(_Message(a, b, (share - before) * neurons_s + message_s))
            before = share
        if neurons_s * (1 - before) > 0:
            queue.append(_Message(a, -1, (1 - before) * neurons_s))
        queues.append(queue)
    return queues


def _route(sender: int, start: Place, end: Place, mesh: Mesh) -> _Route:
    """The links of a message: the sender's way out, then the links across, then those along, into the tile."""
    (x, y), (to_x, to_y) = start, end
    links: list[Link] = [(x, y, sender, -1)]
    across, along = abs(to_x - x), abs(to_y - y)
    while (x, y) != (to_x, to_y):
        dx = (to_x > x) - (to_x < x)
        dy = 0 if dx else (to_y > y) - (to_y < y)
        x, y = x + dx, y + dy
        links.append((x, y, dx, dy))
    return _Route(links, across + along, across * mesh.hop_s[0] + along * mesh.hop_s[1])


def _spread(density: dict[Link, float], route: _Route, sign: float) -> None:
    """Add or take away a message: a share of it on each link, and one on the way into the receiving core."""
    share = sign / (route.hops + 2)
    for link in route.links:
        density[link] = density.get(link, 0.0) + share
