"""Runs a verb: errors become one line and a status, never a traceback."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping

import typer

from pararev_hw.cli.calibrate import calibrate
from pararev_hw.cli.capacity import capacity
from pararev_hw.cli.compare import compare
from pararev_hw.cli.console import say
from pararev_hw.cli.execute import execute
from pararev_hw.cli.listing import list_devices, list_models, list_schedulers, version
from pararev_hw.cli.report import report
from pararev_hw.cli.schedule import schedule
from pararev_hw.cli.sweep import sweep
from pararev_hw.cli.trace import trace
from pararev_hw.cli.validate import validate
from pararev_hw.errors import BadFile, BadInput, Infeasible, PararevError

NAME = "pararev-hw"
app = typer.Typer(
    name=NAME,
    help="Hardware-cost modelling and co-design for reversible spiking neural networks.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order in which `--help` lists them.
VERBS: Mapping[str, Callable[..., None]] = {
    "models": list_models,
    "devices": list_devices,
    "schedulers": list_schedulers,
    "trace": trace,
    "schedule": schedule,
    "report": report,
    "compare": compare,
    "capacity": capacity,
    "sweep": sweep,
    "calibrate": calibrate,
    "execute": execute,
    "validate": validate,
    "version": version,
}
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)


def run() -> int:
    """Run the verb that the command line names; its exit status."""
    try:
        status = _run()
    except Infeasible as error:
        status = _refuse(error, 1)
    except PararevError as error:
        status = _refuse(error, 2)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except OSError as error:
        status = _lost(error)
    except SystemExit as stop:  # not ours: Rich and Typer leave so when a pipe breaks, a user's network may do so too
        gone = isinstance(stop.__context__, BrokenPipeError)
        status = _lost(stop.__context__) if gone else _refuse(BadInput(f"the network called sys.exit({stop.code})"), 2)
    except Exception as error:
        status = _usage(error)
    if status == 130:
        say("interrupted")
    return status


def _run() -> int:
    if len(sys.argv) == 1:  # nothing asked for: say what may be, where messages go
        with contextlib.redirect_stdout(sys.stderr):
            app(["--help"], prog_name=NAME, standalone_mode=False)
        return 2
    status = app(prog_name=NAME, standalone_mode=False)
    print(end="", flush=True)  # here, so that a full disk or a broken pipe is noticed while it can still be said
    return status if isinstance(status, int) else 0


def _refuse(error: BaseException, status: int) -> int:
    say(f"error: {' '.join(str(error).split())}")
    return status


def _lost(error: BaseException | None) -> int:
    """Standard output cannot be written any more: stop writing to it, also at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    if isinstance(error, BrokenPipeError):
        return 0  # whoever read our output has seen enough
    return _refuse(BadFile(f"cannot read or write: {error}"), 2)


def _usage(error: Exception) -> int:
    """What click says of a wrong option, in one line; anything else is a bug of ours and keeps its traceback."""
    message = getattr(error, "format_message", None)
    if message is None:
        raise error
    return _refuse(BadInput(message()), 2)
