"""What is kept of parts says what all rows together say, in whatever order the parts come and however they are kept."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw import limits, sweeps
from pararev_hw.errors import BadFile
from pararev_hw.sweeps import store as stores
from pararev_hw.sweeps import workers
from pararev_hw.sweeps.problem import Problem, Table, prepare
from pararev_hw.sweeps.spec import Sweep
from pararev_hw.sweeps.summary import BINS, Part, Summary, empty_summary, part_of
from pararev_hw.types import SweepResult
from tests.helpers.sweep_helpers import small

OBJECTIVES = ["latency_s", "energy_j", "area"]


def drawn(sweep: Sweep, seed: int, ties: int) -> Table:
    """Rows with objectives that often equal one another, a third of them failed."""
    draw = np.random.default_rng(seed)
    table: Table = dict(sweep.space.random(0, sweep.rows, seed))
    failed = draw.choice(np.array(["", "", "too big", "no room"], object), sweep.rows)
    for name in OBJECTIVES:
        table[name] = np.where(failed == "", draw.integers(1, ties, sweep.rows) / 7.0, np.nan)
    return table | {"failed": failed}


def parts(sweep: Sweep, table: Table) -> list[Part]:
    spans = [sweep.span(c) for c in range(sweep.chunks)]
    return [part_of(sweep, a, {n: v[a:b] for n, v in table.items()}) for a, b in spans]


def gathered(sweep: Sweep, some: list[Part]) -> Summary:
    summary = empty_summary(sweep)
    for part in some:
        summary.add(part.summary)
    return summary


def shares_of_all(sweep: Sweep, fine: pd.DataFrame, objective: str) -> dict[str, float]:
    """The sensitivities by least squares over one matrix of all rows."""
    blocks = {}
    for p in sweep.space.parameters:
        values = fine[p.name].to_numpy()
        if p.continuous:
            code = ((np.log(values) - np.log(p.low)) / (np.log(p.high) - np.log(p.low)) * BINS).astype(int)
        elif len(p.values) > 1:
            code = np.searchsorted(np.array(p.values, float), values)
        else:
            continue
        blocks[p.name] = np.eye(code.max() + 1)[code]
    y = np.log(fine[objective].to_numpy())
    effects = np.linalg.lstsq(np.hstack(list(blocks.values())), y - y.mean(), rcond=1e-10)[0]
    ends = np.cumsum([b.shape[1] for b in blocks.values()])[:-1]
    return {
        n: float(((b @ e) * (y - y.mean())).mean() / y.var())
        for (n, b), e in zip(blocks.items(), np.split(effects, ends), strict=True)
    }


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.sampled_from([3, 30, 10**6]), order=st.randoms(use_true_random=False))
def test_parts_in_any_order_say_what_all_rows_say(seed: int, ties: int, order: "np.random.Generator") -> None:
    sweep = small(constraints="[]")
    table = drawn(sweep, seed, ties)
    some = parts(sweep, table)
    in_order = gathered(sweep, some)
    order.shuffle(some)
    summary = gathered(sweep, some)

    rows = pd.DataFrame(table | {"row": np.arange(sweep.rows)})
    fine = rows[rows["failed"] == ""]
    values = fine[OBJECTIVES].to_numpy()
    distinct, copies = np.unique(values, axis=0, return_inverse=True)
    unbeaten = np.array([not ((distinct <= v).all(1) & (distinct < v).any(1)).any() for v in distinct])
    ((_, front),) = summary.fronts()
    assert sorted(front["row"].to_pylist()) == sorted(fine["row"][unbeaten[copies.reshape(-1)]])
    assert summary.evaluated == sweep.rows
    assert summary.reasons == Counter(rows["failed"][rows["failed"] != ""])
    pictured = sorted(r for t in summary.sampled for r in t["row"].to_pylist())
    assert pictured == [r for r in fine["row"] if r % (sweep.rows // 1500) == 0]
    for objective in OBJECTIVES:
        shares = summary.fit.shares(objective)
        assert shares == in_order.fit.shares(objective)  # to the last bit
        expected = shares_of_all(sweep, fine, objective)
        assert shares == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return prepare(small(), lambda _: None)


@pytest.fixture
def traced(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["pararev_hw.sweeps.run"]
    monkeypatch.setattr(module, "prepare", lambda sweep, *_: replace(problem, sweep=sweep))
    monkeypatch.setattr(module, "explained", lambda problem, result: ())


def lasting(result: SweepResult) -> SweepResult:
    """What does not depend on how the rows came about."""
    return replace(result, resumed=0, configs_per_s=None)


@pytest.mark.usefixtures("traced")
def test_resumed_and_in_a_folder_a_sweep_says_the_same(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweeps.run(problem.sweep, tmp_path / "whole", processes=1)
    rows = pd.read_parquet(tmp_path / "whole" / "results.parquet")
    with stores.opened(problem.sweep, tmp_path / "out", fresh=False) as store:
        for chunk in (4, 1):
            store.write(chunk, workers.evaluate_chunk(problem, chunk).data)
    monkeypatch.setattr(limits, "ONE_FILE_ROWS", 1000)
    resumed = sweeps.run(problem.sweep, tmp_path / "out", processes=1)
    assert resumed.resumed == 2048 and lasting(resumed) == lasting(whole)
    results = tmp_path / "out" / "results.parquet"
    assert sorted(p.name for p in results.iterdir()) == [f"part-{k:05d}.parquet" for k in range(6)]
    assert pd.read_parquet(results).equals(rows)
    assert (tmp_path / "out/results.csv").read_bytes() == (tmp_path / "whole/results.csv").read_bytes()

    again = sweeps.run(problem.sweep, tmp_path / "out", processes=1)
    assert again.resumed == 6000 and lasting(again) == lasting(whole)
    assert whole.recommended is not None
    study = sweeps.row_study(tmp_path / "out", whole.recommended.row)
    assert study.chosen.latency_s == pytest.approx(whole.recommended.objectives["latency_s"], rel=1e-9)

    damaged = results / "part-00003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(BadFile, match=r"part-00003.parquet is damaged: remove it"):
        sweeps.run(problem.sweep, tmp_path / "out", processes=1)
    monkeypatch.setattr(limits, "ONE_FILE_ROWS", 10**6)
    fresh = sweeps.run(problem.sweep, tmp_path / "out", processes=1, fresh=True)
    assert lasting(fresh) == lasting(whole) and results.is_file()
