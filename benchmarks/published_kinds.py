"""Which kinds of kernels carry the error of a card's published times: shares of the predicted time, and how many times
as long each kind would have to take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from fit_published_gpus import Problem
from published_tables import Block
from scipy.optimize import least_squares

HOST, OTHER = "waiting for the host", "other kinds"
_LEAST_SHARE = 0.01  # of a kind with a factor of its own
_SCATTER, _WIDTH = 0.05, 0.4  # sigmas of the logarithm: of steps about the factors, and of factors about 1
_LONG_SUM = 4096
_FAR_OFF = 1.5


def seconds_by_kind(problem: Problem, k: int, x: np.ndarray) -> dict[str, np.ndarray]:
    """What each kind of kernel, and the host, adds to the predicted seconds of each step of a block."""
    block = problem.blocks[k]
    value = problem.values(x, block.card)
    seconds = problem.times[k].seconds(value) + value[block.launch]
    predicted, by_kernel = block.combine(seconds, value)
    parts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(predicted)))
    for kernel, column in zip(block.kernels, (by_kernel.toarray() * seconds).T, strict=True):
        parts[kernel.kind] += column
    small = [kind for kind, part in parts.items() if np.mean(part / predicted) < _LEAST_SHARE]
    merged = {kind: part for kind, part in parts.items() if kind not in small}
    merged[OTHER] = np.sum([parts[kind] for kind in small], axis=0) if small else np.zeros(len(predicted))
    return merged | {HOST: predicted - sum(merged.values())}


def factors(parts: dict[str, np.ndarray], measured: np.ndarray) -> dict[str, float]:
    """How many times as long as predicted each kind takes, by least squares on the logarithm of the steps: near 1 where
    the steps do not tell."""
    contributions = np.column_stack(list(parts.values()))

    def residuals(logs: np.ndarray) -> np.ndarray:
        return np.concatenate([np.log(contributions @ np.exp(logs) / measured) / _SCATTER, logs / _WIDTH])

    return dict(zip(parts, np.exp(least_squares(residuals, np.zeros(len(parts))).x).tolist(), strict=True))


def lines(problem: Problem, k: int, x: np.ndarray, most: int = 8) -> Iterator[str]:
    """The kinds of a block of steps that move its error most, the first first."""
    block = problem.blocks[k]
    parts = seconds_by_kind(problem, k, x)
    predicted = np.sum(list(parts.values()), axis=0)
    of_kind = factors(parts, block.measured)
    shares = {kind: float(np.mean(part / predicted)) for kind, part in parts.items()}
    moved = sorted(parts, key=lambda kind: -abs(shares[kind] * (of_kind[kind] - 1)))
    for kind in moved[:most]:
        yield f"{kind:28s} {100 * shares[kind]:4.1f} % of the time, takes {of_kind[kind]:.2f}x as long"
    scaled = np.sum([of_kind[kind] * part for kind, part in parts.items()], axis=0)
    yield f"MAPE {100 * np.mean(np.abs(scaled / block.measured - 1)):.1f} % if each kind took so long"


def far_off(problem: Problem, k: int, x: np.ndarray) -> Iterator[str]:
    """The steps of a block that are off by more than that factor, and what takes most of their predicted time."""
    block = problem.blocks[k]
    parts = seconds_by_kind(problem, k, x)
    predicted = np.sum(list(parts.values()), axis=0)
    for i, ratio in enumerate(predicted / block.measured):
        if max(ratio, 1 / ratio) > _FAR_OFF:
            first, second = sorted(parts, key=lambda kind: -parts[kind][i])[:2]
            shares = (f"{kind} {100 * parts[kind][i] / predicted[i]:.0f} %" for kind in (first, second))
            yield f"{block.tags[i]}: {ratio:.2f} times the published time, of which {', '.join(shares)}"


def finer(block: Block) -> tuple[str, ...]:
    """What each sample of a block of kernels is counted under: its class, products by the length of their sums."""
    if block.workloads:
        return block.groups
    long = f"sums over {_LONG_SUM:,}"
    return tuple(
        f"{group}, {long if kernel.k > _LONG_SUM else 'shorter sums'}" if "product" in kernel.kind else group
        for kernel, group in zip(block.kernels, block.groups, strict=True)
    )
