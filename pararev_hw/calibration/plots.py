"""Pictures of a calibration: residuals by kind of op, and the measured curves."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pararev_hw.atomic import write_files
from pararev_hw.calibration.residuals import held_out_errors
from pararev_hw.costmodels.calibrated.features import family
from pararev_hw.types import Profile


def write_plots(profile: Profile, folder: Path) -> tuple[Path, ...]:
    """`residuals.svg` and `curves.svg` in `folder`."""
    return write_files(folder, {"residuals.svg": _svg(residuals(profile)), "curves.svg": _svg(curves(profile))})


def residuals(profile: Profile) -> Figure:
    """Predicted over measured time of every held-out shape, by kind, against the measured time."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for s, error in held_out_errors(profile):
        if not s.cold:
            points[family(s.op)].append((s.median_s, 1.0 + error))
    for kind, kind_points in sorted(points.items()):
        axes.scatter([p[0] for p in kind_points], [p[1] for p in kind_points], s=10, label=kind)
    axes.axhspan(0.9, 1.1, alpha=0.15, color="gray", label="within 10 %")
    axes.set(xscale="log", yscale="log", xlabel="measured, s", ylabel="predicted / measured", title="held-out shapes")
    axes.legend(fontsize=7, ncols=2)
    return figure


def curves(profile: Profile) -> Figure:
    """Rates by size, as measured."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in sorted(profile.curves.items()):
        axes = left if name.startswith("copy") else right
        axes.plot([p[0] for p in curve], [p[1] for p in curve], marker=".", label=name)
    left.set(xscale="log", yscale="log", xlabel="working set, bytes", ylabel="bytes/s")
    right.set(xscale="log", yscale="log", xlabel="matrix side", ylabel="flop/s")
    for axes in (left, right):
        if axes.has_data():
            axes.legend(fontsize=7)
    return figure


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text)
    return text.getvalue()
