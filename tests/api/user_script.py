"""What a user writes: never run, held against `mypy --strict` with the package, and by test_typing.py with slips."""

from pathlib import Path

import pandas as pd
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw import models
from pararev_hw.models import create

net: nn.Module = create("pararevsnn21", width=0.1)
graph = ph.trace(net, torch.rand(2, 3, 32, 32), ph.TraceOptions(timesteps=4))
macs: int = graph.totals.macs
frame: pd.DataFrame = graph.layers().to_pandas()
edges: int = graph.to_networkx().number_of_edges()
graph.save(Path("graph.json"))
ph.save(graph, "graph.json")
plan = ph.schedule(ph.load_graph("graph.json"), "h200", scheduler="exact", seconds=1, workers=1)
latency_s: float = plan.predict().latency_s
plan.plot_timeline().set_title("mine")
plan.predict().plot_memory().set_title("mine")
peak_bytes: int = ph.report(graph, ph.load_device("edge8"), "out").study.chosen.peak_bytes
front: pd.DataFrame = ph.sweep("sweep.yaml").pareto().to_pandas()
mape: float | None = None if (a := ph.validate(ph.calibrate("cpu", minutes=1)).latency) is None else a.mape
names: list[str] = [spec.name for spec in ph.models()]
other: nn.Module = models.create(names[0])
everything: list[str] = [*ph.devices(), *ph.schedulers(), *ph.schedulers.names(), ph.__version__]
try:
    ph.execute(plan, steps=3)
except ph.BadInput as error:
    print(error)
