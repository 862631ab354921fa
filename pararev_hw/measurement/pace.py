"""How fast this machine runs Python right now.

A core that shares its units with a neighbour's thread, or whose clock changes, runs the same code at half the speed and
more, and no counter of the operating system tells. A fixed piece of work does.
"""

from __future__ import annotations

import time

import torch

_CALLS = 60


def pace_s() -> float:
    """Seconds of this thread for a fixed number of small calls into torch, about a millisecond."""
    x = torch.zeros(8)
    begun = time.thread_time()
    y = x
    for _ in range(_CALLS):
        y = torch.add(y, 1.0).view(2, 4).view(8)
    return time.thread_time() - begun
