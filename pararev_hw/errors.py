"""What can go wrong, as types. Each says what, where, and what would be right, in one line.

Every error here is a `PararevError` *and* the builtin error that it is, so callers may catch either. The command line
turns a `PararevError` into one line and exit status 2, an `Infeasible` into exit status 1.
"""

import re

_AS_LIKELY = 0.15  # spellings whose likeness differs by less may all be what was meant


class PararevError(Exception):
    """Base of every error that the toolkit raises on purpose."""


class BadInput(PararevError, ValueError):
    """A value that the user gave cannot be used."""


class UnknownName(BadInput, LookupError):
    """A name that is not in the table it was looked up in."""


class BadFile(BadInput):
    """A file that cannot be read, is half written, or does not hold what its name says."""


class TraceError(BadInput, RuntimeError):
    """The step could not be traced: it asks for a value that exists only when the network really runs, or it raised."""


class IllegalSchedule(PararevError, ValueError):
    """A schedule that breaks a rule of its problem: found by the independent checker."""


class Infeasible(PararevError, RuntimeError):
    """What was asked does not fit the device: an answer with numbers, not a crash."""


class Diverged(PararevError, ArithmeticError):
    """A training run whose loss is no longer a finite number."""


class StepFailed(PararevError, RuntimeError):
    """An operation of a step raised while the step really ran."""


class MissingDependency(PararevError, ImportError):
    """An optional package is needed for what was asked, and is not installed."""


class Terminated(BaseException):
    """SIGTERM: cleaned up after like Ctrl-C."""


# What ends a run from outside, also while a user's code runs that may raise anything else.
INTERRUPTS = (KeyboardInterrupt, Terminated)

INTERRUPTED, TERMINATED = 130, 143  # exit statuses after Ctrl-C and SIGTERM: 128 and the signal's number


def first_line(error: BaseException, most: int = 300) -> str:
    """The first line of what an exception says, "" where it says nothing or cannot be asked: it may be a user's own."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        return "its message cannot be printed"
    return lines[0][:most] if lines else ""


def unknown_name(kind: str, name: object, choices: "list[str] | tuple[str, ...]") -> UnknownName:
    """An `UnknownName` that suggests the nearest of `choices`: in spelling, then in the number that it holds."""
    from difflib import SequenceMatcher, get_close_matches

    if not isinstance(name, str):
        return UnknownName(f"{kind} is {name!r:.60}, no name: known: {', '.join(sorted(choices))}")
    likeness = {other: SequenceMatcher(None, other, name).ratio() for other in choices}  # as get_close_matches has it
    close = get_close_matches(name, sorted(choices), n=len(choices) or 1, cutoff=0.5)
    near = sorted(
        (other for other in close if likeness[other] > likeness[close[0]] - _AS_LIKELY),
        key=lambda other: (-likeness[other], abs(_number_in(other) - _number_in(name)), other),
    )[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(choices)) or 'none'}"
    return UnknownName(f"no {kind} is called {name!r}: {hint}")


def _number_in(name: str) -> int:
    """The first number in a name: 37 of "pararevsnn37_dvs"; 0 where there is none."""
    match = re.search(r"\d{1,9}", name)
    return int(match[0]) if match else 0
