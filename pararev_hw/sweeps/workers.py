"""Who evaluates the parts of a sweep: this process, processes of this machine, or the workers of a Dask cluster.

All of them are given a chunk's number and give its part; which of them did it leaves no trace in the results. A
worker that dies costs its chunks' time, nothing else: they are given to another one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from pararev_hw.errors import BadInput, MissingDependency, PararevError, first_line
from pararev_hw.sweeps.problem import Problem
from pararev_hw.sweeps.summary import Part, part_of

MAX_DEATHS = 3  # of workers in a row without a finished chunk
SMALL = 50_000  # rows below which starting processes costs more than it saves

_problem: Problem | None = None  # of a worker process: given once, when it starts


class WorkersDied(PararevError, RuntimeError):
    """Workers die again and again: something kills them, most often too little memory."""


def evaluate_chunk(problem: Problem, chunk: int) -> Part:
    """The rows of a grid's or a random draw's chunk."""
    start, stop = problem.sweep.span(chunk)
    return part_of(problem.sweep, start, problem.evaluate(problem.rows(start, stop)))


def alone(problem: Problem, chunks: Sequence[int]) -> Iterator[tuple[int, Part]]:
    """Every chunk, in this process."""
    for chunk in chunks:
        yield chunk, evaluate_chunk(problem, chunk)


def local(problem: Problem, chunks: Sequence[int], workers: int) -> Iterator[tuple[int, Part]]:
    """Every chunk, as it is finished by one of `workers` processes. Raises WorkersDied where they die in a row."""
    queue, deaths = deque(chunks), 0
    running: dict[Future[Part], tuple[int, ProcessPoolExecutor]] = {}
    with _processes(problem, workers) as (pools, start):
        while queue or running:
            for pool in pools:
                while queue and sum(of is pool for _, of in running.values()) < 2:
                    chunk = queue.popleft()
                    running[_submit(pool, chunk)] = chunk, pool
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(finished, key=lambda f: running[f][0]):
                chunk, pool = running.pop(future)
                try:
                    part = future.result()
                except BrokenProcessPool:
                    queue.appendleft(chunk)
                    if pool in pools:  # the first of its chunks to tell
                        deaths += 1
                        pools[pools.index(pool)] = start()
                else:
                    deaths = 0
                    yield chunk, part
            if deaths > MAX_DEATHS:
                raise WorkersDied(
                    f"a worker process died {deaths} times in a row: is there enough memory? Finished rows are kept: "
                    "run the same command again, with --workers 1"
                )


@contextlib.contextmanager
def _processes(
    problem: Problem, number: int
) -> Iterator[tuple[list[ProcessPoolExecutor], Callable[[], ProcessPoolExecutor]]]:
    """Processes that know the problem, and how to start another one in the place of one that has died.

    Each is a pool of its own: a pool of several may start one while it closes its pipes because another has died.
    """
    context = get_context("spawn")
    # In a file: what is sent along with a new process is waited for without end where that dies before it has read it
    handle, file = tempfile.mkstemp(prefix="pararev-hw-sweep-")

    def start() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, context, _start, (file, os.getpid()))

    pools: list[ProcessPoolExecutor] = []
    try:
        with os.fdopen(handle, "wb") as into:
            pickle.dump(problem, into)
        pools += [start() for _ in range(number)]
        yield pools, start
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        os.unlink(file)


def _submit(pool: ProcessPoolExecutor, chunk: int) -> Future[Part]:
    """A chunk given to a pool's process; where that has died since, a future that says so."""
    try:
        future = pool.submit(_chunk, chunk)
    except BrokenProcessPool as error:
        future = Future()
        future.set_exception(error)
        return future
    # the process has its own end of the pipe: with another one open here, who reads what it was writing when it was
    # killed would wait for the rest without end
    pool._result_queue._writer.close()  # type: ignore[attr-defined]
    return future


def _start(file: str, parent: int) -> None:
    """Begin a worker process: it ends with its parent, and leaves Ctrl-C to it."""
    global _problem
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(file, "rb") as problem:  # from the parent, which alone may write it
        _problem = pickle.load(problem)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    import time

    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _chunk(chunk: int) -> Part:
    assert _problem is not None
    return evaluate_chunk(_problem, chunk)


# Of Dask and its event loop, which log tracebacks of what is told here in a line; Dask's client has a level of its own
_LOGGERS = ("distributed", "distributed.client", "tornado.application", "asyncio")


def cluster(problem: Problem, chunks: Sequence[int], address: str) -> Iterator[tuple[int, Part]]:
    """Every chunk, as it is finished by a worker of the Dask scheduler at `address`.

    Raises MissingDependency without the extra `cluster`, BadInput where no scheduler answers or none of its workers
    can run this package, WorkersDied where a chunk kills its workers.
    """
    try:
        dask: Any = import_module("distributed")  # an extra
    except ImportError:
        raise MissingDependency("--cluster needs Dask: install pararev-hw[cluster]") from None
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    client: Any = object.__new__(dask.Client)  # at hand also where it is not finished: it must be closed then, too
    try:
        client.__init__(address, timeout="10s", set_as_default=False)
    except Exception as error:  # Dask raises what its transports raise: tls, ucx and others that are not installed
        with contextlib.suppress(Exception, *_CANCELLED):
            client.close(timeout=2)
        raise BadInput(
            f"no Dask scheduler answers at {address!r} ({_first(error)}): start one with `dask scheduler`"
        ) from None
    try:
        yield from _on_cluster(dask, client, problem, chunks, address)
    except (OSError, TimeoutError, RuntimeError, *_CANCELLED) as error:
        if isinstance(error, PararevError):
            raise
        raise WorkersDied(
            f"the Dask cluster at {address!r} is gone ({_first(error)}): finished rows are kept"
        ) from None
    finally:
        with contextlib.suppress(Exception, *_CANCELLED):  # the cluster may be gone already
            client.close(timeout=5)


_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)


def _on_cluster(
    dask: Any, client: Any, problem: Problem, chunks: Sequence[int], address: str
) -> Iterator[tuple[int, Part]]:
    threads = sum(client.nthreads().values())
    if not threads:
        raise BadInput(f"the Dask scheduler at {address!r} has no workers: start some with `dask worker {address}`")
    # a future of its own, not scattered data: a scheduler computes it again when all who hold it die
    ready = client.submit(pickle.loads, pickle.dumps(problem), pure=False)
    queue = deque(chunks)
    numbers: dict[Any, int] = {}

    def submit() -> Any:
        chunk = queue.popleft()
        future = client.submit(evaluate_chunk, ready, chunk, pure=False, retries=MAX_DEATHS)
        numbers[future.key] = chunk
        return future

    running = dask.as_completed([submit() for _ in range(min(len(queue), 4 * threads))], loop=client.loop)
    try:
        for future in running:
            data = future.result()
            yield numbers.pop(future.key), data
            if queue:
                running.add(submit())
    except dask.KilledWorker as error:
        raise WorkersDied(
            f"workers of {address!r} die on the same rows: {_first(error)}: finished rows are kept"
        ) from None
    except ModuleNotFoundError as error:
        raise BadInput(f"the workers of {address!r} cannot run this: {error}: install pararev-hw there") from None
    finally:
        with contextlib.suppress(Exception, *_CANCELLED):
            client.cancel([ready])


def _first(error: BaseException) -> str:
    return first_line(error, 160) or type(error).__name__
