"""What a user names becomes a network and its inputs: a zoo name, `path/to/file.py:factory`, `package.module:factory`,
or an `.onnx` or `.nir` file.

Only a factory that the user names runs as Python. It gives a module, or a module and its inputs; of the options
`batch`, `timesteps`, `num_classes`, `width` and `form` it is handed those that the user set and that it takes.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from pararev_hw import limits, models
from pararev_hw.atomic import real_path
from pararev_hw.documents import read_bytes
from pararev_hw.errors import INTERRUPTS, BadFile, BadInput, PararevError, UnknownName, first_line, unknown_name
from pararev_hw.importers.free_memory import within_free_memory
from pararev_hw.importers.imported import Imported
from pararev_hw.importers.layout import BATCH_NAMES, TIME_NAMES, Axes, Declared, axes_of, declared
from pararev_hw.importers.lazy_layers import give_shapes
from pararev_hw.importers.nir_graph import load_nir
from pararev_hw.measurement.environment import available_bytes
from pararev_hw.models.spec import Spec
from pararev_hw.progress import Progress, silent
from pararev_hw.torch_private import compiler_loaded_when_used, uncompiled
from pararev_hw.trace_options import TraceOptions
from pararev_hw.tracing import StepDescription
from pararev_hw.training.io_forms import InputForm, input_form, takes_tensors

DEFAULT_BATCH = 32  # of the RevSNN reference code
AS_WRITTEN = "torch.compile is left aside: the network is traced, predicted and run as eager PyTorch"
Step = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.optim.Optimizer], Any]
_SYNONYMS = {"batch": BATCH_NAMES, "timesteps": TIME_NAMES}
_GIVEN = ("batch", "timesteps", "num_classes", "width", "form")  # options that a factory may take


@dataclass(frozen=True, slots=True)
class Target:
    """A network to trace. `network` may lie on device "meta"; `realise` makes it with real weights.

    `inputs` are real tensors where `real_inputs` says so, shapes on device "meta" otherwise.
    """

    name: str
    network: nn.Module
    inputs: tuple[torch.Tensor, ...]
    real_inputs: bool
    batch: int
    timesteps: int | None
    event: bool  # [T, B, ...] inputs
    realise: Callable[[], nn.Module]
    assumptions: tuple[str, ...] = ()
    any_batch: bool = True  # whether the network runs with another batch too
    targets: tuple[torch.Tensor, ...] = ()  # what `step` needs beside the inputs
    step: Step | None = None  # the network's own training step; None: forward, loss, backward, update
    axes: Axes | None = None  # of the first input, where they had to be settled
    axes_settled: bool = True  # False: nothing but the traced step can tell which axis is time
    remade: Callable[[], nn.Module] | None = None  # the network once more, from its file as if never run

    def described(self, progress: Progress = silent) -> StepDescription:
        """What its traced step is called, and the axes of its inputs; `progress` hears how far it is, and free memory
        is to hold it."""
        axes = (self.batch, self.timesteps, self.assumptions)
        return StepDescription(self.name, *axes, self.real_inputs, progress, available_bytes())


def resolve(target: str, options: TraceOptions) -> Target:
    """The network that `target` names. Raises UnknownName, BadInput or BadFile in one line."""
    if ":" in target and not target.endswith((".onnx", ".nir")):
        return _from_factory(target, options)
    if target.endswith((".onnx", ".nir")):
        return _with_checked_layout(_from_file(target, options), options)
    if target.endswith(".py"):
        raise BadInput(f"{target}: say which factory in it makes the network, as in {target}:make_net")
    if target.endswith(".json"):
        raise BadInput(f"{target}: is a file, not a network: `schedule` and `report` read a graph that was traced")
    if target.endswith((".pt", ".pth", ".ckpt", ".safetensors", ".bin")):
        raise BadInput(
            f"{target}: weights alone do not say how the network computes: name the factory that builds it, as in "
            "net.py:make (it may load these weights), or export the network to ONNX"
        )
    if target not in models.names():
        raise unknown_name("network", target, models.names())
    return _with_checked_layout(_from_zoo(target, options), options)


def _with_checked_layout(target: Target, options: TraceOptions) -> Target:
    """The target, where a layout that was asked for is the one it has."""
    layout = "TB" if target.event else "B"
    if options.layout not in (None, layout):
        raise BadInput(f"{target.name}: its input is {layout}, not {options.layout}: leave --layout out")
    return target


def _from_zoo(name: str, options: TraceOptions) -> Target:
    spec = models.spec(name)
    arguments = {k: v for k in ("num_classes", "timesteps", "width", "form") if (v := getattr(options, k)) is not None}
    sample = spec.input_shape if options.input_shape is None else options.input_shape
    if len(sample) != len(spec.input_shape):
        takes = {3: "C,H,W such as ", 1: "the number of features, such as ", 0: "whole numbers alone: "}
        raise BadInput(
            f"input shape {sample} has {len(sample)} sizes: {name} takes {takes[len(spec.input_shape)]}"
            f"{spec.input_shape}"
        )
    if sample and sample[0] != spec.input_shape[0]:
        arguments["in_channels"] = sample[0]

    def make() -> nn.Module:
        torch.manual_seed(options.seed)
        return models.create(name, **arguments)

    try:
        with torch.device("meta"), compiler_loaded_when_used():
            network = make()
    except RuntimeError as error:  # torch's word for sizes that no memory could ever hold
        raise BadInput(f"{name} cannot be this large: {_one_line(error)}") from error
    batch = DEFAULT_BATCH if options.batch is None else options.batch
    timesteps = spec.timesteps if options.timesteps is None else options.timesteps
    inputs, targets = models.batch_shapes(spec.layout, batch, timesteps, sample)
    brings_step = getattr(network, "training_step", None) is not None
    return Target(
        name=name,
        network=network,
        inputs=tuple(_shaped(*x) for x in inputs),
        real_inputs=False,
        batch=batch,
        timesteps=timesteps,
        event=spec.event,
        realise=make,
        assumptions=(*_built(spec), *spec.assumptions),
        targets=tuple(_shaped(*y) for y in targets) if brings_step else (),
        step=_own_step if brings_step else None,
    )


def _built(spec: Spec) -> tuple[str, ...]:
    return (f"{spec.name}: blocks per stage {list(spec.blocks)}",) if spec.blocks else ()


def _own_step(model: nn.Module, batch: tuple[torch.Tensor, ...], optimizer: torch.optim.Optimizer) -> Any:
    return model.training_step(batch, optimizer)  # type: ignore[operator]


def _from_file(target: str, options: TraceOptions) -> Target:
    """The network of an `.onnx` or `.nir` file, which fixes its own classes and width."""
    for name in ("num_classes", "width", "form"):
        if getattr(options, name) is not None:
            raise BadInput(f"{target}: the file fixes the network: leave --{name.replace('_', '-')} out")
    try:
        imported = _read_network(target, options)
    except (PararevError, *INTERRUPTS):
        raise
    except Exception as error:  # of a damaged file: its readers raise what they meet
        raise BadFile(f"{target}: is damaged: {type(error).__name__}: {first_line(error)}") from error
    for x in imported.inputs:
        _shaped(tuple(x.shape))
    return Target(
        name=Path(target).name,
        network=imported.network,
        inputs=imported.inputs,
        real_inputs=False,
        batch=imported.batch,
        timesteps=imported.timesteps,
        event=imported.event,
        realise=lambda: imported.network,
        assumptions=imported.assumptions,
        any_batch=target.endswith(".nir"),
    )


def _read_network(target: str, options: TraceOptions) -> Imported:
    if target.endswith(".onnx"):
        from pararev_hw.importers.onnx_graph import load_onnx  # onnx takes long to import, and other targets do without

        return load_onnx(
            target,
            batch=options.batch,
            timesteps=options.timesteps,
            input_shape=options.input_shape,
            default_batch=DEFAULT_BATCH,
        )
    batch = DEFAULT_BATCH if options.batch is None else options.batch
    return load_nir(target, batch=batch, timesteps=options.timesteps, input_shape=options.input_shape)


def _from_factory(target: str, options: TraceOptions) -> Target:
    place, _, attribute = target.rpartition(":")
    if not place or not attribute:
        raise BadInput(f"{target!r}: name a file and a factory in it, as in net.py:make_net")
    with _import_path(place):
        factory = _attribute(_load(place), attribute, target)
        arguments = {k: v for k in _GIVEN if (v := getattr(options, k)) is not None}
        if options.layout is not None and not _takes_any(factory, TIME_NAMES):
            arguments.pop("timesteps", None)  # then it says how long the time axis is

        def make() -> Any:
            torch.manual_seed(options.seed)
            np.random.seed(options.seed % 2**32)
            random.seed(options.seed)
            return _called(factory, _accepted(factory, arguments, target), target)

        product = make()
    network, inputs = (
        (product[0], product[1] if len(product) == 2 else product[1:]) if _with_inputs(product) else (product, None)
    )
    if not isinstance(network, nn.Module):
        raise BadInput(f"{target}: gave {_a(network)}: it must give an nn.Module, or an nn.Module and its inputs")
    form = None if inputs is None else _input_form(inputs, target)
    tensors = None if form is None else form.tensors
    if tensors is not None and options.input_shape is not None:
        raise BadInput(f"{target}: gives its own inputs: leave --input-shape out")
    if tensors is not None and options.batch is not None and not _takes_any(factory, BATCH_NAMES):
        raise BadInput(f"{target}: gives its own inputs and takes no batch: give the factory a parameter `batch`")
    if tensors is None and options.input_shape is None:
        raise BadInput(
            f"{target}: what shape has an input? Give --input-shape (as in 3,32,32, without the batch), or let the "
            "factory give the network and its inputs"
        )
    name = f"{Path(place).stem if place.endswith('.py') else place}:{attribute}"
    built = target_of(network, form, options, name=name, where=target, factory=factory)

    source = sys.modules.get(getattr(factory, "__module__", None) or type(factory).__module__)

    def remade() -> nn.Module:
        _forget_files_around(source)
        return resolve(target, options).network

    return replace(built, remade=remade)


def target_of(
    network: nn.Module,
    form: InputForm | None,
    options: TraceOptions,
    *,
    name: str,
    where: str,
    factory: Any = None,
) -> Target:
    """A network that is there already, with its inputs, or with `options.input_shape` in their place.

    `where` begins every complaint; the arguments of the `factory` may tell batch and time steps.
    """
    network, compiled = uncompiled(network, inside=factory is not None)
    declaration = declared(network, factory, {"batch": options.batch, "timesteps": options.timesteps})
    tensors = None if form is None else form.tensors
    real = tensors is not None and all(t.device.type != "meta" for t in tensors)
    if tensors is None:
        tensors = (_shaped(_batched(options, declaration, where), _computed_in(network)),)
    if tensors[0].dim() == 0 or 0 in tensors[0].shape[:2]:
        raise BadInput(f"{where}: its first input has shape {tuple(tensors[0].shape)}: it needs a batch of at least 1")
    if form is not None:
        network = takes_tensors(network, form)
    give_shapes(network, tensors, where)
    axes = axes_of(network, tuple(tensors[0].shape), options.layout, declaration)
    return Target(
        name=name,
        network=network,
        inputs=tensors,
        real_inputs=real,
        batch=_batch(tensors, options, where) if axes is None else axes.batch,
        timesteps=declaration.timesteps if axes is None else axes.timesteps,
        event=axes is not None and axes.layout == "TB",
        realise=lambda: network,
        assumptions=(*_axes_said(axes), *((AS_WRITTEN,) if compiled else ())),
        axes=axes,
        axes_settled=axes is not None,
    )


def _axes_said(axes: Axes | None) -> tuple[str, ...]:
    """How the axes were settled, where there is time and it was not the user who said so."""
    return () if axes is None or axes.timesteps is None or axes.because == "--layout" else (axes.sentence,)


def _batched(options: TraceOptions, declaration: Declared, target: str) -> tuple[int, ...]:
    """The shape of an input of which the user gave one sample's."""
    assert options.input_shape is not None
    batch = declaration.batch or DEFAULT_BATCH
    layout = options.layout or declaration.layout or "B"
    if layout == "B":
        return (batch, *options.input_shape)
    if declaration.timesteps is None:
        raise BadInput(f"{target}: layout {layout} has a time axis: give --timesteps T")
    sizes = {"T": declaration.timesteps, "B": batch}
    return (*(sizes[axis] for axis in layout), *options.input_shape)


def _batch(tensors: Sequence[torch.Tensor], options: TraceOptions, where: str) -> int:
    """The user's batch, which images must have as one of their first axes, alone or times the time steps."""
    shape, batch = tuple(tensors[0].shape), options.batch
    if batch is None:
        return int(shape[0])
    if len(shape) in (4, 5) and batch not in shape[:2] and shape[0] % batch:
        raise BadInput(
            f"{where}: batch is {batch}, but its first input has shape {shape}: give inputs of that batch, or leave "
            "the batch out"
        )
    return batch


def _computed_in(network: nn.Module) -> torch.dtype:
    """The datatype that all of its floating parameters have, as after `.half()`; else single precision."""
    dtypes = {p.dtype for p in network.parameters() if p.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def _shaped(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = 1
    for n in shape:
        count *= n
    if count > limits.INPUT_ELEMENTS:
        raise BadInput(f"an input of shape {shape} has {count} elements: more than any device holds")
    return torch.empty(shape, dtype=dtype, device="meta")


def _with_inputs(product: object) -> bool:
    """Whether a factory gave a network and what its forward takes."""
    return isinstance(product, tuple) and len(product) > 1 and isinstance(product[0], nn.Module)


def _input_form(inputs: Any, target: str) -> InputForm:
    if not isinstance(inputs, torch.Tensor | Mapping | list | tuple) and not is_dataclass(inputs):
        raise BadInput(f"{target}: its inputs must be a tensor or a tuple of tensors, not {_a(inputs)}")
    try:
        return input_form(inputs)
    except BadInput as error:
        raise BadInput(f"{target}: {error}") from error


@contextmanager
def _import_path(place: str) -> Iterator[None]:
    """The user's folder and the current one first on the path, as `python file.py` would have them."""
    before = list(sys.path)
    folder = str(real_path(Path(place)).parent) if place.endswith(".py") else str(Path.cwd())
    sys.path[:0] = [folder, str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before


def _load(place: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            if not all(part.isidentifier() for part in place.split(".")):
                raise BadInput(f"{place!r} is no .py file and no importable name: give net.py:make or package.net:make")
            return importlib.import_module(place)
        path = Path(place)
        if not os.path.lexists(path):
            raise BadFile(f"{place}: there is no such file")
        read_bytes(path, limits.SOURCE_BYTES, "a network is a few KiB of Python")
        _forget_namesakes(real_path(path).parent)
        name_in_use = path.stem in sys.modules or path.stem in sys.stdlib_module_names
        spec = importlib.util.spec_from_file_location(f"{path.stem}_target" if name_in_use else path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickled classes look their module up here
        spec.loader.exec_module(module)
        return module
    except (PararevError, *INTERRUPTS):
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise UnknownName(
                f"no module is called {place!r}: give a file (net.py:make) or an importable name"
            ) from error
        raise BadInput(f"{place}: {_one_line(error)}") from error
    except BaseException as error:
        # a user's module may raise anything while it is imported
        raise BadInput(f"{place}: {_one_line(error)}") from error


def _forget_namesakes(folder: Path) -> None:
    """Drop modules of other folders whose names this one has too: `old/net.py:f` and `new/net.py:f` may both import
    a `blocks` of their own."""
    names_here = {p.stem for p in folder.iterdir() if p.suffix == ".py" or p.is_dir()} - {"pararev_hw", "__main__"}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        if file is None or top not in names_here or top in sys.stdlib_module_names or "site-packages" in file:
            continue
        if folder not in Path(file).resolve().parents:
            del sys.modules[name]


def _forget_files_around(module: ModuleType | None) -> None:
    """Drop the user's modules that lie beside or below this one, or in its package: the next import runs them as if
    never run."""
    file = getattr(module, "__file__", None)
    if module is None or file is None or "site-packages" in file:
        return
    package = module.__name__.partition(".")[0]
    folder = Path(file).resolve().parent
    for name, other in list(sys.modules.items()):
        place = getattr(other, "__file__", None)
        if place is None or "site-packages" in place or name.partition(".")[0] in ("__main__", "pararev_hw"):
            continue
        if name.partition(".")[0] == package or folder in Path(place).resolve().parents:
            del sys.modules[name]


def _a(value: object) -> str:
    name = type(value).__name__
    return "nothing (None)" if value is None else f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def _one_line(error: BaseException) -> str:
    """The error in one line, with the user's line that raised it."""
    where = ""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<") and Path(name).resolve() != Path(__file__).resolve():
            where = f" ({Path(name).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}{where}: {first_line(error)}"


def _attribute(module: ModuleType, name: str, target: str) -> Any:
    if not hasattr(module, name):
        callables = {n: v for n, v in vars(module).items() if callable(v) and not n.startswith("_")}
        defined_here = [n for n, v in callables.items() if not _imported(v, module)]
        factories = defined_here or list(callables)
        raise unknown_name(f"factory in {target.rpartition(':')[0]}", name, factories)
    return getattr(module, name)


def _imported(value: object, module: ModuleType) -> bool:
    """Whether the module has the function or class from another one."""
    return (inspect.isroutine(value) or inspect.isclass(value)) and value.__module__ != module.__name__


def _takes(factory: Any, name: str) -> bool:
    """Whether the factory has a parameter of that name, or takes any."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built-in callables may have no signature
        return False
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _takes_any(factory: Any, names: Sequence[str]) -> bool:
    return any(_takes(factory, name) for name in names)


def _accepted(factory: Any, arguments: Mapping[str, Any], target: str) -> dict[str, Any]:
    """The options by the names of the factory's parameters. One that was set and is not taken is refused, `batch`
    excepted."""
    names = {k: next((n for n in _SYNONYMS.get(k, (k,)) if _takes_by_name(factory, n)), k) for k in arguments}
    refused = [k for k in arguments if k != "batch" and not _takes(factory, names[k])]
    if refused:
        raise BadInput(f"{target}: takes no {refused[0]}: give the factory a parameter `{refused[0]}`")
    return {names[k]: v for k, v in arguments.items() if _takes(factory, names[k])}


def _takes_by_name(factory: Any, name: str) -> bool:
    try:
        return name in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built-in callables may have no signature
        return False


def _called(factory: Any, arguments: Mapping[str, Any], target: str) -> Any:
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise BadInput(f"{target}: is {_a(factory)}, not a factory or a network")
    try:
        with within_free_memory(target):
            return factory(**arguments)
    except (PararevError, *INTERRUPTS):
        raise
    except BaseException as error:
        # a user's factory may raise anything
        raise BadInput(f"{target}: {_one_line(error)}") from error
