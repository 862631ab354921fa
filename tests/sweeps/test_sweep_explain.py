"""Why a configuration costs what it costs: operations that are not skipped under the roofs, one step to either side."""

from pathlib import Path

import pytest

from pararev_hw import pipeline, sweeps, target_graph
from pararev_hw.devices import bare_device
from pararev_hw.sweeps.engine import Engine
from pararev_hw.sweeps.explain import operations
from pararev_hw.trace_options import TraceOptions
from tests.helpers.sweep_helpers import text


def test_operations_are_those_that_spikes_leave() -> None:
    options = TraceOptions(batch=2, width=0.0625, mode="infer", spikes="0.2")
    graph = target_graph.build_graph("pararevsnn21", options)
    device = bare_device(pipeline.find_device("edge8"))
    columns = Engine(graph, device, "heft").core_columns
    assert columns is not None
    layers = graph.layers().to_pandas()
    spiking = layers["sops"].notna()
    # accumulates of the layers that spikes reach, as whole numbers there, and multiply-accumulates of all others
    wanted = layers["sops"][spiking].sum() + layers["macs"][~spiking].sum()
    assert spiking.sum() > 10 and wanted < layers["macs"].sum() / 2
    assert float(operations(columns, device) @ columns.times) == pytest.approx(wanted, rel=1e-5)


def test_layers_lie_under_the_roofs_and_ranges_without_steps_have_neighbours(tmp_path: Path) -> None:
    words = text(device="sata-like", constraints="[]", method="{name: random, samples: 40, seed: 2}")
    sweep = sweeps.spec.from_yaml(words, "sata.yaml", tmp_path)
    result = sweeps.run(sweep, tmp_path / "out", processes=1)
    points = {p.row: p for p in (*result.pareto, result.recommended, result.best, result.base) if p is not None}
    for e in result.explanations:
        assert e.macs_per_s_peak and e.bytes_per_s and e.layers
        for layer in e.layers:
            assert layer.macs_per_s <= e.macs_per_s_peak * (1 + 1e-9)
            if layer.macs_per_byte is not None:
                assert layer.macs_per_s <= layer.macs_per_byte * e.bytes_per_s * (1 + 1e-9)
        if e.row < 0:
            continue
        here = points[e.row].parameters["memory_bandwidth_bytes_per_s"]
        aside = [n.value for n in e.neighbours if n.parameter == "memory_bandwidth_bytes_per_s"]
        # a tenth of the way from 1 to 100 GB/s on its logarithmic scale: a factor of 100 ** 0.1
        expected = [v for v in (here / 100**0.1, here * 100**0.1) if 1e9 <= v <= 100e9]
        assert aside == pytest.approx(expected, rel=1e-9) and expected
