"""Words that the nouns share: phases, roles of memory, provenance of numbers."""

from __future__ import annotations

import re
from html import escape
from typing import Literal

SCHEMA_VERSION = 1

Phase = Literal["forward", "recompute", "backward", "update"]

PHASES: tuple[Phase, ...] = ("forward", "recompute", "backward", "update")

AXES_UNKNOWN = "input axes not known"  # begins the assumption of a step of which nothing tells the axes
NO_GRADIENT = "receive no gradient"  # is in the sentence on parameters that a training step leaves as they are
VALUES_ASKED = (  # begin the assumptions of a step whose host waits for what tensors hold
    "the network asks for values of its inputs",
    "the optimizer asks its tensors for numbers",
)

Role = Literal["parameter", "buffer", "optimizer", "input", "gradient", "saved", "recomputed", "cotangent", "transient"]

ROLES: tuple[Role, ...] = (
    "parameter",  # weights
    "buffer",  # running statistics and other state that is not trained
    "optimizer",  # momentum and the like
    "input",  # the batch and its targets, and constants that the network brought along
    "gradient",  # .grad of a parameter
    "saved",  # made in forward, read again by backward or recompute
    "recomputed",  # made while a reversible or checkpointed part runs again
    "cotangent",  # made in backward, not a parameter's gradient
    "transient",  # everything else
)

Provenance = Literal["measured", "published", "assumed"]

# What a terminal obeys instead of showing it, and what turns the direction of the text around it.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def html_table(title: str, *rows: tuple[str, str]) -> str:
    """What a notebook shows of a result."""
    body = "".join(f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return f"<table><caption>{escape(title)}</caption>{body}</table>"


def mebibytes(count: float) -> str:
    """Bytes as text, in MiB."""
    return f"{count / 2**20:,.1f} MiB"


def milliseconds(seconds: float) -> str:
    """Seconds as text, in ms."""
    return f"{seconds * 1e3:,.4g} ms"
