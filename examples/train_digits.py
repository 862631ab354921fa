"""Train a small ParaRevSNN on handwritten digits, and with --compare the RevSNN of the same blocks beside it.

    python examples/train_digits.py --compare --seeds 0 1 2

Needs no download: the 1797 digits come with scikit-learn (the extra `digits`). The seed sets the initial weights, the
order of the samples and the split into a training and a test part; both networks get the same split.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import mean

import torch

from pararev_hw.errors import PararevError
from pararev_hw.models import create
from pararev_hw.training.data import digits
from pararev_hw.training.training import Epoch, TrainingRun, TrainingSettings, train

NETWORKS = {"ParaRevSNN": "pararevsnn37", "RevSNN": "revsresnet37"}  # title -> zoo name


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    titles = list(NETWORKS) if options.compare else ["ParaRevSNN"]
    try:
        runs = {title: [one_run(title, seed, options) for seed in options.seeds] for title in titles}
    except PararevError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print_table(runs, options.seeds)
    return 0


def one_run(title: str, seed: int, options: argparse.Namespace) -> tuple[TrainingRun, float]:
    """The record of training one network, and the seconds it took."""
    data = digits(size=options.size, channels=1, seed=seed)
    torch.manual_seed(seed)  # the initial weights
    model = create(
        NETWORKS[title],
        num_classes=data.classes,
        timesteps=options.timesteps,
        width=options.width,
        blocks=tuple(options.blocks),
        in_channels=1,
        form=options.form if title == "ParaRevSNN" else "unfused",
    )
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{title}, seed {seed}: blocks {options.blocks}, T = {options.timesteps}, {parameters:,} parameters")
    start = time.perf_counter()
    run = train(
        model,
        data,
        TrainingSettings(epochs=options.epochs, batch=options.batch, lr=options.lr, seed=seed),
        device=options.device,
        progress=lambda epoch: print_epoch(epoch, time.perf_counter() - start),
    )
    return run, time.perf_counter() - start


def print_epoch(e: Epoch, elapsed_s: float) -> None:
    print(
        f"  epoch {e.epoch:3d}  loss {e.loss:.4f}  train {e.train_accuracy:7.2%}  test {e.test_accuracy:7.2%}"
        f"  lr {e.learning_rate:.4f}  {elapsed_s:6.1f} s",
        flush=True,
    )


def print_table(runs: dict[str, list[tuple[TrainingRun, float]]], seeds: Sequence[int]) -> None:
    print(f"\n{'test accuracy':<14}" + "".join(f"{f'seed {s}':>10}" for s in seeds) + f"{'mean':>10}{'s per run':>11}")
    for title, done in runs.items():
        accuracies = [run.test_accuracy for run, _ in done]
        cells = "".join(f"{a:10.2%}" for a in (*accuracies, mean(accuracies)))
        print(f"{title:<14}{cells}{mean(s for _, s in done):11.1f}")
    if len(runs) == 2:
        para, rev = ([run.test_accuracy for run, _ in done] for done in runs.values())
        points = [100 * (a - b) for a, b in zip(para, rev, strict=True)]
        print(f"{'difference':<14}" + "".join(f"{p:+10.2f}" for p in (*points, mean(points))) + "  points")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--compare", action="store_true", help="train the RevSNN of the same blocks too")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run of each network per seed")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.1, help="initial learning rate, falling along a cosine")
    parser.add_argument("--size", type=int, default=16, help="side of the up-sampled digits in pixels")
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--width", type=float, default=0.25, help="share of the published channels")
    parser.add_argument("--blocks", type=int, nargs=4, default=[2, 2, 1, 1], help="reversible blocks per stage")
    parser.add_argument(
        "--form",
        choices=("unfused", "fused", "merged"),
        default="unfused",
        help="how ParaRevSNN computes two units of one input: apart, as one wider unit, or as the paper's block M",
    )
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
