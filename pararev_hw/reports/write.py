"""The files of a report."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

from pararev_hw import limits
from pararev_hw.atomic import write_files
from pararev_hw.progress import Progress, Steps, silent
from pararev_hw.reports.against import SideBySide
from pararev_hw.reports.document import dump, report_document
from pararev_hw.reports.layers import layers_csv
from pararev_hw.reports.page import drawn, report_html
from pararev_hw.reports.perfetto import trace_json
from pararev_hw.reports.replay_script import NAME as RUN_SCRIPT
from pararev_hw.types import Study

TRACE, ZIPPED_TRACE = "trace.perfetto.json", "trace.perfetto.json.gz"
TRACE_COMPRESSION = 6  # of 9


def write_report(
    study: Study,
    folder: Path,
    script: str | None = None,
    against: SideBySide | None = None,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Writes report.html, report.json, gantt.svg, front.svg, memory.svg, graph.svg,
    layers.csv and trace.perfetto.json into `folder`; the trace of many tasks is compressed, trace.perfetto.json.gz.

    `script` is the text of run_schedule.py (see `run_script`), which is written too where it is given. The page shows
    the study beside another report where `against` is given.
    Gives their paths in that order. Raises BadFile where they cannot be written; then no file of the folder changed
    and no temporary file is left.
    """
    steps = Steps(progress, 4)
    steps.begin("drawing the report's pictures")
    pictures = drawn(study)
    compressed = len(study.graph.tasks) > limits.MANY_TASKS
    steps.begin("writing the report's trace")
    trace = trace_json(study)
    steps.begin("writing report.json")
    document = dump(report_document(study))
    steps.begin("writing report.html")
    contents: dict[str, str | bytes] = {
        "report.html": report_html(study, script, against, pictures),
        "report.json": document,
        "gantt.svg": pictures["gantt"][0],
        "front.svg": pictures["front"][0],
        "memory.svg": pictures["memory"][0],
        "graph.svg": pictures["graph"][0],
        "layers.csv": layers_csv(study.layers),
        **({ZIPPED_TRACE: gzip.compress(trace.encode(), TRACE_COMPRESSION, mtime=0)} if compressed else {TRACE: trace}),
        **({} if script is None else {RUN_SCRIPT: script}),
    }
    paths = write_files(Path(folder), contents)
    with contextlib.suppress(OSError):  # the other form, of a report that was here before, would show that one
        Path(folder, TRACE if compressed else ZIPPED_TRACE).unlink(missing_ok=True)
    return paths
