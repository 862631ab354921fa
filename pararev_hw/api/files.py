"""Every result as a file, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from pararev_hw import limits
from pararev_hw.api.studies import SweepRun
from pararev_hw.atomic import write_file
from pararev_hw.devices import device_from_json, device_to_json, is_profile, profile_from_json, profile_to_json
from pararev_hw.documents import parse_json, read_text, shown
from pararev_hw.errors import BadFile
from pararev_hw.graph.files import dumps, from_document, is_block_graph
from pararev_hw.graph.files import load as graph_in
from pararev_hw.keywords import exact
from pararev_hw.pipeline import Plan, applicable_profile
from pararev_hw.reports.sweep import SWEEP_FILE, is_sweep, sweep_from_document
from pararev_hw.reports.validation import is_validation, validation_from_document
from pararev_hw.schedulers.document import is_schedule, schedule_from_document
from pararev_hw.types import (
    Alternative,
    BlockGraph,
    Comparison,
    CriticalPath,
    Device,
    MeasuredDevice,
    PaperCheck,
    Prediction,
    Profile,
    Schedule,
    SchedulingProblem,
    Study,
    SweepResult,
    Validation,
)
from pararev_hw.types.codec import from_json, to_json

Result = (
    BlockGraph
    | Plan
    | Schedule
    | Prediction
    | Study
    | Comparison
    | SweepResult
    | Device
    | Profile
    | MeasuredDevice
    | Validation
    | PaperCheck
    | SchedulingProblem
    | Alternative
    | CriticalPath
)
NOUNS: dict[str, type[Result]] = {noun.__name__: noun for noun in get_args(Result)}
_WHAT_CAN_BE_READ = (
    "holds no result that can be read back: ph.save, trace, schedule, calibrate, validate and sweep write such; "
    "the JSON of report, compare, capacity and execute is for scripts"
)
# what verbs write in keys chosen by hand
WRITTEN_BY_VERBS: tuple[tuple[Callable[[object], bool], Callable[[Any, str], Result]], ...] = (
    (is_schedule, schedule_from_document),
    (is_validation, validation_from_document),
    (is_sweep, sweep_from_document),
)


@exact
def save(result: Result, path: str | Path) -> Path:
    """Write a graph, plan, schedule, prediction, study, sweep result, validation, profile, device or task graph.

    Args:
        result: What a function of the package gave. Of a sweep it is `run.result`: its folder holds the rows; of a
            report it is `written.study`.
        path: The file, in JSON. It is replaced as a whole or not at all.

    Returns:
        The path.

    Raises:
        BadInput: It is nothing that can be saved, or the file cannot be written.

    Example:
        >>> import pararev_hw as ph
        >>> import os, tempfile
        >>> plan = ph.schedule(ph.trace("pararevsnn21", width=0.1, batch=1), "edge8")
        >>> path = ph.save(plan, os.path.join(tempfile.mkdtemp(), "plan.json"))
        >>> ph.load(path).predict() == plan.predict()
        True
    """
    if isinstance(result, BlockGraph):
        text = dumps(result)  # what `pararev-hw trace` writes
    elif isinstance(result, Profile):
        text = profile_to_json(result)
    elif isinstance(result, Device):
        text = device_to_json(result)
    else:
        text = to_json(result) + "\n"
    write_file(path, text)
    return Path(path)


@exact
def load(path: str | Path) -> Result | SweepRun:
    """What `ph.save` or the command line wrote into a file: a graph, profile, device or any other result.

    Args:
        path: The file, or a sweep's folder.

    Returns:
        The result, equal to the one that was saved; of a sweep's folder without what only its pictures show. A
        graph's program stays behind: trace the network again to run it.

    Raises:
        BadInput: There is no such file, or it holds none of them.

    Example:
        >>> import pararev_hw as ph
        >>> ph.load("none.json")
        Traceback (most recent call last):
        pararev_hw.errors.BadFile: none.json: cannot be read: No such file or directory
    """
    folder = Path(path)
    if folder.is_dir():
        result = load(folder / SWEEP_FILE)
        if not isinstance(result, SweepResult):
            raise BadFile(f"{folder / SWEEP_FILE}: holds no sweep's results: name the folder that `sweep` wrote")
        return SweepRun(result, folder)
    where = str(path)
    text = read_text(Path(path), limits.GRAPH_FILE_BYTES, "a result is JSON")
    document = parse_json(text, where)
    if is_block_graph(document):
        return from_document(document, where)
    if is_profile(document):
        return applicable_profile(profile_from_json(text, where))
    if isinstance(document, dict) and {"noun", "fields"} <= document.keys():
        if document["noun"] not in tuple(NOUNS):
            raise BadFile(f"{where}: holds a {shown(document['noun'])}, which this release does not know")
        return from_json(text, NOUNS[document["noun"]], where)
    for recognises, read in WRITTEN_BY_VERBS:
        if recognises(document):
            return read(document, where)
    if isinstance(document, dict) and {"kind", "lanes"} <= document.keys():
        return device_from_json(text, where)
    raise BadFile(f"{where}: {_WHAT_CAN_BE_READ}")


@exact
def load_graph(path: str | Path) -> BlockGraph:
    """The graph in a file that `graph.save` or `pararev-hw trace` wrote.

    Args:
        path: The file.

    Returns:
        The graph, equal to the one that was saved.

    Raises:
        BadInput: There is no such file, or it holds no graph.

    Example:
        >>> import pararev_hw as ph
        >>> import os, tempfile
        >>> graph = ph.trace("pararevsnn21", width=0.1, batch=1)
        >>> path = os.path.join(tempfile.mkdtemp(), "graph.json")
        >>> graph.save(path)
        >>> ph.load_graph(path) == graph
        True
    """
    return graph_in(Path(path))
