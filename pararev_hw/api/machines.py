"""Devices by name, and this machine: measured, and predictions held against it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pararev_hw.atomic import write_file
from pararev_hw.devices.profiles import profile_to_json
from pararev_hw.keywords import exact, positive
from pararev_hw.progress import Progress, silent
from pararev_hw.types import BlockGraph, Device, Hardware, MeasuredDevice, Profile, Validation


def cache_folder() -> Path | None:
    """Where this machine's measurements are kept; None where the user has no home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "pararev-hw"
    except RuntimeError:
        return None


@exact
def load_device(name: str | Path, *, cache: str | Path | None = None, progress: Progress = silent) -> Hardware:
    """A device by its name or file, or a calibrated profile by its file.

    Args:
        name: A name of `ph.devices()`, a `.yaml` or `.json` device file, or a profile that `ph.calibrate` made. "cpu"
            is this machine: measured in a few seconds, or read from the cache.
        cache: The folder that keeps this machine's measurements. None: the user's cache folder.
        progress: Called with a line for each thing that takes time.

    Returns:
        A `Device`, or a `Profile` where the file holds one.

    Raises:
        BadInput: There is no such device, or its file is wrong.

    Example:
        >>> import pararev_hw as ph
        >>> ph.load_device("h200").lanes
        2
        >>> ph.load_device("h20")
        Traceback (most recent call last):
        pararev_hw.errors.UnknownName: no device is called 'h20': did you mean h200?
    """
    from pararev_hw.pipeline import find_device

    return find_device(str(name), cache=cache_folder() if cache is None else Path(cache), progress=progress)


def hardware_of(device: str | Path | Hardware, progress: Progress = silent, lanes: int | None = None) -> Hardware:
    """The device itself, or the one of that name or file; "cpu" with so many lanes."""
    if isinstance(device, Device | Profile | MeasuredDevice):
        return device
    from pararev_hw.pipeline import find_device

    return find_device(str(device), lanes=lanes or 1, cache=cache_folder(), progress=progress)


@exact
def measure(
    graph: BlockGraph,
    device: str | Path | Hardware = "cpu",
    *,
    cache: str | Path | None = None,
    seconds: float = 10.0,
    progress: Progress = silent,
) -> MeasuredDevice:
    """This machine's CPU with the times of the graph's own operations, replayed here.

    Args:
        graph: What `ph.trace` gave in this process.
        device: What predicts the rest: "cpu", or a profile of this machine.
        cache: A folder that keeps the times for the next call. None: nothing is kept.
        seconds: About how long to measure.
        progress: Called with a line for each thing that takes time.

    Returns:
        A device, for `ph.schedule` and `ph.report`.

    Raises:
        BadInput: The graph holds no program, or the device is not this machine's.

    Example:
        >>> import pararev_hw as ph
        >>> import torch
        >>> graph = ph.trace(torch.nn.Linear(8, 8), torch.rand(4, 8), device="cpu")
        >>> device = ph.measure(graph, seconds=1)
        >>> ph.schedule(graph, device, "sequential").predict().latency_s > 0
        True
    """
    from pararev_hw.execution.measured_device import measured_device

    positive("seconds", seconds)
    folder = None if cache is None else Path(cache)
    return measured_device(graph, hardware_of(device, progress), folder=folder, seconds=seconds, progress=progress)


@exact
def calibrate(
    device: Literal["cpu", "cuda"] = "cpu",
    *,
    minutes: float = 5.0,
    output: str | Path | None = None,
    progress: Progress = silent,
) -> Profile:
    """Measure this machine and fit a profile, which can be used wherever a device is expected.

    Args:
        device: What is measured: "cpu" or "cuda".
        minutes: Minutes to measure for at most. An interruption (Ctrl-C) keeps what there is.
        output: The profile's file; `ph.load_device` reads it.
        progress: Called with a line for each thing that is measured.

    Returns:
        The profile. Its `missing` says what was not measured, and why.

    Raises:
        BadInput: The device is not here, or the time is too short.

    Example:
        >>> import pararev_hw as ph
        >>> ph.calibrate("gpu")
        Traceback (most recent call last):
        pararev_hw.errors.BadInput: device is 'gpu': a calibration runs on one of cpu, cuda
    """
    from pararev_hw import calibration

    profile, _ = calibration.calibrate(device, minutes, progress=progress)
    if output is not None:
        write_file(output, profile_to_json(profile))
    return profile


@exact
def validate(
    profile: str | Path | Profile,
    *,
    suite: Literal["quick", "full"] = "quick",
    minutes: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Validation:
    """Compare a profile's predictions with measured steps of networks that it was not fitted on.

    Args:
        profile: A profile, or the file of one. It must be of this machine.
        suite: "quick" (3 minutes on a CPU) or "full".
        minutes: Start no new case after so many minutes.
        seed: Of weights and data.
        progress: Called with a line for each case.

    Returns:
        Every case, and the accuracy of latency, memory and energy.

    Raises:
        BadInput: The profile is of another device, or its file is wrong.

    Example:
        >>> import pararev_hw as ph
        >>> ph.validate("no-such-profile.json")
        Traceback (most recent call last):
        pararev_hw.errors.BadFile: no-such-profile.json: cannot be read: No such file or directory
    """
    from pararev_hw import validation
    from pararev_hw.pipeline import find_profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler, which records memory, else talks on stderr
    fitted = profile if isinstance(profile, Profile) else find_profile(profile)
    return validation.validate(fitted, suite, minutes=minutes, seed=seed, progress=progress)
