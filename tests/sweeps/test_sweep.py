"""A sweep from the command line: goes on where it stopped, whoever stopped it, and ends with the same rows."""

import errno
import gc
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pararev_hw.errors import BadFile, BadInput
from pararev_hw.sweeps import store as stores
from pararev_hw.sweeps import workers
from pararev_hw.sweeps.problem import Problem, prepare
from pararev_hw.sweeps.run import run as run_sweep
from pararev_hw.sweeps.spec import Sweep
from tests.helpers.command_line import finish, run, start
from tests.helpers.sweep_helpers import small, written


@pytest.fixture(scope="module")
def problem() -> Problem:
    return prepare(small(), lambda _: None)


@pytest.fixture
def rows_alone(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps of this process trace the small network no more, and explain no points: what they write are rows."""

    def prepared(sweep: Sweep, progress: Callable[[str], None], compute: str | None = None) -> Problem:
        if sweep.space == problem.sweep.space and compute is None:
            return replace(problem, sweep=sweep)
        return prepare(sweep, progress, compute)

    module = sys.modules["pararev_hw.sweeps.run"]
    monkeypatch.setattr(module, "prepare", prepared)
    monkeypatch.setattr(module, "explained", lambda problem, result: ())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 6000 rows, in 6 parts."""
    folder = tmp_path_factory.mktemp("whole")
    ran = run("sweep", written(folder), "-o", folder / "out", "--json")
    assert ran.status == 0, ran.err
    (folder / "ran.json").write_text(ran.out)
    return folder


def rows(folder: Path) -> bytes:
    return (folder / "out" / "results.parquet").read_bytes()


def test_json_says_what_was_done_and_what_is_best(whole: Path) -> None:
    document = json.loads((whole / "ran.json").read_text())
    table = pq.read_table(whole / "out" / "results.parquet").to_pandas()
    assert document["evaluated"] == len(table) == 6000
    assert document["failed"] == table["failed"].notna().sum() > 0
    assert document["resumed"] == 0 and document["configs_per_s"] > 0
    assert table["row"].tolist() == list(range(6000))
    fine = table[table["failed"].isna()]
    assert (fine["area"] <= 9).all() and (table[table["failed"].notna()]["area"] > 9).all()
    # the front by brute force
    values = fine[["latency_s", "energy_j", "area"]].to_numpy()
    for p in document["pareto"][:40]:
        mine = [p["objectives"][k] for k in ("latency_s", "energy_j", "area")]
        assert not ((values <= mine).all(1) & (values < mine).any(1)).any()
    assert {p["row"] for p in document["pareto"]} >= {int(fine.loc[fine[k].idxmin(), "row"]) for k in ("latency_s",)}


def test_again_computes_nothing_and_changes_nothing(whole: Path) -> None:
    before = rows(whole)
    again = json.loads(run("sweep", whole / "small.yaml", "-o", whole / "out", "--json").out)
    assert again["resumed"] == 6000 and again["configs_per_s"] is None
    assert rows(whole) == before
    assert not (whole / "out" / "parts").exists()


@pytest.mark.usefixtures("rows_alone")
def test_a_changed_file_is_refused_unless_fresh(whole: Path, tmp_path: Path) -> None:
    ran = run("sweep", written(tmp_path), "-o", tmp_path / "out", "--workers", "1")
    assert ran.status == 0
    changed = written(tmp_path, constraints="[area <= 8]")
    ran = run("sweep", changed, "-o", tmp_path / "out")
    assert ran.status == 2 and "another sweep" in ran.line and "--fresh" in ran.line
    assert rows(tmp_path) == rows(whole)
    assert run("sweep", changed, "-o", tmp_path / "out", "--fresh").status == 0
    assert rows(tmp_path) != rows(whole)


def stopped_by(stop: signal.Signals, file: Path, *options: str, parts: int) -> "subprocess.CompletedProcess[str]":
    """The sweep in a process of its own, into `out` beside the file, that gets the signal once it has written so many
    parts."""
    script = (
        "import os, sys\n"
        "from pararev_hw import cli\n"
        "from pararev_hw.sweeps.store import Store\n"
        "write, written = Store.write, []\n"
        "def write_then_stop(store, chunk, data):\n"
        "    write(store, chunk, data)\n"
        "    written.append(chunk)\n"
        f"    if len(written) == {parts}: os.kill(os.getpid(), {int(stop)})\n"
        "Store.write = write_then_stop\n"
        "cli.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", script, "sweep", str(file), "-o", str(file.parent / "out"), *options],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        cwd=file.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.usefixtures("rows_alone")
def test_killed_at_any_moment_it_ends_with_the_same_rows(whole: Path, tmp_path: Path) -> None:
    file = written(tmp_path)
    for parts in (1, 3):
        assert stopped_by(signal.SIGKILL, file, "--workers", "1", parts=parts).returncode == -signal.SIGKILL
    kept = {p: p.stat().st_mtime_ns for p in sorted((tmp_path / "out" / "parts").glob("*.parquet"))}
    ran = run("sweep", file, "-o", tmp_path / "out", "--json")
    assert ran.status == 0, ran.err
    assert rows(tmp_path) == rows(whole)
    assert len(kept) == 4
    assert json.loads(ran.out)["resumed"] == 1024 * 4


@pytest.mark.usefixtures("rows_alone")
def test_a_damaged_part_is_computed_again(whole: Path, tmp_path: Path, problem: Problem) -> None:
    sweep = problem.sweep
    with stores.opened(sweep, tmp_path / "out", fresh=False) as store:
        for chunk in (0, 1, 3):
            store.write(chunk, workers.evaluate_chunk(problem, chunk).data)
        at = store.part(1)
    at.write_bytes(at.read_bytes()[:-100])
    said: list[str] = []
    result = run_sweep(sweep, tmp_path / "out", warn=said.append)
    assert result.resumed == 2048
    assert len(said) == 1 and "part-00001.parquet: is damaged" in said[0]
    assert rows(tmp_path) == rows(whole)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), pa.ArrowMemoryError("malloc")])
def test_a_part_that_cannot_be_read_for_now_stays(
    tmp_path: Path, problem: Problem, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    sweep = problem.sweep
    with stores.opened(sweep, tmp_path / "out", fresh=False) as store:
        store.write(0, workers.evaluate_chunk(problem, 0).data)
        part = store.part(0)

    def failing(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(pq, "ParquetFile", failing)
        with pytest.raises(
            BadFile, match=r"part-00000.parquet: cannot be read \((Input/output|not enough mem).*is left as it is"
        ):
            run_sweep(sweep, tmp_path / "out")
    assert part.exists()
    with stores.opened(sweep, tmp_path / "out", fresh=False) as store:
        assert store.finished == {0}


@pytest.mark.usefixtures("rows_alone")
def test_stopped_while_it_gathers_results_a_sweep_leaves_no_draft_and_nothing_of_the_rows_before(
    tmp_path: Path, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out, of_rows = tmp_path / "out", {"results.csv", "points.json"}
    run_sweep(problem.sweep, out)
    assert of_rows <= {p.name for p in out.iterdir()}
    for owner, name in ((stores, "_sound"), (stores.Store, "tables")):  # of results.parquet, of results.csv
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(owner, name, stop)
            run_sweep(problem.sweep, out, fresh=True)
        assert not list(out.rglob("*.draft"))
        assert not of_rows & {p.name for p in out.iterdir()}
    assert run_sweep(problem.sweep, out).resumed == problem.sweep.rows
    assert of_rows <= {p.name for p in out.iterdir()}


@pytest.mark.usefixtures("rows_alone")
def test_damaged_results_are_said_to_be_so(tmp_path: Path, whole: Path) -> None:
    file = written(tmp_path)
    (tmp_path / "out").mkdir()
    for name in ("manifest.json", "results.parquet"):
        (tmp_path / "out" / name).write_bytes((whole / "out" / name).read_bytes())
    at = tmp_path / "out" / "results.parquet"
    data = bytearray(at.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    at.write_bytes(data)
    ran = run("sweep", file, "-o", tmp_path / "out")
    assert ran.status == 2 and "results.parquet: is damaged" in ran.line
    at.unlink()
    assert run("sweep", file, "-o", tmp_path / "out").status == 0
    assert rows(tmp_path) == rows(whole)


def test_a_second_sweep_into_one_folder_is_refused(problem: Problem, tmp_path: Path) -> None:
    with stores.opened(problem.sweep, tmp_path / "out", fresh=False):
        ran = finish(start("sweep", written(tmp_path), "-o", tmp_path / "out", folder=tmp_path))
        assert ran.status == 2 and f"process {os.getpid()} is sweeping into it" in ran.line
    assert not (tmp_path / "out").exists()  # nothing was computed
    # a lock that is left by a process that died holds nobody up
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.lock").write_text("process 1\n")
    with stores.opened(problem.sweep, tmp_path / "out", fresh=False):
        pass


@pytest.mark.usefixtures("rows_alone")
def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path, whole: Path) -> None:
    file = written(tmp_path)

    def little() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # a part fits, all of them together do not

    ran = finish(start("sweep", file, "-o", tmp_path / "out", "--workers", 1, folder=tmp_path, before=little))
    assert ran.status == 2 and "make room" in ran.line and "6,000 of 6,000 rows are kept" in ran.line, ran.err
    assert run("sweep", file, "-o", tmp_path / "out").status == 0
    assert rows(tmp_path) == rows(whole)


def test_processes_give_the_same_rows_also_when_one_dies(whole: Path, tmp_path: Path, problem: Problem) -> None:
    with stores.opened(problem.sweep, tmp_path / "out", fresh=False) as store:
        killed = False
        for chunk, part in workers.local(problem, stores.missing(store), 2):
            store.write(chunk, part.data)
            if not killed:
                import multiprocessing

                child = multiprocessing.active_children()[0]
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
                killed = True
        store.merge()
    assert killed
    assert rows(tmp_path) == rows(whole)


def _dies_while_it_answers(chunk: int) -> bytes:
    from multiprocessing.connection import Connection

    def send_half(self: Connection, message: bytes) -> None:
        os.write(self.fileno(), message[: len(message) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = send_half  # type: ignore[attr-defined]
    return bytes(1000)


def test_a_worker_that_is_killed_while_it_writes_its_rows_is_not_waited_for(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_chunk", _dies_while_it_answers)
    with workers._processes(problem, 1) as (pools, _):
        future = workers._submit(pools[0], 0)
        assert isinstance(future.exception(timeout=60), BrokenProcessPool)
        with pytest.raises(BrokenProcessPool):
            workers._submit(pools[0], 1).result(timeout=60)


@pytest.mark.parametrize("method", ["nsga2", "tpe"])
@pytest.mark.usefixtures("rows_alone")
def test_a_search_goes_on_as_if_it_had_not_stopped(method: str, tmp_path: Path, problem: Problem) -> None:
    pytest.importorskip("optuna")
    asked = f"{{name: {method}, evaluations: 90, population: 30, seed: 5}}"
    sweep = small(method=asked, objectives="[latency, energy]")
    run_sweep(sweep, tmp_path / "whole")
    from pararev_hw.sweeps.run import _parts

    with stores.opened(sweep, tmp_path / "parts", fresh=False) as store:
        chunk, part = next(_parts(replace(problem, sweep=sweep), store, stores.missing(store), None, None))
        store.write(chunk, part.data)
    lock = tmp_path / "parts" / "study.journal.lock"
    lock.symlink_to("study.journal")  # as a search leaves it that is killed while it writes
    result = run_sweep(sweep, tmp_path / "parts")
    assert result.resumed == 30 and not lock.is_symlink()
    assert (tmp_path / "parts/results.parquet").read_bytes() == (tmp_path / "whole/results.parquet").read_bytes()


@pytest.mark.usefixtures("rows_alone")
def test_an_interrupt_keeps_what_is_finished(tmp_path: Path, whole: Path) -> None:
    file = written(tmp_path)
    stopped = stopped_by(signal.SIGINT, file, parts=2)
    assert stopped.returncode == 130 and stopped.stderr.strip().endswith("interrupted"), stopped.stderr
    assert len(list((tmp_path / "out" / "parts").glob("*.parquet"))) == 2
    assert not list((tmp_path / "out").rglob("*.draft"))
    assert run("sweep", file, "-o", tmp_path / "out").status == 0
    assert rows(tmp_path) == rows(whole)


def test_workers_that_die_before_they_begin_are_not_waited_for(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multiprocessing import spawn

    assert len(pickle.dumps(problem)) > 1 << 16  # what a pipe holds
    dies = tmp_path / "python"
    dies.write_text(f'#!/bin/sh\ncase "$*" in *spawn_main*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    dies.chmod(0o755)
    monkeypatch.setattr(spawn, "_python_exe", os.fsencode(dies))
    with pytest.raises(workers.WorkersDied, match="died 4 times in a row"):
        list(workers.local(problem, [0, 1], 2))


def test_a_cluster_gives_the_same_rows_also_when_a_worker_dies(whole: Path, tmp_path: Path, problem: Problem) -> None:
    distributed = pytest.importorskip("distributed")
    said = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

    def begin(*arguments: object) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "dask", *map(str, arguments)]
        return subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=-3, stderr=-3, start_new_session=True)

    scheduler = ("scheduler", "--port", 0, "--scheduler-file", said, "--no-dashboard", "--no-show")
    worker = ("worker", "--scheduler-file", said, "--nthreads", 1, "--no-nanny", "--no-dashboard")
    running = [begin(*scheduler), begin(*worker), begin(*worker)]
    try:
        while not said.exists() or not said.read_text():
            time.sleep(0.05)
        address = json.loads(said.read_text())["address"]
        with distributed.Client(address) as client:
            client.wait_for_workers(2, timeout=60)
        with stores.opened(problem.sweep, tmp_path / "out", fresh=False) as store:
            for chunk, part in workers.cluster(problem, stores.missing(store), address):
                store.write(chunk, part.data)
                running[1].kill()
            store.merge()
        assert rows(tmp_path) == rows(whole)
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "ucx://127.0.0.1:9", "tls://127.0.0.1:9", "unheard://x", ""])
def test_an_address_without_a_scheduler_is_told_in_a_line(problem: Problem, address: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(BadInput, match=f"no Dask scheduler answers at '{address}'"):
        next(workers.cluster(problem, [0], address))
    gc.collect()  # a client that is half made says what goes wrong when it is closed: a warning, which fails


def test_a_row_is_what_report_says_of_its_chip(whole: Path, tmp_path: Path) -> None:
    document = json.loads((whole / "ran.json").read_text())
    for point in (document["recommended"], document["pareto"][0]):
        chips = whole / "out" / "chips"
        ran = run(
            *("report", "pararevsnn21", "--width", "0.0625", "--batch", 2, "--spikes", "0.15", "--scheduler", "heft"),
            *("--device", chips / f"row-{point['row']}.yaml", "-o", tmp_path / "report", "--json"),
            *("--orders-of", chips / f"lanes-{point['parameters']['lanes']}.yaml"),
        )
        assert ran.status == 0, ran.err
        study = json.loads(ran.out)
        chosen = study["predictions"][study["best"]]
        assert chosen["latency_s"] == pytest.approx(point["objectives"]["latency_s"], rel=1e-9)
        assert chosen["energy_j"]["total"] == pytest.approx(point["objectives"]["energy_j"], rel=1e-9)


def test_json_is_what_its_schema_says(whole: Path) -> None:
    from tests.helpers.json_schema import schema, wrong

    document = json.loads((whole / "ran.json").read_text())
    assert list(wrong(document, schema("sweep"))) == []
    assert json.loads((whole / "out" / "sweep.json").read_text())["pareto"] == document["pareto"]
