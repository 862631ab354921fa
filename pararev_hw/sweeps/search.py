"""Searches by Optuna: NSGA-II and TPE, asked for a generation at a time.

A generation is a part. The samplers are seeded and hear the same answers in the same order, so a search that goes on
from its parts asks for just what it would have asked for: parts that are there are told, never computed again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pararev_hw.errors import MissingDependency
from pararev_hw.sweeps.parameters import Parameter
from pararev_hw.sweeps.problem import Problem, Table
from pararev_hw.sweeps.spec import Sweep
from pararev_hw.sweeps.summary import Part, part_of

STUDY = "study.journal"


def available() -> None:
    """Raises MissingDependency without the extra `search`."""
    _optuna()


def _optuna() -> Any:
    try:
        return import_module("optuna")  # an extra
    except ImportError:
        raise MissingDependency("method nsga2 and tpe need Optuna: install pararev-hw[search]") from None


def generations(
    problem: Problem, finished: set[int], read: Callable[[int], Table], folder: Path
) -> Iterator[tuple[int, Part]]:
    """The parts that are missing, in order; `read` gives parameters and objectives of one that is there.

    The study is in `folder` as Optuna's own journal, for `optuna-dashboard` and for whoever goes on with it. It is
    written anew from the parts: a journal may end in the middle of a generation.
    """
    sweep = problem.sweep
    study = _study(sweep, folder / STUDY)
    for chunk in range(sweep.chunks):
        start, stop = sweep.span(chunk)
        trials = [study.ask() for _ in range(stop - start)]
        proposals = _proposed(sweep.space.parameters, trials)
        if chunk in finished:
            table = read(chunk)
        else:
            table = problem.evaluate(proposals)
            yield chunk, part_of(sweep, start, table)
        _tell(study, sweep, trials, table)


def _study(sweep: Sweep, journal: Path) -> Any:
    optuna = _optuna()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some options of samplers are marked as experimental
        if sweep.method.name == "nsga2":
            sampler: Any = optuna.samplers.NSGAIISampler(
                population_size=max(2, sweep.method.population), seed=sweep.method.seed
            )
        else:
            sampler = optuna.samplers.TPESampler(
                seed=sweep.method.seed, n_startup_trials=min(20, sweep.method.population), constant_liar=True
            )
    directions = ["maximize" if o.maximise else "minimize" for o in sweep.objectives]
    journal.unlink(missing_ok=True)
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)  # of a search that was killed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # journals are marked as experimental
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(sampler=sampler, directions=directions, storage=storage, study_name=sweep.name)
        study.set_metric_names([o.column for o in sweep.objectives])
    return study


def _proposed(parameters: Sequence[Parameter], trials: Sequence[Any]) -> Table:
    """What the sampler asks for, as columns. Values that are listed are asked for by their number."""
    columns: dict[str, list[float | str]] = {p.name: [] for p in parameters}
    for trial in trials:
        for p in parameters:
            if p.continuous:
                share = trial.suggest_float(p.name, 0.0, 1.0)
                columns[p.name].append(float(p.at(np.array(share))))
            elif len(p.values) == 1:
                columns[p.name].append(p.values[0])
            elif isinstance(p.values[0], str):
                columns[p.name].append(p.values[trial.suggest_categorical(p.name, list(range(len(p.values))))])
            else:
                columns[p.name].append(p.values[trial.suggest_int(p.name, 0, len(p.values) - 1)])
    return {name: np.array(values) for name, values in columns.items()}


def _tell(study: Any, sweep: Sweep, trials: Sequence[Any], table: Table) -> None:
    failed = _optuna().trial.TrialState.FAIL
    values: NDArray[np.float64] = np.column_stack([np.asarray(table[o.column], np.float64) for o in sweep.objectives])
    possible = [reason in ("", None) for reason in table["failed"].tolist()]
    for trial, row, fine in zip(trials, values, possible, strict=True):
        if fine:
            study.tell(trial, row.tolist())
        else:
            study.tell(trial, state=failed)
