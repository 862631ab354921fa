"""Fits the GPU cost model to published times: `python benchmarks/fit_published_gpus.py --data ../shared/gpu`.

Least squares on the logarithm of predicted over measured, with a prior of its own width around every parameter, over
kernels (DeepBench, NeuSight) and whole steps (timm on an RTX 3090, torchvision on a 2080 Ti, a 1080 Ti and a TITAN Xp).
Three in ten kernels and of torchvision's families, and two of timm's, are held out and only judged. Everything is
deterministic. With `--write` a second fit, to everything, replaces the numbers of pararev_hw/devices/fitted/gpu.yaml;
the errors beside them are those of the first.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from published_tables import (
    Block,
    deepbench_convolutions,
    deepbench_products,
    neusight,
    spikingjelly_neurons,
    timm_steps,
    torchvision_steps,
)
from scipy.optimize import least_squares
from scipy.sparse import csr_array

from pararev_hw.costmodels.gpu.kernel_time import KernelTimes, clocks_within
from pararev_hw.costmodels.gpu.model import card_of
from pararev_hw.devices import load_device
from pararev_hw.devices.gpu_law import CARD, CLOCKS, DIRECT, HOST, LAW

FITTED = Path(__file__).parents[1] / "pararev_hw" / "devices" / "fitted" / "gpu.yaml"
SAME_CHIP = {"v100": "v100-sxm2", "v100-sxm2": "v100"}

# Where a fit starts and how far, as a factor, it goes without good reason (sigma of the logarithm).
_LAW_PRIOR = {
    "tile_operand_cost": (20.0, 0.7), "tile_startup": (40.0, 0.7), "wave_smoothing": (0.4, 0.5),
    "overlap_exponent": (2.7, 0.15), "matrix_bandwidth_share": (0.85, 0.2), "matrix_latency_s": (5e-6, 0.6),
    "unaligned_slowdown": (1.6, 0.3), "layout_conversion_passes": (1.2, 0.5), "winograd_transform_passes": (0.5, 0.7),
    "group_width_exponent": (0.5, 0.3), "half_rate_blocks": (1.0, 1.2),
}  # fmt: skip
# Of direct convolutions without tensor cores: a multiprocessor's loads allow 8 multiply-adds a cycle (16 operands), and
# its 2 half operations a cycle one (CUDA programming guide, arithmetic throughput at compute capability 6.1).
_HALF_PRIOR = {"product": (1.0, 0.1), "direct": (8.0, 0.5)}
_SHARED = (*_LAW_PRIOR, "winograd_share", "half_slowdown")  # what no single class of kernels has of its own
_BANDWIDTH_PRIOR = {
    "elementwise": (1.0, 0.05), "cast": (0.95, 0.15), "copy": (0.95, 0.15), "fill": (0.95, 0.15),
    "broadcast": (0.7, 0.35), "softmax": (0.9, 0.1), "softmax_ragged": (0.65, 0.3), "softmax_long": (0.65, 0.3),
    "softmax_backward": (0.65, 0.3), "layer_norm": (0.6, 0.3), "layer_norm_backward": (0.55, 0.3),
}  # fmt: skip
_CARD_PRIOR = {
    "tensor_sustained_share": (1.2, 0.4), "cuda_sustained_share": (1.0, 0.25), "bandwidth_sustained_share": (0.82, 0.1),
}  # fmt: skip
_HOST_PRIOR = {
    "inference": (0.55, 0.3), "backward": (0.5, 0.3), "accumulation": (0.6, 0.4), "update": (0.5, 0.3),
    "view": (0.2, 0.4),
}  # fmt: skip
# By published_power.py: how a network's speed falls with a board's power limit.
VOLTAGE_FLOOR = 0.75
# A board bound by power tells the energy of an operation rather than the share that others sustain at full clocks.
_LEAST_CLOCKS = 0.9
# Energy of a float32 operation at 16 nm: the median of eight datasheets' board power over peak, by process node. How
# far one board's share is from another's, as a sigma of its log.
_FLOP_ENERGY_J, _FLOP_ENERGY_WIDTH, _SHARE_WIDTH = 24e-12, 0.1, 0.15


def _direct_prior(kind: str) -> tuple[float, float]:
    """Share of CUDA cores of a direct convolution. Each tap loads two operands, and a multiprocessor of 128 lanes loads
    16 a cycle: 1/16 at best. General windows and gradients add divisions, a weight gradient one for each element."""
    if kind.startswith("grouped"):
        return 0.07, 0.8
    slower = 0.7 if "large" in kind else 1.0
    if kind.endswith("_last") or "cudnn" in kind:
        return 0.08 * slower, 0.7
    return slower * {"forward": 0.06, "input": 0.05, "weight": 0.035}[kind.rpartition("_")[2]], 0.5


def prior(name: str) -> tuple[float, float]:
    """Start and width of a parameter of the law, a card, a host, or a table."""
    stem, _, kind = name.partition(".")
    stem = stem.partition("@")[0]
    if stem in _LAW_PRIOR:
        return (2.5, 0.6) if name == "unaligned_slowdown.last" else _LAW_PRIOR[stem]
    if stem in _CARD_PRIOR:
        return _CARD_PRIOR[stem]
    match stem:
        case "tensor_share" | "cuda_share":
            if kind in DIRECT:
                return _direct_prior(kind)
            return (0.4, 0.35) if kind.startswith("grouped") else (0.85, 0.35)
        case "bandwidth_share":
            return _BANDWIDTH_PRIOR.get(kind.removesuffix("_last"), (0.55, 0.4))
        case "winograd_share":
            return 0.85, 0.3
        case "half_slowdown":
            return _HALF_PRIOR.get(kind, (1.15, 0.3))
        case "launch_overhead_s":
            return 2e-6, 0.3
        case "throttling":
            return 0.04, 1.0
        case "board":
            return 1.0, 0.2
        case "cublas_8":
            return 1.0, 0.5
        case "searched":
            return 0.85, 0.2
        case "host_factor":
            return _HOST_PRIOR[kind]
        case "host":
            return (20e-6 if kind != "rtx3090" else 8e-6), 0.6
        case "host_inference":
            return 0.55, 0.3
        case "copy":
            return 5e9, 0.5
        case "dispatch":
            return 0.4, 0.5
        case "call_s":
            return 40e-6, 0.4
    raise KeyError(name)


def _times(b: Block, *, held: bool) -> KernelTimes:
    card = card_of(load_device(b.card), held=held)
    return KernelTimes(b.kernels, replace(card, tiles={"product": b.tiles}) if b.tiles else card)


class Problem:
    """All blocks under one vector of logarithms."""

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks, self.everything = blocks, False
        self.clocks: Mapping[str, float] = {}  # of cards that are judged as if they were not measured
        self.times = [_times(b, held=False) for b in blocks]
        names: dict[str, None] = {"launch_overhead_s": None}
        used = set()
        for b, times in zip(blocks, self.times, strict=True):
            used.update(*times.share_names())
            names.update(dict.fromkeys(f"{share}@{b.card}" for share in CARD))
            names.update(dict.fromkeys(b.extra))
        law = [n for n in LAW if n.partition(".")[0] in _SHARED or n in used]
        self.names = (*law, *names)
        self.index = {n: i for i, n in enumerate(self.names)}
        priors = np.array([prior(n) for n in self.names])
        self.start, self.width = np.log(priors[:, 0]), priors[:, 1]
        self._groups = [self._selectors(times) for times in self.times]

    def hold(self, clocks: Mapping[str, float]) -> None:
        """Judge the cards as if they were not measured: their clocks follow the power of their boards."""
        self.clocks = clocks
        self.times = [_times(b, held=True) for b in self.blocks]

    def _selectors(self, times: KernelTimes) -> tuple[csr_array, csr_array]:
        """Which share of compute, and which of bandwidth, each kernel's time depends on: [kernels, parameters]."""
        return tuple(  # type: ignore[return-value]
            csr_array(
                (
                    np.ones(sum(1 for n in names if n in self.index)),
                    (
                        [i for i, n in enumerate(names) if n in self.index],
                        [self.index[n] for n in names if n in self.index],
                    ),
                ),
                shape=(times.count, len(self.names)),
            )
            for names in times.share_names()
        )

    def values(self, x: np.ndarray, card: str) -> dict[str, float]:
        value = dict(zip(self.names, np.exp(x).tolist(), strict=True))
        return value | {share: value[f"{share}@{card}"] for share in CARD} | dict(self.clocks)

    def predicted(self, x: np.ndarray) -> list[np.ndarray]:
        return [self._block(k, x)[0] for k in range(len(self.blocks))]

    def _block(self, k: int, x: np.ndarray) -> tuple[np.ndarray, csr_array]:
        b, value = self.blocks[k], self.values(x, self.blocks[k].card)
        return b.combine(self.times[k].seconds(value) + value[b.launch], value)

    def residuals(self, x: np.ndarray) -> np.ndarray:
        parts = [
            (np.log(p / b.measured) * b.weight)[self._fitted(b)]
            for b, p in zip(self.blocks, self.predicted(x), strict=True)
        ]
        return np.concatenate([*parts, (x - self.start) / self.width])

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        n, step = len(self.names), 1e-4
        parts = []
        shares = {
            i for i, name in enumerate(self.names) if name.startswith(("tensor_share", "cuda_share", "bandwidth_share"))
        }
        for k, b in enumerate(self.blocks):
            value = self.values(x, b.card)
            times = self.times[k]
            seconds = times.seconds(value) + value[b.launch]
            predicted, by_kernel = b.combine(seconds, value)
            change = np.zeros((len(b.measured), n))
            for family, selector in zip(("compute", "bandwidth"), self._groups[k], strict=True):
                moved = dict(value)
                for name in self.names:
                    compute = name.startswith(("tensor_share", "cuda_share"))
                    if self.index[name] in shares and compute == (family == "compute"):
                        moved[name] = value[name] * math.exp(step)
                by_share = (times.seconds(moved) + value[b.launch] - seconds) / step
                change += (by_kernel @ selector.multiply(by_share[:, None])).toarray()
            for i, name in enumerate(self.names):
                if i in shares or not self._touches(name, b):
                    continue
                moved = dict(value)
                moved[name] = value[name] * math.exp(step)
                plain, _, card = name.partition("@")
                if card:
                    moved[plain] = moved[name]
                if name in b.extra:
                    change[:, i] = (b.combine(seconds, moved)[0] - predicted) / step
                else:
                    by_name = (times.seconds(moved) + moved[b.launch] - seconds) / step
                    change[:, i] = by_kernel @ by_name
            parts.append((change / predicted[:, None] * b.weight)[self._fitted(b)])
        return np.concatenate([*parts, np.diag(1 / self.width)])

    def _fitted(self, b: Block) -> np.ndarray:
        """Which samples of a block enter the fit."""
        return np.ones(len(b.measured), bool) if self.everything else ~b.held_out

    def _touches(self, name: str, b: Block) -> bool:
        _, at, card = name.partition("@")
        if at:
            return card == b.card
        return name in b.extra or name == b.launch or name in LAW


def fit(problem: Problem, start: np.ndarray, evaluations: int, progress: Callable[[str], None]) -> np.ndarray:
    began = time.monotonic()
    solution = least_squares(problem.residuals, start, jac=problem.jacobian, loss="soft_l1", max_nfev=evaluations)
    progress(f"{solution.nfev} evaluations in {time.monotonic() - began:.0f} s, cost {solution.cost:.1f}")
    return solution.x


def scores(error: np.ndarray) -> str:
    size = np.abs(error)
    return (
        f"n {len(error):4d}  MAPE {100 * size.mean():5.1f} %  median {100 * np.median(size):5.1f} %  "
        f"within 10 % {100 * (size <= 0.1).mean():3.0f} %  bias {np.median(error):+.2f}  "
        f"worst {np.exp(np.abs(np.log1p(error)).max()):.2f}x"
    )


def report(problem: Problem, x: np.ndarray) -> None:
    by_kind: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for b, predicted in zip(problem.blocks, problem.predicted(x), strict=True):
        error = predicted / b.measured - 1
        print(b.name)
        for word, which in (("held in ", ~b.held_out), ("held out", b.held_out)):
            if which.any():
                print(f"  {word}  {scores(error[which])}")
        if not b.workloads:
            for group, e, held in zip(b.groups, error, b.held_out, strict=True):
                by_kind[b.card, group, bool(held)].append(e)
    print("\nby card and kind of op")
    for (card, group, held), errors in sorted(by_kind.items()):
        print(f"  {card:10s} {group:24s} {'held out' if held else 'held in '}  {scores(np.array(errors))}")


def unmeasured_shares(measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What a card without measurements sustains: the median of measured ones; of CUDA cores, of boards with power
    enough for their peaks. With it the energy of an operation that makes the shares at full clocks most alike."""
    medians = {}
    for name in CARD:
        shares = [of_card[name] for of_card in measured.values() if name in of_card]
        medians[name] = float(np.median(shares)) if shares else prior(name)[0]
    cards = [card_of(load_device(name), held=True) for name in measured]
    logs = np.log([of_card["cuda_sustained_share"] for of_card in measured.values()])

    def clocks(energy: float) -> np.ndarray:
        draws = [card.cuda_flops_per_s["float32"] * energy * card.node_energy for card in cards]
        return clocks_within(np.array([card.power_w for card in cards]) / draws, VOLTAGE_FLOOR)

    def unlikeness(energy: float) -> float:
        at_full = logs - np.log(clocks(energy))
        spread = float(np.sum(((at_full - np.median(at_full)) / _SHARE_WIDTH) ** 2))
        return spread + (math.log(energy / _FLOP_ENERGY_J) / _FLOP_ENERGY_WIDTH) ** 2

    energy = min(np.geomspace(16e-12, 36e-12, 221).tolist(), key=unlikeness)
    enough = clocks(energy) > _LEAST_CLOCKS
    medians["cuda_sustained_share"] = float(np.exp(np.median(logs[enough] if enough.any() else logs)))
    return medians | {"flop_energy_j": energy, "voltage_floor": VOLTAGE_FLOOR}


def transferred(fitted: Problem, x: np.ndarray, target: Problem, card: str) -> np.ndarray:
    """Logarithms of the parameters of a problem on a card as if it were not measured: by its datasheet, and what the
    others sustain."""
    value = dict(zip(fitted.names, np.exp(x).tolist(), strict=True))
    with_tensor_cores = {b.card for b, times in zip(fitted.blocks, fitted.times, strict=True) if times.uses("tensor")}
    measured = {
        other: {s: value[f"{s}@{other}"] for s in CARD if other in with_tensor_cores or not s.startswith("tensor")}
        for other in sorted({b.card for b in fitted.blocks} - {card, SAME_CHIP.get(card)})
    }
    others = unmeasured_shares(measured)
    target.hold({name: others[name] for name in CLOCKS})
    value |= {f"{share}@{card}": others[share] for share in CARD}
    still = {name: 1e-9 for name in target.names if name.startswith("throttling")}
    return np.log([(value | still).get(name, prior(name)[0]) for name in target.names])


def written(problem: Problem, x: np.ndarray, errors: dict[str, dict[str, float]]) -> dict[str, object]:
    """The fitted numbers as the device loader reads them, with what each was learnt from."""
    jacobian = problem.jacobian(x)
    sigma = np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian)))
    value = dict(zip(problem.names, np.exp(x).tolist(), strict=True))
    learnt = {n: s < 0.7 * w for n, s, w in zip(problem.names, sigma, problem.width, strict=True)}

    def entry(name: str, key: str) -> dict[str, object]:
        return {"value": float(f"{value[key]:.4g}"), "learnt": bool(learnt[key])}

    law: dict[str, object] = {}
    for name in LAW:
        if name in problem.index:
            law[name] = entry(name, name)
        else:
            start, _ = prior(name)
            twin = name.replace("cuda_share", "tensor_share")
            twin = twin if twin in problem.index else name.replace("tensor_share", "cuda_share")
            law[name] = {"value": float(f"{value.get(twin, start):.4g}"), "learnt": False}
    law["launch_overhead_s"] = entry("launch_overhead_s", "launch_overhead_s")
    law["graph_launch_overhead_s"] = {
        "value": 1.2e-6,
        "learnt": True,
        "source": "measured by others: a CUDA graph takes 1.3 us from kernel to kernel on an A100, 1.2 on an H200, "
        "1.0 on an A40 and an L40",
    }
    with_tensor = {b.card for b, t in zip(problem.blocks, problem.times, strict=True) if t.uses("tensor")}
    cards = {
        card: {
            share: entry(share, f"{share}@{card}")
            for share in CARD
            if share != "tensor_sustained_share" or card in with_tensor
        }
        for card in sorted({b.card for b in problem.blocks})
    }

    def of_host(name: str) -> dict[str, object]:
        keys = {"host_overhead_s": "host", "host_factor.inference": "host_inference", "copy_bytes_per_s": "copy"}
        return {figure: entry(figure, f"{key}.{name}") for figure, key in keys.items() if f"{key}.{name}" in value}

    measured = {card: {share: value[f"{share}@{card}"] for share in of_card} for card, of_card in cards.items()}
    shares = unmeasured_shares(measured)
    others = {name: float(f"{share:.4g}") for name, share in shares.items()}
    hosts = {n.partition(".")[2]: of_host(n.partition(".")[2]) for n in problem.names if n.startswith("host.")}
    host = {name: entry(name, name) for name in HOST if name in problem.index}
    measured_hosts = [v for n, v in value.items() if n.startswith("host_inference.") and learnt[n]]
    typical = np.median(measured_hosts or [prior("host_factor.inference")[0]])
    host["host_factor.inference"] = {"value": float(f"{typical:.3g}"), "learnt": bool(measured_hosts)}
    return {
        "law": law,
        "host": host,
        "cards": cards,
        "other_cards": others,
        "hosts": hosts,
        "expected_error": errors,
    }


def expected_errors(problem: Problem, x: np.ndarray) -> dict[str, dict[str, float]]:
    """Half of the 90 % interval of whole steps of families held out: by card, and for other cards by what these cards'
    steps would be by datasheet and the others' shares."""
    sizes: dict[tuple[str, str], list[float]] = defaultdict(list)

    def judge(card: str, judged: Problem, values: np.ndarray) -> None:
        for b, predicted in zip(judged.blocks, judged.predicted(values), strict=True):
            mode = "infer" if " infer " in b.name else "train"
            unseen = b.held_out if b.held_out.any() else ~b.held_out
            sizes[card, mode] += np.abs(predicted / b.measured - 1)[unseen].tolist()

    for card in sorted({b.card for b in problem.blocks if b.workloads}):
        steps = Problem([b for b in problem.blocks if b.workloads and b.card == card])
        judge(card, steps, x[[problem.index[name] for name in steps.names]])
        judge("other_cards", steps, transferred(problem, x, steps, card))
    error_by_card: dict[str, dict[str, float]] = defaultdict(dict)
    for (card, mode), errors in sorted(sizes.items()):
        error_by_card[card][mode] = float(f"{np.quantile(errors, 0.9):.2g}")
    others = error_by_card["other_cards"]
    return {card: {mode: of_card.get(mode, others[mode]) for mode in others} for card, of_card in error_by_card.items()}


def read_blocks(data: Path, traces: Path, per_op: int) -> list[Block]:
    """All tables of a folder; one that is missing is named and left out."""
    blocks: list[Block] = []
    for name, read in (
        ("DeepBench convolutions", lambda: deepbench_convolutions(data)),
        ("DeepBench products", lambda: deepbench_products(data)),
        ("NeuSight", lambda: neusight(data, per_op)),
        ("timm nchw", lambda: timm_steps(data, traces, "nchw")),
        ("timm nhwc", lambda: timm_steps(data, traces, "nhwc")),
        ("torchvision", lambda: torchvision_steps(data, traces)),
        ("SpikingJelly", lambda: spikingjelly_neurons(data, traces)),
    ):
        try:
            blocks += read()
        except FileNotFoundError as missing:
            print(f"{name}: {missing.filename} is missing: left out", file=sys.stderr)
        except (KeyError, ValueError) as wrong:
            print(f"{name}: not the table that its name says ({wrong!r}): left out", file=sys.stderr)
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the published tables")
    parser.add_argument("--traces", type=Path, default=Path("published-traces"), help="where traces are kept")
    parser.add_argument("--evaluations", type=int, default=16)
    parser.add_argument("--per-op", type=int, default=60, help="NeuSight rows of each op and card")
    parser.add_argument("--write", action="store_true", help=f"write {FITTED.name}")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"error: {options.data}: not a folder: give the folder of the published tables")
    blocks = read_blocks(options.data, options.traces, options.per_op)
    problem = Problem(blocks)
    print(f"{len(problem.names)} parameters, {sum((~b.held_out).sum() for b in blocks)} samples to fit")
    x = fit(problem, problem.start, options.evaluations, print)
    report(problem, x)
    print("\nparameters")
    for name, value in zip(problem.names, np.exp(x), strict=True):
        print(f"  {name:44s} {value:.4g}")
    if options.write:
        errors = expected_errors(problem, x)  # of the fit that did not see them
        problem.everything = True
        x = fit(problem, x, max(6, options.evaluations // 2), print)
        FITTED.write_text(yaml.safe_dump(written(problem, x, errors), sort_keys=False), encoding="utf-8")
        print(f"wrote {FITTED}")


if __name__ == "__main__":
    main()
