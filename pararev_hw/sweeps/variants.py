"""Networks that a sweep compares: every combination of network, mode and what changes the graph is traced once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pararev_hw import graph as graphs
from pararev_hw.defaults import default_optimizer
from pararev_hw.errors import BadInput, Infeasible
from pararev_hw.progress import Progress
from pararev_hw.sweeps.spec import Sweep
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import BlockGraph

if TYPE_CHECKING:
    from pararev_hw.importers.targets import Target

FAMILIES = {"parallel": "pararevsnn", "reversible": "revsresnet", "store": "pararevsnn"}


@dataclass(frozen=True, slots=True)
class Variant:
    """A network as it is traced. None: as the network itself has it."""

    network: str
    mode: str
    batch: int | None = None
    timesteps: int | None = None
    depth: int | None = None
    width: float | None = None
    coupling: str | None = None
    form: str | None = None
    rate: float | None = None  # of spikes, at every layer that reads them

    @property
    def title(self) -> str:
        options = [
            f"{k} {getattr(self, k)}" for k in ("batch", "timesteps", "depth", "width", "coupling", "form", "rate")
        ]
        set_options = [o for o in options if not o.endswith(" None")]
        return ", ".join((f"{self.network} {self.mode}", *set_options))


def graph_of(variant: Variant, sweep: Sweep, progress: Progress) -> BlockGraph:
    """The variant's step, traced for the sweep's device.

    `coupling` "parallel" is ParaRevSNN, "reversible" RevSNN with as many pairs, "store" ParaRevSNN that keeps its
    activations. Raises Infeasible for a combination that no network has, BadInput for a value that none has.
    """
    options = TraceOptions(batch=variant.batch or sweep.batch, timesteps=variant.timesteps, width=variant.width)
    plain = variant.coupling is None and variant.depth is None and variant.form is None
    target = _plain(located(variant.network, sweep.folder), options) if plain else _chosen(variant, options)
    return _traced(target, variant, sweep, progress)


def networks_of(sweep: Sweep) -> tuple[str, ...]:
    """The networks that a sweep compares, files by their paths."""
    return tuple(located(str(name), sweep.folder) for name in sweep.space.parameters[0].values)


def located(network: str, folder: Path) -> str:
    """The network's name with the path of its file, where that lies beside the sweep file."""
    place, colon, factory = network.rpartition(":") if network.rpartition(":")[0].endswith(".py") else (network, "", "")
    file = folder / place
    return f"{file}{colon}{factory}" if file.suffix in (".py", ".onnx", ".nir") and file.is_file() else network


def _plain(network: str, options: TraceOptions) -> Target:
    from pararev_hw.importers.targets import resolve

    return resolve(network, options)


def _chosen(variant: Variant, options: TraceOptions) -> Target:
    """The member of the network's family with that depth, coupling and form."""
    import torch

    from pararev_hw import models
    from pararev_hw.importers.targets import resolve
    from pararev_hw.torch_private import compiler_loaded_when_used

    if variant.network not in models.names():
        raise BadInput(f"{variant.network}: depth, coupling and form belong to networks of the zoo")
    spec = models.spec(variant.network)
    if spec.family not in FAMILIES.values():
        raise BadInput(f"{variant.network}: depth, coupling and form are varied of ParaRevSNN and RevSNN networks")
    blocks, depth = spec.blocks, variant.depth
    if depth is not None:
        specs = [models.spec(n) for n in models.names()]
        kin = {s.depth: s for s in specs if s.family == "pararevsnn" and s.event == spec.event}
        if depth not in kin:
            raise BadInput(f"network.depth is {depth}: known: {', '.join(map(str, sorted(kin)))}")
        blocks = kin[depth].blocks
    family = spec.family if variant.coupling is None else FAMILIES[variant.coupling]
    if variant.form not in (None, "unfused") and family != "pararevsnn":
        raise Infeasible(f"no {variant.form} form: coupling reversible has none")
    member = _member(family, len(blocks), spec.event)
    arguments: dict[str, Any] = {"blocks": blocks, "store": variant.coupling == "store"}
    if variant.form is not None:
        arguments["form"] = variant.form
    if options.width is not None:
        arguments["width"] = options.width
    if options.timesteps is not None:
        arguments["timesteps"] = options.timesteps
    target = resolve(member, options)

    def make() -> torch.nn.Module:
        torch.manual_seed(options.seed)
        return models.create(member, **arguments)

    with torch.device("meta"), compiler_loaded_when_used():
        network = make()
    assumptions = tuple(a for a in target.assumptions if "pairs per stage" not in a and "blocks per stage" not in a)
    notes = (f"{variant.network}: pairs per stage {list(blocks)}", *assumptions)
    return replace(target, name=variant.network, network=network, realise=make, assumptions=notes)


def _member(family: str, stages: int, event: bool) -> str:
    from pararev_hw import models

    specs = (models.spec(n) for n in models.names())
    return next(s.name for s in specs if s.family == family and len(s.blocks) == stages and s.event == event)


def _traced(target: Target, variant: Variant, sweep: Sweep, progress: Progress) -> BlockGraph:
    from pararev_hw import target_graph
    from pararev_hw.tracing import optimizer_named, trace_step
    from pararev_hw.training.step import Loop

    progress(f"tracing {variant.title}")
    brings_step = target.step is not None and variant.mode == "train"
    traced = trace_step(
        target.network,
        (*target.inputs, *target.targets) if brings_step else target.inputs,
        loop=Loop(
            optimizer=optimizer_named(default_optimizer(sweep.device.kind)), step=target.step if brings_step else None
        )
        if variant.mode == "train"
        else None,
        description=target.described(progress),
    )
    spikes = sweep.spikes if variant.rate is None else repr(variant.rate)
    return target_graph.with_spikes(traced.graph, target, spikes, progress)


def with_rate(graph: BlockGraph, rate: float | None) -> BlockGraph:
    """The graph at that firing rate; None: as it is."""
    return graph if rate is None else graphs.attach(graph, graphs.assumed(graph, rate))
