"""Hostile factories, names and outputs: one line and a status, whatever a user's code does."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from pararev_hw.atomic import write_file
from pararev_hw.cli import console, entry
from pararev_hw.errors import BadFile
from tests.helpers.command_line import finish, run, start

NETWORKS = """
import os
import warnings
import torch
from torch import nn

class Stop(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

class Recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.forward(self.layer(x))

def stop():
    raise Stop("out of here")

def mute():
    raise Mute

def recursive():
    return Recursive(), torch.zeros(2, 3)

class Endless(Recursive):
    def forward(self, x):
        return self(x)

def endless():
    return Endless(), torch.zeros(2, 3)

def nested():
    with warnings.catch_warnings(action="ignore"):
        return nn.Linear(3, 4), torch.nested.nested_tensor([torch.zeros(2, 3)])

def quantized():
    with warnings.catch_warnings(action="ignore"):
        return nn.Linear(3, 4), torch.quantize_per_tensor(torch.zeros(2, 3), 0.1, 0, torch.quint8)

def endlessly_expanded():
    return nn.Linear(3, 4), torch.zeros(1, 3).expand(1 << 45, 3)

def wrong():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2)), torch.zeros(2, 3)

def loud():
    os.write(1, b"written to the descriptor")
    os.system("echo from a program")
    print("printed")
    return nn.Linear(3, 4), torch.zeros(2, 3)
"""


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    file = tmp_path / "hostile_networks.py"
    file.write_text(NETWORKS)
    return file


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("stop", "Stop (hostile_networks.py:"),
        ("mute", "Mute (hostile_networks.py:"),
        ("recursive", "RecursionError"),
        ("endless", "RecursionError"),
        ("nested", "nested tensor: give one padded"),
        ("quantized", "quantized, of torch.quint8: give its values"),
        ("endlessly_expanded", "105553116266496 elements: more than any device holds"),
        ("wrong", "a and b must have same reduction dim"),
    ],
)
def test_a_factory_may_raise_anything(
    networks: Path, factory: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = run("trace", f"{networks}:{factory}", "-o", networks.parent / "graph.json")
    assert ran.status == 2
    assert says in ran.line
    assert capfd.readouterr().err == ""  # nothing of torch's own log
    assert not (networks.parent / "graph.json").exists()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("loop", "Too many levels of symbolic links"),
        ("pipe", "is no regular file"),
        ("folder", "is no regular file"),
        ("huge", "larger than 16777216 bytes"),
        ("empty", "known: none"),
    ],
)
def test_a_network_file_of_any_kind_is_one_line_at_once(tmp_path: Path, kind: str, says: str) -> None:
    file = tmp_path / "net.py"
    match kind:
        case "loop":
            file.symlink_to(file)
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case _:
            file.touch()
            os.truncate(file, 200 << 30 if kind == "huge" else 0)  # takes no room
    ran = run("trace", f"{file}:make", "-o", tmp_path / "graph.json")
    assert ran.status == 2 and says in ran.line


def test_a_result_takes_the_place_of_a_link_to_itself(networks: Path) -> None:
    loop = networks.parent / "graph.json"
    loop.symlink_to(loop)
    assert run("trace", f"{networks}:loud", "-o", loop).status == 0
    assert json.loads(loop.read_text())["parameters"] == 16  # 3 x 4 + 4


def test_standard_output_holds_the_result_alone(networks: Path) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HOME": ""}
    ran = finish(start("trace", f"{networks}:loud", "--json", folder=networks.parent, environment=environment))
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["parameters"] == 16  # 3 x 4 + 4
    for noise in ("written to the descriptor", "from a program", "printed"):
        assert noise in ran.err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, whatever programs in this process left: a solver may leave that it ends it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("number", "line"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_that_a_library_drops_ends_it_all_the_same(
    number: signal.Signals, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As numba does, whose compiler calls back where no exception gets through, and then misses what it made."""

    class Dropped:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def broken_off(*_: object) -> None:
        Dropped()
        raise RuntimeError("no compiled object yet")

    monkeypatch.setattr(entry, "_AGAIN_S", 60.0)  # longer than it runs
    monkeypatch.setattr(entry, "app", broken_off)
    ran = run("models")
    assert (ran.status, ran.line) == (128 + number, line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_library_swallows_is_the_status_of_what_fails_for_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch does, which imports numpy where an exception is cleared: what is left of numpy lacks half its names."""

    def half_imported(*_: object) -> None:
        with contextlib.suppress(BaseException):
            signal.raise_signal(number)
        raise AttributeError("module 'numpy' has no attribute 'matrix'")

    before = signal.getsignal(number)
    monkeypatch.setattr(entry, "app", half_imported)
    ran = run("models")
    assert (ran.status, ran.line) == (128 + number, "interrupted" if number == signal.SIGINT else "terminated")
    assert signal.getsignal(number) is before


def test_a_signal_while_an_error_is_told_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "app", mock.Mock(side_effect=ZeroDivisionError))
    monkeypatch.setattr(entry, "_internal_error", mock.Mock(side_effect=KeyboardInterrupt))
    ran = run("models")
    assert (ran.status, ran.line) == (130, "interrupted")


def test_an_error_of_ours_is_one_line_and_a_file_with_the_rest(tmp_path: Path) -> None:
    with (
        mock.patch.dict("os.environ", {"TMPDIR": str(tmp_path)}),
        mock.patch("tempfile.tempdir", None),
        mock.patch.object(entry, "app", side_effect=ZeroDivisionError("a slip of ours")),
    ):
        ran = run("models")
    assert ran.status == 3
    assert "internal error, please report it" in ran.line and "ZeroDivisionError: a slip of ours" in ran.line
    (report,) = tmp_path.glob("pararev-hw-error-*.txt")
    assert str(report) in ran.line
    assert "Traceback" in report.read_text() and "'models'" in report.read_text()


def test_a_package_that_cannot_be_imported_is_named() -> None:
    error = None
    try:
        exec(compile("raise OSError('libtorch.so: no such file')", "torch/__init__.py", "exec"), {"__name__": "torch"})
    except OSError as raised:
        error = raised
    assert error is not None
    assert entry._failed_import(error) == "torch"


def test_terminal_commands_in_a_name_are_not_obeyed() -> None:
    assert "\x1b" not in console.printable("a\x1b[31mb\nc") and "\n" in console.printable("a\x1b[31mb\nc")
    with console.out.capture() as shown:
        table = console.columns("name")
        table.add_row("evil\x1b]0;title\x07")
        console.out.print(table)
    assert "evil" in shown.get() and "\x1b]0" not in shown.get() and "\x07" not in shown.get()


def test_a_message_that_quotes_a_whole_file_is_shortened() -> None:
    ran = run("trace", "x" * 20_000 + ".py:make")
    assert ran.status == 2
    assert len(ran.err) < 2 * console.MOST_CHARACTERS


def test_more_lanes_than_any_machine_has_are_refused_at_once() -> None:
    ran = run("execute", "pararevsnn21", "--lanes", 99999)
    assert ran.status == 2 and "'--lanes'" in ran.line and "128" in ran.line


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("number", "status", "says"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_that_falls_where_python_drops_exceptions_still_ends_the_run(
    number: signal.Signals, status: int, says: str
) -> None:
    class Watched:
        pass

    def verb(*_: object, **__: object) -> None:
        watched = Watched()
        reference = weakref.ref(watched, lambda _: signal.raise_signal(number))  # raises inside the callback
        del watched
        for _ in range(500):
            time.sleep(0.01)
        assert reference() is None

    with mock.patch.object(entry, "app", side_effect=verb):
        ran = run("models")
    assert (ran.status, ran.err) == (status, f"{says}\n")


def test_a_signal_that_falls_while_a_lost_one_is_looked_after_ends_the_run_too() -> None:
    timer = threading.Timer
    interrupted_once = mock.Mock(side_effect=[KeyboardInterrupt, timer(0.01, signal.raise_signal, (signal.SIGTERM,))])

    def verb(*_: object, **__: object) -> None:
        lost = KeyboardInterrupt()
        sys.unraisablehook(SimpleNamespace(exc_type=type(lost), exc_value=lost))  # type: ignore[arg-type]
        time.sleep(5)

    with mock.patch.object(entry, "app", side_effect=verb), mock.patch.object(threading, "Timer", interrupted_once):
        ran = run("models")
    assert (ran.status, ran.err) == (143, "terminated\n") and interrupted_once.call_count == 2


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(BadFile, match="nobody reads it: start its reader first"):
        write_file(pipe, "{}")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_file(pipe, "{}")
    assert os.read(reader, 10) == b"{}\n"
    os.close(reader)
