"""Predictions beside published steps: `python benchmarks/validate_published.py --data ../shared/gpu -o out/`.

Fits on some families of networks and judges on the others, beside three baselines that see the same networks: one rate
for all flops; three numbers (flops, bytes written, parameters); and non-negative sums of flops and bytes by kind of
kernel. Prints errors per network, by family, datatype and layout, and writes `published.json` and a scatter plot.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from fit_published_gpus import Problem, fit, read_blocks, scores
from published_kinds import far_off, lines
from published_tables import Block
from scipy.optimize import nnls
from scipy.stats import kendalltau

from pararev_hw.devices.gpu_law import MATRIX_CLASSES


def baselines(block: Block) -> dict[str, np.ndarray]:
    """Predicted seconds of each sample by simpler fits to the held-in ones, least squares on the relative error."""
    kinds = sorted({kernel.kind for kernel in block.kernels})
    flops = np.array([w.flops for w in block.workloads])
    moved = np.array([sum(k.bytes * c for k, c in zip(w.kernels, w.counts, strict=True)) for w in block.workloads])
    parameters = np.array([w.parameters for w in block.workloads], float)
    launches = np.array([w.counts.sum() for w in block.workloads])
    sums = np.zeros((len(block.workloads), len(kinds)))
    for i, w in enumerate(block.workloads):
        for kernel, count in zip(w.kernels, w.counts, strict=True):
            amount = kernel.flops if kernel.kind in MATRIX_CLASSES else kernel.bytes
            sums[i, kinds.index(kernel.kind)] += amount * count
    return {
        "flops x constant": _fitted(block, flops[:, None]),
        "three numbers": _fitted(block, np.column_stack((flops, moved, parameters))),
        "sums by kind of kernel": _fitted(block, np.column_stack((sums, launches))),
    }


def _fitted(block: Block, amounts: np.ndarray) -> np.ndarray:
    fit_in = ~block.held_out
    scale = np.maximum(amounts.max(axis=0), 1e-30)
    relative = amounts / scale / block.measured[:, None]
    weights, _ = nnls(relative[fit_in], np.ones(fit_in.sum()))
    return np.maximum((amounts / scale) @ weights, 1e-9)


def summary(block: Block, predicted: np.ndarray, which: np.ndarray) -> dict[str, float]:
    error = np.abs(predicted / block.measured - 1)[which]
    tau = kendalltau(predicted[which], block.measured[which]).statistic if which.sum() > 1 else float("nan")
    return {
        "n": int(which.sum()),
        "mape": float(error.mean()),
        "median": float(np.median(error)),
        "within_10pct": float((error <= 0.1).mean()),
        "within_20pct": float((error <= 0.2).mean()),
        "within_25pct": float((error <= 0.25).mean()),
        "kendall_tau": float(tau),
    }


def line(name: str, s: dict[str, float]) -> str:
    return (
        f"  {name:26s} n {s['n']:4d}  MAPE {100 * s['mape']:5.1f} %  median {100 * s['median']:5.1f} %  "
        f"within 10/20/25 % {100 * s['within_10pct']:3.0f}/{100 * s['within_20pct']:3.0f}/"
        f"{100 * s['within_25pct']:3.0f} %  tau {s['kendall_tau']:.3f}"
    )


def plot(blocks: list[Block], predicted: list[np.ndarray], path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    columns, rows = 2, math.ceil(len(blocks) / 2)
    figure = Figure(figsize=(5.5 * columns, 4.5 * rows))
    for k, (b, p) in enumerate(zip(blocks, predicted, strict=True)):
        axes = figure.add_subplot(rows, columns, k + 1)
        low, high = 1e3 * min(b.measured.min(), p.min()), 1e3 * max(b.measured.max(), p.max())
        axes.fill_between(
            [low, high], [0.8 * low, 0.8 * high], [1.2 * low, 1.2 * high], color="0.92", label="within 20 %"
        )
        for word, which, colour in (("fitted", ~b.held_out, "0.6"), ("unseen families", b.held_out, "tab:blue")):
            axes.plot(1e3 * b.measured[which], 1e3 * p[which], ".", color=colour, label=word, markersize=4)
        axes.set(xscale="log", yscale="log", xlabel="published, ms", ylabel="predicted, ms", title=b.name)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter("{x:g}")
        axes.title.set_fontsize(9)
        axes.legend(loc="upper left", frameon=False)
    figure.tight_layout()
    with mpl.rc_context({"svg.hashsalt": "published"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the published tables")
    parser.add_argument("--traces", type=Path, default=Path("published-traces"), help="where traces are kept")
    parser.add_argument("--evaluations", type=int, default=16)
    parser.add_argument("--networks", action="store_true", help="print every network")
    parser.add_argument("--output", "-o", type=Path, default=None, help="folder for published.json and published.svg")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"error: {options.data}: not a folder: give the folder of the published tables")
    problem = Problem(read_blocks(options.data, options.traces, per_op=60))
    x = fit(problem, problem.start, options.evaluations, print)
    of_blocks = zip(range(len(problem.blocks)), problem.blocks, problem.predicted(x), strict=True)
    indexed = [(k, b, p) for k, b, p in of_blocks if b.workloads]
    document = []
    for k, b, predicted in indexed:
        print(f"\n{b.name}")
        of_all = {"this model": predicted} | baselines(b)
        for word, which in (("fitted families", ~b.held_out), ("unseen families", b.held_out)):
            if which.any():
                print(f" {word}")
                for name, values in of_all.items():
                    print(line(name, summary(b, values, which)))
        by_family: dict[str, list[float]] = defaultdict(list)
        for group, e, held in zip(b.groups, predicted / b.measured - 1, b.held_out, strict=True):
            if held:
                by_family[group].append(e)
        for group, errors in sorted(by_family.items(), key=lambda item: -len(item[1])):
            print(f"  {group:20s} {scores(np.array(errors))}")
        print(" what carries the error", *lines(problem, k, x), *far_off(problem, k, x), sep="\n  ")
        if options.networks:
            for tag, p, m, held in zip(b.tags, predicted, b.measured, b.held_out, strict=True):
                mark = "unseen" if held else ""
                print(
                    f"    {tag:44s} {1e3 * p:9.2f} ms  published {1e3 * m:9.2f} ms  {100 * (p / m - 1):+6.1f} % {mark}"
                )
        document.append(
            {
                "name": b.name,
                "unseen": {name: summary(b, values, b.held_out) for name, values in of_all.items()},
                "fitted": {name: summary(b, values, ~b.held_out) for name, values in of_all.items()},
                "networks": [
                    {"name": tag, "predicted_s": float(p), "published_s": float(m), "unseen": bool(held)}
                    for tag, p, m, held in zip(b.tags, predicted, b.measured, b.held_out, strict=True)
                ],
            }
        )
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "published.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        shown = [(b, p) for _, b, p in indexed if "timm" in b.name or "rtx2080ti on host a" in b.name]
        plot([b for b, _ in shown], [p for _, p in shown], options.output / "published.svg")
        print(f"wrote {options.output / 'published.json'} and published.svg")


if __name__ == "__main__":
    main()
