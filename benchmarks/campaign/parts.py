"""The parts of a campaign, the most valuable first. Each gives units of work: a key, and what computes its record."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.campaign import networks, strangers
from benchmarks.campaign.op_times import device_store, time_new_ops
from benchmarks.campaign.records import Record
from pararev_hw import calibration, execution, pipeline
from pararev_hw.calibration.pairs import measured_pairs
from pararev_hw.cuda_calls import CUDA, Cuda
from pararev_hw.devices import load_hardware
from pararev_hw.devices.profiles import profile_to_json
from pararev_hw.execution import LaneRunner, LoopRunner
from pararev_hw.execution.harness import interleave, spread
from pararev_hw.execution.played_cuda import PlayedCuda
from pararev_hw.execution.runners import Runner, peak_bytes
from pararev_hw.graph.order import lane_orders
from pararev_hw.measurement import cpu_clock, cuda_clock, measure
from pararev_hw.measurement.energy import energy_counter
from pararev_hw.measurement.environment import environment
from pararev_hw.rewrites import select
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import Hardware
from pararev_hw.validation.run_case import measure_trial
from pararev_hw.validation.suite import Trial

Unit = tuple[str, Callable[[], Record]]
Launch = Literal["eager", "graph"]


@dataclass(frozen=True, slots=True)
class Campaign:
    """Where a campaign runs and at which size. `rehearsal` plays every call to CUDA on the CPU, at toy size."""

    device: str  # of torch: "cuda", or "cpu" in a rehearsal
    rehearsal: bool
    folder: Path
    deadline_s: float  # on time.monotonic's clock

    @property
    def cuda(self) -> Cuda:
        return PlayedCuda() if self.rehearsal else CUDA

    def clock_s(self, run: Callable[[], Any], limit_s: float = 0.3) -> Record:
        """Seconds of one call on the device: median and every sample."""
        timing = measure(run, cpu_clock if self.device == "cpu" else cuda_clock, limit_s=self.size(limit_s, 0.02))
        return {"median_s": timing.median_s, "samples_s": list(timing.seconds), "noisy": timing.noisy}

    def size(self, real: Any, toy: Any) -> Any:
        """What a campaign takes, or what its rehearsal does."""
        return toy if self.rehearsal else real

    def hardware(self) -> Hardware:
        """The device that schedules are made for before this one is calibrated."""
        names = _device_names()
        card = torch.cuda.get_device_name().lower() if self.device == "cuda" else ""
        return load_hardware(next((n for n in names if n in ("h100", "h200", "a100") and n in card), "h200"))


def _device_names() -> tuple[str, ...]:
    from pararev_hw.devices import device_names

    return device_names()


# ---- (a) the machine


def machine(c: Campaign) -> Iterator[Unit]:
    yield "environment", lambda: _environment(c)
    for megabytes in c.size((1, 4, 16, 64, 256, 1024), (1, 4)):
        yield f"copy {megabytes} MB", lambda mb=megabytes: _copy(c, mb)
    for dtype in ("float32", "tf32", "bfloat16", "float16"):
        for n in c.size((1024, 4096, 8192), (128,)):
            yield f"matmul {dtype} {n}", lambda n=n, dtype=dtype: _matmul(c, dtype, n)
    for launch in ("stream", "graph"):
        yield f"launch gap, {launch}", lambda launch=launch: _launch_gap(c, launch)


def _environment(c: Campaign) -> Record:
    e = environment(c.device, 1)
    record: Record = {
        "machine": e.machine, "device": e.device, "driver": e.driver, "torch": e.torch,
        "python": platform.python_version(),
        "clocks_hz": dict(e.clocks_hz), "rehearsal": c.rehearsal,
    }  # fmt: skip
    if c.device == "cuda":
        p = torch.cuda.get_device_properties(0)
        record |= {
            "memory_bytes": p.total_memory,
            "multiprocessors": p.multi_processor_count,
            "l2_bytes": p.L2_cache_size,
        }
    return record


def _copy(c: Campaign, megabytes: int) -> Record:
    source = torch.rand(megabytes * 250_000, device=c.device)
    into = torch.empty_like(source)
    timing = c.clock_s(lambda: into.copy_(source))
    return timing | {"bytes": 2 * source.nbytes, "bytes_per_s": 2 * source.nbytes / timing["median_s"]}


def _matmul(c: Campaign, dtype: str, n: int) -> Record:
    kind = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    a, b = (torch.randn(n, n, device=c.device).to(kind) for _ in range(2))
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    try:
        timing = c.clock_s(lambda: a @ b)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return timing | {"flops": 2 * n**3, "flops_per_s": 2 * n**3 / timing["median_s"]}


def _launch_gap(c: Campaign, launch: str) -> Record:
    """Seconds from one small kernel to the next: the host issues them, or a graph replays them."""
    x, count = torch.zeros(64, device=c.device), 200

    def issue() -> None:
        for _ in range(count):
            x.add_(1.0)

    run = issue
    if launch == "graph":
        cuda = c.cuda
        side = cuda.stream()
        side.wait_stream(cuda.current_stream())
        with cuda.on(side):
            issue()
        cuda.current_stream().wait_stream(side)
        run = cuda.capture(issue)
    timing = c.clock_s(run)
    return {"gap_s": timing["median_s"] / count, "samples_s": [s / count for s in timing["samples_s"]]}


# ---- (b) is it correct


def correctness(c: Campaign) -> Iterator[Unit]:
    small = TraceOptions(batch=2, width=0.0625, timesteps=2, num_classes=10)
    for network in c.size(("pararevsnn21", "revsresnet21", "msresnet18"), ("pararevsnn21", "msresnet18")):
        for lanes in (2, 3):
            for launch in ("eager", "graph"):
                key = f"{network}, {lanes} streams, {launch}"
                yield key, lambda n=network, k=lanes, how=launch: _same_step(c, n, small, k, how, "none")
    for choices in ("share,fuse", "split", "wait"):
        key = f"pararevsnn21, 2 streams, eager, choices {choices}"
        yield key, lambda ch=choices: _same_step(c, "pararevsnn21", small, 2, "eager", ch)
    for dtype in _NEURON_DTYPES:
        yield f"neuron, {dtype}", lambda d=dtype: _same_neuron(c, d)
    yield "kernel resources", _kernels


def _job(c: Campaign, network: str, options: TraceOptions, **more: Any) -> execution.Job:
    return execution.prepare(
        network, replace(options, optimizer="sgd-foreach", granularity="block", **more), device=c.device
    )


def _orders(c: Campaign, job: execution.Job, lanes: int, launch: Launch) -> tuple[tuple[int, ...], ...]:
    scheduler = "sequential" if lanes == 1 else "heft"
    plan = pipeline.plan(job.graph, c.hardware(), scheduler, lanes=lanes, launch=launch)
    return lane_orders(job.graph, plan.schedule)


def _same_step(c: Campaign, network: str, options: TraceOptions, lanes: int, launch: Launch, choices: str) -> Record:
    """Several steps on streams beside the same steps on one stream and in PyTorch's own loop, in float64."""
    job = _job(c, network, options, dtype="float64")
    work = job
    if choices != "none":
        hardware = c.hardware()
        work = replace(job, traced=select.take(job.traced, hardware, choices, lanes=lanes, launch=launch))
    steps = c.size(10, 2)
    with ExitStack() as stack:
        one = stack.enter_context(LaneRunner(job, _orders(c, job, 1, launch), launch=launch, cuda=c.cuda))
        many = stack.enter_context(LaneRunner(work, _orders(c, work, lanes, launch), launch=launch, cuda=c.cuda))
        loop = stack.enter_context(LoopRunner(job))
        data = execution.batches(job)
        for _ in range(steps):
            batch = next(data)
            for runner in (one, many, loop):
                runner.step(batch)
        apart, from_loop = execution.difference(one, many), execution.difference(one, loop)
    return {
        "steps": steps,
        "difference": apart,
        "difference_from_loop": from_loop,
        "right": max(apart, from_loop) < 1e-9,
    }


_NEURON_DTYPES = ("float64", "float32", "bfloat16")


def _same_neuron(c: Campaign, dtype: str) -> Record:
    """The fused neuron's kernels beside the reference; in a rehearsal they run in Triton's interpreter, which must be
    asked for before Triton is imported: in a process of their own."""
    return _interpreted_neurons()[dtype] if c.rehearsal else compared_neurons(c.device)[dtype]


@cache
def _interpreted_neurons() -> dict[str, Record]:
    command = [sys.executable, str(Path(__file__).parents[1] / "gpu_campaign.py"), "--neurons", "--device", "cpu"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    if run.returncode != 0:
        raise RuntimeError((run.stderr.strip().splitlines() or ["no reason given"])[-1])
    records: dict[str, Record] = json.loads(run.stdout.strip().splitlines()[-1])
    return records


def compared_neurons(device: str) -> dict[str, Record]:
    """By datatype: relative error of the kernels' gradients beside the reference, and spikes that differ."""
    return {dtype: _compared_neuron(device, dtype) for dtype in _NEURON_DTYPES}


def _compared_neuron(device: str, dtype: str) -> Record:
    from pararev_hw.models.fused_neurons import has_kernel
    from pararev_hw.models.neurons import LIF

    kind = getattr(torch, dtype)
    torch.manual_seed(0)
    x = (torch.randn(4, 8, 64, device=device) * 2).to(kind)
    given = torch.randn(4, 8, 64, device=device).to(kind)
    if not has_kernel(x):
        raise RuntimeError("no Triton kernel runs here: is Triton installed?")
    results = []
    for fused in (False, True):
        neuron = LIF()
        neuron.fused = fused
        at = x.clone().requires_grad_()
        spikes = neuron(at)
        spikes.backward(given)
        results.append((spikes.detach().double(), at.grad.double()))  # type: ignore[union-attr]
    (spikes, gradient), (fused_spikes, fused_gradient) = results
    error = float((gradient - fused_gradient).norm() / gradient.norm())
    differing = int((spikes != fused_spikes).sum())
    limit = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2e-2}[dtype]
    return {"relative_error": error, "spikes_that_differ": differing, "of": spikes.numel(), "right": error <= limit}


def _kernels() -> Record:
    from benchmarks.campaign.kernel_resources import kernel_resources

    rows = [
        {"kernel": r.kernel, "dtype": r.dtype, "architecture": r.architecture, "registers": r.registers,
         "spill_bytes": r.spill_bytes, "shared_bytes": r.shared_bytes}
        for r in kernel_resources()
    ]  # fmt: skip
    return {"kernels": rows, "right": all(r["spill_bytes"] == 0 for r in rows)}


# ---- (c) the paper's claim


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run one of the paper's networks."""

    family: str  # of `networks.FAMILIES`
    lanes: int  # 0: PyTorch's own loop
    launch: Launch
    choices: str = "none"
    neuron: str = "reference"

    @property
    def name(self) -> str:
        how = "own loop" if self.lanes == 0 else f"{self.lanes} stream{'s' * (self.lanes > 1)}, {self.launch}"
        taken = "" if self.choices == "none" else f", {self.choices}"
        return f"{self.family}, {how}{taken}, {self.neuron} neuron"


def ways(mode: str, neuron: str) -> tuple[Way, ...]:
    """RevSNN and ParaRevSNN as PyTorch runs them; ParaRevSNN on streams, where `heft` recomputes ahead and "wait" in
    time, and fused: by rewrites, exactly ("fused"), or as the paper's merged block ("merged")."""
    plain = [Way("rev", 0, "eager"), Way("para", 0, "eager"), Way("merged", 0, "eager"), Way("fused", 0, "eager")]
    graphs = [Way("rev", 1, "graph"), Way("para", 1, "graph"), Way("merged", 1, "graph"), Way("fused", 1, "graph")]
    streams = [Way("para", 2, "eager"), Way("para", 2, "graph"), Way("para", 1, "graph", "share,fuse")]
    waiting = [Way("para", 2, "graph", "wait")] if mode == "train" else []
    return tuple(replace(w, neuron=neuron) for w in (*plain, *graphs, *streams, *waiting))


Compared = tuple[int, int, Literal["train", "infer"], str]  # depth, batch, mode, neuron


def comparisons(c: Campaign) -> Iterator[Compared]:
    """The steps of the paper's comparison, the most valuable first. A rehearsal has each mode and each neuron once."""
    if c.rehearsal:
        yield from ((37, 2, "train", "reference"), (37, 2, "infer", "triton"))
        return
    for neuron in networks.NEURONS:
        for batch in (32, 128):
            for depth in (37, 21, 69, 117, 165):
                yield depth, batch, "train", neuron
                yield depth, batch, "infer", neuron


def paper(c: Campaign) -> Iterator[Unit]:
    for depth, batch, mode, neuron in comparisons(c):
        key = f"depth {depth}, batch {batch}, {mode}, {neuron} neuron"
        yield key, lambda d=depth, b=batch, m=mode, n=neuron: _compared(c, d, b, m, n)


def _compared(c: Campaign, depth: int, batch: int, mode: Literal["train", "infer"], neuron: str) -> Record:
    """Every way in turns, the same batches for all: seconds of every step, and each way's peak memory."""
    options = TraceOptions(batch=batch, timesteps=c.size(4, 2), width=c.size(1.0, 0.0625))
    jobs = {family: _job(c, networks.target(family, depth, neuron), options, mode=mode) for family in networks.FAMILIES}
    runners: dict[str, Runner] = {}
    refused: dict[str, str] = {}
    peaks: dict[str, int] = {}
    with ExitStack() as stack:
        for way in ways(mode, neuron):
            try:
                runner, peaks[way.name] = _runner(c, jobs[way.family], way)
                runners[way.name] = stack.enter_context(runner)
            except Exception as error:  # one way that cannot run leaves the others alone
                refused[way.name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        rounds = interleave(runners, execution.batches(jobs["para"]), c.size(12, 2), warm_up=c.size(4, 0))
    return {
        "depth": depth,
        "batch": batch,
        "mode": mode,
        "neuron": neuron,
        "samples_s": {name: [r.latency_s for r in runs] for name, runs in rounds.runs.items()},
        "median_s": {name: rounds.latency(name).median for name in rounds.runs},
        "peak_bytes": peaks,
        "refused": refused,
    }


def _runner(c: Campaign, job: execution.Job, way: Way) -> tuple[Any, int]:
    if way.lanes == 0:
        return LoopRunner(job), 0
    if way.choices != "none":
        taken = select.take(job.traced, c.hardware(), way.choices, lanes=way.lanes, launch=way.launch)
        job = replace(job, traced=taken)
    orders = _orders(c, job, way.lanes, way.launch)
    peak = peak_bytes(job, orders, next(execution.batches(job)))
    return LaneRunner(job, orders, launch=way.launch, cuda=c.cuda), peak


# ---- (d) what ops take, alone and beside each other


def operations(c: Campaign) -> Iterator[Unit]:
    yield "profile", lambda: _profile(c)
    yield "pairs", lambda: _pairs(c)
    for depth, batch, mode, neuron in comparisons(c):
        for family in networks.FAMILIES:
            key = f"op times, {family}, depth {depth}, batch {batch}, {mode}, {neuron} neuron"
            yield key, lambda f=family, d=depth, b=batch, m=mode, n=neuron: _op_times(c, f, d, b, m, n)


def _op_times(c: Campaign, family: str, depth: int, batch: int, mode: Literal["train", "infer"], neuron: str) -> Record:
    """The ops of one of the paper's steps that no step before had, each timed alone."""
    options = TraceOptions(batch=batch, timesteps=c.size(4, 2), width=c.size(1.0, 0.0625))
    job = _job(c, networks.target(family, depth, neuron), options, mode=mode)
    path, machine = device_store(c.folder, environment(c.device, 1).device)
    clock = cpu_clock if c.device == "cpu" else cuda_clock
    new_times = time_new_ops(
        job, path, machine, clock, c.size(0.02, 0.002), lambda: time.monotonic() > c.deadline_s - c.size(30, 0)
    )
    return {"family": family, "depth": depth, "batch": batch, "mode": mode, "neuron": neuron, **new_times}


def _profile(c: Campaign) -> Record:
    """The calibration of this machine, as a profile beside the records."""
    minutes = c.size(max(0.5, min(2.0, (c.deadline_s - time.monotonic()) / 60 - 1.5)), 0.4)
    profile, interrupted = calibration.calibrate(c.device, minutes)
    (c.folder / "profile.json").write_text(profile_to_json(profile), encoding="utf-8")
    return {
        "minutes": minutes,
        "interrupted": interrupted,
        "ops": len({s.op for s in profile.samples}),
        "pairs": len(profile.pairs),
        "steps": len(profile.steps),
        "missing": list(profile.missing),
    }


def _pairs(c: Campaign) -> Record:
    """Two ops on two streams (threads) beside the same two alone: what they share."""
    until = time.monotonic() + c.size(20.0, 2.0)
    clock = cpu_clock if c.device == "cpu" else cuda_clock
    rows = []
    for pair in measured_pairs(c.device, clock, lambda: time.monotonic() > until):
        if hasattr(pair, "ops"):
            names = [o.name for o in pair.ops]
            rows.append({"ops": names, "alone_s": list(pair.alone_s), "together_s": pair.together_s})
    return {"pairs": rows}


# ---- (e) whole steps of networks that no fit has seen


def steps(c: Campaign) -> Iterator[Unit]:
    real = (
        Trial("pararevsnn37", "train", "float32", 1.0, 32, 4),
        Trial("msresnet34", "train", "float32", 1.0, 32, 4),
        Trial("pararevsnn37", "train", "float32", 1.0, 32, 4, "graph"),
        Trial("pararevsnn69", "train", "bfloat16", 1.0, 16, 4),
        Trial("revsresnet37", "infer", "float32", 1.0, 64, 4),
        Trial("msresnet34", "infer", "bfloat16", 1.0, 128, 4),
        Trial("revsresnet37", "train", "float32", 0.5, 64, 4),
        Trial("pararevsnn24_dvs", "train", "float32", 1.0, 16, 10),
        Trial("revsresnet37", "train", "float32", 1.0, 128, 4),
        Trial("msresnet18", "train", "float32", 1.0, 64, 2),
        *(_stranger(name, "train", dtype, 1.0, 64) for dtype in ("float32", "bfloat16") for name in strangers.NAMES),
    )
    toy = (
        Trial("revsresnet37", "train", "float32", 0.0625, 2, 2),
        Trial("msresnet18", "infer", "float32", 0.0625, 2, 2),
        _stranger("mobilenet", "train", "float32", 0.125, 2),
    )
    for trial in c.size(real, toy):
        yield trial.name, lambda t=trial: _step(c, t)


def _stranger(name: str, mode: Literal["train", "infer"], dtype: str, width: float, batch: int) -> Trial:
    return Trial(strangers.target(name), mode, dtype, width, batch, None, classes=strangers.CLASSES)


def _step(c: Campaign, trial: Trial) -> Record:
    with energy_counter(c.device) as counter:
        silent = counter if isinstance(counter, str) else None  # why the board's energy is not there
        measured = measure_trial(trial, c.device, c.size(2.0, 0.2), None if isinstance(counter, str) else counter, 1, 0)
    network = Path(trial.network).name  # of a stranger: its file and name, wherever the checkout lies
    return {
        "trial": asdict(replace(trial, network=network)),
        "latency_s": measured.cost.latency_s,
        "peak_bytes": measured.cost.peak_bytes,
        "energy_j": measured.cost.energy_j,
        "no_energy": silent,
        "samples_s": list(measured.seconds),
        "quartiles_s": [spread(measured.seconds).low, spread(measured.seconds).high],
    }  # fmt: skip


# ---- (f) memory errors


def sanitized(c: Campaign) -> Iterator[Unit]:
    yield "smallest parallel step under compute-sanitizer", lambda: _sanitized(c)


def _sanitized(c: Campaign) -> Record:
    tool = shutil.which("compute-sanitizer")
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "gpu_campaign.py"),
        "--smallest-step",
        "--device",
        c.device,
    ]
    if tool is None and not c.rehearsal:
        return {"failed": "compute-sanitizer is not installed"}
    if not c.rehearsal:
        command = [str(tool), "--tool", "memcheck", "--error-exitcode", "9", *command]
    run = subprocess.run(command, capture_output=True, text=True, timeout=c.size(120, 100), check=False)
    return {"status": run.returncode, "output": (run.stdout + run.stderr)[-2000:], "right": run.returncode == 0}


def smallest_step(device: str) -> None:
    """Two lanes of a tiny network, eagerly: what the sanitizer looks at."""
    c = Campaign(device, device == "cpu", Path(), time.monotonic() + 100)
    record = _same_step(
        c, "pararevsnn21", TraceOptions(batch=1, width=0.0625, timesteps=1, num_classes=10), 2, "eager", "none"
    )
    print(record)
    if not record["right"]:
        raise SystemExit(1)


Part = tuple[str, float, Callable[[Campaign], Iterator[Unit]]]
# name, share of the time that is left when the part begins, units
PARTS: Sequence[Part] = (
    ("machine", 0.06, machine),
    ("correctness", 0.18, correctness),
    ("paper", 0.5, paper),
    ("operations", 0.55, operations),
    ("steps", 0.7, steps),
    ("sanitized", 1.0, sanitized),
)
WORDS: Mapping[str, str] = {
    "machine": "the machine", "correctness": "correctness", "paper": "ParaRevSNN against RevSNN",
    "operations": "operations", "steps": "whole steps", "sanitized": "memory errors",
}  # fmt: skip
