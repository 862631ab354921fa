"""The command line as a stranger meets it: results, messages, exit statuses, bad input, what is left on the disk."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pararev_hw.devices import device_to_yaml, load_device
from pararev_hw.graph import load
from pararev_hw.reports import units
from pararev_hw.sizes import counted
from pararev_hw.types import CONTROL
from tests.helpers.command_line import SMALL, finish, run, start

NET = "pararevsnn21"
BARE = {
    "tasks": [
        {"id": "a", "time_s": 1},
        {"id": "b", "time_s": 2, "memory_bytes": 100},
        {"id": "c", "time_s": 2, "lanes": [1]},
    ],
    "edges": [{"src": "a", "dst": "b", "bytes": 5}],
}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A traced network in a file."""
    path = tmp_path_factory.mktemp("traced") / "graph.json"
    ran = run("trace", NET, *SMALL, "--spikes", "0.2", "--device", "edge8", "-o", path)
    assert ran.status == 0, ran.err
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def edited(traced: Path, edit: Callable[[Any], None]) -> Path:
    """A copy of the traced graph, changed by hand."""
    document = json.loads(traced.read_text())
    edit(document)
    path = Path("edited.json")
    path.write_text(json.dumps(document))
    return path


def device_file(name: str, **figures: object) -> Path:
    """The edge device as a file, with other values for some figures."""
    document = yaml.safe_load(device_to_yaml(load_device("edge8")))
    for figure, value in figures.items():
        document["figures"][figure]["value"] = value
    path = Path(name)
    path.write_text(yaml.safe_dump(document))
    return path


# ---- what there is


def test_no_verb_shows_the_help_as_a_message_and_fails() -> None:
    ran = run()
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("Usage: pararev-hw")


def test_help_is_a_result() -> None:
    ran = run("--help")
    assert (ran.status, ran.err) == (0, "")
    assert all(
        verb in ran.out for verb in ("models", "devices", "schedulers", "trace", "schedule", "report", "compare")
    )


@pytest.mark.parametrize("verb", ["models", "devices", "schedulers"])
def test_lists_print_every_name_whole_at_80_columns(verb: str) -> None:
    names = [row["name"] for row in json.loads(run(verb, "--json").out)]
    shown = run(verb).out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert set(names) <= {line.split()[0] for line in shown.splitlines()}


@pytest.mark.parametrize("device", ["h200", "edge8", "loihi1", "sata-like"])
def test_a_device_is_printed_with_each_number_and_its_source(device: str) -> None:
    document = json.loads(run("devices", device, "--json").out)
    shown = run("devices", device).out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    flat = " ".join(shown.split())
    for name, figure in document["figures"].items():
        value = figure["value"]
        assert f"{name} {value if isinstance(value, str) else format(value, '.4g')}" in flat
        assert " ".join(figure["source"].split()) in flat


@pytest.mark.parametrize("verb", ["models", "devices", "schedulers"])
def test_names_stay_whole_where_the_terminal_is_narrow(verb: str) -> None:
    names = {row["name"] for row in json.loads(run(verb, "--json").out)}
    assert names <= {line.split()[0] for line in run(verb, columns=48).out.splitlines() if line.strip()}


def test_models_table_is_one_line_per_network() -> None:
    names = [row["name"] for row in json.loads(run("models", "--json").out)]
    assert [line.split()[0] for line in run("models").out.splitlines()[1:]] == names


# ---- the contracts of trace and schedule


def test_trace_json_holds_what_scripts_rely_on() -> None:
    ran = run("trace", NET, *SMALL, "--timesteps", 3, "--num-classes", 7, "--spikes", "0.25", "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["schema_version"], found["model"], found["mode"]) == (1, NET, "train")
    assert (found["batch"], found["timesteps"]) == (2, 3)
    assert found["parameters"] > 0
    tasks, totals = found["tasks"], found["totals"]
    assert len({t["id"] for t in tasks}) == len(tasks)
    assert {t["phase"] for t in tasks} == {"forward", "recompute", "backward", "update"}
    assert all(isinstance(t["block"], str) and isinstance(t["branch"], str) for t in tasks)
    assert totals["flops"] == sum(t["flops"] for t in tasks) == 2 * totals["macs"]
    assert totals["sops"] == sum(t["sops"] for t in tasks if t["sops"] is not None) > 0
    assert 0 < sum(t["ops"] for t in tasks) <= totals["ops"]  # a view that nothing uses is in no task
    assert totals["unknown_ops"] == 0
    assert all(t["read_bytes"] >= 0 and t["write_bytes"] >= 0 for t in tasks)
    memory = found["memory"]
    assert memory["peak_bytes"] >= memory["parameter_bytes"] + memory["saved_bytes"] > memory["saved_bytes"] > 0
    order = {t["id"]: k for k, t in enumerate(tasks)}
    assert all(order[e["src"]] < order[e["dst"]] and e["bytes"] >= 0 for e in found["edges"])
    path = found["critical_path"]
    links = {(e["src"], e["dst"]) for e in found["edges"]}
    assert set(zip(path["tasks"], path["tasks"][1:], strict=False)) <= links
    phase = {t["id"]: t["phase"] for t in tasks}
    assert all(phase[task] == p for p, chain in path["by_phase"].items() for task in chain)


def test_trace_without_spikes_knows_no_synaptic_operations() -> None:
    found = json.loads(run("trace", NET, *SMALL, "--spikes", "none", "--mode", "infer", "--json").out)
    assert found["mode"] == "infer"
    assert found["totals"]["sops"] is None
    assert all(t["sops"] is None and t["phase"] == "forward" for t in found["tasks"])


def test_trace_writes_the_document_that_json_prints() -> None:
    ran = run("trace", NET, *SMALL, "--spikes", "none", "--json", "-o", "here.json")
    assert Path("here.json").read_text().rstrip("\n") == ran.out.rstrip("\n")
    assert "wrote here.json" in ran.err


def test_trace_writes_graph_json_by_default_and_says_so() -> None:
    ran = run("trace", NET, *SMALL, "--spikes", "none")
    assert load(Path("graph.json")).model == NET
    assert NET in ran.out
    assert "wrote graph.json" in ran.err


@pytest.mark.parametrize("scheduler", ["sequential", "asap", "heft"])
def test_schedule_json_holds_what_scripts_rely_on(traced: Path, scheduler: str) -> None:
    ran = run("schedule", traced, "--device", "edge8", "--scheduler", scheduler, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["device"], found["scheduler"], found["lanes"]) == ("edge8", scheduler, 8)
    placed = found["placements"]
    assert {p["task"] for p in placed} == {t.id for t in load(traced).tasks}
    assert found["makespan_s"] == max(p["end_s"] for p in placed)
    assert found["lower_bound_s"] <= found["makespan_s"]
    assert found["makespan_s"] <= found["sequential_s"] * (1 + 1e-9)
    assert found["speedup"] == pytest.approx(found["sequential_s"] / found["makespan_s"])
    assert found["gap"] == pytest.approx(found["makespan_s"] / found["lower_bound_s"] - 1)
    assert isinstance(found["optimal"], bool)
    assert found["peak_bytes"] > 0
    energy = found["energy_j"]
    assert energy["compute"] == pytest.approx(sum(energy.get(part, 0.0) for part in ("mac", "ac", "vector")))
    assert energy["total"] == pytest.approx(sum(v for part, v in energy.items() if part not in ("compute", "total")))
    assert all(0 <= p["lane"] < 8 and 0 <= p["start_s"] <= p["end_s"] for p in placed)


def test_a_graph_is_traced_with_the_optimizer_that_pytorch_takes_on_its_device() -> None:
    def updates(*options: object) -> int:
        found = json.loads(run("trace", NET, *SMALL, "--spikes", "none", *options, "--json").out)
        return sum(t["ops"] for t in found["tasks"] if t["phase"] == "update")

    on_gpu, on_edge = updates("--device", "h200"), updates("--device", "edge8")
    assert on_gpu == updates("--optimizer", "sgd-foreach") < updates("--optimizer", "sgd") == on_edge


def test_a_loop_of_micro_batches_and_kept_gradients_can_be_asked_for() -> None:
    def traced(*options: object) -> Any:
        return json.loads(run("trace", NET, *SMALL, "--spikes", "0.2", *options, "--json").out)

    plain, many, kept = traced(), traced("--accumulate", 3), traced("--zero-grad", "zero")
    assert (plain["batch"], many["batch"]) == (2, 6)
    for total in ("flops", "sops"):
        assert many["totals"][total] == pytest.approx(3 * plain["totals"][total], rel=1e-3)
    assert kept["memory"]["peak_bytes"] > plain["memory"]["peak_bytes"]
    assert kept["memory"]["gradient_bytes"] == plain["memory"]["gradient_bytes"]


@pytest.mark.parametrize("device", ["edge8", "h200"])
def test_a_graph_file_schedules_as_its_target_does(device: str) -> None:
    step = (*SMALL, "--spikes", "0.2")
    assert run("trace", NET, *step, "--device", device, "-o", "g.json").status == 0
    by_file = run("schedule", "g.json", "--device", device, "--json")
    assert by_file == run("schedule", NET, *step, "--device", device, "--json")
    assert by_file.status == 0


def test_schedule_prints_a_table_and_writes_its_document_where_it_is_asked_to(traced: Path) -> None:
    printed = run("schedule", traced, "-d", "edge8", "--json").out
    before = set(Path.cwd().iterdir())
    ran = run("schedule", traced, "-d", "edge8")
    assert "makespan" in ran.out and set(Path.cwd().iterdir()) == before
    ran = run("schedule", traced, "-d", "edge8", "-o", "schedule.json")
    assert json.loads(Path("schedule.json").read_text()) == json.loads(printed)
    assert "wrote schedule.json" in ran.err


def test_lanes_and_launch_reach_the_schedule(traced: Path) -> None:
    one = json.loads(run("schedule", traced, "-d", "edge8", "--lanes", 1, "--json").out)
    assert one["lanes"] == 1
    assert one["makespan_s"] == pytest.approx(one["sequential_s"])
    eager, graph = (
        json.loads(run("schedule", traced, "-d", "h200", "--launch", how, "--json").out) for how in ("eager", "graph")
    )
    assert graph["makespan_s"] < eager["makespan_s"]


def test_report_writes_its_files_and_prints_one_document(traced: Path) -> None:
    ran = run("report", traced, "-d", "edge8", "-o", "new/out", "--json")
    assert ran.status == 0
    written = {
        "report.html",
        "report.json",
        "gantt.svg",
        "front.svg",
        "memory.svg",
        "graph.svg",
        "layers.csv",
        "trace.perfetto.json",
    }
    assert set(os.listdir("new/out")) == written
    assert json.loads(ran.out) == json.loads(Path("new/out/report.json").read_text())


def test_a_training_step_on_a_chip_begins_with_what_its_learning_rule_assumes() -> None:
    ran = run("schedule", NET, *SMALL, "--spikes", "0.2", "-d", "loihi1", "--learning-rule", "stdp")
    assert ran.status == 0, ran.err
    assert ran.out.startswith("Assumed: learning by pairwise STDP")


def test_report_of_a_target_answers_in_words() -> None:
    ran = run("report", NET, *SMALL, "--spikes", "0.2", "--mode", "infer", "-d", "loihi1", "-o", "out")
    assert ran.status == 0
    assert NET in ran.out
    assert "report.html" in ran.err


def test_an_energy_model_of_the_literature_steers_every_verb_that_gives_energies(traced: Path) -> None:
    asked = (traced, "--device", "edge8", "--energy-model", "papers", "--json")
    documents = [json.loads(run("schedule", *asked).out), json.loads(run("report", *asked, "-o", "out").out)]
    energies = [d["energy_model"] for d in documents]
    assert energies[0] == energies[1]
    forward = [layer for layer in energies[0]["layers"] if layer["phase"] == "forward"]
    spiking = {s.module: s for s in (load(traced).spikes or pytest.fail("no spikes")).layers if s.spiking}
    batch = load(traced).batch
    for layer in forward:
        if layer["module"] in spiking:
            assert layer["parts_j"] == {"ac": pytest.approx(0.9e-12 * spiking[layer["module"]].sops * batch)}
    assert energies[0]["by_phase"]["forward"] == pytest.approx(sum(layer["total_j"] for layer in forward))
    assert energies[0]["by_phase"]["recompute"] > 0
    for verb in ("schedule", "report", "trace", "compare"):
        ran = run(
            verb, NET, "--device", "edge8", "--energy-model", "popular", *(("-o", "x") if verb == "report" else ())
        )
        assert (ran.status, "'popular'" in ran.err, "compute-in-memory" in ran.err) == (2, True, True)


def test_compare_sets_networks_side_by_side_in_the_users_order() -> None:
    step = (*SMALL, "--spikes", "0.2", "-d", "edge8")
    found = json.loads(run("compare", "revsresnet21", NET, *step, "--json").out)
    assert [n["model"] for n in found["networks"]] == ["revsresnet21", NET]
    ran = run("compare", NET, *step, "--choices", "none", "-o", "cmp")
    assert (ran.status, "compare.html" in os.listdir("cmp")) == (0, True)
    assert NET in ran.out


# ---- bare task graphs


def test_a_bare_task_graph_needs_no_device() -> None:
    Path("t.json").write_text(json.dumps(BARE))
    found = json.loads(run("schedule", "t.json", "--lanes", 2, "--json").out)
    assert (found["lanes"], found["makespan_s"], found["sequential_s"]) == (2, 3.0, 5.0)
    assert {p["task"]: p["lane"] for p in found["placements"]} == {"a": 0, "b": 0, "c": 1}


def test_a_bare_task_graph_is_held_to_the_memory_limit() -> None:
    Path("t.json").write_text(json.dumps(BARE))
    assert run("schedule", "t.json", "--lanes", 2, "--memory-limit", 100, "--json").status == 0
    ran = run("schedule", "t.json", "--lanes", 2, "--memory-limit", 99)
    assert ran.status == 1
    assert "the smallest takes 100 at its peak" in ran.line
    assert "99" in ran.line
    assert os.listdir() == ["t.json"]


def test_stg_and_jsp_files_are_told_by_their_ending_or_by_format() -> None:
    Path("x.stg").write_text("2\n0 0 0\n1 5 1 0\n2 3 1 1\n3 0 1 2\n")  # a chain of 5 s and 3 s
    Path("y.jsp").write_text("2 2\n0 3 1 2\n1 2 0 4\n")
    assert json.loads(run("schedule", "x.stg", "--lanes", 2, "--json").out)["makespan_s"] == 8.0
    jobs = json.loads(run("schedule", "y.jsp", "--json").out)
    assert (jobs["lanes"], jobs["makespan_s"]) == (2, 7.0)  # machine 0 has 3 s + 4 s of work
    Path("y.jsp").rename("jobs.txt")
    assert json.loads(run("schedule", "jobs.txt", "--format", "jsp", "--json").out) == jobs
    assert "--format" in run("schedule", "jobs.txt").line


@pytest.mark.parametrize("document", ['{"a": 1}', "[]", "3", '{"task": []}'])
@pytest.mark.parametrize("given", [["--device", "edge8"], ["--lanes", 2]])
def test_a_json_file_of_something_else_says_what_it_is_not(document: str, given: list[object]) -> None:
    Path("other.json").write_text(document)
    assert "holds neither a traced step, as `trace` writes it, nor a task" in run("schedule", "other.json", *given).line


def test_one_of_a_thing_is_singular() -> None:
    Path("t.json").write_text(json.dumps({"tasks": [{"id": "a", "time_s": 1.0}], "edges": []}))
    ran = run("schedule", "t.json", "--lanes", 1)
    assert "task graph on 1 lane: " in ran.out
    assert [counted(n, "core") for n in (0, 1, 2)] == ["0 cores", "1 core", "2 cores"]
    assert [units.size(2**k) for k in (10, 20, 30)] == ["1.00 KiB", "1.00 MiB", "1.00 GiB"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["t.json"], "--lanes N"),
        (["t.json", "--lanes", 0], "0 lanes"),
        (["t.json", "--lanes", 10**9], "less than or equal to 1024"),
        (["t.json", "--lanes", 2, "--device", "h200"], "leave --device out"),
        (["t.json", "--lanes", 2, "--launch", "graph"], "leave --launch out"),
        (["t.json", "--lanes", 2, "--batch", 8], "leave --batch out"),
        (["t.json", "--lanes", 2, "--scheduler", "hfet"], "did you mean heft"),
        (["t.json", "--lanes", 2, "--memory-limit", -1], "must not be negative"),
        (["t.json", "--format", "jspp"], "did you mean jsp"),
        (["missing.stg", "--lanes", 2], "missing.stg"),
        (["cycle.json", "--lanes", 2], "cycle"),
        (["unknown.json", "--lanes", 2], "'z'"),
        (["half.jsp"], "half.jsp"),
    ],
)
def test_a_bare_task_graph_that_cannot_be_is_refused(arguments: list[object], said: str) -> None:
    Path("t.json").write_text(json.dumps(BARE))
    there = {"src": "a", "dst": "b"}
    Path("cycle.json").write_text(json.dumps({**BARE, "edges": [there, {"src": "b", "dst": "a"}]}))
    Path("unknown.json").write_text(json.dumps({**BARE, "edges": [{"src": "a", "dst": "z"}]}))
    Path("half.jsp").write_text("2 2\n0 3 1")
    ran = run("schedule", *arguments)
    assert ran.status == 2
    assert said in ran.line


# ---- options that cannot be


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trcae", NET], "trace"),
        (["trace"], "TARGET"),
        (["trace", NET, "--nope"], "--nope"),
        (["trace", NET, "extra"], "extra"),
        (["trace", NET, "--batch", "two"], "--batch"),
        (["trace", NET, "--batch", 0], "batch is 0"),
        (["trace", NET, "--timesteps", -1], "timesteps is -1"),
        (["trace", NET, "--num-classes", 0], "num_classes is 0"),
        (["trace", NET, "--width", "nan"], "width is nan"),
        (["trace", NET, "--seed", 2**70], "seed is"),
        (["trace", NET, "--mode", "trian"], "did you mean train"),
        (["trace", NET, "--dtype", "float23"], "did you mean float32"),
        (["trace", NET, "--input-shape", "a"], "as in 3,32,32"),
        (["trace", NET, "--input-shape", "3,0,32"], "at least 1"),
        (["trace", NET, "--input-shape", "3,32"], "C,H,W"),
        (["trace", NET, "--form", "fuzed"], "did you mean fused"),
        (["trace", NET, "--granularity", "blok"], "did you mean block"),
        (["trace", NET, "--optimizer", "sdg"], "did you mean sgd"),
        (["trace", NET, "--spikes", "digtis"], "digits"),
        (["trace", NET, *SMALL, "--accumulate", 0], "accumulate is 0"),
        (["trace", NET, *SMALL, "--zero-grad", "zeros"], "did you mean zero"),
        (["trace", NET, *SMALL, "--mode", "infer", "--accumulate", 2], "inference has no gradients"),
        (["trace", NET, "--spikes", "1.5"], "between 0 and 1"),
        (["trace", NET, "--batch", 10**15], "more than any device holds"),
        (["trace", NET, "--width", 1e9], "at most 1000"),
        (["schedule", NET], "--device"),
        (["schedule", NET, "-d", "h20"], "did you mean h200"),
        (["report", NET], "--output"),
        (["compare"], "TARGET"),
        (["devices", "edge9"], "did you mean edge8"),
        (["trace", NET, *SMALL, "--blocks", "stage.*"], "'stage.*' matches no module: its modules are "),
        (["trace", NET, *SMALL, "--blocks", "stages.*", "--blocks", "nope"], "'nope' matches no module"),
        (["schedule", NET, *SMALL, "-d", "edge8", "--launch", "graph"], "launch 'graph' needs a GPU"),
        (["schedule", NET, *SMALL, "-d", "loihi1", "--launch", "graph"], "launch 'graph' needs a GPU"),
        (["compare", NET, *SMALL, "-d", "edge8", "--launch", "graph"], "launch 'graph' needs a GPU"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(arguments: list[object], said: str) -> None:
    ran = run(*arguments)
    assert ran.status == 2
    assert ran.line.startswith("error: ")
    assert said in ran.line
    assert os.listdir() == []


@pytest.mark.parametrize(("name", "nearest"), [("pararevsnn36", "pararevsnn37"), ("revsnet37", "revsresnet37")])
def test_an_unknown_network_is_answered_with_the_nearest_names(name: str, nearest: str) -> None:
    ran = run("trace", name)
    assert ran.status == 2
    assert ran.line.split("did you mean ")[1].split()[0].rstrip("?") == nearest


def test_what_a_graph_file_cannot_obey_is_refused(traced: Path) -> None:
    for verb in (["schedule", traced], ["report", traced, "-o", "out"]):
        ran = run(*verb, "--device", "edge8", "--batch", 64)
        assert ran.status == 2
        assert "leave --batch out" in ran.line
    assert os.listdir() == []


def test_lanes_that_the_device_lacks_are_refused(traced: Path) -> None:
    for device, lanes in (("edge8", 9), ("edge8", 0), ("h200", 10**9)):
        ran = run("schedule", traced, "-d", device, "--lanes", lanes)
        assert ran.status == 2
        assert "lane" in ran.line


# ---- files that cannot be


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b'{"tasks": [{"id": "a", "ti', "half written"),
        (bytes(range(256)), "UTF-8"),
        (b'{"op_types": NaN, "storages": 1}', "NaN"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_a_graph_file_that_cannot_be_read_is_refused(content: bytes, said: str) -> None:
    Path("g.json").write_bytes(content)
    for verb in (["schedule", "g.json"], ["report", "g.json", "-o", "out"]):
        ran = run(*verb, "-d", "edge8")
        assert ran.status == 2
        assert said in ran.line
        assert "g.json" in ran.line
    assert os.listdir() == ["g.json"]


def test_a_missing_graph_file_and_a_folder_are_refused() -> None:
    Path("folder.json").mkdir()
    for name in ("missing.json", "folder.json"):
        ran = run("schedule", name, "-d", "edge8")
        assert ran.status == 2
        assert name in ran.line


def test_a_half_written_graph_is_refused_wherever_it_breaks_off(traced: Path) -> None:
    text = traced.read_text()
    for share in (0.001, 0.3, 0.7, 0.999):
        Path("g.json").write_text(text[: int(share * len(text))])
        ran = run("schedule", "g.json", "-d", "edge8")
        assert ran.status == 2
        assert "half written" in ran.line


def put(*path: Any) -> Callable[[Any], None]:
    """The edit that puts the last item at the place that the others name."""

    def edit(document: Any) -> None:
        *way, last, value = path
        for step in way:
            document = document[step]
        document[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (put("schema_version", 99), "newer"),
        (put("schema_version", "1"), "schema_version"),
        (lambda d: d.pop("model"), "'model'"),
        (put("ops", "type", 0, 10**6), "type 1000000"),
        (put("ops", "type", 0, -1), "-1 is given where a count"),
        (put("ops", "phase", 0, 9), "not a valid graph"),
        (put("ops", "reads", 0, [10**9]), "storage"),
        (put("ops", "after", 0, [5]), "op 0"),
        (put("tasks", 0, "op_indices", [10**7]), "op that does not exist"),
        (put("tasks", 0, "id", "nobody"), "lacks"),
        (put("edges", 0, "bytes", -5), "-5"),
        (put("storages", "role", 5, "boss"), "'boss'"),
        (put("storages", "bytes", 5, -1), "-1"),
        (put("memory", {}), "peak_bytes"),
        (put("tasks", [1, 2]), "not a valid graph"),
        (put("ops", None), "not a valid graph"),
        (lambda d: d["edges"].append({**d["edges"][-1], "src": d["edges"][-1]["dst"]}), "backwards"),
        (lambda d: d["tasks"].append(d["tasks"][0]), "share one id"),
    ],
)
def test_a_graph_edited_into_nonsense_is_refused(traced: Path, edit: Callable[[Any], None], said: str) -> None:
    path = edited(traced, edit)
    ran = run("schedule", path, "-d", "edge8", "-o", "s.json")
    assert ran.status == 2
    assert "edited.json" in ran.line
    assert said in ran.line
    assert os.listdir() == ["edited.json"]


def test_odd_text_in_a_graph_file_is_shown_and_never_obeyed(traced: Path) -> None:
    odd = {"model": "<script>alert(1)</script>[red]{{7*7}}", "!!python/object/apply:os.system": ["touch pwned"]}
    path = edited(traced, lambda document: document.update(odd))
    ran = run("report", path, "-d", "edge8", "-o", "out")
    assert ran.status == 0
    assert "[red]{{7*7}}" in ran.out
    page = Path("out/report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "[red]{{7*7}}" in page
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("- 1\n- 2", "holds no device"),
        ("{{{ : not\n - yaml", "not valid YAML"),
        ("!!python/object/apply:os.system ['touch pwned']", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_device_is_refused_and_runs_nothing(text: str, said: str) -> None:
    Path("d.yaml").write_text(text)
    ran = run("devices", "d.yaml")
    assert ran.status == 2
    assert "d.yaml" in ran.line
    assert said in ran.line
    assert os.listdir() == ["d.yaml"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d.update(lane=d.pop("lanes")), "did you mean 'lanes'"),
        (
            lambda d: d["figures"].update(memory_bandwith=d["figures"].pop("memory_bandwidth_bytes_per_s")),
            "memory_bandwidth_bytes_per_s",
        ),
        (lambda d: d["figures"]["memory_bandwidth_bytes_per_s"].update(value=-1.0), "-1.0"),
        (lambda d: d["figures"]["memory_bandwidth_bytes_per_s"].update(value=float("inf")), "inf"),
        (lambda d: d["figures"]["memory_bandwidth_bytes_per_s"].update(value="fast"), "'fast'"),
        (lambda d: d["figures"]["memory_bandwidth_bytes_per_s"].pop("source"), "source"),
        (lambda d: d.update(schema_version=7), "schema_version is 7"),
        (lambda d: d.update(kind="toaster"), "'toaster'"),
        (lambda d: d.update(lanes=0), "lanes is 0"),
    ],
)
def test_a_device_file_with_a_slip_is_refused(traced: Path, edit: Callable[[Any], None], said: str) -> None:
    document = yaml.safe_load(device_to_yaml(load_device("edge8")))
    edit(document)
    Path("d.yaml").write_text(yaml.safe_dump(document))
    ran = run("schedule", traced, "-d", "d.yaml")
    assert ran.status == 2
    assert "d.yaml" in ran.line
    assert said in ran.line


def test_a_device_from_a_file_is_scheduled_like_the_one_it_copies(traced: Path) -> None:
    copied = device_file("copy.yaml")
    assert run("schedule", traced, "-d", copied, "--json") == run("schedule", traced, "-d", "edge8", "--json")


def test_what_a_network_says_in_escape_codes_is_quoted_without_them() -> None:
    Path("net.py").write_text("def make():\n    raise ValueError('\\x1b[2J\\x1b]0;owned\\x07broken')\n")
    ran = run("trace", "net.py:make", "--input-shape", "3,8,8")
    assert ran.status == 2
    assert "broken" in ran.line
    assert not CONTROL.search(ran.line)


# ---- what does not fit


def test_a_network_that_does_not_fit_is_answered_with_numbers(traced: Path) -> None:
    tight = device_file("tight.yaml", memory_bytes=1000.0)
    for verb in (["schedule", traced], ["report", traced, "-o", "out"]):
        ran = run(*verb, "-d", tight)
        assert ran.status == 1
        assert ran.line.startswith("error: ")
        assert NET in ran.line
        assert "1000" in ran.line
    assert os.listdir() == ["tight.yaml"]


def test_a_batch_beyond_the_memory_of_every_network_compared_says_which() -> None:
    ran = run("compare", NET, "--batch", 20_000, "--spikes", "none", "-d", "edge8", "-o", "out")
    assert ran.status == 1
    assert NET in ran.line
    assert "7.45 GiB" in ran.line  # 8e9 bytes
    assert os.listdir() == []


# ---- outputs that cannot be


def test_an_output_that_cannot_be_written_is_refused_before_any_work(traced: Path) -> None:
    Path("file").write_text("mine")
    Path("folder").mkdir()
    for arguments in (
        ["schedule", traced, "-d", "edge8", "-o", "file/s.json"],
        ["schedule", traced, "-d", "edge8", "-o", "folder"],
        ["trace", "no-such-network", "-o", "file/deep/g.json"],
        ["report", traced, "-d", "edge8", "-o", "file"],
        ["report", traced, "-d", "edge8", "-o", "file/out"],
        ["compare", NET, "-o", "file/out"],
    ):
        ran = run(*arguments)
        assert ran.status == 2
        assert "cannot write" in ran.line
    assert Path("file").read_text() == "mine"
    assert os.listdir("folder") == []


def test_a_verb_that_fails_leaves_no_folder_behind() -> None:
    for verb in (
        ["trace", "nope", "-o", "a/b/g.json"],
        ["report", "nope", "-o", "a/b"],
        ["compare", "nope", "-o", "a"],
    ):
        assert run(*verb).status == 2
        assert os.listdir() == []


def test_a_link_stays_a_link_and_a_pipe_is_written_to(traced: Path) -> None:
    Path("real.json").write_text("old")
    Path("link.json").symlink_to("real.json")
    assert run("schedule", traced, "-d", "edge8", "-o", "link.json").status == 0
    assert Path("link.json").is_symlink()
    assert json.loads(Path("real.json").read_text())["device"] == "edge8"
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert run("schedule", traced, "-d", "edge8", "-o", "pipe").status == 0
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    assert json.loads(os.read(reader, 1 << 20))["device"] == "edge8"
    os.close(reader)


# ---- the process: streams, signals, limits, what is imported


def limit_files(size: int) -> Callable[[], None]:
    """Lets the process write no file beyond `size` bytes, as a full disk would."""

    def apply() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return apply


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(traced: Path, folder: Path) -> None:
    Path("s.json").write_text("old")
    ran = finish(start("schedule", traced, "-d", "edge8", "-o", "s.json", folder=folder, before=limit_files(1000)))
    assert ran.status == 2
    assert "cannot write" in ran.line
    assert (os.listdir(), Path("s.json").read_text()) == (["s.json"], "old")


def test_a_full_disk_leaves_no_half_report(traced: Path, folder: Path) -> None:
    Path("out").mkdir()
    ran = finish(start("report", traced, "-d", "edge8", "-o", "out", folder=folder, before=limit_files(50_000)))
    assert ran.status == 2
    assert "cannot write" in ran.line
    assert os.listdir("out") == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_standard_output_on_a_full_disk_is_one_line_on_standard_error(options: list[str], folder: Path) -> None:
    with open("/dev/full", "w") as full:
        ran = finish(start("schedulers", *options, folder=folder, stdout=full.fileno()))
    assert ran.status == 2
    assert "No space left" in ran.line


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_leaves_early_hears_no_complaint(traced: Path, options: list[str], folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = finish(start("schedule", traced, "-d", "edge8", "-o", "s.json", *options, folder=folder, stdout=write))
    os.close(write)
    assert "Traceback" not in ran.err
    assert "Exception" not in ran.err
    assert ran.status == 0
    assert json.loads(Path("s.json").read_text())["device"] == "edge8"


def test_interrupting_a_trace_says_so_in_one_line_and_leaves_nothing(folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import pathlib, time, torch\n"
        "class Slow(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        pathlib.Path('started').touch()\n"
        "        for _ in range(600): time.sleep(0.1)\n"
        "        return super().forward(x)\n"
        "def make(): return Slow(4, 4), torch.zeros(2, 4)\n"
    )
    process = start("trace", "slow.py:make", "-o", "new/g.json", folder=folder)
    while not Path("started").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    ran = finish(process)
    assert (ran.status, ran.line) == (130, "interrupted")
    assert not Path("new").exists()


def test_numpy_computes_on_one_core(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    (folder / "net.py").write_text(
        "import os, pathlib, torch\n"
        "pathlib.Path('threads').write_text(os.environ.get('OPENBLAS_NUM_THREADS', 'all'))\n"
        "def make(): return torch.nn.Linear(4, 4), torch.zeros(2, 4)\n"
    )
    assert finish(start("trace", "net.py:make", folder=folder)).status == 0
    assert Path("threads").read_text() == "1"


def test_import_and_help_load_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys; import pararev_hw, pararev_hw.cli\n"
        "sys.argv = ['pararev-hw', 'schedule', '--help']\n"
        "try: pararev_hw.cli.main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'scipy', 'networkx', 'ortools', 'sklearn', 'onnx'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    "command", [["schedule", "bare.json", "--lanes", "2", "--json"], ["devices"], ["devices", "edge8"], ["models"]]
)
def test_what_needs_no_network_loads_no_torch(folder: Path, command: list[str]) -> None:
    Path("bare.json").write_text('{"tasks": [{"id": "a", "time_s": 1}, {"id": "b", "time_s": 2}]}')
    code = (
        "import sys; import pararev_hw.cli\n"
        f"sys.argv = ['pararev-hw', *{command!r}]\n"
        "try: pararev_hw.cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'triton', 'pandas', 'matplotlib', 'scipy', 'networkx', 'ortools', 'numba',\n"
        "         'pararev_hw.cli.report', 'pararev_hw.cli.sweep', 'pararev_hw.reports.page'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "loaded: []"


def test_what_plans_a_graph_from_a_file_loads_no_torch(folder: Path) -> None:
    code = (
        "import sys, pararev_hw.pipeline, pararev_hw.costmodels; print(sorted({'torch', 'triton'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_do_not_depend_on_the_hash_seed(folder: Path) -> None:
    def everything(seed: str) -> str:
        code = (
            "from tests.helpers.command_line import SMALL, run\n"
            f"print(run('trace', '{NET}', *SMALL, '--json').out)\n"
            f"print(run('schedule', '{NET}', *SMALL, '--spikes', 'none', '-d', 'edge8', '--json').out)\n"
        )
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout

    first = everything("0")
    assert [json.loads(line).get("model") for line in first.split("\n") if line] == [NET, NET]
    assert first == everything("1")


def test_a_cache_that_cannot_be_written_costs_a_measurement_and_nothing_else(
    traced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("file").resolve()))
    ran = run("schedule", traced, "-d", "cpu", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert json.loads(ran.out)["device"] == "cpu"


def test_the_measured_cpu_is_kept_and_a_broken_cache_is_measured_again(traced: Path) -> None:
    first, second = (json.loads(run("devices", "cpu", "--json").out) for _ in range(2))
    assert first == second  # read back: a second measurement would differ
    (kept,) = Path("cache/pararev-hw").iterdir()
    kept.write_text('{"half')
    assert run("devices", "cpu", "--json").status == 0
    assert json.loads(kept.read_text())["name"] == "cpu"


@pytest.mark.parametrize("verb", ["trace", "report", "schedule"])
def test_a_file_of_weights_gets_a_line_that_helps(verb: str) -> None:
    Path("weights.pt").write_bytes(b"PK")
    ran = run(verb, "weights.pt", "--device", "edge8", "-o", "out")
    assert ran.status == 2 and "name the factory that builds it" in ran.err
