"""The options that verbs have in common, and what their values mean."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Literal, cast, get_type_hints

import typer

from pararev_hw import limits
from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.sizes import parsed_bytes
from pararev_hw.trace_options import TraceOptions

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


def checked_mode(mode: str) -> Literal["train", "infer"]:
    if mode not in ("train", "infer"):
        raise unknown_name("mode", mode, ("train", "infer"))
    return cast(Literal["train", "infer"], mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSizes:
    """What every verb that builds a network takes."""

    batch: BatchOpt = None
    timesteps: StepsOpt = None
    mode: ModeOpt = "train"
    dtype: DtypeOpt = "float32"
    input_shape: ShapeOpt = None
    num_classes: ClassesOpt = None
    width: WidthOpt = None
    form: FormOpt = None
    seed: SeedOpt = 0

    def parsed(self) -> TraceOptions:
        """Raises BadInput, UnknownName."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"input_shape": parsed_shape(self.input_shape), "blocks": values.get("blocks") or ()}
        return TraceOptions(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions(NetworkSizes):
    """What a network and its step are like."""

    layout: LayoutOpt = None
    optimizer: OptimizerOpt = None
    accumulate: AccumulateOpt = 1
    zero_grad: ZeroGradOpt = "none"
    channels_last: ChannelsLastOpt = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions(NetworkOptions):
    """And how the step is told in tasks, and its spikes."""

    granularity: GranularityOpt = "auto"
    blocks: BlocksOpt = None
    spikes: SpikesOpt = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOptions:
    """How a device is used."""

    host: HostOpt = None
    lanes: LanesOpt = None
    chips: ChipsOpt = None
    learning_rule: RuleOpt = None
    launch: LaunchOpt = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionOptions:
    """What a prediction is made from, and the memory that it may need."""

    memory_limit: MemoryLimitOpt = None
    measure: MeasureOpt = False
    energy_model: EnergyModelOpt = "device"

    def __post_init__(self) -> None:
        parsed_limit(self.memory_limit)  # refused before torch is loaded

    @property
    def limit(self) -> int | None:
        """The memory limit in bytes. Raises BadInput."""
        return parsed_limit(self.memory_limit)


_context: ContextVar[typer.Context] = ContextVar("context")  # of the verb that runs


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb as Typer reads it: in the place of each parameter that is a group of options, the options."""
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, type] = {
        name: group for name, group in hints.items() if isinstance(group, type) and is_dataclass(group)
    }
    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    for name, parameter in inspect.signature(verb).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name]))
            continue
        types = get_type_hints(groups[name], include_extras=True)
        parameters += (
            inspect.Parameter(f.name, parameter.KEYWORD_ONLY, default=f.default, annotation=types[f.name])
            for f in fields(groups[name])
        )

    @functools.wraps(verb)
    def ungrouped(context: typer.Context, **values: object) -> None:
        _context.set(context)
        options_by_group = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        verb(**values, **options_by_group)

    ungrouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    ungrouped.__annotations__ = {p.name: p.annotation for p in parameters}
    return ungrouped


def option_given(names: Iterable[str]) -> str | None:
    """The first of these options that the user wrote, as it is written."""
    context = _context.get()
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            return f"--{name.replace('_', '-')}"
    return None
