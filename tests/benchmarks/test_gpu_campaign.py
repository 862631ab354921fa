"""The campaign for a rare GPU: its records survive a cut, its pages say what the numbers say, and it needs little."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.campaign import records as campaign_records
from benchmarks.campaign.op_times import device_store, measured, time_new_ops
from benchmarks.campaign.pages import limits, reductions, use, verdict
from benchmarks.campaign.parts import PARTS, Campaign, comparisons, correctness, machine, paper, ways
from benchmarks.campaign.records import FileFull, Records
from pararev_hw import execution
from pararev_hw.costmodels.measured_ops import op_keys
from pararev_hw.trace_options import TraceOptions

ROOT = Path(__file__).parents[2]

# What a bare GPU machine has, beside Python's own library; everything else of ours is hidden.
HIDDEN = (
    "jinja2", "pandas", "pyarrow", "onnx", "onnxruntime", "ortools", "optuna", "dask", "distributed", "sklearn", "nir",
    "h5py", "tonic", "orjson", "numba",
)  # fmt: skip
COMPARED = {
    "depth": 37, "batch": 32, "mode": "train", "neuron": "reference", "peak_bytes": {}, "refused": {},
    "median_s": {
        "rev, own loop, reference neuron": 1.0, "rev, 1 stream, graph, reference neuron": 0.5,
        "para, own loop, reference neuron": 0.84, "para, 1 stream, graph, reference neuron": 0.48,
        "para, 2 streams, graph, reference neuron": 0.4, "merged, 1 stream, graph, reference neuron": 0.3,
    },
}  # fmt: skip


def test_records_survive_a_cut_and_tell_what_is_done(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write("paper", "a", value=1)
    records.write("paper", "b", failed="RuntimeError: no memory")
    with records.path("paper").open("a") as file:
        file.write('{"key":"c","val')  # the machine went away
    again = Records(tmp_path)
    assert again.is_done("paper", "a") and not again.is_done("paper", "b") and not again.is_done("paper", "c")
    again.write("paper", "b", value=2)
    again.write("paper", "c", value=3)
    assert {k: r["value"] for k, r in Records(tmp_path).of("paper").items()} == {"a": 1, "b": 2, "c": 3}


def test_a_part_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign_records, "MAX_FILE_BYTES", 100)
    records = Records(tmp_path)
    with pytest.raises(FileFull, match="at most 100 are written"):
        for k in range(10):
            records.write("paper", str(k), value=k)
    assert all(json.loads(line) for line in records.path("paper").read_text().splitlines())
    assert records.path("paper").stat().st_size <= 100


def test_parts_fit_into_eight_files() -> None:
    assert len(PARTS) + 2 <= 8  # and the profile, and the store of op times


def test_reductions_are_those_of_the_medians() -> None:
    (found,) = reductions([COMPARED])
    assert found.own_loop == pytest.approx(0.16)  # 0.84 of 1.0
    assert found.on_graph == pytest.approx(0.4)  # 0.3 of 0.5
    assert (found.rev_s, found.para_s) == (0.5, 0.3)
    first, second, third = verdict([found])
    assert "**beaten**" in first and "40.0%" in first
    assert "not measured" in second
    assert "16.0% to 16.0%, within or above" in third
    (line,) = limits([COMPARED])
    assert "0.50 of its own loop" in line and "two streams take 0.83" in line and "merged form 0.62" in line


def test_a_way_that_gains_less_than_the_paper_is_said_to(tmp_path: Path) -> None:
    slow = COMPARED | {"median_s": COMPARED["median_s"] | {"merged, 1 stream, graph, reference neuron": 0.45}}  # type: ignore[operator]
    assert "**not reached**" in verdict(reductions([slow]))[0]  # 0.4 of 0.5: 20 %


def test_every_unit_of_the_first_parts_can_be_named_before_it_runs(tmp_path: Path) -> None:
    real = Campaign("cuda", False, tmp_path, time.monotonic() + 60)
    for units in (machine, correctness, paper):
        keys = [key for key, _ in units(real)]
        assert len(set(keys)) == len(keys) > 0
    assert {w.family for w in ways("train", "triton")} == {"rev", "para", "merged", "fused"}


def test_every_distinct_op_is_timed_once_and_stored(tmp_path: Path) -> None:
    job = execution.prepare(
        "msresnet18", TraceOptions(batch=1, width=0.0625, timesteps=1, num_classes=10, granularity="block")
    )
    path, machine_ = device_store(tmp_path, "A Card")
    clock_calls: list[int] = []

    def clock(run: Callable[[], object], count: int) -> tuple[float, float]:
        clock_calls.append(count)
        run()
        return 1e-6 * count, 1e-6 * count  # every op takes a microsecond by this clock

    first = time_new_ops(job, path, machine_, clock, 0.0, lambda: False)
    distinct = set(op_keys(job.graph))
    assert set(measured(path, machine_).ops) == distinct and first["missing"] == 0
    assert (first["ops"], first["distinct"], first["new"]) == (len(job.graph.ops), len(distinct), len(distinct))
    assert first["sum_s"] == pytest.approx(1e-6 * len(job.graph.ops))
    assert sum(first["sum_s_by_kind"].values()) == pytest.approx(first["sum_s"])
    clock_calls.clear()
    again = time_new_ops(job, path, machine_, clock, 0.0, lambda: False)
    assert again["new"] == 0 and not clock_calls and again["sum_s"] == first["sum_s"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no lock is left behind


def test_the_deepest_networks_come_last_and_a_rehearsal_has_every_mode_and_neuron(tmp_path: Path) -> None:
    real, toy = (list(comparisons(Campaign("cpu", r, tmp_path, 0.0))) for r in (False, True))
    assert real[0] == (37, 32, "train", "reference") and {d for d, *_ in real} == {21, 37, 69, 117, 165}
    assert {m for _, _, m, _ in toy} == {"train", "infer"} and {n for *_, n in toy} == {"reference", "triton"}


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no campaign"):
        use(tmp_path, tmp_path)


def test_results_become_pages(tmp_path: Path) -> None:
    records = Records(tmp_path / "results")
    card = {"device": "A Card", "driver": "driver 1", "torch": "2.11.0", "rehearsal": False}
    records.write("machine", "environment", **card)
    records.write("paper", "one", **COMPARED, samples_s={k: [v] for k, v in COMPARED["median_s"].items()})  # type: ignore[union-attr]
    records.write("correctness", "streams", right=False)
    paths = use(tmp_path / "results", tmp_path / "tree")
    speed = (tmp_path / "tree" / "docs" / "speed-a-card.md").read_text()
    assert "0 of 1 checks hold; wrong: streams" in speed and "rehearsal" not in speed
    assert all(p.exists() for p in paths) and any(p.suffix == ".svg" for p in paths)


def test_it_needs_no_more_than_a_bare_gpu_machine_has() -> None:
    script = (
        "import sys\n"
        f"hidden = {HIDDEN!r}\n"
        "class Hiding:\n"
        "    def __init__(self, finder):\n"
        "        self.finder = finder\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return None if name.split('.')[0] in hidden else self.finder.find_spec(name, path, target)\n"
        "sys.meta_path[:] = [Hiding(f) for f in sys.meta_path]\n"
        "import time, benchmarks.gpu_campaign, benchmarks.campaign.pages\n"
        "from pathlib import Path\n"
        "from benchmarks.campaign.parts import Campaign, _same_step\n"
        "from pararev_hw.importers.targets import TraceOptions\n"
        "c = Campaign('cpu', True, Path(), time.monotonic() + 100)\n"
        "tiny = TraceOptions(batch=1, width=0.0625, timesteps=1, num_classes=10)\n"
        "assert _same_step(c, 'pararevsnn21', tiny, 2, 'eager', 'none')['right']\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
