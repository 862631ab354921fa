"""Bytes of each datatype, and sizes and numbers as people write them: `800MiB`, `1.5 GiB`, plain bytes, "1 lane"."""

from __future__ import annotations

import re

from pararev_hw.errors import BadInput

UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{prefix}iB": 1 << 10 * k for k, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": 1000**k for k, prefix in enumerate(("k", "M", "G", "T"), 1)},
    "KB": 1000,
}
FLOAT_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
HALVES = ("bfloat16", "float16")  # what autocast lowers to
_ITEM_BYTES = FLOAT_BYTES | {"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}
_SIZE = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([A-Za-z]*)\s*", re.IGNORECASE)


def item_bytes(dtype: str) -> int:
    """Bytes of one value of a datatype; those of float32 where it is another."""
    return _ITEM_BYTES.get(dtype, 4)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor up to `most` of a positive number."""
    return next(d for d in range(min(most, number), 0, -1) if number % d == 0)


def counted(number: int, noun: str) -> str:
    """So many of them: "1 lane", "4 lanes"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def parsed_bytes(text: str, quantity: str = "size") -> int:
    """The bytes that `text` names; binary (KiB, MiB, GiB, TiB) and decimal (kB, MB, GB, TB) units, none for bytes.

    Raises BadInput, naming the `quantity`.
    """
    parts = _SIZE.fullmatch(text)
    unit = None if parts is None else next((u for u in UNITS if u.lower() == parts[2].lower()), None)
    if parts is None or unit is None:
        raise BadInput(f"{quantity} {text!r}: give bytes or a size with its unit, as in 800MiB, 1.5GiB or 2GB")
    size = float(parts[1]) * UNITS[unit]
    if size < 0:
        raise BadInput(f"{quantity} {text!r}: it must not be negative")
    if not size < 1 << 62:
        raise BadInput(f"{quantity} {text!r}: more than any memory holds")
    return round(size)
