"""Whether this machine is the one that a profile speaks of: a prediction is only held against its own device."""

from __future__ import annotations

import torch

from pararev_hw.errors import BadInput
from pararev_hw.measurement.environment import environment
from pararev_hw.types import Environment, Profile


def torch_device(profile: Profile) -> str:
    """The torch device to run on: "cpu" or "cuda". Raises BadInput where this machine is not the profile's."""
    measured = profile.environment.device
    if profile.kind == "gpu" and not torch.cuda.is_available():
        raise BadInput(
            f"profile {profile.name!r} was measured on {measured}: this machine has no such device: validate it "
            "where it was measured"
        )
    device = "cuda" if profile.kind == "gpu" else "cpu"
    here = environment(device, profile.environment.threads).device
    if here != measured:
        raise BadInput(
            f"profile {profile.name!r} was measured on {measured}, this machine has {here}: calibrate this one first "
            f"(pararev-hw calibrate --device {device} -o FILE)"
        )
    return device


def here(profile: Profile) -> Environment:
    """Where the validation runs, with as many threads as the profile was measured with."""
    return environment("cuda" if profile.kind == "gpu" else "cpu", profile.environment.threads)


def differences(profile: Profile, now: Environment) -> tuple[str, ...]:
    """What is not as it was when the profile was measured, a line each; it may move the measured times."""
    before = profile.environment
    pairs = (("torch", before.torch, now.torch), ("libraries", before.driver, now.driver))
    return tuple(f"{name}: the profile was measured with {a}, this is {b}" for name, a, b in pairs if a != b)
