"""Which axis is time: from the user, the network, its factory, or the traced loop; and how fine tasks are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import pararev_hw as ph
from pararev_hw.errors import BadInput
from pararev_hw.execution import prepare
from pararev_hw.sizes import parsed_bytes
from pararev_hw.target_graph import build_graph
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import AXES_UNKNOWN, BlockGraph

NETS = """
import torch
from torch import nn

class LIFNode(nn.Module):
    def __init__(self): super().__init__(); self.v = 0.0
    def forward(self, x):
        self.v = self.v + (x - self.v) / 2
        s = torch.sigmoid(4 * (self.v - 1))
        self.v = self.v * (1 - s)
        return s

class Net(nn.Module):
    def __init__(self, axis):
        super().__init__(); self.axis = axis
        self.layers = nn.Sequential(nn.Linear(6, 8), LIFNode(), nn.Linear(8, 5), LIFNode())
    def forward(self, x):
        self.layers[1].v = self.layers[3].v = 0.0
        return sum(self.layers(step) for step in x.unbind(self.axis))

def defaults(batch=3, timesteps=4): return Net(0), torch.rand(timesteps, batch, 6)
def synonyms(batch_size=3, num_steps=4): return Net(1), torch.rand(batch_size, num_steps, 6)
def loop(): return Net(0), torch.rand(4, 3, 6)
def square(batch=4, timesteps=4): return Net(0), torch.rand(timesteps, batch, 6)

class Whole(nn.Module):
    layout = "BT"
    def __init__(self): super().__init__(); self.f = nn.Linear(6, 5)
    def forward(self, x): return self.f(x).mean(1)
def declared(): return Whole(), torch.rand(2, 7, 6)

def per_token(): return nn.Linear(6, 5), torch.rand(2, 7, 6)
def convolved(): return nn.Conv1d(7, 5, 3), torch.rand(2, 7, 6)
def attention(): return nn.TransformerEncoderLayer(8, 2, 8), torch.rand(2, 7, 8)
class Averaged(Whole):
    layout = None
def averaged(): return Averaged(), torch.rand(2, 7, 6)
class Words(nn.Module):
    def __init__(self): super().__init__(); self.table = nn.Embedding(9, 6); self.cells = nn.GRU(6, 5)
    def forward(self, x): return self.cells(self.table(x))[0]
def words(): return Words(), torch.randint(0, 9, (2, 7))

class Cells(nn.Module):  # indices, an axis of which it walks
    def __init__(self, axis):
        super().__init__(); self.axis = axis
        self.table = nn.Embedding(9, 6); self.cell = nn.RNNCell(6, 5); self.out = nn.Linear(5, 3)
    def forward(self, x):
        h = torch.zeros(x.shape[1 - self.axis], 5)
        for step in x.unbind(self.axis): h = self.cell(self.table(step), h)
        return self.out(h)
def indices_bt(): return Cells(1), torch.randint(0, 9, (2, 7))
def indices_tb(): return Cells(0), torch.randint(0, 9, (7, 2))
class Bag(nn.Module):
    def __init__(self, axis): super().__init__(); self.table = nn.Embedding(9, 6); self.axis = axis
    def forward(self, x): return self.table(x).mean(self.axis)
def bag(): return Bag(1), torch.randint(0, 9, (2, 7))
def bag_of_columns(): return Bag(0), torch.randint(0, 9, (7, 2))
def tokens(): return nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 9)), torch.randint(0, 9, (2, 7))

def features(): return nn.Linear(6, 5), torch.rand(2, 6)
class HardLIF(LIFNode):
    def forward(self, x):
        self.v = self.v / 2 + x
        return (self.v > 1).float()
class Repeated(nn.Module):
    def __init__(self):
        super().__init__(); self.f = nn.Linear(6, 5); self.node = HardLIF(); self.out = nn.Linear(5, 3)
    def forward(self, x): self.node.v = 0.0; return sum(self.out(self.node(self.f(x))) for _ in range(3))
def repeated(): return Repeated(), torch.rand(2, 6)
class Series(Repeated):  # a number at a time
    def forward(self, x):
        self.node.v = 0.0
        return sum(self.out(self.node(self.f(x[:, t:t + 1].expand(-1, 6)))) for t in range(x.shape[1]))
def series(): return Series(), torch.rand(2, 7)
class Alone(Repeated):  # one sequence, without a batch
    def forward(self, x): self.node.v = 0.0; return sum(self.out(self.node(self.f(step))) for step in x)
def alone(): return Alone(), torch.rand(7, 6)
class Unbatched(nn.Module):
    def __init__(self): super().__init__(); self.cells = nn.GRU(6, 5)
    def forward(self, x): return self.cells(x)[0][-1]
def unbatched(): return Unbatched(), torch.rand(7, 6)
class Loss(nn.Module):
    def __init__(self): super().__init__(); self.f = nn.Linear(6, 5)
    def forward(self, x): return self.f(x).square().mean()
def loss_alone(): return Loss(), torch.rand(2, 6)
class PerSample(Loss):
    def forward(self, x): return torch.stack([self.f(row) for row in x])
def per_sample(): return PerSample(), torch.rand(2, 6)
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layout") / "layout_nets.py"
    path.write_text(NETS)
    return path


def axes(graph: BlockGraph) -> tuple[int, int | None]:
    return graph.batch, graph.timesteps


def test_a_step_that_runs_has_the_batch_and_time_of_the_trace(nets: Path) -> None:
    assert axes(prepare(f"{nets}:loop", TraceOptions(granularity="block")).graph) == (3, 4)


@pytest.mark.parametrize(
    ("factory", "options", "wanted"),
    [
        ("defaults", {}, (3, 4)),
        ("defaults", {"batch": 5, "timesteps": 2}, (5, 2)),
        ("synonyms", {}, (3, 4)),
        ("synonyms", {"timesteps": 6}, (3, 6)),
        ("loop", {}, (3, 4)),
        ("square", {"layout": "TB"}, (4, 4)),
        ("declared", {}, (2, 7)),
        ("declared", {"layout": "TB"}, (7, 2)),
        ("declared", {"layout": "B"}, (2, None)),
    ],
)
def test_batch_and_time_are_those_of_the_network(
    nets: Path, factory: str, options: dict[str, object], wanted: tuple[int, int | None]
) -> None:
    graph = build_graph(f"{nets}:{factory}", TraceOptions(spikes="none", **options))  # type: ignore[arg-type]
    assert axes(graph) == wanted
    stated = any(line.startswith("input axes: ") for line in graph.assumptions)
    assert stated == ("layout" not in options), "what was not said by the user is said by us"


@pytest.mark.parametrize(
    ("factory", "expected", "asked"),
    [
        ("per_token", (2, None), True),  # [2, 7, 6] -> [2, 7, 5]: either axis may be the batch
        ("convolved", (2, None), False),
        ("averaged", (2, None), False),  # its output is [2, 5]
        ("attention", (7, 2), False),  # torch's attention is time first unless told otherwise, and so is a GRU
        ("words", (7, 2), False),
    ],
)
def test_axes_that_nothing_tells_are_asked_for_without_spikes_too(
    factory: str, expected: tuple[int, int | None], asked: bool, nets: Path
) -> None:
    graph = build_graph(f"{nets}:{factory}", TraceOptions(mode="infer"))
    assert axes(graph) == expected
    assert any(line.startswith(AXES_UNKNOWN) for line in graph.assumptions) == asked


STATED, ASKED, SILENT = "input axes: ", AXES_UNKNOWN, None


@pytest.mark.parametrize(
    ("factory", "expected", "line"),
    [
        ("indices_bt", (2, 7), STATED),
        ("indices_tb", (2, 7), STATED),
        ("bag", (2, None), STATED),  # [2, 7] -> [2, 6]
        ("bag_of_columns", (2, 7), STATED),  # [7, 2] -> [2, 6]
        ("tokens", (2, None), ASKED),  # [2, 7] -> [2, 7, 9]: either axis may be the batch
        ("features", (2, None), SILENT),
        ("repeated", (2, None), STATED),
        ("series", (2, 7), STATED),
        ("alone", (7, None), ASKED),
        ("unbatched", (7, None), ASKED),
        ("loss_alone", (2, None), SILENT),
        ("per_sample", (2, None), SILENT),  # a loop over the samples, which its output has too
    ],
)
def test_axes_of_two_are_told_stated_or_asked_for(
    factory: str, expected: tuple[int, int | None], line: str | None, nets: Path
) -> None:
    graph = build_graph(f"{nets}:{factory}", TraceOptions(mode="infer", spikes="none"))
    assert axes(graph) == expected
    assert [x.startswith(line or "") for x in graph.assumptions if "axes" in x] == ([] if line is None else [True])


def test_sizes_that_are_given_settle_two_axes(nets: Path) -> None:
    graph = build_graph(f"{nets}:tokens", TraceOptions(mode="infer", spikes="none", layout="TB"))
    assert axes(graph) == (7, 2)


def test_a_layout_that_the_sizes_contradict_is_refused(nets: Path) -> None:
    with pytest.raises(
        BadInput, match=r"--layout BT reads an input of shape \(4, 3, 6\) as 3 time steps of batch 4, but "
    ):
        build_graph(f"{nets}:defaults", TraceOptions(layout="BT"))
    with pytest.raises(BadInput, match="leave --layout out"):
        build_graph("pararevsnn21", TraceOptions(layout="TB"))


def test_weights_alone_get_a_line_that_says_what_to_do() -> None:
    with pytest.raises(BadInput, match="name the factory that builds it"):
        build_graph("model.pt")


def test_a_network_called_once_per_time_step_is_taken_apart(nets: Path) -> None:
    coarse = build_graph(f"{nets}:defaults", TraceOptions(spikes="none", granularity="block"))
    graph = build_graph(f"{nets}:defaults", TraceOptions(spikes="none"))
    assert coarse.granularity == "block" and graph.granularity in ("module", "op")
    # layer 0 of step 2 needs nothing of layer 2 of step 1: its state alone makes a layer wait for itself
    first, second = (
        {t.id for t in graph.tasks if t.block.startswith(f"layers.{k}") and t.phase == "forward"} for k in (0, 2)
    )
    before: dict[str, set[str]] = {}
    for e in graph.edges:
        src, dst = graph.tasks[e.src].id, graph.tasks[e.dst].id
        before.setdefault(dst, set()).update({src}, before.get(src, set()))
    assert first and second
    assert all(not (before.get(a, set()) & second) for a in first)


def test_blocks_stay_whole_where_there_are_many_or_nothing_is_hidden_in_them() -> None:
    graph = build_graph(
        "pararevsnn21", TraceOptions(width=0.0625, batch=2, timesteps=1, input_shape=(3, 16, 16), spikes="none")
    )
    assert graph.granularity == "block"


@pytest.mark.parametrize(
    ("text", "size"),
    [("800MiB", 800 << 20), ("1.5 GiB", 3 << 29), ("2GB", 2 * 10**9), ("64kb", 64000), ("4096", 4096), ("1e3", 1000)],
)
def test_sizes_with_their_units(text: str, size: int) -> None:
    assert parsed_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "12 parsecs", "-1GiB", "1e40TiB", "nan", "800M"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="size"):
        parsed_bytes(text)


@pytest.mark.parametrize(("batch", "shape"), [(8, (4, 1, 6, 6)), (3, (4, 2, 1, 6, 6)), (16, (4, 1, 6, 6))])
def test_images_of_another_batch_than_the_one_that_is_named_are_refused(batch: int, shape: tuple[int, ...]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    network(torch.zeros(shape))
    with pytest.raises(BadInput, match=rf"batch is {batch}, but its first input has shape \({shape[0]}, "):
        ph.trace(network, torch.zeros(shape), batch=batch)
    merged = ph.trace(network, torch.zeros(shape), batch=2)  # two time steps of two samples in one axis, or of four
    assert merged.batch == 2
