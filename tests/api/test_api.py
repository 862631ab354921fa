"""The Python interface: the command line's verbs with exact keywords, nouns that show themselves, one-line errors."""

import ast
import contextlib
import functools
import importlib
import inspect
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import matplotlib
import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pararev_hw as ph
from pararev_hw import reports
from pararev_hw.api.studies import SweepRun
from pararev_hw.errors import BadInput, PararevError
from pararev_hw.models import IF
from pararev_hw.types import BlockGraph, CommEdge, Layer, SchedulingProblem, SweepResult, Table, TaskCost
from tests.helpers.command_line import run

matplotlib.use("Agg")
ROOT = Path(__file__).parents[2]
TINY = ph.TraceOptions(width=0.1, batch=2, timesteps=2, spikes=0.2)


@pytest.fixture(scope="module")
def graph() -> BlockGraph:
    return ph.trace("pararevsnn21", None, TINY)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.norm(self.conv(x)).relu().mean((2, 3)))
        return out


# ---- tracing


def test_totals_and_layers_are_the_hand_counted_ones() -> None:
    graph = ph.trace(Net(), torch.rand(2, 3, 8, 8), mode="infer")
    conv = 2 * 8 * 8 * 4 * 3 * 9  # samples x pixels x output channels x input channels x taps
    head = 2 * 4 * 5
    assert graph.totals.macs == conv + head
    assert graph.totals.flops == 2 * (conv + head)
    rows = {layer.module: layer for layer in graph.layers()}
    weights = 4 * 3 * 9 + 4
    assert rows["conv"] == Layer(
        "conv", "Conv2d", (2, 3, 8, 8), (2, 4, 8, 8), weights, conv, conv, conv, sops=None, rate=None, saved_bytes=0
    )
    assert rows["norm"].parameters == 2 * 4
    assert (rows["head"].macs, rows["head"].parameters, rows["head"].output_shape) == (head, 4 * 5 + 5, (2, 5))


def test_layers_share_out_what_the_step_has(graph: BlockGraph) -> None:
    rows = graph.layers()
    network = ph.models.create("pararevsnn21", width=0.1)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in network.parameters())
    assert sum(row.saved_bytes for row in rows) == graph.memory.saved_bytes
    assert sum(row.forward_macs for row in rows) == sum(t.macs for t in graph.tasks if t.phase == "forward")
    assert sum(row.macs for row in rows) == graph.totals.macs
    frame = rows.to_pandas()
    assert list(frame["module"]) == [row.module for row in rows]
    assert int(frame["macs"].sum()) == sum(row.macs for row in rows)


def test_the_graph_in_networkx_is_the_graph(graph: BlockGraph) -> None:
    there = graph.to_networkx()
    assert set(there) == {t.id for t in graph.tasks}
    assert nx.is_directed_acyclic_graph(there)
    assert sum(flops for _, flops in there.nodes(data="flops")) == graph.totals.flops
    assert sum(b for _, _, b in there.edges(data="bytes")) == sum(e.bytes for e in graph.edges)


@pytest.mark.parametrize(
    "shape, options, batch, timesteps",
    [
        ((8, 3, 16, 16), {}, 8, None),
        ((8, 3, 16, 16), {"timesteps": 4}, 8, 4),
        ((4, 8, 6), {"layout": "TB"}, 8, 4),
        ((8, 4, 6), {"layout": "BT"}, 8, 4),
        ((4, 8, 6), {"batch": 8, "timesteps": 4}, 8, 4),
    ],
)
def test_samples_and_time_are_read_from_the_axes_that_hold_them(
    shape: tuple[int, ...], options: dict[str, Any], batch: int, timesteps: int | None
) -> None:
    graph = ph.trace(nn.Linear(shape[-1], 2), torch.rand(shape), mode="infer", **options)
    assert (graph.batch, graph.timesteps) == (batch, timesteps)


def test_an_axis_that_may_be_time_or_samples_is_not_taken_for_either_in_silence() -> None:
    graph = ph.trace(nn.Linear(6, 2), torch.rand(4, 8, 6), timesteps=4)
    assert [a for a in graph.assumptions if a.startswith("input axes not known: the first of (4, 8, 6)")]


@pytest.mark.parametrize(
    "shape, options, words",
    [
        (
            (4, 8, 6),
            {"layout": "TB", "batch": 4},
            "as 4 time steps of batch 8, but --batch gives batch 4: that is --layout BT or B",
        ),
        ((6,), {"layout": "TB"}, "layout TB names 2 axes"),
        ((4, 8, 6), {"layout": "BTC"}, "did you mean BT"),
        ((), {}, "needs a batch"),
    ],
)
def test_axes_that_cannot_be_are_refused(shape: tuple[int, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match="(?i)" + words):
        ph.trace(nn.Identity(), torch.rand(shape), **options)


def test_a_shape_stands_for_inputs() -> None:
    graph = ph.trace(Net(), input_shape=(3, 8, 8), batch=5, mode="infer")
    assert (graph.batch, graph.input_shapes) == (5, ((5, 3, 8, 8),))


def test_keywords_go_before_options() -> None:
    graph = ph.trace("pararevsnn21", None, TINY, batch=3, mode="infer")
    assert (graph.batch, graph.mode) == (3, "infer")


def test_trace_takes_every_option_as_a_keyword() -> None:
    keywords = set(inspect.signature(ph.trace).parameters) - {"model", "inputs", "options", "progress"}
    assert keywords == {f.name for f in fields(ph.TraceOptions)}


@pytest.mark.parametrize("name", ph.__all__)
def test_no_function_takes_keywords_that_it_does_not_name(name: str) -> None:
    item = getattr(ph, name)
    if inspect.isfunction(item):
        assert not [p for p in inspect.signature(item).parameters.values() if p.kind is p.VAR_KEYWORD]


# ---- files


@settings(deadline=None, max_examples=15)
@given(
    batch=st.integers(1, 4),
    mode=st.sampled_from(["train", "infer"]),
    granularity=st.sampled_from(["op", "module", "block"]),
    spikes=st.sampled_from(["none", 0.0, 0.3, 1.0]),
)
def test_a_saved_graph_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, batch: int, mode: Any, granularity: str, spikes: Any
) -> None:
    net = nn.Sequential(nn.Linear(3, 4), IF(), nn.Linear(4, 2))
    graph = ph.trace(net, torch.rand(batch, 3), mode=mode, granularity=granularity, spikes=spikes)
    path = tmp_path_factory.mktemp("graphs") / "graph.json"
    graph.save(path)
    assert ph.load_graph(path) == graph


def test_a_graph_that_cannot_be_written_says_so(graph: BlockGraph, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot write .*: it is a folder: name a file in it$"):
        graph.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match="named by a str or a Path"):
        graph.save(None)  # type: ignore[arg-type]


def test_a_saved_graph_never_takes_the_place_of_a_device_or_a_link(graph: BlockGraph, tmp_path: Path) -> None:
    pipe, file, link = tmp_path / "pipe.json", tmp_path / "graph.json", tmp_path / "link.json"
    os.mkfifo(pipe)
    link.symlink_to(file)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        writer = threading.Thread(target=graph.save, args=(pipe,))
        writer.start()
        text = b""
        while writer.is_alive() or not text.endswith(b"\n"):
            with contextlib.suppress(BlockingIOError):
                text += os.read(reader, 1 << 16)
        writer.join()
    finally:
        os.close(reader)
    graph.save(link)
    assert pipe.is_fifo() and link.is_symlink()
    assert json.loads(text) == json.loads(file.read_text())


def test_a_graph_survives_pickle(graph: BlockGraph) -> None:
    assert pickle.loads(pickle.dumps(graph)) == graph


# ---- plans


def test_schedules_by_name_file_and_object_are_the_same(graph: BlockGraph, tmp_path: Path) -> None:
    device = ph.load_device("edge8")
    file = tmp_path / "mine.yaml"
    file.write_text(ph.devices.device_to_yaml(device), encoding="utf-8")
    plans = [ph.schedule(graph, d) for d in ("edge8", file, str(file), device)]
    assert len({p.schedule for p in plans if p.schedule.energy_j == {}} | {p.schedule.makespan_s for p in plans}) == 1


def test_the_options_of_a_scheduler_reach_it(graph: BlockGraph) -> None:
    front = ph.schedule(graph, "edge8", "pareto", points=3).schedule.front
    assert 1 <= len(front) <= 5
    with pytest.raises(BadInput, match="'heft' has no option 'seconds'"):
        ph.schedule(graph, "edge8", "heft", seconds=1)


def test_a_bare_problem_is_scheduled_as_by_hand() -> None:
    # a: 1 s, then b and c of 2 s side by side, then d: 1 s
    tasks = tuple(TaskCost(name, (s, s)) for name, s in (("a", 1.0), ("b", 2.0), ("c", 2.0), ("d", 1.0)))
    edges = tuple(CommEdge(*e) for e in ((0, 1), (0, 2), (1, 3), (2, 3)))
    made = ph.schedule_problem(SchedulingProblem("mine", 2, tasks, edges), "exact", workers=1)
    assert (made.makespan_s, made.sequential_s, made.optimal) == (4.0, 6.0, True)


def test_pictures_show_what_the_numbers_say(graph: BlockGraph) -> None:
    prediction = ph.schedule(graph, "edge8").predict()
    bars = prediction.schedule.plot_timeline()
    ends = [box.get_x() + box.get_width() for box in bars.patches]
    assert len(ends) == len(graph.tasks)
    assert max(ends) == pytest.approx(prediction.schedule.makespan_s * 1e3)
    own = matplotlib.figure.Figure().add_subplot()
    assert prediction.plot_memory(own) is own
    highest = max(v for layer in own.collections for path in layer.get_paths() for v in path.vertices[:, 1])
    assert highest == pytest.approx(prediction.peak_bytes / 2**20)


def test_a_plan_runs_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    plan = ph.schedule(ph.trace(net, torch.rand(3, 4), device="cpu"), "cpu", "heft", lanes=1)
    done = ph.execute(plan, steps=2)
    assert len(done.rounds.losses) >= 2
    assert done.difference == 0.0
    plan.graph.save(tmp_path / "graph.json")
    reread = ph.schedule(ph.load_graph(tmp_path / "graph.json"), "cpu", lanes=1)
    with pytest.raises(BadInput, match="read from a file: trace its network again"):
        ph.execute(reread)


# ---- studies


def test_a_report_says_what_the_command_says(graph: BlockGraph, tmp_path: Path) -> None:
    written = ph.report("pararevsnn21", "edge8", tmp_path / "api", options=TINY)
    ran = run(
        *("report", "pararevsnn21", "--width", "0.1", "--batch", "2", "--timesteps", "2", "--spikes", "0.2"),
        *("--device", "edge8", "-o", str(tmp_path / "cli"), "--json"),
    )
    assert ran.status == 0, ran.err
    assert json.loads((tmp_path / "api" / "report.json").read_text()) == json.loads(ran.out)
    assert written.study.graph.totals.macs == graph.totals.macs
    assert "iframe" in written._repr_html_()


def test_compare_takes_graphs_and_names(graph: BlockGraph) -> None:
    from_graph, from_name = (
        ph.compare([t], "h200", options=o, choices="none").studies[0]
        for t, o in ((graph, None), ("pararevsnn21", TINY))
    )
    assert from_graph == from_name


def test_compare_gives_what_the_command_line_gives() -> None:
    options = ("--batch", "2", "--width", "0.1", "--timesteps", "2", "--spikes", "0.2", "--device", "edge8", "--json")
    ran = run("compare", "pararevsnn21", *options)
    assert ran.status == 0, ran.err
    document = json.loads(ran.out)
    assert document["networks"][0]["parallel"]["choices"], "rewrites are searched"
    compared = ph.compare(["pararevsnn21"], "edge8", options=TINY)
    assert json.loads(json.dumps(reports.comparison_document(compared))) == document


def test_an_energy_model_of_the_literature_stands_beside_the_devices_own(graph: BlockGraph, tmp_path: Path) -> None:
    plan = ph.schedule(graph, "edge8", energy_model="papers")
    assert plan.energy_model is not None and ph.schedule(graph, "edge8").energy_model is None
    layers = {s.module: s for s in graph.spikes.layers} if graph.spikes is not None else {}
    picojoules = 0.0
    for row in graph.layers():
        spiking = row.module in layers and layers[row.module].spiking
        picojoules += 0.9 * layers[row.module].sops * graph.batch if spiking else 4.6 * row.forward_macs
    assert plan.energy_model.by_phase["forward"] == pytest.approx(picojoules * 1e-12)
    written = ph.report(graph, "edge8", tmp_path, scheduler="heft", energy_model="papers")
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["energy_model"]["total_j"] == pytest.approx(plan.energy_model.total_j)
    assert written.study.energy_model == plan.energy_model
    (study,) = ph.compare([graph], "edge8", choices="none", energy_model="papers").studies
    assert study.energy_model == plan.energy_model
    with pytest.raises(BadInput, match=r"paper.*did you mean papers"):
        ph.schedule(graph, "edge8", energy_model="paper")


def test_a_sweep_of_a_mapping_is_the_sweep_of_its_file(tmp_path: Path) -> None:
    spec = {
        "device": "edge8",
        "networks": "pararevsnn21",
        "batch": 1,
        "spikes": "0.2",
        "parameters": {"network.width": [0.1], "lanes": [1, 2, 4]},
        "derived": {"price": "lanes * 1"},
        "objectives": ["latency", "price"],
    }
    (tmp_path / "sweep.json").write_text(json.dumps(spec), encoding="utf-8")  # YAML holds JSON
    runs = [ph.sweep(spec, workers=1), ph.sweep(tmp_path / "sweep.json", tmp_path / "out", workers=1)]
    fronts = [r.pareto().to_pandas() for r in runs]
    assert fronts[0].equals(fronts[1])
    rows = runs[1].to_pandas()
    assert len(rows) == 3
    assert fronts[0]["latency_s"].min() == rows["latency_s"].min()


# ---- rooms


@pytest.mark.parametrize(
    "order", ["import pararev_hw as ph", "from pararev_hw.models import create; import pararev_hw as ph"]
)
def test_a_room_is_a_package_and_a_function_whatever_is_imported_first(order: str) -> None:
    code = f"""
        {order}
        import pararev_hw.models, pararev_hw.schedulers
        assert [s.name for s in ph.models()] == list(ph.models.names()), ph.models
        assert "h200" in ph.devices() and "heft" in ph.schedulers()
        from pararev_hw.models import create as again
        from pararev_hw import devices
        assert ph.models.create is again and devices is ph.devices
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_rooms_list_what_the_command_line_lists() -> None:
    for room in ("models", "devices", "schedulers"):
        table = getattr(ph, room)()
        assert isinstance(table, Table)
        names = [row["name"] for row in json.loads(run(room, "--json").out)]
        assert list(table.to_pandas()["name"]) == names


def test_importing_the_package_is_quick_and_brings_nothing_heavy() -> None:
    code = "import sys, pararev_hw, pararev_hw.types; print([m for m in sys.modules if '.' not in m])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "scipy", "pandas", "matplotlib", "networkx", "pydantic", "yaml", "typer", "rich"}
    assert not heavy & set(eval(done.stdout))


def test_the_version_is_the_one_that_is_installed() -> None:
    from importlib.metadata import version

    assert ph.__version__ == version("pararev-hw")


def test_every_name_of_the_package_is_there_and_no_other() -> None:
    assert set(ph.__all__) <= set(dir(ph))
    for name in ph.__all__:
        assert getattr(ph, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trce'"):
        importlib.import_module("pararev_hw").trce  # noqa: B018


# ---- what nouns show


def test_every_noun_shows_itself_in_one_line_and_in_html(graph: BlockGraph) -> None:
    plan = ph.schedule(graph, "h200")
    prediction = plan.predict()
    nouns: list[Any] = [graph, plan, plan.schedule, plan.costs, prediction, prediction.memory, plan.device]
    compared = ph.compare([graph], "edge8", choices="none")
    nouns += [compared, compared.studies[0]]
    for noun in nouns:
        assert "\n" not in repr(noun)
        assert len(repr(noun)) < 250, repr(noun)
        if noun is not prediction.memory:
            assert noun._repr_html_().startswith("<table>")
    assert "pararevsnn21" in repr(graph)
    assert "<script>" not in ph.trace(nn.Linear(2, 2), torch.rand(1, 2))._repr_html_()


def test_a_long_table_shows_its_first_rows_and_counts_the_rest() -> None:
    table = Table("numbers", tuple(range(100)), ("n", "square"), tuple((k, k * k) for k in range(100)))
    assert repr(table).endswith("40 more rows")
    assert "40 more rows" in table._repr_html_()
    assert len(table.to_pandas()) == len(table) == 100
    assert Table("", ("<b>",), ("x",), (("<b>",),))._repr_html_().count("&lt;b&gt;") == 1


# ---- errors


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: ph.trace("pararevsnn21", widht=1), "option of ph.trace is called 'widht': did you mean width?"),
        (lambda: ph.TraceOptions(bach=1), "did you mean batch?"),
        (lambda: ph.trace("pararevsn21"), "did you mean pararevsnn21"),
        (lambda: ph.trace("pararevsnn21", batch=0), "batch is 0"),
        (lambda: ph.trace("pararevsnn21", batch="8"), "batch is '8': it must be an integer"),
        (lambda: ph.trace("pararevsnn21", width="1"), "width is '1'"),
        (lambda: ph.trace("pararevsnn21", mode="trian"), "did you mean train"),
        (lambda: ph.trace("pararevsnn21", spikes=2.0), "between 0 and 1"),
        (lambda: ph.trace("pararevsnn21", torch.rand(1)), "leave inputs out"),
        (lambda: ph.trace("pararevsnn21", loss=lambda out: out), "loss is for an nn.Module"),
        (lambda: ph.trace("pararevsnn21", None, {"batch": 1}), "it must be ph.TraceOptions"),
        (lambda: ph.trace(nn.Linear(1, 1)), "what shape has an input"),
        (lambda: ph.trace(nn.Linear(1, 1), torch.rand(1, 1), width=2.0), "width is for a network that is built by"),
        (lambda: ph.trace(nn.Linear(1, 1), [1, 2]), "must hold a tensor"),
        (lambda: ph.trace(nn.Linear(1, 1), torch.ones(1, 1).to_sparse()), "give a dense one"),
        (
            lambda: ph.trace(nn.Linear(1, 1), torch.ones(1, 1), dtype=torch.float32),
            "dtype is torch.float32: it must be a text",
        ),
        (lambda: ph.trace(nn.Linear(1, 1), torch.ones(1, 1), optimizer=5), "optimizer is 5, no name: known: adam"),
        (lambda: ph.trace("a\0b.py:make"), "a path holds no NUL"),
        (lambda: ph.trace(42), "give an nn.Module"),
        (lambda: ph.trace(), "missing a required argument: 'model'"),
        (lambda: ph.load_device("h20"), "did you mean h200?"),
        (lambda: ph.load_device(3), "name is 3: it must be a text or a path"),
        (lambda: ph.load_graph("none.json"), "none.json: cannot be read"),
        (lambda: ph.load_problem("none.json"), "none.json: cannot be read"),
        (lambda: ph.load_problem(ROOT / "examples/task_graph.json"), "does not say how many lanes"),
        (lambda: ph.sweep("none.yaml"), "none.yaml: cannot be read"),
        (lambda: ph.sweep(3), "it must be a text, a path or a mapping"),
        (lambda: ph.validate("none.json"), "none.json: cannot be read"),
        (lambda: ph.calibrate("cpu", minutes=0), "minutes is 0"),
        (lambda: ph.compare("pararevsnn21", "h200"), "compare takes a list"),
        (lambda: ph.schedule("graph.json", "h200"), "it must be what ph.trace gave"),
        (lambda: ph.schedule_problem("graph.json"), "it must be what ph.load_problem gave"),
        (lambda: ph.predict(3), "it must be what ph.schedule gave"),
        (lambda: ph.trace("pararevsnn21", dtype="int8"), "no dtype is called 'int8'"),
        (lambda: ph.TraceOptions(dtype="bfloat61"), "did you mean bfloat16 or"),
        (lambda: ph.execute(3), "it must be what ph.schedule gave"),
    ],
)
def test_a_wrong_call_raises_bad_input_in_one_line(wrong: Any, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        wrong()
    assert words.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_what_holds_the_thing_asked_for_says_under_which_name(graph: BlockGraph, tmp_path: Path) -> None:
    plan = ph.schedule(graph, "edge8")
    written = ph.report(graph, "edge8", tmp_path / "report")
    for call, words in (
        (lambda: ph.save(written, tmp_path / "r.json"), "give its .study"),  # type: ignore[arg-type]
        (lambda: ph.schedule(plan, "edge8"), "give its .graph"),  # type: ignore[arg-type]
    ):
        with pytest.raises(BadInput, match=words):
            call()
    run = SweepRun(SweepResult.__new__(SweepResult), tmp_path)
    with pytest.raises(BadInput, match=r"give its \.result"):
        ph.save(run, tmp_path / "s.json")  # type: ignore[arg-type]


WRONG = (object(), b"x", float("nan"), {3: 3}, [[]], 10**400)  # values that no option takes


def typed_rooms() -> dict[str, list[str]]:
    """What a type checker sees in `ph.models`, `ph.devices` and `ph.schedulers`."""
    tree = ast.parse((ROOT / "pararev_hw" / "api" / "rooms.pyi").read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {
        c.name.removesuffix("Room").lower(): [ast.unparse(n.targets[0]) for n in c.body if isinstance(n, ast.Assign)]
        for c in classes
    }


def public_calls(graph: BlockGraph, folder: Path) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Every public function and method that takes anything, with arguments that are right."""
    plan = ph.schedule(graph, "edge8")
    study = ph.compare([graph], "edge8", choices="none").studies[0]
    problem = SchedulingProblem("mine", 1, (TaskCost("a", (1.0,)),), ())
    right: dict[str, tuple[Any, ...]] = {
        "compare": ([graph], "edge8"),
        "execute": (plan,),
        "load_device": ("edge8",),
        "load_graph": (folder / "none.json",),
        "load_problem": (ROOT / "examples" / "task_graph.json",),
        "measure": (graph,),
        "parallel": (nn.Linear(1, 1), plan),
        "predict": (plan,),
        "report": (graph, "edge8", folder),
        "save": (graph, folder),
        "schedule": (graph, "edge8"),
        "schedule_problem": (problem,),
        "sweep": ({},),
        "trace": (nn.Linear(1, 1), torch.rand(1, 1)),
        "validate": (folder / "none.json",),
    }
    for name in ph.__all__:
        if inspect.isfunction(getattr(ph, name)):
            yield name, getattr(ph, name), right.get(name, ())
    yield "TraceOptions", ph.TraceOptions, ()
    for room, members in typed_rooms().items():
        for name in members:
            yield f"{room}.{name}", getattr(getattr(ph, room), name), ((problem, "heft") if name == "run" else ())
    yield "graph.save", graph.save, ()
    yield "plan.plot_timeline", plan.plot_timeline, ()
    yield "schedule.plot_timeline", plan.schedule.plot_timeline, ()
    yield "prediction.plot_memory", plan.predict().plot_memory, ()
    yield "study.graph_of", study.graph_of, ()
    yield "study.recommended", study.recommended, ()
    yield "device.value", plan.device.value, ()


def test_every_argument_of_another_type_is_told_in_one_line(graph: BlockGraph, tmp_path: Path) -> None:
    tried = 0
    for name, function, right in public_calls(graph, tmp_path):
        parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        for k, parameter in enumerate(parameters):
            for wrong in WRONG:
                if k < len(right):
                    call = functools.partial(function, *right[:k], wrong, *right[k + 1 :])
                elif k > 0 and not right:  # the first is wrong, and told first
                    break
                else:
                    call = functools.partial(function, *right, **{parameter.name: wrong})
                with pytest.raises(BadInput) as caught:
                    call()
                assert "\n" not in str(caught.value) and len(str(caught.value)) > 15, (name, parameter.name, wrong)
                tried += 1
        with pytest.raises((BadInput, TypeError), match="nonsense"):
            function(*right, nonsense=3)
    assert tried > 500
    assert list(tmp_path.iterdir()) == []


def test_numpys_numbers_and_one_value_for_a_list_are_taken(graph: BlockGraph) -> None:
    plan = ph.schedule(graph, "edge8", lanes=np.int64(2))
    assert plan.schedule.lanes == 2 and type(plan.schedule.lanes) is int
    options = ph.TraceOptions(input_shape=[3, 8], blocks="encoder", width=np.float32(0.5))
    assert (options.input_shape, options.blocks, options.width) == ((3, 8), ("encoder",), 0.5)
    assert ph.TraceOptions(input_shape=8).input_shape == (8,)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"lanes": 0}, "lanes is 0"),
        ({"lanes": 2.5}, "lanes is 2.5: it must be an integer"),
        ({"launch": "graf"}, "did you mean graph"),
        ({"memory_limit": -1}, "memory_limit is -1"),
        ({"memory_limit": "1 parsec"}, "memory_limit '1 parsec': give bytes or a size"),
        ({"scheduler": "hefty"}, "did you mean heft"),
        ({"scheduler": "exact", "seconds": 0}, "seconds is 0"),
        ({"lane": 2}, "did you mean lanes?"),
    ],
)
def test_a_wrong_option_of_schedule_is_told(graph: BlockGraph, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words.replace("?", r"\?")):
        ph.schedule(graph, "h200", **options)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: ph.trace("pararevsn21"), ("trace", "pararevsn21")),
        (lambda: ph.load_device("h20"), ("devices", "h20")),
        (lambda: ph.trace("none.onnx"), ("trace", "none.onnx")),
    ],
)
def test_the_message_is_the_command_lines(call: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(PararevError) as caught:
        call()
    ran = run(*words)
    assert ran.status == 2
    assert ran.err.strip() == f"error: {caught.value}"


def test_inputs_that_the_network_cannot_take_are_bad_input() -> None:
    with pytest.raises(BadInput, match="Linear: RuntimeError while it was traced") as caught:
        ph.trace(torch.nn.Linear(4, 2), torch.zeros(3, 5))
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_devices_say_where_their_times_come_from() -> None:
    devices = ph.devices().to_pandas().set_index("name")
    assert devices.loc["rtx3090", "times"] == "measured (published)"
    assert devices.loc["h200", "times"] == "transferred"
    assert 0 < devices.loc["h200", "expected_error"] < 1


def test_what_reads_files_loads_no_torch() -> None:
    code = "import sys, pararev_hw as ph; ph.load, ph.load_graph, ph.schedule; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
