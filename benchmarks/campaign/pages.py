"""What a campaign's results are used for: the card's profile, a page on predictions, a page on the paper's claim."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.campaign import strangers
from benchmarks.campaign.records import Record, Records
from pararev_hw.devices.profiles import profile_to_json, read_profile
from pararev_hw.reports import units
from pararev_hw.types import Profile
from pararev_hw.validation.predicting import predicted, traced
from pararev_hw.validation.suite import Trial

# What the paper gives (arXiv 2508.01223): its tables of training time at 37 to 165 layers, and its abstract.
PAPER_TABLES = (0.158, 0.179)
PAPER_TRAINING, PAPER_INFERENCE = 0.352, 0.1815


def use(folder: Path, into: Path) -> tuple[Path, ...]:
    """Write profile, pages and plots of the results in `folder` into the tree at `into`; the paths written."""
    records = Records(folder)
    environment = records.of("machine").get("environment")
    if environment is None or "failed" in environment:
        raise SystemExit(f"error: {folder}: holds no campaign: machine.jsonl has no environment")
    card = _slug(str(environment["device"]))
    rehearsal = bool(environment["rehearsal"])
    name = f"rehearsal-{card}" if rehearsal else card
    heading = f"{environment['device']}, {environment['driver']}, torch {environment['torch']}"
    warning = "**A rehearsal at toy size on a CPU: no result of any GPU.**\n\n" if rehearsal else ""
    paths = []
    profile = None
    if (folder / "profile.json").exists():
        profile = read_profile(folder / "profile.json")
        profile = replace(profile, device=replace(profile.device, name=name))  # as `--device` will ask for it
        paths.append(into / "pararev_hw" / "devices" / "profiles" / f"{name}.json")
        _write(paths[-1], profile_to_json(profile))
    figures = into / "docs" / "figures"
    for page, text in (
        (f"speed-{name}.md", _speed_page(records, heading, warning, figures, name)),
        (f"validation-{name}.md", _validation_page(records, heading, warning, profile, figures, name)),
    ):
        paths.append(into / "docs" / page)
        _write(paths[-1], text)
    return (*paths, *sorted(figures.glob(f"*-{name}.svg")))


def _slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _successes(records: Records, part: str) -> list[Record]:
    return [r for r in records.of(part).values() if "failed" not in r]


def _failures(records: Records, parts: Iterable[str]) -> list[str]:
    return [
        f"- {part}, {r['key']}: {r['failed']}" for part in parts for r in records.of(part).values() if "failed" in r
    ]


# ---- the paper's claim


@dataclass(frozen=True, slots=True)
class Reduction:
    """How much less time ParaRevSNN takes than RevSNN, each in its fastest way of those compared; a share of one."""

    depth: int
    batch: int
    mode: str
    neuron: str
    own_loop: float | None  # both as PyTorch's own loop runs them
    on_graph: float | None  # both as CUDA graphs on one stream, and ParaRevSNN in any way
    rev_s: float
    para_s: float
    para_way: str


def reductions(rows: Sequence[Record]) -> tuple[Reduction, ...]:
    """One for each depth, batch, mode and neuron that was compared."""
    compared = []
    for row in rows:
        medians: Mapping[str, float] = row["median_s"]
        rev = {name: s for name, s in medians.items() if name.startswith("rev")}
        para = {name: s for name, s in medians.items() if not name.startswith("rev")}
        if not rev or not para:
            continue
        way = min(para, key=para.__getitem__)
        compared.append(
            Reduction(
                row["depth"],
                row["batch"],
                row["mode"],
                row["neuron"],
                _less(para, rev, "own loop"),
                _less(para, rev, "graph"),
                min(rev.values()),
                para[way],
                way,
            )
        )
    return tuple(sorted(compared, key=lambda r: (r.mode != "train", r.neuron, r.batch, r.depth)))


def _less(para: Mapping[str, float], rev: Mapping[str, float], launch: str) -> float | None:
    ours = [s for name, s in para.items() if launch in name]
    theirs = [s for name, s in rev.items() if launch in name]
    return 1 - min(ours) / min(theirs) if ours and theirs else None


def verdict(rows: Sequence[Reduction]) -> list[str]:
    """Plainly, whether the paper's figures were reached, and what limited them."""
    lines = []
    for mode, figure, claim in (
        ("train", PAPER_TRAINING, "training time reduced by up to 35.2 %"),
        ("infer", PAPER_INFERENCE, "inference time reduced by 18.15 %"),
    ):
        values = [(1 - r.para_s / r.rev_s, r) for r in rows if r.mode == mode]
        if not values:
            lines.append(f"- {claim} (abstract): not measured.")
            continue
        best, at = max(values, key=lambda v: v[0])
        word = "beaten" if best > figure else "reached" if best >= figure - 0.005 else "not reached"
        lines.append(
            f"- {claim} (abstract): **{word}**. The largest reduction is {best:.1%}, at depth {at.depth}, "
            f"batch {at.batch}, {at.para_way}; each network in its fastest way."
        )
    loops = [r.own_loop for r in rows if r.mode == "train" and r.own_loop is not None and r.depth >= 37]
    if loops:
        low, high = min(loops), max(loops)
        word = "within or above" if high >= PAPER_TABLES[0] else "below"
        lines.append(
            f"- 15.8 to 17.9 % at 37 layers and more (tables): both networks in PyTorch's own loop give {low:.1%} to "
            f"{high:.1%}, {word} the paper's."
        )
    return lines


def limits(rows: Sequence[Record]) -> list[str]:
    """What limits each comparison, from its own medians: the host, or what one stream leaves of the card."""
    lines = []
    for row in rows:
        medians: Mapping[str, float] = row["median_s"]

        def fastest(*words: str, of: Mapping[str, float] = medians) -> float | None:
            return min((s for name, s in of.items() if all(w in name for w in words)), default=None)

        loop, graph = fastest("rev,", "own loop"), fastest("rev,", "graph")
        one, two = fastest("para, 1 stream, graph"), fastest("para, 2 streams, graph")
        merged = fastest("merged", "graph")
        if None in (loop, graph, one, two, merged):
            continue
        assert loop and graph and one and two and merged
        lines.append(
            f"- Depth {row['depth']}, batch {row['batch']}, {row['mode']}, {row['neuron']} neuron: RevSNN as a graph "
            f"takes {graph / loop:.2f} of its own loop's time (what is missing waited for the host); of ParaRevSNN as "
            f"a graph, two streams take {two / one:.2f} and the merged form {merged / one:.2f} of one stream's time."
        )
    return lines


def _speed_page(records: Records, heading: str, warning: str, figures: Path, name: str) -> str:
    rows = _successes(records, "paper")
    compared = reductions(rows)
    table = [
        "| mode | neuron | batch | depth | RevSNN, fastest | ParaRevSNN, fastest | way | less time | less, own loops | "
        "less, graphs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    table += [
        f"| {r.mode} | {r.neuron} | {r.batch} | {r.depth} | {units.seconds(r.rev_s)} | {units.seconds(r.para_s)} | "
        f"{r.para_way} | {1 - r.para_s / r.rev_s:.1%} | {_share(r.own_loop)} | {_share(r.on_graph)} |"
        for r in compared
    ]
    every = [
        "| network and way | depth | batch | mode | median | quartiles | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for way, samples in sorted(row["samples_s"].items()):
            ordered = sorted(samples)
            low, high = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
            peak = row["peak_bytes"].get(way)
            every.append(
                f"| {way} | {row['depth']} | {row['batch']} | {row['mode']} | {units.seconds(row['median_s'][way])} | "
                f"{units.seconds(low)} - {units.seconds(high)} | {units.size(peak) if peak else ''} |"
            )
    right = [r for r in _successes(records, "correctness") if "right" in r]
    wrong = [r["key"] for r in right if not r["right"]]
    correct = f"{len(right) - len(wrong)} of {len(right)} checks hold" + (
        f"; wrong: {', '.join(wrong)}" if wrong else "."
    )
    plot = _plot(figures / f"speed-{name}.svg", compared)
    failures = _failures(records, ("machine", "correctness", "paper", "operations", "sanitized"))
    parts = [
        f"# ParaRevSNN against RevSNN: {heading}\n\n{warning}Medians of interleaved steps, T = 4, CIFAR-10 shapes; "
        "the raw samples stand in the campaign's records (`python benchmarks/gpu_campaign.py`).",
        "## Whether the paper's figures were reached\n\n" + "\n".join(verdict(compared)),
        "## What limits them\n\n" + "\n".join(limits(rows)),
        "## Correctness\n\nParallel schedules beside the sequential step and PyTorch's own loop: " + correct,
        "## By depth\n\n" + (f"![Less time by depth](figures/{plot.name})\n\n" if plot else "") + "\n".join(table),
        "## Every way\n\n" + "\n".join(every),
    ]
    if failures:
        parts.append("## What did not run\n\n" + "\n".join(failures))
    return "\n\n".join(parts) + "\n"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _plot(path: Path, rows: Sequence[Reduction]) -> Path | None:
    if not rows:
        return None
    axes, save = _axes()
    for key in sorted({(r.mode, r.batch, r.neuron) for r in rows}):
        chosen = sorted((r.depth, 1 - r.para_s / r.rev_s) for r in rows if (r.mode, r.batch, r.neuron) == key)
        axes.plot(
            [d for d, _ in chosen],
            [100 * v for _, v in chosen],
            marker="o",
            label=f"{key[0]}, batch {key[1]}, {key[2]}",
        )
    axes.axhline(100 * PAPER_TRAINING, linestyle=":", color="gray")
    axes.axhspan(100 * PAPER_TABLES[0], 100 * PAPER_TABLES[1], alpha=0.2, color="gray")
    axes.set_xlabel("layers")
    axes.set_ylabel("less time than RevSNN, %")
    axes.legend(fontsize=8)
    return save(path)


# ---- predictions beside measurements


def _validation_page(
    records: Records, heading: str, warning: str, profile: Profile | None, figures: Path, name: str
) -> str:
    rows = _successes(records, "steps")
    table = [
        "| step | predicted | measured | error | peak, predicted | measured | energy, predicted | measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    pairs: list[tuple[float, float]] = []
    for row in rows:
        trial = _trial(row)
        if profile is None:
            table.append(f"| {trial.name} | no profile | {units.seconds(row['latency_s'])} | | | | | |")
            continue
        step = predicted(traced(trial, profile.kind), profile, trial.launch)
        pairs.append((step.latency_s, row["latency_s"]))
        said, energy = (units.joules(j) if j is not None else "" for j in (step.energy_j, row["energy_j"]))
        table.append(
            f"| {trial.name} | {units.seconds(step.latency_s)} | {units.seconds(row['latency_s'])} | "
            f"{step.latency_s / row['latency_s'] - 1:+.1%} | {units.size(step.peak_bytes)} | "
            f"{units.size(row['peak_bytes'])} | {said} | {energy} |"
        )
    summary = "No step was predicted and measured."
    if pairs:
        errors = [abs(p / m - 1) for p, m in pairs]
        mean = sum(errors) / len(errors)
        summary = f"{len(pairs)} steps that no fit has seen: mean error {mean:.1%}, largest {max(errors):.1%}."
    plot = _scatter(figures / f"validation-{name}.svg", pairs)
    parts = [
        f"# Predictions beside measurements: {heading}\n\n{warning}{summary}",
        (f"![Predicted beside measured](figures/{plot.name})\n\n" if plot else "") + "\n".join(table),
    ]
    silent = Counter(row["no_energy"] for row in rows if row.get("no_energy"))
    if silent:
        parts.append("\n".join(f"Not measured, {reason} ({count} steps)." for reason, count in silent.items()))
    parts.append(
        "## Operations timed alone\n\nEach distinct op of the paper's steps, and what they sum to beside the step "
        "itself as a CUDA graph on one stream.\n\n" + "\n".join(_op_table(records))
    )
    if profile is not None and profile.missing:
        parts.append("## What the profile lacks\n\n" + "\n".join(f"- {line}" for line in profile.missing))
    failures = _failures(records, ("steps", "operations"))
    if failures:
        parts.append("## What did not run\n\n" + "\n".join(failures))
    return "\n\n".join(parts) + "\n"


def _trial(row: Record) -> Trial:
    """The trial of a record; a stranger's network lies where this checkout lies."""
    trial = Trial(**row["trial"])
    stranger = trial.network.rpartition(":")[2]
    return replace(trial, network=strangers.target(stranger)) if stranger in strangers.NAMES else trial


def _op_table(records: Records) -> list[str]:
    steps = {(r["depth"], r["batch"], r["mode"], r["neuron"]): r for r in _successes(records, "paper")}
    table = [
        "| network | depth | batch | mode | neuron | ops, distinct, not timed | their sum | step | sum over step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in _successes(records, "operations"):
        if "sum_s" not in row:
            continue
        step = steps.get((row["depth"], row["batch"], row["mode"], row["neuron"]))
        way = f"{row['family']}, 1 stream, graph, {row['neuron']} neuron"
        whole = None if step is None else step["median_s"].get(way)
        beside = " | |" if whole is None else f" {units.seconds(whole)} | {row['sum_s'] / whole:.2f} |"
        table.append(
            f"| {row['family']} | {row['depth']} | {row['batch']} | {row['mode']} | {row['neuron']} | {row['ops']}, "
            f"{row['distinct']}, {row['missing']} | {units.seconds(row['sum_s'])} |{beside}"
        )
    return table


def _scatter(path: Path, pairs: Sequence[tuple[float, float]]) -> Path | None:
    if not pairs:
        return None
    axes, save = _axes()
    axes.loglog([m for _, m in pairs], [p for p, _ in pairs], "o")
    low, high = min(map(min, pairs)), max(map(max, pairs))
    axes.loglog([low, high], [low, high], color="gray")
    axes.set_xlabel("measured, s")
    axes.set_ylabel("predicted, s")
    return save(path)


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()

    def save(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        return path

    return axes, save
