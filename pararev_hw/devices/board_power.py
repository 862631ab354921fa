"""What a GPU's board draws: idle power, what kernels draw above it, and never more than the board lets it.

    joules(kernel) = share x (board limit - idle power) x filled seconds(kernel)
    watts(step)    = (draw^-e + limit^-e)^(-1/e)         draw = idle power + joules of all kernels / seconds of the step

A kernel's filled seconds are those of its arithmetic or traffic at the sustained rate, whichever is longer: published
powers of four cards and four networks are explained by that alone, whether arithmetic or memory binds. Launches,
latencies and multiprocessors that idle draw nothing. Near the limit clocks fall, which the exponent smooths.
"""

from __future__ import annotations

from collections.abc import Mapping

from pararev_hw.types import Device

_NEEDED = ("board_power_w", "static_power_w", "filled_power_share", "power_limit_exponent")


def has_board_power(device: Device) -> bool:
    """Whether a device says what its board may draw and what of that its kernels take."""
    return all(name in device.parameters for name in _NEEDED)


def kernel_watts(device: Device) -> float:
    """Power above idle while a kernel runs at its sustained rate."""
    return device.value("filled_power_share") * (device.value("board_power_w") - device.value("static_power_w"))


def held_below(draw_w: float, limit_w: float, exponent: float) -> float:
    """A draw as a board with that limit lets it be."""
    return float((draw_w**-exponent + limit_w**-exponent) ** (-1 / exponent))


def share_of_draw(device: Device, parts_j: Mapping[str, float], seconds: float) -> float:
    """By how much the parts of a step's energy but the static one shrink since the board holds its power."""
    static = device.value("static_power_w") * seconds
    dynamic = sum(j for part, j in parts_j.items() if part not in ("static", "total"))
    if dynamic <= 0 or seconds <= 0:
        return 1.0
    watts = held_below(
        (static + dynamic) / seconds, device.value("board_power_w"), device.value("power_limit_exponent")
    )
    return max(0.0, watts * seconds - static) / dynamic
