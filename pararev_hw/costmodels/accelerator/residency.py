"""What stays in a core's own memory between operations: for each storage the least capacity at which it does.

Storages that a task makes, uses and drops are ranked, those that need least room first. A storage's threshold is the
most room that it and those ranked before it take together, at any operation between its first and its last. Keeping
every storage whose threshold is within the capacity never needs more than the capacity (the lowest-ranked one that is
alive counts all others), and a larger capacity keeps all that a smaller one keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pararev_hw.costmodels.accelerator.layers import LocalStorage
from pararev_hw.costmodels.traffic import Floats


def thresholds(storages: Sequence[LocalStorage], scale: Sequence[float]) -> Floats:
    """Bytes [storages] from which on each stays on chip, inf where it cannot: it enters or leaves the task.

    `scale[word]` is the width of a word on the chip over its traced width.
    """
    thresholds_ = np.full(len(storages), np.inf)
    room = [s.bytes * scale[s.word] / s.slices for s in storages]
    occupied = np.zeros(1 + max((s.last for s in storages), default=0))
    for k in sorted((k for k, s in enumerate(storages) if s.inside), key=lambda k: (room[k], k)):
        alive = occupied[storages[k].first : storages[k].last + 1]
        alive += room[k]
        thresholds_[k] = alive.max()
    return thresholds_
