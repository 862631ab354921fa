"""Damaged and hostile inputs of every kind: one line and status 1 or 2, never status 3, never a traceback.

Ten seconds by default, a minute with `-m slow`, an hour with `make fuzz` (PARAREV_FUZZ_SECONDS). The seed is fixed:
the n-th input is the same on every run; PARAREV_FUZZ_FIRST is the first one's number, 0 by default. A fault does not
end the run: its line is added to faults.txt in the test's folder at once, and the input's files stay beside it.
"""

import io
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import FrameType

import numpy as np
import onnx
import pytest

from pararev_hw.devices import device_names, load_device
from pararev_hw.devices.files import device_to_json, device_to_yaml
from pararev_hw.graph.files import dumps
from pararev_hw.target_graph import build_graph
from pararev_hw.trace_options import TraceOptions
from tests.helpers.command_line import Ran, run
from tests.helpers.sweep_helpers import SMALL

SECONDS = float(os.environ.get("PARAREV_FUZZ_SECONDS", "60"))
FIRST = int(os.environ.get("PARAREV_FUZZ_FIRST", "0"))
PATIENCE_S = 30.0  # of processor time for one input, most of which take a tenth of a second
TASKS = {"tasks": [{"id": "a", "time_s": 1.0}, {"id": "b", "time_s": 2.0}], "edges": [{"src": "a", "dst": "b"}]}
JSP = "2 2\n0 3 1 4\n1 2 0 5\n"
STG = "2\n0 0 0\n1 3 1 0\n2 4 1 1\n3 0 1 2\n"
WORDS = [
    "1e999",
    "-1",
    "nan",
    "\x00",
    "\ud800",
    "!!bool x",
    "&a [*a]",
    "{}",
    "[]",
    "null",
    "9" * 400,
    "0",
    "'",
    "\t",
    "*",
]
BYTES = [b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"{" * 2000, b"[" * 2000, b"\x1b[31m", b"0" * 5000]


def damaged_text(text: str, draw: random.Random) -> bytes:
    """A text with a part cut, doubled, replaced by a hostile word, or with bytes of no text in it."""
    at, to = sorted(draw.randrange(len(text) + 1) for _ in range(2))
    to = min(to, at + 40)
    match draw.randrange(5):
        case 0:
            changed = text[:at]
        case 1:
            changed = text[:to] + text[at:]
        case 2:
            changed = text[:at] + draw.choice(WORDS) + text[to:]
        case 3:
            lines = text.splitlines(keepends=True)
            draw.shuffle(lines)
            changed = "".join(lines)
        case _:
            return text[:at].encode() + draw.choice(BYTES) + text[to:].encode()
    return changed.encode("utf-8", errors="surrogatepass")


def damaged_array(draw: random.Random) -> bytes:
    into = io.BytesIO()
    np.save(into, np.ones((2, 3, 32, 32), np.float32))
    data = bytearray(into.getvalue())
    for _ in range(draw.randrange(1, 4)):
        data[draw.randrange(128)] = draw.randrange(256)
    return bytes(data)


def sweep_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    file = folder / "sweep.yaml"
    file.write_bytes(damaged_text(SMALL.replace("6000", "8"), draw))
    return ("sweep", file, "-o", folder / "out", "--workers", 1)


def device_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    device = load_device(draw.choice([n for n in device_names() if n != "cpu"]))
    ending, text = draw.choice([(".yaml", device_to_yaml(device)), (".json", device_to_json(device))])
    file = folder / f"device{ending}"
    file.write_bytes(damaged_text(text, draw))
    return ("devices", file)


def tasks_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    ending, text = draw.choice([(".json", json.dumps(TASKS)), (".stg", STG), (".jsp", JSP)])
    file = folder / f"tasks{ending}"
    file.write_bytes(damaged_text(text, draw))
    return ("schedule", file, "--lanes", 2)


def array_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    file = folder / "input.npy"
    file.write_bytes(damaged_array(draw))
    return ("trace", "pararevsnn21", "--width", "0.0625", "--batch", 2, "--spikes", file, "-o", folder / "graph.json")


@cache
def onnx_models() -> tuple[bytes, ...]:
    """Small valid files: a convolution, a recurrent layer, small numbers, a function, shapes that are computed."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = {
        "w": np.ones((4, 3, 3, 3), np.float32),
        "W": np.ones((1, 16, 3), np.float32),
        "R": np.ones((1, 16, 4), np.float32),
        "s": np.array(0.1, np.float32),
        "z": np.array(3, np.int8),
        "k": np.array([2], np.int64),
        "shape": np.array([0, -1], np.int64),
    }
    bodies = (
        ([2, 3, 8, 8], ["Conv x w c", "Relu c r", "Shape r n", "Gather n k m", "Reshape r shape y"]),
        ([5, 2, 3], ["LSTM x W R y", "Identity y o"]),
        ([2, 6], ["QuantizeLinear x s z q", "DequantizeLinear q s z d", "TopK d k y i", "Pad y p u"]),
        ([2, 6], ["Twice x t", "Softmax t y"]),
    )
    files = []
    for shape, lines in bodies:
        nodes = []
        for op, *names in map(str.split, lines):
            outputs = 2 if op == "TopK" else 1
            more = {"hidden_size": 4} if op == "LSTM" else {"domain": "f"} if op == "Twice" else {}
            nodes.append(helper.make_node(op, names[:-outputs], names[-outputs:], **more))
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
        twice = helper.make_function(
            "f", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets[:1]
        )
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info("y", kind, None)],
            [onnx.numpy_helper.from_array(v, n) for n, v in weights.items() if n in used],
        )
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[twice])
        files.append(model.SerializeToString())
    return tuple(files)


def onnx_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    """An ONNX file with some bytes changed, cut or doubled."""
    data = bytearray(draw.choice(onnx_models()))
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(data))
        match draw.randrange(4):
            case 0:
                data[at] = draw.randrange(256)
            case 1:
                data[at] ^= 1 << draw.randrange(8)
            case 2:
                data[at:at] = data[at : at + draw.randrange(20)]
            case _:
                del data[at : at + draw.randrange(1, 8)]
    file = folder / "net.onnx"
    file.write_bytes(bytes(data))
    return ("trace", file, "--mode", draw.choice(["train", "infer"]), "-o", folder / "graph.json")


@cache
def nir_file() -> bytes:
    nir = pytest.importorskip("nir")
    layers = {
        "input": nir.Input({"input": np.array([3])}),
        "dense": nir.Affine(np.ones((4, 3), np.float32), np.ones(4, np.float32)),
        "neuron": nir.LIF(*(np.ones(4, np.float32) for _ in range(4))),
        "output": nir.Output({"output": np.array([4])}),
    }
    path = list(layers)
    into = io.BytesIO()
    nir.write(into, nir.NIRGraph(layers, list(pairwise(path))))
    return into.getvalue()


def nir_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    """A NIR file, which is HDF5, with some bytes changed."""
    data = bytearray(nir_file())
    for _ in range(draw.randrange(1, 5)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    file = folder / "net.nir"
    file.write_bytes(bytes(data[: draw.choice([len(data), draw.randrange(len(data))])]))
    return ("trace", file, "--timesteps", 2, "-o", folder / "graph.json")


@cache
def graph_text() -> str:
    return dumps(build_graph("pararevsnn21", TraceOptions(width=0.0625, batch=2, spikes="0.1")))


def graph_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    """A traced step with part of its text damaged."""
    file = folder / "step.json"
    file.write_bytes(damaged_text(graph_text(), draw))
    return ("schedule", file, "--device", draw.choice(["h200", "edge8"]))


def options_case(draw: random.Random, folder: Path) -> tuple[object, ...]:
    option = draw.choice(["--width", "--batch", "--timesteps", "--seed", "--input-shape", "--num-classes", "--spikes"])
    value = draw.choice(["1e300", "-1", "nan", "0", "x", "9" * 30, "1,2", "\x00", "inf", ""])
    return ("trace", "pararevsnn21", option, value, "-o", folder / "graph.json")


CASES: tuple[Callable[[random.Random, Path], tuple[object, ...]], ...] = (
    *(device_case,) * 6,
    *(tasks_case,) * 6,
    *(options_case,) * 2,
    *(onnx_case,) * 4,
    *(nir_case,) * 2,
    *(graph_case,) * 2,
    sweep_case,
)


class HangError(BaseException):
    """An input has taken its time and is not done."""


@contextmanager
def patience() -> Iterator[None]:
    """Ends what takes more than PATIENCE_S of processor time."""

    def out_of_time(_number: int, _frame: FrameType | None) -> None:
        raise HangError(f"not done after {PATIENCE_S:g} s of processor time")

    before = signal.signal(signal.SIGPROF, out_of_time)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE_S, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def problem(ran: Ran) -> str | None:
    """What is wrong with how an input was answered."""
    if ran.status not in (0, 1, 2):
        return f"status {ran.status}"
    if "Traceback" in ran.err:
        return "a traceback"
    if ran.status == 2 and not (ran.err.startswith("error: ") and ran.err.count("\n") == 1 and len(ran.err) < 2000):
        return "not one line"
    return "a refused input prints" if ran.status == 2 and ran.out else None


def fault(arguments: tuple[object, ...], folder: Path) -> str | None:
    """What is wrong with an input's answer, and what the command said."""
    began = time.process_time()
    try:
        with patience():
            ran = run(*arguments)
    except BaseException as error:  # whatever would have reached the user
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"
    if wrong := problem(ran):
        return f"{wrong}: {ran.err}"
    if time.process_time() - began > PATIENCE_S:
        return "over, but late"
    return "leaves a draft" if any(p.suffix in (".part", ".draft") for p in folder.rglob("*")) else None


def fuzz(seconds: float, into: Path, cases: tuple[Callable[[random.Random, Path], tuple[object, ...]], ...]) -> int:
    """Gives inputs to the verbs for so long; how many. Fails at the end where any of them met a fault."""
    until, count = time.monotonic() + seconds, FIRST
    log = into / "faults.txt"
    while time.monotonic() < until:
        folder = into / str(count)
        folder.mkdir()
        draw = random.Random(count)
        arguments = draw.choice(cases)(draw, folder)
        if wrong := fault(arguments, folder):
            with log.open("a", errors="backslashreplace") as lines:
                lines.write(f"input {count}: {arguments}: {wrong[:3000]}\n")
        else:
            shutil.rmtree(folder)
        count += 1
    assert not log.exists(), log.read_text()
    return count - FIRST


def test_ten_seconds_of_damaged_files(tmp_path: Path) -> None:
    assert fuzz(10.0, tmp_path, (device_case, tasks_case)) > 20


@pytest.mark.slow
def test_fuzz(tmp_path: Path) -> None:
    assert fuzz(SECONDS, tmp_path, (*CASES, array_case)) > 20
