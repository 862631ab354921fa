"""Numbers for people: three significant digits and the unit that suits them. Only reports leave SI."""

from __future__ import annotations

import math
from collections.abc import Iterable

UNKNOWN = "not known"

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
_JOULES = ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ"), (1e-12, "pJ"))
_SMALL = ((1e-3, " m"), (1e-6, " µ"), (1e-9, " n"), (1e-12, " p"))
_COUNTS = ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, ""))


def digits(value: float, significant: int = 3) -> str:
    """So many significant digits, without an exponent: 0.0213, 1.40, 21.3, 1430."""
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    rounded = float(f"{value:.{significant - 1}e}")
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{decimals}f}"


def _with_unit(
    value: float | None, units: tuple[tuple[float, str], ...], space: str = " ", significant: int = 3
) -> str:
    if value is None or not math.isfinite(value):
        return UNKNOWN
    # What rounds up to 1000 of a unit is shown as 1 of the next: 999.7 µs is 1.00 ms.
    rounded = max(abs(value), abs(float(f"{value:.2e}")))
    size, name = next((u for u in units if rounded >= u[0]), units[-1])
    if value == 0:
        size, name = next(u for u in units if u[0] == 1)
    return f"{digits(value / size, significant)}{space}{name}".rstrip()


def seconds(value: float | None) -> str:
    """A duration: "21.3 ms"."""
    return _with_unit(value, _SECONDS)


def size(value: float | None, significant: int = 3) -> str:
    """An amount of memory: "1.90 GiB"."""
    return _with_unit(value, _BYTES, significant=significant)


def digits_apart(limit: float, above: Iterable[float]) -> int:
    """The significant digits, three or more, with which each size `above` a limit reads as more than the limit."""
    values = [value for value in above if value > limit]
    return next((k for k in range(3, 9) if size(limit, k) not in {size(value, k) for value in values}), 9)


def joules(value: float | None) -> str:
    """An energy: "310 mJ"."""
    return _with_unit(value, _JOULES)


def count(value: float | None) -> str:
    """A number of things: "412", "2.37 G"."""
    return str(int(value)) if value is not None and 0 <= value < 1000 else _with_unit(value, _COUNTS, "")


def prefixed(value: float) -> str:
    """A quantity before its unit, with the prefix of the unit: "3.12", "68.0 G", "18.7 n"."""
    return _with_unit(value, _COUNTS + _SMALL, "")


def times(value: float) -> str:
    """A ratio: "1.43x"."""
    return f"{digits(value)}x"


def percent(value: float) -> str:
    """A share of one: "8.0 %", "0.32 %"."""
    if not math.isfinite(value):
        return UNKNOWN
    share = 100 * value
    return f"{share:.0f} %" if abs(share) >= 9.95 or share == 0 else f"{share:#.2g} %"


def scale(largest: float, kind: str) -> tuple[float, str]:
    """The unit for an axis that reaches `largest`: its size in SI and its name. `kind` is "s", "B" or "J"."""
    units = {"s": _SECONDS, "B": _BYTES, "J": _JOULES}[kind]
    return next((u for u in units if largest >= u[0]), units[-1])


def ticks(largest: float, about: int) -> tuple[float, ...]:
    """Round steps (1, 2 or 5 times a power of ten) from 0 up to `largest`, `about` as many as asked for."""
    if not (largest > 0 and math.isfinite(largest)):
        return (0.0,)
    raw = largest / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    return tuple(k * step for k in range(math.floor(largest / step * (1 + 1e-9)) + 1))


def labels(marks: tuple[float, ...]) -> tuple[str, ...]:
    """Evenly spaced ticks as text, all with the decimals that their step needs."""
    step = marks[1] - marks[0] if len(marks) > 1 else marks[0] if marks else 0.0
    decimals = next((d for d in range(10) if abs(round(step, d) - step) <= 1e-6 * abs(step)), 10)
    return tuple(f"{mark:.{decimals}f}" for mark in marks)
