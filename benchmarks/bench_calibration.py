"""How well a profile predicts held-out shapes by kind of op, and how much each part of the model adds.

    python benchmarks/bench_calibration.py PROFILE.json

For every kind: median error with prices alone, and with what nearby shapes add, |predicted / measured - 1| of the
held-out shapes, run warm. Whole steps of held-out networks are judged by `pararev-hw validate`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from pararev_hw.calibration.residuals import held_out_errors
from pararev_hw.costmodels.calibrated.features import family
from pararev_hw.devices.profiles import read_profile
from pararev_hw.types import Profile


def without_residuals(profile: Profile) -> Profile:
    """The profile with its prices alone."""
    return replace(
        profile,
        fits=tuple(
            replace(f, coefficients={n: e for n, e in f.coefficients.items() if n != "residual_share"})
            for f in profile.fits
        ),
    )


def errors_by_kind(profile: Profile) -> dict[str, list[float]]:
    """|error| of held-out warm samples by kind and datatype."""
    errors: dict[str, list[float]] = defaultdict(list)
    for sample, error in held_out_errors(profile):
        if not sample.cold:
            errors[f"{family(sample.op)} {sample.op.dtype}"].append(abs(error))
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path)
    profile = read_profile(parser.parse_args().profile)
    bare, whole = errors_by_kind(without_residuals(profile)), errors_by_kind(profile)
    print(f"{profile.device.title}, {profile.environment.torch}, {len(profile.samples)} measurements")
    print(f"{'kind':28s} {'shapes':>6s} {'prices':>8s} {'+ nearby':>8s} {'90 %':>8s}")
    for kind in sorted(whole):
        prices, both = np.array(bare[kind]), np.array(whole[kind])
        print(
            f"{kind:28s} {len(both):6d} {np.median(prices):8.1%} {np.median(both):8.1%} {np.quantile(both, 0.9):8.1%}"
        )


if __name__ == "__main__":
    main()
