"""The network on chip: how far a message goes on average, and what that costs.

Mean number of links between two different cores: 1 on a bus, the mean way around on a ring, the mean Manhattan
distance on the mesh that is nearest to a square. A message waits for its links one after another and for its bytes
once: delay = links x latency + bytes / bandwidth, energy = bytes x links x energy per byte and link. Without a
topology the figures are those of a whole message.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pararev_hw.costmodels.accelerator.configs import ConfigTable
from pararev_hw.costmodels.traffic import Floats

TOPOLOGIES = ("bus", "ring", "mesh")


def mean_links(configs: ConfigTable) -> Floats:
    """Links of a mean message [configurations]; 1 where the chip gives no topology."""
    if not configs.gives("noc_topology"):
        return np.ones(configs.count)
    pairs = np.stack([configs.value("noc_topology"), configs.lanes])
    unique, back = np.unique(pairs, axis=1, return_inverse=True)
    links = np.array([_links(TOPOLOGIES[int(t)], int(n)) for t, n in unique.T])
    return links[back.reshape(-1)]


@lru_cache(maxsize=1024)
def _links(topology: str, cores: int) -> float:
    if cores < 2 or topology == "bus":
        return 1.0
    if topology == "ring":
        return sum(min(d, cores - d) for d in range(1, cores)) / (cores - 1)
    columns = int(np.ceil(np.sqrt(cores)))
    full, rest = divmod(cores, columns)
    in_rows = np.array([columns] * full + [rest] * (rest > 0), np.float64)
    in_columns = np.full(columns, full, np.float64) + (np.arange(columns) < rest)
    return 2 * (_apart(in_rows) + _apart(in_columns)) / (cores * (cores - 1))


def _apart(counts: Floats) -> float:
    """Sum of distances over all pairs of points on a line, `counts[i]` of which stand at i."""
    before = np.cumsum(counts)
    return float((before * (before[-1] - before)).sum())  # pairs with one on either side of each step


def message_delay_s(configs: ConfigTable) -> Floats:
    """The part of a message's delay that does not depend on its size [configurations]."""
    return configs.get("noc_latency_s", 0.0) * mean_links(configs)


def message_j_per_byte(configs: ConfigTable) -> Floats:
    """Joule per byte of a message between two cores [configurations]."""
    return configs.get("noc_energy_j_per_byte", 0.0) * mean_links(configs)


def static_power_w(configs: ConfigTable) -> Floats:
    """Leakage and idle power of the chip [configurations]: fixed, and for each byte of memory and each PE."""
    cores = configs.lanes * (
        configs.get("sram_leakage_w_per_byte", 0.0) * configs.value("sram_bytes_per_lane")
        + configs.get("pe_leakage_w", 0.0) * configs.value("pe_rows") * configs.value("pe_columns")
    )
    buffer = configs.get("sram_leakage_w_per_byte", 0.0) * configs.get("global_buffer_bytes", 0.0)
    return configs.get("static_power_w", 0.0) + cores + buffer
