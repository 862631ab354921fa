"""The recipes of docs/how-to/other-frameworks.md trace: files always, frameworks where they are installed."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from pararev_hw.target_graph import build_graph
from pararev_hw.trace_options import TraceOptions

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"


def test_exported_files_trace_with_any_batch(tmp_path: Path) -> None:
    export = runpy.run_path(str(RECIPES / "export_files.py"))
    export["write_onnx"](str(tmp_path / "net.onnx"))
    export["write_nir"](str(tmp_path / "net.nir"))
    image = build_graph(str(tmp_path / "net.onnx"), TraceOptions(batch=3, spikes="none"))
    # 8 filters of 3 x 3 x 3 on 32 x 32 places, and 10 classes of 8 features
    assert sum(t.macs for t in image.tasks if t.phase == "forward") == 3 * (8 * 27 * 1024 + 80)
    events = build_graph(str(tmp_path / "net.nir"), TraceOptions(batch=2, timesteps=5, spikes="0.1"))
    assert (events.batch, events.timesteps) == (2, 5)
    assert sum(t.macs for t in events.tasks if t.phase == "forward") == 2 * 5 * (64 * 128 + 128 * 10)


@pytest.mark.parametrize("framework", ["spikingjelly", "snntorch", "norse"])
def test_a_network_of_a_framework_traces(framework: str) -> None:
    pytest.importorskip(framework)
    graph = build_graph(f"{RECIPES / framework}_net.py:make_net", TraceOptions(batch=2, timesteps=3, spikes="0.2"))
    assert (graph.batch, graph.timesteps) == (2, 3)
    assert graph.spikes is not None and len(graph.spikes.layers) >= 2
