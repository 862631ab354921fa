"""Cards that a fit has not seen: `python benchmarks/published_unseen_cards.py --data ../shared/gpu --traces TRACES`.

Fits to all other cards, gives the card left out its datasheet and the median of the others' sustained shares, and
judges it by kind of kernel (those longer than a host's dispatch) and by network. What a host takes is fitted on two
networks of each host, which are not judged. Under the errors of steps stand the kinds of kernels that carry them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from fit_published_gpus import SAME_CHIP, Problem, fit, read_blocks, scores, transferred
from published_kinds import finer, lines
from published_tables import Block
from scipy.optimize import least_squares

LEAST_S = 1.5e-4  # shorter calls show the host's dispatch
HOST_NETWORKS = ("resnet18", "shufflenet_v2_x0_5")


def kind_of(group: str) -> str:
    """What a sample is counted under."""
    if group in ("product", "linear", "bmm"):
        return "products"
    if group in ("ln", "softmax"):
        return "softmax and layer norm"
    if group == "conv" or re.search(r"_(forward|input|weight)$", group):
        return "convolutions"
    return "elementwise"


def with_hosts(target: Problem, x: np.ndarray) -> np.ndarray:
    """The same with what a host takes fitted to two of its networks."""
    free = [i for i, name in enumerate(target.names) if name.partition(".")[0] in ("host", "host_inference", "copy")]
    known = [np.isin(b.tags, HOST_NETWORKS) if b.workloads else np.zeros(len(b.tags), bool) for b in target.blocks]
    if not free or not any(k.any() for k in known):
        return x

    def residuals(values: np.ndarray) -> np.ndarray:
        moved = x.copy()
        moved[free] = values
        parts = [
            np.log(p / b.measured)[k] * 5 for b, p, k in zip(target.blocks, target.predicted(moved), known, strict=True)
        ]
        return np.concatenate([*parts, (values - x[free]) / target.width[free]])

    moved = x.copy()
    moved[free] = least_squares(residuals, x[free], max_nfev=12).x
    return moved


def judged(target: Problem, x: np.ndarray) -> dict[str, list[float]]:
    """Errors by kind of kernel, coarse and fine, and of steps by block."""
    errors: dict[str, list[float]] = defaultdict(list)
    for b, predicted in zip(target.blocks, target.predicted(x), strict=True):
        for tag, group, fine, p, m in zip(b.tags, b.groups, finer(b), predicted, b.measured, strict=True):
            if b.workloads:
                if tag not in HOST_NETWORKS:
                    errors[b.name].append(p / m - 1)
            elif m >= LEAST_S or b.name.startswith("DeepBench"):
                dtype = " float16" if "float16" in b.name else ""
                kind = kind_of(group) + dtype
                errors[kind].append(p / m - 1)
                if fine != kind:
                    errors[f"{kind}: {fine}"].append(p / m - 1)
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the published tables")
    parser.add_argument("--traces", type=Path, default=Path("published-traces"), help="where traces are kept")
    parser.add_argument("--cards", default="", help="names, with commas between them; default: all")
    parser.add_argument("--evaluations", type=int, default=12)
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"error: {options.data}: not a folder: give the folder of the published tables")
    blocks: list[Block] = read_blocks(options.data, options.traces, per_op=60)
    cards = sorted({b.card for b in blocks})
    for card in options.cards.split(",") if options.cards else cards:
        if card not in cards:
            sys.exit(f"error: no table holds a card {card!r}: those are {', '.join(cards)}")
        others = Problem([b for b in blocks if b.card not in (card, SAME_CHIP.get(card))])
        others.everything = True
        x = fit(others, others.start, options.evaluations, lambda _: None)
        target = Problem([b for b in blocks if b.card == card])
        print(card)
        values = with_hosts(target, transferred(others, x, target, card))
        for kind, of_kind in sorted(judged(target, values).items()):
            print(f"  {kind:60s} {scores(np.array(of_kind))}", flush=True)
        for k, b in enumerate(target.blocks):
            if b.workloads:
                print(f"  {b.name}: what carries the error", *lines(target, k, values), sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
