"""Board powers that others measured, beside what the cost model's kernels draw.

    python benchmarks/published_power.py --data ../shared/gpu --traces TRACES [--write]

    draw  = idle + share x (filled time over the step's time) x (limit - idle)
    watts = draw held below the limit: (draw^-e + limit^-e)^(-1/e)

A kernel's filled time is that of its arithmetic or traffic at the sustained rate; launches, latencies and idle
multiprocessors draw nothing beyond idle power. Two numbers are fitted for all cards, `share` and the exponent `e`, to
the published averages at every power limit, and judged on each network by a fit to the three others, and on each card
by a fit to the three others. An epoch's time, which holds data loading too, is the published one at the card's highest
limit. The networks are traced as their authors publish them (published_power_networks.py).

Of runs that keep their board busy, how far each limit slows an epoch down tells the voltage floor of
`kernel_time.clocks_within`: speed over that at the highest limit, by power above idle over that at the highest limit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import yaml
from published_power_networks import NETWORKS, power_step, recurrent_kernels
from published_tables import rows_of
from scipy.optimize import least_squares

from pararev_hw.costmodels.gpu.kernel_time import KernelTimes, clocks_within
from pararev_hw.costmodels.gpu.model import card_of, values_of
from pararev_hw.devices import load_device
from pararev_hw.devices.board_power import held_below
from pararev_hw.validation.published_networks import building_networks, cached

FITTED = Path(__file__).parents[1] / "pararev_hw" / "devices" / "fitted" / "gpu_power.yaml"
_BUSY_NETWORK, _BUSY_SHARE = "bert_base_uncased", 0.6  # of the highest limit, at that limit
LEFT_OUT = ("sentiment140",)  # how long its sentences are is not known
_START = (0.9, 8.0)


@dataclass(frozen=True, slots=True)
class Run:
    """A published average, and what the cost model says of the step behind it."""

    card: str
    network: str
    batch: int
    limit_w: float
    watts: float
    idle_w: float
    board_w: float  # the card's highest limit
    filled: float  # share of the step's time


def published_runs(data: Path, traces: Path) -> tuple[Run, ...]:
    rows = [r for r in rows_of(data / "zeus-power.csv") if r["dataset"] not in LEFT_OUT]
    board = {card: max(float(r["power_limit"]) for r in rows if r["gpu"] == card) for card in {r["gpu"] for r in rows}}
    epochs: dict[tuple[str, str, int], list[float]] = {}
    for r in rows:
        if float(r["power_limit"]) == board[r["gpu"]]:
            key = r["gpu"], r["network"], int(r["batch_size"])
            epochs.setdefault(key, []).append(float(r["time_per_epoch"]))
    filled = {key: _filled_share(*key, float(np.median(seconds)), traces) for key, seconds in epochs.items()}
    return tuple(
        Run(
            card=r["gpu"],
            network=r["network"],
            batch=int(r["batch_size"]),
            limit_w=float(r["power_limit"]),
            watts=float(r["average_power"]),
            idle_w=load_device(r["gpu"]).value("static_power_w"),
            board_w=board[r["gpu"]],
            filled=filled[r["gpu"], r["network"], int(r["batch_size"])],
        )
        for r in rows
        if (r["gpu"], r["network"], int(r["batch_size"])) in filled
    )


def _filled_share(card: str, network: str, batch: int, epoch_s: float, traces: Path) -> float:
    work = cached(traces / "power", f"{network}-{batch}", lambda: power_step(network, batch))
    kernels, counts = list(work.kernels), list(work.counts)
    if network == "deepspeech2":
        for kernel, count in recurrent_kernels(batch):
            kernels.append(kernel)
            counts.append(count)
    device = load_device(card)
    times, value = KernelTimes(kernels, card_of(device)), values_of(device)
    busy = float((times.seconds(value) + value["launch_overhead_s"]) @ np.array(counts))
    step = epoch_s * batch / NETWORKS[network].epoch
    # a step that took less time than predicted was as busy as could be
    return float(sum(times.filled_seconds(value)) @ np.array(counts)) / max(busy, step)


def predicted(runs: Sequence[Run], share: float, exponent: float) -> np.ndarray:
    return np.array(
        [held_below(r.idle_w + share * r.filled * (r.board_w - r.idle_w), r.limit_w, exponent) for r in runs]
    )


def fit(runs: Sequence[Run]) -> tuple[float, float]:
    """The share and the exponent, least squares on the relative error."""
    watts = np.array([r.watts for r in runs])

    def residuals(x: np.ndarray) -> np.ndarray:
        return predicted(runs, *np.exp(x)) / watts - 1

    share, exponent = np.exp(least_squares(residuals, np.log(_START), loss="soft_l1", f_scale=0.1).x)
    return float(share), float(exponent)


def unseen_errors(runs: Sequence[Run], group: Callable[[Run], str]) -> Mapping[str, np.ndarray]:
    """Relative errors of each group by a fit to the others."""
    found = {}
    for name in sorted({group(r) for r in runs}):
        share, exponent = fit([r for r in runs if group(r) != name])
        own = [r for r in runs if group(r) == name]
        found[name] = predicted(own, share, exponent) / np.array([r.watts for r in own]) - 1
    return found


def by_filled_time(runs: Sequence[Run]) -> Mapping[str, np.ndarray]:
    """Relative errors, each network by a fit to the others, by how much of the time kernels fill the board."""
    edges = (0.0, 0.1, 0.25, 0.5, 1.01)
    groups: dict[str, list[np.ndarray]] = {}
    for name in sorted({r.network for r in runs}):
        share, exponent = fit([r for r in runs if r.network != name])
        for low, high in pairwise(edges):
            own = [r for r in runs if r.network == name and low <= r.filled < high]
            if own:
                errors = predicted(own, share, exponent) / np.array([r.watts for r in own]) - 1
                groups.setdefault(f"{name}, filled {low:.0%} to {min(high, 1):.0%}", []).append(errors)
    return {name: np.concatenate(errors) for name, errors in groups.items()}


def slowed_runs(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Power above idle, and speed, of busy runs at lower limits over those at the highest."""
    groups: dict[tuple[str, ...], dict[float, list[tuple[float, float]]]] = {}
    for r in rows_of(data / "zeus-power.csv"):
        if r["network"] == _BUSY_NETWORK:
            of_limit = groups.setdefault((r["gpu"], r["dataset"], r["batch_size"]), {})
            figures = float(r["average_power"]), float(r["time_per_epoch"])
            of_limit.setdefault(float(r["power_limit"]), []).append(figures)
    power, speed = [], []
    for (card, *_), of_limit in groups.items():
        idle = load_device(card).value("static_power_w")
        means = {limit: np.mean(figures, axis=0) for limit, figures in of_limit.items()}
        top = max(means)
        if means[top][0] < _BUSY_SHARE * top:
            continue
        for limit, (watts, seconds) in means.items():
            if limit < top:
                power.append((watts - idle) / (means[top][0] - idle))
                speed.append(means[top][1] / seconds)
    return np.array(power), np.array(speed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the published tables")
    parser.add_argument("--traces", type=Path, default=Path("published-traces"), help="where traces are kept")
    parser.add_argument("--write", action="store_true", help=f"write {FITTED.name}")
    options = parser.parse_args()
    if not (options.data / "zeus-power.csv").is_file():
        sys.exit(f"error: {options.data}: has no zeus-power.csv: give the folder of the published tables")
    with building_networks():
        runs = published_runs(options.data, options.traces)
    share, exponent = fit(runs)
    print(f"{len(runs)} runs: share {share:.3f}, exponent {exponent:.1f}")
    for what, group in (("network", lambda r: r.network), ("card", lambda r: r.card)):
        errors = unseen_errors(runs, group)
        for name, e in [*errors.items(), (f"all, each {what} unseen", np.concatenate(list(errors.values())))]:
            size = np.abs(e)
            print(
                f"  {name:26s} n {len(e):4d}  MAPE {100 * size.mean():5.1f} %  median {100 * np.median(size):5.1f} %  "
                f"90 % within {100 * np.quantile(size, 0.9):3.0f} %  bias {100 * e.mean():+.0f} %"
            )
    for name, e in by_filled_time(runs).items():
        size = np.abs(e)
        print(f"  {name:34s} n {len(e):4d}  MAPE {100 * size.mean():5.1f} %  bias {100 * np.median(e):+.0f} %")
    power, speed = slowed_runs(options.data)
    for floor in (0.65, 0.7, 0.75, 0.8, 0.85, 1.0):
        size = np.abs(clocks_within(power, floor) / speed - 1)
        print(f"speed under lower limits, voltage floor {floor:.2f}: n {len(size)}  MAPE {100 * size.mean():.1f} %")
    if options.write:
        whole = np.abs(np.concatenate(list(unseen_errors(runs, lambda r: r.network).values())))
        document = {
            "filled_power_share": float(f"{share:.4g}"),
            "power_limit_exponent": float(f"{exponent:.4g}"),
            "expected_error": float(f"{np.quantile(whole, 0.9):.2g}"),
        }
        FITTED.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        print(f"wrote {FITTED}")


if __name__ == "__main__":
    main()
