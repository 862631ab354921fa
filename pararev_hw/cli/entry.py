"""Runs a verb: errors become one line and a status, never a traceback."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module

import typer

from pararev_hw.cli.console import say
from pararev_hw.cli.streams import result_stream
from pararev_hw.errors import (
    INTERRUPTED,
    INTERRUPTS,
    TERMINATED,
    BadFile,
    BadInput,
    Infeasible,
    MissingDependency,
    PararevError,
    Terminated,
    first_line,
)
from pararev_hw.versions import installed_version

NAME = "pararev-hw"
_AGAIN_S = 0.01  # after which a signal is sent again that Python dropped
_BETWEEN_COLLECTIONS = 500_000  # objects: a graph makes many that stay, and looking for cycles is a sixth of a report

# Module and function of each verb, in the order in which `--help` lists them. Only the one that is asked for is loaded.
VERBS: Mapping[str, tuple[str, str]] = {
    "models": ("listing", "list_models"),
    "devices": ("listing", "list_devices"),
    "schedulers": ("listing", "list_schedulers"),
    "trace": ("trace", "trace"),
    "schedule": ("schedule", "schedule"),
    "report": ("report", "report"),
    "compare": ("compare", "compare"),
    "capacity": ("capacity", "capacity"),
    "sweep": ("sweep", "sweep"),
    "calibrate": ("calibrate", "calibrate"),
    "execute": ("execute", "execute"),
    "validate": ("validate", "validate"),
    "measurements": ("measurements", "measurements"),
    "version": ("listing", "version"),
}
_TIMING = ("calibrate", "execute", "validate")  # they run steps with Python's collector as a training loop has it


def app(verbs: Iterable[str] = tuple(VERBS)) -> typer.Typer:
    """The command line with these verbs."""
    commands = typer.Typer(
        name=NAME,
        help="Hardware-cost modelling and co-design for reversible spiking neural networks.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands.callback()(_group)
    for name in verbs:
        commands.command(name)(_function(name))
    return commands


def _group() -> None:
    # a command line of one verb is a group of verbs, too
    return


def _function(verb: str) -> Callable[..., None]:
    module, name = VERBS[verb]
    function: Callable[..., None] = getattr(import_module(f"pararev_hw.cli.{module}"), name)
    return function


def run() -> int:
    """Run the verb that the command line names; its exit status."""
    with result_stream(), _terminable() as signals:
        try:
            status = _status(signals)
        except INTERRUPTS:  # while an error was being told
            status = INTERRUPTED
        if status != INTERRUPTED:
            return status
        say("terminated" if signals.terminated else "interrupted")
        return TERMINATED if signals.terminated else INTERRUPTED


@dataclass(slots=True)
class _Signals:
    """What came from outside: Ctrl-C, SIGTERM, and the interrupts that Python dropped, to be sent again."""

    interrupted: bool = False
    terminated: bool = False
    dropped: list[threading.Timer] = field(default_factory=list)


def _status(signals: _Signals) -> int:
    try:
        return _run()
    except (*INTERRUPTS, typer.Abort):
        return INTERRUPTED
    except BaseException as error:
        # a library whose work an interrupt broke off, and that dropped it, raises what it likes or lacks half its names
        came = signals.interrupted or signals.terminated or signals.dropped
        return INTERRUPTED if came else _status_after(error)


def _status_after(error: BaseException) -> int:
    """Tell what went wrong in one line; the exit status."""
    if isinstance(error, PararevError):
        return _refuse(error, 1 if isinstance(error, Infeasible) else 2)
    if isinstance(error, SystemExit):  # not ours: Rich and Typer leave so when a pipe breaks, a user's network may too
        if isinstance(error.__context__, BrokenPipeError):
            return _output_lost(error.__context__)
        return _refuse(BadInput(f"the network called sys.exit({error.code})"), 2)
    return _unforeseen(error)


def _run() -> int:
    if len(sys.argv) == 1:  # nothing asked for: say what may be, where messages go
        with contextlib.redirect_stdout(sys.stderr):
            app()(["--help"], prog_name=NAME, standalone_mode=False)
        return 2
    verb = sys.argv[1]
    if verb not in _TIMING:
        gc.set_threshold(_BETWEEN_COLLECTIONS, 20, 20)
    commands = app([verb]) if verb in VERBS else app()
    status = commands(prog_name=NAME, standalone_mode=False)
    if status == INTERRUPTED:  # some releases of Typer turn Ctrl-C into a status
        raise KeyboardInterrupt
    print(end="", flush=True)  # here, so that a full disk or a broken pipe is noticed while it can still be said
    return status if isinstance(status, int) else 0


@contextlib.contextmanager
def _terminable() -> Iterator[_Signals]:
    """SIGTERM as an exception, so that locks and half-written files go as they do on Ctrl-C; neither is ever lost."""

    signals = _Signals()

    def terminate(number: int, frame: object) -> None:
        signals.terminated = True
        raise Terminated

    def interrupt(number: int, frame: object) -> None:
        signals.interrupted = True
        raise KeyboardInterrupt

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        # raised where Python drops exceptions, as in a weak reference's callback: sent once more, when that is over
        while issubclass(lost.exc_type, INTERRUPTS):
            try:
                number = signal.SIGTERM if issubclass(lost.exc_type, Terminated) else signal.SIGINT
                again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
                again.daemon = True
                signals.dropped.append(again)
                again.start()
                return
            except INTERRUPTS:  # here, too, Python drops what is raised
                continue
        hook_before(lost)

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not in the main thread
        yield signals
        return
    answers_interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background
    if answers_interrupts:
        signal.signal(signal.SIGINT, interrupt)
    hook_before, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield signals
    finally:
        for again in signals.dropped:
            again.cancel()
        sys.unraisablehook = hook_before
        signal.signal(signal.SIGTERM, before)
        if answers_interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _refuse(error: BaseException, status: int) -> int:
    say(f"error: {' '.join(str(error).split())}")
    return status


def _output_lost(error: BaseException | None) -> int:
    """Standard output cannot be written any more: stop writing to it, also at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno() if sys.stdout else 1)
    if isinstance(error, BrokenPipeError):
        return 0  # whoever read our output has seen enough
    return _refuse(BadFile(f"cannot read or write: {error}"), 2)


def _unforeseen(error: BaseException) -> int:
    """A wrong option, a lost output, a package that cannot be imported; whatever is left is a bug of ours."""
    message = getattr(error, "format_message", None)  # click's own errors
    if message is not None:
        return _refuse(BadInput(message()), 2)
    package = _failed_import(error)
    if package is not None:
        reason = f"{type(error).__name__}: {first_line(error)}"
        return _refuse(MissingDependency(f"{package} cannot be imported ({reason}): install it again"), 2)
    if isinstance(error, OSError):
        return _output_lost(error)
    if isinstance(error, MemoryError):
        return _refuse(BadInput("not enough memory for this: a smaller network, batch or sweep needs less"), 2)
    return _internal_error(error)


def _failed_import(error: BaseException) -> str | None:
    """The installed package that raised the error while it was being imported."""
    ours = __name__.partition(".")[0]
    trace, package = error.__traceback__, None
    while trace is not None:
        frame = trace.tb_frame
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and name not in (ours, "__main__"):
            package = package or name
        trace = trace.tb_next
    if isinstance(error, ImportError) and package is None:
        package = (error.name or "").partition(".")[0] or "a package"
    return package


def _internal_error(error: BaseException) -> int:
    """One line, and a file with what a report of the bug needs."""
    parts = [f"{NAME} {installed_version(NAME)}, Python {sys.version.split()[0]}", f"command: {sys.argv!r}", ""]
    try:
        parts += traceback.format_exception(error)
    except Exception:  # an exception that cannot be printed
        parts += traceback.format_tb(error.__traceback__)
    place = ""
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(prefix="pararev-hw-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(parts))
        place = f" with the file {name}"
    say(f"internal error, please report it{place}: {type(error).__name__}: {first_line(error)}")
    return 3
