"""How far predictions are from measurements: shares of one, over pairs (predicted, measured)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from pararev_hw.types import Accuracy


def accuracy(pairs: Sequence[tuple[float, float]]) -> Accuracy | None:
    """Mean and largest absolute relative error, the share of pairs within 10 %, and how well the ranking is predicted.

    Pairs are (predicted, measured), measured > 0. None where there is no pair.
    """
    if not pairs:
        return None
    errors = [abs(predicted / measured - 1.0) for predicted, measured in pairs]
    return Accuracy(
        cases=len(pairs),
        mape=math.fsum(errors) / len(errors),
        max=max(errors),
        within_10pct=sum(e <= 0.1 for e in errors) / len(errors),
        kendall_tau=kendall_tau(pairs),
    )


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b between the two orders (Kendall 1945): 1 for the same ranking, -1 for the reversed one.

    None where all predictions or all measurements are equal: then nothing is ranked.
    """
    predicted, measured = (tuple(column) for column in zip(*pairs, strict=True))
    if len(set(predicted)) < 2 or len(set(measured)) < 2:
        return None
    return float(stats.kendalltau(predicted, measured).statistic)


def fitted_constant(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The constant c of y = c x that halves the relative errors evenly: the median of y / x. None without x > 0."""
    ratios = sorted(y / x for x, y in pairs if x > 0)
    return None if not ratios else ratios[len(ratios) // 2]
