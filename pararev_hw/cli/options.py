"""The options that verbs have in common, and what their values mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from pararev_hw import limits
from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.sizes import parsed_bytes

TargetArg = Annotated[
    str,
    typer.Argument(metavar="TARGET", help="A zoo name, file.py:factory, package.module:factory, a .onnx or .nir file."),
]
ForOpt = Annotated[
    str,
    typer.Option("--device", "-d", help="Target device. Also decides the optimizer implementation (foreach on a GPU)."),
]
DeviceOpt = Annotated[str, typer.Option("--device", "-d", help="A device name or a device file (.yaml, .json).")]
HostOpt = Annotated[
    str | None,
    typer.Option("--host", help="Host CPU that launches the GPU's kernels: a name or a file (default: the device's)."),
]
BatchOpt = Annotated[int | None, typer.Option("--batch", "-b", help="Samples per step (default 32).")]
StepsOpt = Annotated[int | None, typer.Option("--timesteps", "-T", help="Time steps T.")]
ModeOpt = Annotated[str, typer.Option("--mode", help="train or infer.")]
DtypeOpt = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16 (autocast), float64.")]
ShapeOpt = Annotated[str | None, typer.Option("--input-shape", help="Shape of one sample, such as 3,32,32.")]
ClassesOpt = Annotated[int | None, typer.Option("--num-classes", help="Classes of the zoo network.")]
WidthOpt = Annotated[float | None, typer.Option("--width", help="Scales the zoo network's channels.")]
FormOpt = Annotated[str | None, typer.Option("--form", help="ParaRevSNN only: unfused, fused or merged.")]
SeedOpt = Annotated[int, typer.Option("--seed", help="Seed of the weights.")]
LayoutOpt = Annotated[
    str | None,
    typer.Option("--layout", help="The input's axes: TB (time, batch), BT (batch, time) or B (no time axis)."),
]
GranularityOpt = Annotated[
    str, typer.Option("--granularity", help="What a task is: block, module, op; auto: finer where blocks are few.")
]
BlocksOpt = Annotated[
    list[str] | None, typer.Option("--blocks", help="Pattern of module paths that are blocks; may be repeated.")
]
OptimizerOpt = Annotated[
    str | None, typer.Option("--optimizer", help="sgd, sgd-plain, adam, adamw, sgd-foreach, adamw-foreach.")
]
AccumulateOpt = Annotated[
    int, typer.Option("--accumulate", help="Micro-batches, each of --batch samples, per step of the optimizer.")
]
ZeroGradOpt = Annotated[
    str, typer.Option("--zero-grad", help="none: gradients are freed between steps; zero: set to zero and kept.")
]
ChannelsLastOpt = Annotated[
    bool, typer.Option("--channels-last", help="Images and their weights lie in memory as [B, H, W, C].")
]
SpikesOpt = Annotated[
    str, typer.Option("--spikes", help="auto, digits, none, a firing rate such as 0.15, or a .npy file of inputs.")
]
SchedulerOpt = Annotated[str | None, typer.Option("--scheduler", "-s", help="See `pararev-hw schedulers`.")]
LanesOpt = Annotated[int | None, typer.Option("--lanes", max=limits.LANES, help="Streams, cores or threads to use.")]
ChipsOpt = Annotated[int | None, typer.Option("--chips", help="Neuromorphic chips side by side.")]
RuleOpt = Annotated[
    str | None,
    typer.Option("--learning-rule", help="What changes weights in a training step on a neuromorphic chip: stdp."),
]
LaunchOpt = Annotated[str | None, typer.Option("--launch", help="On a GPU: eager, or graph (a CUDA graph).")]
ChoicesOpt = Annotated[
    str,
    typer.Option(
        "--choices",
        help="none, auto (what makes the step shortest), or kinds to take wherever they apply: "
        "share,fuse,split,store, and ahead or wait.",
    ),
]
SearchChoicesOpt = Annotated[
    str | None,
    typer.Option(
        "--choices",
        help="Rewrites of the step: auto (tried, and taken where they pay; the default unless --scheduler is named), "
        "none, or kinds to take wherever they apply: share,fuse,split,store, and ahead or wait.",
    ),
]
EnergyModelOpt = Annotated[
    str,
    typer.Option(
        "--energy-model",
        help="device (its own figures), or a model of the literature beside it: papers, lemaire2022, "
        "compute-in-memory.",
    ),
]
MemoryLimitOpt = Annotated[
    str | None,
    typer.Option("--memory-limit", metavar="SIZE", help="Memory limit, such as 800MiB or 1.5GB."),
]
MeasureOpt = Annotated[
    bool,
    typer.Option("--measure", help="With --device cpu: time the network's own operations on this machine first."),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="The whole result as one JSON document on standard output.")]


# Parameters of `trace` that say what the step is: a file that holds a traced step cannot obey them.
STEP_OPTIONS = (
    *("batch", "timesteps", "mode", "dtype", "input_shape", "num_classes", "width", "form", "seed"),
    *("layout", "granularity", "blocks", "optimizer", "accumulate", "zero_grad", "channels_last", "spikes", "choices"),
)


def parsed_shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise BadInput(f"--input-shape {text!r}: sizes must be integers, as in 3,32,32") from None


def parsed_limit(text: str | None) -> int | None:
    return None if text is None else parsed_bytes(text, "--memory-limit")


def checked_mode(mode: str) -> Any:
    if mode not in ("train", "infer"):
        raise unknown_name("mode", mode, ("train", "infer"))
    return mode


def checked_zero_grad(way: str) -> Any:
    if way not in ("none", "zero"):
        raise unknown_name("way to zero gradients", way, ("none", "zero"))
    return way


def step_options(context: typer.Context) -> dict[str, Any]:
    """What the verb's options say of the step, as `target_graph.build_graph` takes it. Raises BadInput, UnknownName."""
    how: Mapping[str, Callable[[Any], Any]] = {
        "mode": checked_mode,
        "input_shape": parsed_shape,
        "zero_grad": checked_zero_grad,
        "blocks": lambda patterns: tuple(patterns or ()),
    }
    values = {name: context.params[name] for name in STEP_OPTIONS if name in context.params and name != "choices"}
    return {name: how[name](value) if name in how else value for name, value in values.items()}


def option_given(context: typer.Context, names: Iterable[str]) -> str | None:
    """The first of these options that the user wrote, as it is written."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            return f"--{name.replace('_', '-')}"
    return None
