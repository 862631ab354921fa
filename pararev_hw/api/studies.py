"""Reports, comparisons and sweeps: results that show themselves in notebooks and as files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from pararev_hw.api.machines import hardware_of
from pararev_hw.api.plans import Launch, bytes_of, check_lanes
from pararev_hw.errors import BadInput
from pararev_hw.keywords import exact, whole_number
from pararev_hw.progress import Progress, silent
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import BlockGraph, Comparison, Hardware, Study, SweepPoint, SweepResult, Table

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from pararev_hw.recommendation import Search
    from pararev_hw.tracing import Traced


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """A study and the files that show it. In a notebook it shows the page itself."""

    study: Study
    files: tuple[Path, ...]

    def __repr__(self) -> str:
        return f"<Report of {self.study!r} in {self.files[0].parent}>"

    def _repr_html_(self) -> str:
        from pararev_hw import reports

        page = reports.report_html(self.study)
        return f'<iframe srcdoc="{escape(page, quote=True)}" style="width:100%;height:48rem;border:0"></iframe>'


class SearchKeywords(TypedDict, total=False):
    """How a device is used and what is tried on it; None: the default."""

    lanes: int | None
    launch: Launch | None
    memory_limit: int | str | None
    choices: str | None
    energy_model: str | None


@exact
def report(
    target: BlockGraph | nn.Module | str | Path,
    device: str | Path | Hardware,
    folder: str | Path,
    *,
    options: TraceOptions | None = None,
    scheduler: str | None = None,
    progress: Progress = silent,
    **keywords: Unpack[SearchKeywords],
) -> Report:
    """Write the report of a network on a device.

    Args:
        target: A graph, or what `ph.trace` takes.
        device: A name, a file, a `Device` or a `Profile`.
        folder: Where the files go: `report.html`, `report.json`, pictures.
        options: What the step is like, where `target` is not traced yet.
        scheduler: Beside the sequential step, only this one. None: the quick ones and the front of latency and memory.
        lanes: Streams, cores or threads to use.
        launch: On a GPU: "eager" or "graph". None: both.
        memory_limit: What may be alive at once in one of the recommendations: bytes, or a text such as "800MiB". None:
            the memory of the sequential step.
        choices: Which rewrites of the step are tried: "auto", "none", or kinds such as "fuse,split". None: "auto", and
            "none" where a scheduler is named.
        energy_model: "device", or a model of the literature whose energy is told beside the device's: "papers",
            "lemaire2022" or "compute-in-memory".
        progress: Called with a line for each thing that takes time.

    Returns:
        The study, with its recommendations, and its files.

    Raises:
        BadInput: A name or value is wrong, or the folder cannot be written.
        Infeasible: It does not fit the device's memory.

    Example:
        >>> import pararev_hw as ph
        >>> import tempfile
        >>> graph = ph.trace("pararevsnn21", width=0.1, batch=1, timesteps=1)
        >>> written = ph.report(graph, "edge8", tempfile.mkdtemp())
        >>> written.files[0].name, written.study.chosen.latency_s <= written.study.sequential.latency_s
        ('report.html', True)
    """
    from pararev_hw import recommendation, reports
    from pararev_hw.costmodels.energy_models import DEVICE, with_energy_model

    hardware = _hardware_of(device, progress, keywords)
    search = _search(scheduler, keywords)
    study = recommendation.study(_step_of(target, options, hardware, progress), hardware, search, progress)
    study = with_energy_model(study, keywords.get("energy_model") or DEVICE)
    return Report(study, reports.write_report(study, Path(folder)))


def _step_of(
    target: BlockGraph | nn.Module | str | Path, options: TraceOptions | None, device: Hardware, progress: Progress
) -> Traced | BlockGraph:
    """The step with its program, so that it can be rewritten; a graph that nobody traced here goes without."""
    from pararev_hw.api.steps import Origin, traced_step  # loads torch, which a study that is read does without

    if not isinstance(target, BlockGraph):
        trace_options = options or TraceOptions()
        return traced_step(
            target,
            None,
            trace_options if trace_options.device is not None else replace(trace_options, device=device),
            progress,
        )
    graph = _graph_of(target, options, device, progress)
    origin = graph.origin.value
    if not isinstance(origin, Origin):
        return graph
    again = traced_step(origin.model, origin.inputs, origin.options, progress)
    return again if again.graph == graph else graph


@exact
def compare(
    targets: Sequence[BlockGraph | nn.Module | str | Path],
    device: str | Path | Hardware,
    *,
    options: TraceOptions | None = None,
    progress: Progress = silent,
    **keywords: Unpack[SearchKeywords],
) -> Comparison:
    """Several networks on one device, sequential and parallel, each with its front of latency against memory.

    Args:
        targets: Graphs, or what `ph.trace` takes, in the order in which they are shown.
        device: A name, a file, a `Device` or a `Profile`.
        options: What the step is like, of the targets that are not traced yet.
        lanes: Streams, cores or threads to use.
        launch: On a GPU: "eager" or "graph". None: a CUDA graph, where no host hides what the chip could do.
        memory_limit: What may be alive at once in the schedule that is compared: bytes, or a text such as "800MiB".
            None: no limit.
        choices: Which rewrites of the step are tried: "auto", "none", or kinds such as "fuse,split". A graph from a
            file is not rewritten. None: "auto".
        energy_model: "device", or a model of the literature whose energy stands in each study beside the device's.
        progress: Called with a line for each thing that takes time.

    Returns:
        A study for each target, with its recommendations.

    Raises:
        BadInput: A name or value is wrong.
        Infeasible: One of them does not fit the device's memory.

    Example:
        >>> import pararev_hw as ph
        >>> small = ph.TraceOptions(width=0.1, batch=1, timesteps=1)
        >>> both = ph.compare(["revsresnet21", "pararevsnn21"], "edge8", options=small, choices="none")
        >>> [study.graph.model for study in both.studies]
        ['revsresnet21', 'pararevsnn21']
    """
    if isinstance(targets, str) or not isinstance(targets, Sequence) or not targets:
        raise BadInput("compare takes a list of networks, as in ph.compare(['revsresnet21', 'pararevsnn21'], 'h200')")
    from pararev_hw import recommendation
    from pararev_hw.costmodels.energy_models import DEVICE, with_energy_model

    hardware = _hardware_of(device, progress, keywords)
    search = _search(None, keywords)
    steps = (_step_of(t, options, hardware, progress) for t in targets)
    comparison = recommendation.compare_steps(steps, hardware, search, progress)
    energy_model = keywords.get("energy_model") or DEVICE
    return replace(comparison, studies=tuple(with_energy_model(s, energy_model) for s in comparison.studies))


def _hardware_of(device: str | Path | Hardware, progress: Progress, keywords: SearchKeywords) -> Hardware:
    """The device with the lanes that are asked for. Raises BadInput, before anything is measured."""
    from pararev_hw.costmodels.energy_models import DEVICE, check_name
    from pararev_hw.rewrites import select

    check_lanes(keywords.get("lanes"), keywords.get("launch"))
    check_name(keywords.get("energy_model") or DEVICE)
    select.parsed(keywords.get("choices") or "auto")
    return hardware_of(device, progress, keywords.get("lanes"))


def _search(scheduler: str | None, keywords: SearchKeywords) -> Search:
    from pararev_hw.recommendation import Search

    choices = keywords.get("choices") or ("auto" if scheduler is None else "none")
    limit = bytes_of(keywords.get("memory_limit"))
    return Search(scheduler, keywords.get("lanes"), keywords.get("launch"), limit, choices)


def _graph_of(
    target: BlockGraph | nn.Module | str | Path, options: TraceOptions | None, device: Hardware, progress: Progress
) -> BlockGraph:
    from pararev_hw.api.steps import trace

    if not isinstance(target, BlockGraph):
        return trace(target, None, options, device=device, progress=progress)
    if options is not None:
        raise BadInput(f"{target.model}: a graph is traced already: leave options out")
    return target


@dataclass(frozen=True, slots=True, repr=False)
class SweepRun:
    """A finished sweep and the folder that holds all of its rows."""

    result: SweepResult
    folder: Path

    def pareto(self) -> Table[SweepPoint]:
        """The configurations that no other beats in every objective, sorted by the first objective.

        Returns:
            A table with a column for each parameter that varies and for each objective.
        """
        parameters, objectives = (
            tuple(a.name for a in axes) for axes in (self.result.parameters, self.result.objectives)
        )
        cells = tuple(
            (p.row, *(p.parameters.get(n) for n in parameters), *(p.objectives.get(n) for n in objectives))
            for p in self.result.pareto
        )
        title = f"{self.result.name}: {len(cells)} of {self.result.evaluated:,} configurations are on the front"
        return Table(title, self.result.pareto, ("row", *parameters, *objectives), cells)

    def to_pandas(self) -> pd.DataFrame:
        """Every row that was evaluated, as a data frame."""
        import pandas as pd  # heavy, and only asked for here

        return pd.read_parquet(self.folder / "results.parquet")

    def __repr__(self) -> str:
        return f"<SweepRun of {self.result!r} in {self.folder}>"

    def _repr_html_(self) -> str:
        return self.result._repr_html_() + self.pareto()._repr_html_()


@exact
def sweep(
    spec: str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    fresh: bool = False,
    workers: int | None = None,
    cluster: str | None = None,
    compute: Literal["cpu", "cuda"] = "cpu",
    memory_limit: int | str | None = None,
    progress: Progress = silent,
) -> SweepRun:
    """Evaluate many configurations of a device and a network.

    Args:
        spec: A YAML file, or a mapping with the same keys.
        folder: Where the rows go; a sweep that was interrupted goes on from there. None: a new temporary folder.
        fresh: Begin again, whatever the folder holds.
        workers: Processes. None: one per core, one where the sweep is small.
        cluster: A Dask scheduler, as in "tcp://host:8786".
        compute: "cuda": PyTorch evaluates the configurations of an accelerator on a GPU.
        memory_limit: What a step may need at most, where the devices have more: bytes, or a text such as "800MiB".
        progress: Called with a line for each thing that takes time.

    Returns:
        The result: `.pareto()` and `.to_pandas()`.

    Raises:
        BadInput: The file or a value is wrong.
        Infeasible: No configuration is possible.

    Example:
        >>> import pararev_hw as ph
        >>> run = ph.sweep({
        ...     "device": "edge8", "networks": "pararevsnn21", "batch": 1, "spikes": "0.2",
        ...     "parameters": {"network.width": [0.1], "lanes": [1, 2]},
        ...     "derived": {"price": "lanes * 1"}, "objectives": ["latency", "price"],
        ... }, workers=1)
        >>> sorted(run.pareto().to_pandas()["price"].unique().tolist())
        [1.0, 2.0]
    """
    import yaml

    from pararev_hw import sweeps
    from pararev_hw.sweeps.spec import from_yaml

    if workers is not None:
        whole_number("workers", workers, least=1)
    if isinstance(spec, Mapping):
        sweep_spec = from_yaml(yaml.safe_dump(dict(spec)), "the sweep", memory_limit=bytes_of(memory_limit))
    else:
        sweep_spec = sweeps.load(Path(spec), bytes_of(memory_limit))
    place = Path(tempfile.mkdtemp(prefix="pararev-hw-sweep-")) if folder is None else Path(folder)
    result = sweeps.run(
        sweep_spec, place, fresh=fresh, processes=workers, cluster=cluster, compute=compute, progress=progress
    )
    return SweepRun(result, place)
