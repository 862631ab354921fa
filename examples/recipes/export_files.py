"""Write net.onnx and net.nir, the two kinds of file that stand where a network's name stands.

python examples/recipes/export_files.py
pararev-hw report net.onnx --device h200 --batch 8 -o onnx-report/
pararev-hw report net.nir --device edge8 --batch 8 --timesteps 16 -o nir-report/
"""

import warnings
from itertools import pairwise

import nir
import numpy as np
import torch
from torch import nn


def write_onnx(path: str) -> None:
    """In training mode, so that batch normalisation stays a layer of its own; the batch stays free."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its older exporter is old
        torch.onnx.export(
            net, (torch.rand(2, 3, 32, 32),), path, dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "batch"}}, training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
        )  # fmt: skip


def write_nir(path: str) -> None:
    """Two layers of leaky neurons; the file holds no number of time steps."""
    rng = np.random.default_rng(0)

    def lif(n: int) -> nir.LIF:
        ones = np.ones(n)
        return nir.LIF(tau=0.02 * ones, r=ones, v_leak=0 * ones, v_threshold=0.1 * ones)

    nodes = {
        "input": nir.Input({"input": np.array([64])}),
        "hidden": nir.Affine(rng.normal(size=(128, 64)), np.zeros(128)),
        "hidden_neurons": lif(128),
        "classes": nir.Affine(rng.normal(size=(10, 128)), np.zeros(10)),
        "neurons": lif(10),
        "output": nir.Output({"output": np.array([10])}),
    }
    names = list(nodes)
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=list(pairwise(names))))


if __name__ == "__main__":
    write_onnx("net.onnx")
    write_nir("net.nir")
