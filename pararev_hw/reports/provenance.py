"""Where the figures of a prediction come from, in words.

A GPU without a profile gets its speeds from a law that was fitted to published measurements; what the card itself
sustains of its datasheet's rates was fitted where such measurements were of this card, and taken from others elsewhere.
"""

from __future__ import annotations

from pararev_hw.types import Device, Prediction

_SUSTAINED = {"cuda": "CUDA cores", "tensor": "tensor cores", "bandwidth": "memory bandwidth"}


def standing(prediction: Prediction, device: Device) -> str:
    """A noun and what stands behind it: "datasheet and assumed figures, not calibrated"."""
    if prediction.provenance == "measured":
        return "figures calibrated by measurement"
    kinds = {figure.provenance for figure in device.parameters.values()} | {prediction.provenance}
    speeds = fitted_speeds(device)
    if speeds is not None:
        sharing = device.parameters.get("matrix_elements_per_unit")
        assumed = "; how streams share the card is assumed" if sharing and sharing.provenance == "assumed" else ""
        return f"{speeds}{assumed}{'; calibrated in part' if 'measured' in kinds else ''}"
    names = [name for kind, name in (("published", "datasheet"), ("assumed", "assumed")) if kind in kinds]
    calibrated = "calibrated in part" if "measured" in kinds else "not calibrated"
    return f"{' and '.join(names)} figures, {calibrated}"


def fitted_speeds(device: Device) -> str | None:
    """Of a GPU whose speeds follow the fitted law: which of them were fitted to this card. None: it does not."""
    standings = {
        words: figure.provenance
        for unit, words in _SUSTAINED.items()
        if (figure := device.parameters.get(f"{unit}_sustained_share")) is not None
        and (unit != "tensor" or _has_tensor_cores(device))
    }
    if not standings:
        return None
    fitted = [words for words, provenance in standings.items() if provenance != "assumed"]
    others = [words for words, provenance in standings.items() if provenance == "assumed"]
    if not fitted:
        return "datasheet rates, efficiencies transferred from other cards"
    source = "fitted to published measurements of this card"
    if not others:
        return f"speeds {source}"
    return f"{' and '.join(fitted)} {source}, {' and '.join(others)} as on other cards"


def _has_tensor_cores(device: Device) -> bool:
    """A datasheet gives a rate of matrix products in 16 bits only where tensor cores run them."""
    return any(f"matrix_flops_per_s.{dtype}" in device.parameters for dtype in ("float16", "bfloat16"))
