"""What may go wrong while measuring: a case that does not run, and a device that is gone."""

from __future__ import annotations

from pararev_hw.errors import first_line


class DeviceLost(Exception):
    """The device no longer answers: nothing more can be measured on it."""


_GONE = ("cuda error", "device-side assert", "unspecified launch failure", "device lost", "nvml")
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def failure(error: Exception) -> str | None:
    """Why a case was missed, in a few words; None where the device itself is gone."""
    first = first_line(error, 160)
    text = first.lower()
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return "out of memory"
    if any(words in text for words in _GONE):
        return None
    return f"{type(error).__name__}: {first}"


def reason_missed(error: Exception) -> str:
    """Why a case was missed, in a few words. Raises DeviceLost where the device itself is gone."""
    reason = failure(error)
    if reason is None:
        raise DeviceLost(str(error).splitlines()[0]) from error
    return reason
