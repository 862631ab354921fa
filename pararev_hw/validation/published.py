"""Predictions beside the steps that others measured and published: timm's and torchvision's tables, by the devices of
this package as they stand.

A folder holds tables (see docs/validation-published.md); one that is missing is named and left out, as is a network
that cannot be traced here. Host b of torchvision's tables and the like are the hosts `published-b` of this package.
"""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pararev_hw.devices import load_device, load_host, with_host
from pararev_hw.errors import BadFile, BadInput, MissingDependency, PararevError, first_line, unknown_name
from pararev_hw.progress import Progress, Steps, silent
from pararev_hw.types import Accuracy, BlockGraph, Device
from pararev_hw.validation.published_networks import (
    cached,
    eager_seconds,
    timm_step,
    torchvision_step,
    workload_of,
)
from pararev_hw.validation.statistics import accuracy

TIMM_TABLE = "timm-train-amp-{layout}-rtx3090.csv"
TORCHVISION_TABLE = "torchvision-batch12.csv"
_MISSING = "not in the folder"
TORCHVISION_CARDS: Mapping[str, tuple[str, str]] = {
    "results/GeForce_RTX_2080_Ti": ("rtx2080ti", "published-a"),
    "2080TI/GeForce_RTX_2080_Ti": ("rtx2080ti", "published-b"),
    "TITANXP/TITAN_Xp": ("titan-xp", "published-c"),
    **{
        f"1080TI/{dtype}_model_{mode}_benchmark.csv": ("gtx1080ti", "published-d")
        for dtype in ("single", "half")
        for mode in ("training", "inference")
    },
}


@dataclass(frozen=True, slots=True)
class PublishedStep:
    """A step that others measured. `group`: the card, what was run, the datatype and the layout."""

    network: str
    group: str
    device: str
    host: str
    published_s: float
    copied_bytes: int
    trace: Callable[[], BlockGraph]
    folder: str  # of its trace, below the folder of all traces
    key: str

    @property
    def family(self) -> str:
        """What networks of one kind have in common in their names."""
        return family(self.network)


@dataclass(frozen=True, slots=True)
class PublishedCase:
    """A prediction beside a published step."""

    network: str
    family: str
    group: str
    predicted_s: float
    published_s: float

    @property
    def error(self) -> float:
        """Predicted over published, less one."""
        return self.predicted_s / self.published_s - 1


@dataclass(frozen=True, slots=True)
class PublishedValidation:
    """All cases, and what was left out, with the reason."""

    cases: tuple[PublishedCase, ...]
    left_out: tuple[str, ...]

    def accuracy_by(self, key: Callable[[PublishedCase], str]) -> Mapping[str, Accuracy]:
        """The accuracy of the cases of each key, in the order of the cases."""
        pairs: dict[str, list[tuple[float, float]]] = {}
        for case in self.cases:
            pairs.setdefault(key(case), []).append((case.predicted_s, case.published_s))
        return {name: a for name, ps in pairs.items() if (a := accuracy(ps)) is not None}


def family(name: str) -> str:
    """The family of a network by its name: what stands before sizes and variants."""
    plain = re.sub(r"^(tf|ssl|swsl|gluon|legacy|ig)_", "", name)
    word = re.match(r"[a-z]+", plain)
    stem = word.group(0).rstrip("_") if word else plain
    same = {"deit": "vit", "resnext": "resnet", "wide": "resnet", "seresnext": "seresnet", "ecaresnext": "ecaresnet"}
    return same.get(stem, stem)


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table, compressed or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        yield from csv.DictReader(file)


def validate_published(
    data: Path,
    *,
    traces: Path | None = None,
    networks: Sequence[str] = (),
    minutes: float | None = None,
    progress: Progress = silent,
) -> PublishedValidation:
    """Predict the published steps of a folder of tables, or those of `networks` alone.

    Args:
        data: Folder of the tables.
        traces: Folder that keeps traces from one run to the next; None traces each network.
        networks: Names of the networks; none: all, in an order that any part of is a fair sample.
        minutes: Start no new network after so long.
        progress: Told what is being done.

    Raises:
        BadInput: The folder is none, holds no table, or nothing could be predicted.
        UnknownName: A network that no table holds.
    """
    if not data.is_dir():
        raise BadInput(f"{data}: not a folder: give the folder of the published tables")
    steps, left_out = _steps(data)
    if not steps:
        raise BadInput(f"{data} holds no step of the tables {', '.join(_tables())}{_because(left_out)}")
    names = sorted({s.network for s in steps})
    for name in networks:
        if name not in names:
            raise unknown_name("published network", name, names)
    selected_steps = [s for s in steps if not networks or s.network in networks]
    cases, untraced = _predicted(_shuffled(selected_steps), traces, minutes, progress)
    left_out += untraced
    if not cases:
        raise BadInput(f"nothing to compare: {left_out[-1]}")
    return PublishedValidation(tuple(sorted(cases, key=lambda c: (c.group, c.network))), tuple(left_out))


def _shuffled(steps: Iterable[PublishedStep]) -> list[PublishedStep]:
    """The same order in every run, in which names and sizes come mixed."""
    return sorted(steps, key=lambda s: hashlib.md5(f"{s.network} {s.group}".encode()).hexdigest())


def _predicted(
    steps: Sequence[PublishedStep], traces: Path | None, minutes: float | None, progress: Progress
) -> tuple[list[PublishedCase], list[str]]:
    """The cases, and a line for each network left out, or for all those of a package that is not there."""
    cases: list[PublishedCase] = []
    left_out: dict[str, list[str]] = {}
    began, pace = time.monotonic(), Steps(progress, len(steps))
    for k, step in enumerate(steps):
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            left_out[f"no time: {minutes:g} minutes were over"] = [s.network for s in steps[k:]]
            break
        pace.begin(step.network)
        try:
            predicted = _seconds(step, traces)
        except (MissingDependency, BadFile) as problem:
            left_out.setdefault(str(problem), []).append(step.network)
        except (PararevError, RuntimeError, AttributeError) as problem:  # a network that this release does not have
            left_out.setdefault(first_line(problem), []).append(step.network)
        else:
            cases.append(PublishedCase(step.network, step.family, step.group, predicted, step.published_s))
    return cases, [_counted(reason, sorted(set(names))) for reason, names in left_out.items()]


def _counted(reason: str, names: Sequence[str]) -> str:
    listed = ", ".join(names) if len(names) <= 3 else f"{len(names)} networks ({', '.join(names[:2])}, ...)"
    return f"{listed}: {reason}"


def _seconds(step: PublishedStep, traces: Path | None) -> float:
    work = workload_of(step.trace()) if traces is None else cached(traces / step.folder, step.key, step.trace)
    host = load_host(step.host)
    return eager_seconds(work, _on_host(step.device, step.host)) + step.copied_bytes / host.copy_bytes_per_s


@functools.cache
def _on_host(device: str, host: str) -> Device:
    return with_host(load_device(device), load_host(host))


def _tables() -> Mapping[str, Callable[[Path], Iterator[PublishedStep]]]:
    """The tables by their names, and what reads each."""
    return {
        TIMM_TABLE.format(layout="nchw"): lambda path: _timm_steps(path, "nchw"),
        TIMM_TABLE.format(layout="nhwc"): lambda path: _timm_steps(path, "nhwc"),
        TORCHVISION_TABLE: _torchvision_steps,
    }


def _because(problems: Sequence[str]) -> str:
    """What is wrong with those that are there."""
    present = [problem for problem in problems if not problem.endswith(_MISSING)]
    return f": {'; '.join(present)}" if present else ""


def _steps(data: Path) -> tuple[list[PublishedStep], list[str]]:
    """The steps of all tables that can be read, and a line for each other table."""
    steps: list[PublishedStep] = []
    left_out: list[str] = []
    for name, read in _tables().items():
        path = data / name
        if not path.is_file():
            left_out.append(f"{name}: {_MISSING}")
            continue
        try:
            of_table = list(read(path))
        except KeyError as column:
            left_out.append(f"{name}: not the table that its name says: no column {column}")
        except (ValueError, TypeError, UnicodeDecodeError, csv.Error) as error:
            left_out.append(f"{name}: not the table that its name says: {first_line(error)}")
        else:
            steps += of_table
            if not of_table:
                left_out.append(f"{name}: no row of a card that is known")
    return steps, left_out


def _timm_steps(path: Path, layout: Literal["nchw", "nhwc"]) -> Iterator[PublishedStep]:
    for row in rows_of(path):
        name, batch, size = row["model"], int(row["train_batch_size"]), int(row["train_img_size"])

        def trace(name: str = name, batch: int = batch, size: int = size) -> BlockGraph:
            return timm_step(name, batch, size, channels_last=layout == "nhwc")

        group = f"rtx3090, training, float16 autocast, {layout}"
        seconds = float(row["train_step_time"]) / 1e3
        pace = float(row.get("train_samples_per_sec") or batch / seconds)
        if not 0.5 < seconds * pace / batch < 2:
            raise ValueError(
                f"{name}: a batch of {batch} at train_samples_per_sec {pace:g} takes {1e3 * batch / pace:.4g} ms, not "
                f"train_step_time {row['train_step_time']}"
            )
        yield PublishedStep(name, group, "rtx3090", "published-rtx3090", seconds, 0, trace, f"timm-{layout}", name)


def _torchvision_steps(path: Path) -> Iterator[PublishedStep]:
    for row in rows_of(path):
        if row["gpu"] not in TORCHVISION_CARDS:
            continue
        card, host = TORCHVISION_CARDS[row["gpu"]]
        name, dtype, mode = row["net"], "half" if row["dtype"] == "half" else "float", row["mode"]

        def trace(name: str = name, dtype: str = dtype, mode: str = mode) -> BlockGraph:
            return torchvision_step(name, dtype, mode)

        if mode not in ("train", "infer"):
            raise ValueError(f"{name}: mode is {mode!r}: train or infer")
        word = {"train": "training", "infer": "inference"}[mode]
        group = f"{card} on host {host.removeprefix('published-')}, {word}, {dtype}, nchw"
        copied = (2 if dtype == "half" else 4) * 12 * 3 * 224 * 224
        seconds = float(row["median_ms"]) / 1e3
        yield PublishedStep(name, group, card, host, seconds, copied, trace, "torchvision", f"{name}-{dtype}-{mode}")
