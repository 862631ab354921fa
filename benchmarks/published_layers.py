"""Forward and backward of transformer layers on a V100 and a T4, which no fit has seen, beside the cost model.

    python benchmarks/published_layers.py --data ../shared/gpu

NeuSight's table of single nodes of BERT, GPT and OPT in float32 (MIT). Nodes below a tenth of a millisecond are left
out: their times are the host's.
"""

from __future__ import annotations

import argparse
import ast
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from published_tables import product

from pararev_hw.costmodels.gpu.kernel_time import KernelTimes
from pararev_hw.costmodels.gpu.kernels import Kernel, softmax_class
from pararev_hw.costmodels.gpu.model import card_of, values_of
from pararev_hw.devices import load_device
from pararev_hw.validation.published import rows_of

CARDS = {"Tesla_V100-PCIE-32GB": "v100", "Tesla_T4": "t4"}
LEAST_MS = 0.1


def kernels_of(row: dict[str, str]) -> tuple[str, list[Kernel], list[Kernel]] | None:
    """What a node is, and its kernels forward and backward; None for a kind that is not judged."""
    shapes, out = ast.literal_eval(row["input_shapes"]), ast.literal_eval(row["output_shape"])
    size = 4 * math.prod(out)
    if row["module"] == "Linear":
        m, n, k = math.prod(out[:-1]), out[-1], shapes[0][-1]
        backward = [product(1, m, k, n, "float32"), product(1, k, n, m, "float32")]
        return "linear", [product(1, m, n, k, "float32")], backward
    if "matmul" in row["target"] and len(shapes) == 2 and len(shapes[0]) == 4:
        batch, (m, k), n = math.prod(out[:-2]), shapes[0][-2:], out[-1]
        backward = [product(batch, m, k, n, "float32"), product(batch, k, n, m, "float32")]
        return "batched product", [product(batch, m, n, k, "float32")], backward
    if "softmax" in row["target"]:
        return "softmax", [Kernel(softmax_class(out[-1], 4), 2 * size)], [Kernel("softmax_backward", 3 * size)]
    if row["module"] == "LayerNorm":
        return "layer norm", [Kernel("layer_norm", 2 * size)], [Kernel("layer_norm_backward", 4 * size)]
    if "gelu" in row["target"]:
        return "gelu", [Kernel("elementwise", 2 * size)], [Kernel("elementwise", 3 * size)]
    return None


def samples(data: Path) -> Iterator[tuple[str, str, list[Kernel], float]]:
    """Card, kind and direction, kernels, seconds."""
    for row in rows_of(data / "neusight-perop-bert.csv.gz"):
        judged = kernels_of(row) if row["gpu"] in CARDS and row["input_shapes"] else None
        if judged is None:
            continue
        kind, forward, backward = judged
        for direction, work, column in (("forward", forward, "fw_latency"), ("backward", backward, "bw_latency")):
            if float(row[column]) > LEAST_MS:
                yield CARDS[row["gpu"]], f"{kind} {direction}", work, float(row[column]) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the published tables")
    data = parser.parse_args().data
    if not (data / "neusight-perop-bert.csv.gz").is_file():
        sys.exit(f"error: neusight-perop-bert.csv.gz is not in {data}")
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for card, kind, work, seconds in samples(data):
        device = load_device(card)
        value = values_of(device)
        took = KernelTimes(work, card_of(device)).seconds(value) + value["launch_overhead_s"]
        errors[card, kind].append(float(took.sum()) / seconds - 1)
        errors[card, "all"].append(errors[card, kind][-1])
    for (card, kind), of_kind in sorted(errors.items()):
        size = np.abs(of_kind)
        print(
            f"{card:6s} {kind:26s} n {len(size):4d}  MAPE {100 * size.mean():5.1f} %  "
            f"median {100 * np.median(size):5.1f} %  bias {np.median(of_kind):+.2f}"
        )


if __name__ == "__main__":
    main()
