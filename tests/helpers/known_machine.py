"""A machine whose times are known: every operation takes a fixed time and its bytes at a fixed rate. A calibration of
it is over at once, and what it fits can be held against what was put in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pararev_hw.calibration import held_in
from pararev_hw.calibration.held_in import HeldIn
from pararev_hw.calibration.ops import Missed
from pararev_hw.calibration.session import Probes
from pararev_hw.calibration.steps import MeasuredStep
from pararev_hw.calibration.suite import SuiteEntry, entries, in_turn
from pararev_hw.devices import needed_parameters
from pararev_hw.types import Device, DeviceParameter, Estimate, OpSample, OpType, StepSample

OP_S = 4e-6  # of every operation that computes
VIEW_S = 1e-6
BYTES_PER_S = 5e9  # it has no caches
SUITE = ("aten.relu.default float32", "aten.mul.Tensor float32", "aten.view.default float32")
NETWORK = HeldIn("plain", "infer", "float32", 0.0625, 1, 2)
STEP_S = 1e-3
HOST_OVERHEADS = ("dispatch_s", "view_s", "autograd_forward_s", "autograd_backward_s")


def op_s(op: OpType) -> float:
    """What an operation takes on this machine."""
    if op.kind == "view":
        return VIEW_S
    return OP_S + (op.read_bytes + op.write_bytes) / BYTES_PER_S


def _device(_: str) -> Device:
    parameters = {
        n: DeviceParameter(1e12 if "_per_s" in n else 1e-6, "a test", "measured") for n in needed_parameters("cpu")
    }
    memory = {"memory_bytes": DeviceParameter(1e9, "a test", "measured")}
    return Device("cpu", "cpu", "a test's CPU", 2, parameters | memory)


def _ops(suite: Sequence[SuiteEntry], *_: object) -> Iterator[OpSample | Missed]:
    for _entry, case, held_out in in_turn(suite):
        op = case.op_type()
        for cold in (False,) if op.kind == "view" else (False, True):
            yield OpSample(op, cold, held_out, noisy=False, seconds=(op_s(op),) * 5, density=case.density)


def _steps(networks: Sequence[HeldIn], device: str, *_: object) -> Iterator[MeasuredStep | Missed]:
    for network in networks:
        graph = held_in.traced(network, device)
        yield MeasuredStep(StepSample(network.name, (STEP_S,) * 5, 0.0, flops=graph.totals.flops), graph)


def _few(device: str) -> tuple[SuiteEntry, ...]:
    return tuple(e for e in entries(device) if e.name in SUITE)


KNOWN_MACHINE = Probes(
    device=_device,
    overheads=lambda *_: {n: Estimate(1e-6) for n in HOST_OVERHEADS},
    copy_curve=lambda *_: (((4096.0, BYTES_PER_S), (1e8, BYTES_PER_S)),) * 2,
    matmul_peaks=lambda *_: {},
    page_fault=lambda: Estimate(1e-10),
    python=lambda _: {
        "forward_s": Estimate(1e-6),
        "backward_s": Estimate(2e-6),
        "modules_s": Estimate(1e-5),
        "pace_s": Estimate(1.0),
    },
    replays=lambda *_: iter(()),
    suite=_few,
    ops=_ops,
    pairs=lambda *_: iter(()),
    networks=lambda _: (NETWORK,),
    steps=_steps,
)
