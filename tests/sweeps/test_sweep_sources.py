"""A sweep goes on only with rows that were computed from what is there now, and a refused one leaves nothing behind."""

import json
from pathlib import Path

import pytest

from pararev_hw import sweeps
from pararev_hw.errors import BadFile, BadInput
from pararev_hw.sweeps.expressions import parse
from pararev_hw.sweeps.file_watch import Watch
from pararev_hw.sweeps.parameters import Parameter, stepped
from pararev_hw.sweeps.sources import users_files

NETWORK = """
import numpy
import torch
from torch import nn
from stale_layers import CHANNELS

def make(batch: int = 2):
    scale = numpy.load(__file__.replace("stale_network.py", "scale.npy"))
    return nn.Linear(3, CHANNELS * len(scale)), torch.zeros(batch, 3)
"""
SWEEP = """
device: edge8
networks: stale_network.py:make
spikes: none
parameters: {lanes: [1, 2]}
objectives: [latency, energy]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    import numpy as np

    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "stale_network.py").write_text(NETWORK)
    (folder / "stale_layers.py").write_text("CHANNELS = 4\n")
    np.save(folder / "scale.npy", np.zeros(2))
    (folder / "sweep.yaml").write_text(SWEEP)
    return folder


def rows(project: Path, **options: bool) -> int:
    """Rows that were there before. The sweep is named by its full path: its network lies beside it."""
    return sweeps.run(sweeps.load(project / "sweep.yaml"), project.parent / "out", **options).resumed


def test_a_changed_file_that_rows_depend_on_is_noticed(project: Path) -> None:
    assert rows(project) == 0
    assert rows(project) == 2
    sources = json.loads((project.parent / "out" / "manifest.json").read_text())["sources"]
    assert {Path(name).name for name in sources} == {"stale_network.py", "stale_layers.py", "scale.npy"}
    for name in ("stale_network.py", "stale_layers.py", "scale.npy"):
        file = project / name
        before = file.read_bytes()
        file.write_bytes(before + b"\n# another\n")
        with pytest.raises(BadInput, match=rf"{name} has changed since its rows were computed"):
            rows(project)
        file.write_bytes(before)
    assert rows(project) == 2
    (project / "stale_layers.py").unlink()
    with pytest.raises(BadInput, match=r"stale_layers.py is gone"):
        rows(project)


def test_another_version_of_a_package_begins_again(project: Path) -> None:
    rows(project)
    manifest = project.parent / "out" / "manifest.json"
    recorded = json.loads(manifest.read_text())
    assert set(recorded["versions"]) == {"pararev-hw", "torch", "numpy"}  # its module takes something from numpy
    for package in ("torch", "numpy"):
        versions = {**recorded["versions"], package: "1.0"}
        manifest.write_text(json.dumps({**recorded, "versions": versions}))
        with pytest.raises(BadInput, match=rf"{package} was 1.0 and is"):
            rows(project)
    assert rows(project, fresh=True) == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["nir", "torchscript", "child"])
def test_files_that_are_not_opened_by_python_count(project: Path, kind: str) -> None:
    import torch

    def write(width: int) -> str:
        if kind == "nir":
            nir, np = pytest.importorskip("nir"), pytest.importorskip("numpy")
            layer = nir.Affine(np.ones((width, 3), np.float32), np.ones(width, np.float32))
            ends = nir.Input({"input": np.array([3])}), nir.Output({"output": np.array([width])})
            nodes = {"input": ends[0], "layer": layer, "output": ends[1]}
            nir.write(project / "net.nir", nir.NIRGraph(nodes, [("input", "layer"), ("layer", "output")]))
            return "net.nir"
        if kind == "torchscript":
            torch.jit.save(torch.jit.trace(torch.nn.Linear(3, width), torch.zeros(2, 3)), project / "net.pt")
            read = "torch.jit.load(HERE + '/net.pt')"
        else:
            (project / "width.txt").write_text(str(width))
            read = "torch.nn.Linear(3, int(subprocess.check_output(['cat', HERE + '/width.txt'])))"
        text = f"def make(batch: int = 2):\n    return {read}, torch.zeros(batch, 3)\n"
        (project / "net.py").write_text(f"import os, subprocess, torch\nHERE = os.path.dirname(__file__)\n{text}")
        return "net.py:make"

    sweep = SWEEP.replace("stale_network.py:make", write(4)) + "modes: [infer]\n"
    (project / "sweep.yaml").write_text(sweep)
    assert rows(project) == 0
    write(5)
    with pytest.raises(BadInput, match="has changed since its rows were computed"):
        rows(project)


def test_rows_depend_on_no_results_of_another_sweep(tmp_path: Path) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "weights").mkdir()
    for name in ("earlier/sweep.lock", "earlier/results.parquet", "weights/net.h5"):
        (tmp_path / name).write_bytes(b"1")
    watch = Watch({tmp_path})
    for name in ("earlier/results.parquet", "weights/net.h5"):
        (tmp_path / name).read_bytes()
    assert watch.stop() == {str(tmp_path / "weights" / "net.h5")}


def test_a_refused_sweep_leaves_nothing_behind(project: Path) -> None:
    network = project / "stale_network.py"
    text = network.read_text()
    network.write_text(text.replace("nn.Linear(3,", "nn.Linear(30,"))
    with pytest.raises(Exception, match="stale_network"):
        rows(project)
    assert not (project.parent / "out").exists()
    network.write_text(text)
    assert rows(project) == 0
    kept = {p.name for p in (project.parent / "out").iterdir()}
    network.write_text(text.replace("nn.Linear(3,", "nn.Linear(30,"))
    with pytest.raises(Exception, match="stale_network"):
        rows(project, fresh=True)  # what was there is not given up for a sweep that cannot run
    assert {p.name for p in (project.parent / "out").iterdir()} == kept
    network.write_text(text)
    assert rows(project) == 2


KINDS = {"lanes": "number", "dataflow": "text", "small": "truth"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lanes < 'a'", "is a word where a number belongs"),
        ("dataflow < 3", "'3' is a number where a word belongs"),
        ("dataflow < 'weight'", "has no order"),
        ("not lanes", "is a number where a comparison belongs"),
        ("lanes and small", "is a number where a comparison belongs"),
        ("dataflow * 2 < 4", "is a word where a number belongs"),
        ("min(lanes, dataflow) < 4", "is a word where a number belongs"),
        ("dataflow", "is a word, not a number or a comparison"),
        ("lanes < 1\0", "is no expression"),
    ],
)
def test_expressions_of_mixed_kinds_are_refused(text: str, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(text, KINDS, "constraints[0]")  # type: ignore[arg-type]
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["row", "failed", "latency", "latency_s", "MiB", "min", "lambda"])
def test_a_derived_quantity_cannot_take_a_column_s_name(name: str) -> None:
    text = SWEEP.replace("stale_network.py:make", "pararevsnn21") + f"derived: {{{name}: lanes * 2}}\n"
    with pytest.raises((BadInput, BadFile), match="taken or no name"):
        sweeps.spec.from_yaml(text, "sweep.yaml")


def test_ranges_may_span_all_floating_point_numbers() -> None:
    values = stepped(1e-300, 1e300, "log", 7)
    assert values == pytest.approx((1e-300, 1e-200, 1e-100, 1.0, 1e100, 1e200, 1e300), rel=1e-9)
    import numpy as np

    parameter = Parameter("x", (), 1e-300, 1e300, "log")
    assert parameter.at(np.array([0.5])) == pytest.approx([1.0], rel=1e-9)


def test_a_link_is_followed_to_where_it_leads_now(tmp_path: Path) -> None:
    link = tmp_path / "current"
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.txt").write_text(name)
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name)
        files = users_files({str(link / "weights.txt")}, (), tmp_path / "out")
        assert files == (tmp_path / name / "weights.txt",)
