"""Other ways to do the same step: rewrites of a traced program, each exact, for networks that nobody here has seen.

A rewrite is one file with `find(draft)`, which names the opportunities that a step offers, and
`apply(draft, chosen)`, which takes any of them and gives the changed tape, and one line in the table below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from pararev_hw.errors import unknown_name
from pararev_hw.rewrites import fuse, share, split, store, wait
from pararev_hw.rewrites.draft import Draft as Draft
from pararev_hw.rewrites.opportunity import Kind as Kind
from pararev_hw.rewrites.opportunity import Opportunity as Opportunity
from pararev_hw.torch_private import compiler_loaded_when_used
from pararev_hw.tracing import Traced
from pararev_hw.tracing.tape import Tape


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A kind of rewrite, and what it does, in one line."""

    find: Callable[[Draft], tuple[Opportunity, ...]]
    apply: Callable[[Draft, Sequence[Opportunity]], Tape]
    description: str


# In the order in which they are applied.
REWRITES: Mapping[Kind, Rewrite] = MappingProxyType(
    {
        "store": Rewrite(store.find, store.apply, "activations are stored instead of recomputed"),
        "share": Rewrite(share.find, share.apply, "common work on one input is computed once"),
        "fuse": Rewrite(fuse.find, fuse.apply, "convolutions on the same input are stacked into one"),
        "split": Rewrite(split.find, split.apply, "weight gradients leave the chain of input gradients"),
        "wait": Rewrite(wait.find, wait.apply, "a recomputation waits until its gradient could start"),
    }
)


def drafted(traced: Traced) -> Draft:
    """The step as one that may be rewritten."""
    return Draft(traced, traced.tape)


def find(step: Traced | Draft, kinds: Iterable[Kind] = tuple(REWRITES)) -> tuple[Opportunity, ...]:
    """Every opportunity of these kinds that the step offers as it is."""
    draft = step if isinstance(step, Draft) else drafted(step)
    return tuple(o for kind in kinds for o in _with_origins(kind, draft))


def _with_origins(kind: Kind, draft: Draft) -> tuple[Opportunity, ...]:
    lines = draft.tape.lines
    return tuple(replace(o, origins=frozenset(lines[k].origin for k in o.lines)) for o in _offered(kind, draft))


def _offered(kind: Kind, draft: Draft) -> tuple[Opportunity, ...]:
    """What a draft offers of a kind: looked for once, as a draft never changes."""
    if kind not in draft.offered:
        draft.offered[kind] = _rewrite(kind).find(draft)
    return draft.offered[kind]


def apply(traced: Traced, chosen: Iterable[str]) -> Traced:
    """The step with the opportunities of these names taken. Each kind is found in what the kinds before it left, so a
    name may stand for something that another opportunity among them opens, and names that have nothing left to stand
    for are passed over."""
    return changed(drafted(traced), chosen).traced


@compiler_loaded_when_used()
def changed(draft: Draft, chosen: Iterable[str]) -> Draft:
    """What `apply` does, of a draft."""
    names = frozenset(chosen)
    for kind, rewrite in REWRITES.items():
        has_kind = any(name.startswith(f"{kind} ") for name in names)  # a name begins with its kind
        opportunities = [o for o in _offered(kind, draft) if o.name in names] if has_kind else []
        if opportunities:
            draft = replace(draft, tape=rewrite.apply(draft, opportunities))
    return draft


def apply_all(traced: Traced, kinds: Iterable[Kind]) -> tuple[Traced, tuple[Opportunity, ...]]:
    """The step with every opportunity of these kinds taken, and which those were."""
    draft, applied = all_changed(drafted(traced), kinds)
    return draft.traced, applied


@compiler_loaded_when_used()
def all_changed(draft: Draft, kinds: Iterable[Kind]) -> tuple[Draft, tuple[Opportunity, ...]]:
    """What `apply_all` does, of a draft."""
    applied: list[Opportunity] = []
    requested_kinds = set(kinds)
    for kind in requested_kinds:
        _rewrite(kind)
    for kind, rewrite in REWRITES.items():
        opportunities = _with_origins(kind, draft) if kind in requested_kinds else ()
        if opportunities:
            draft = replace(draft, tape=rewrite.apply(draft, opportunities))
            applied += opportunities
    return draft, tuple(applied)


def _rewrite(kind: str) -> Rewrite:
    for name, rewrite in REWRITES.items():
        if name == kind:
            return rewrite
    raise unknown_name("choice", kind, tuple(REWRITES))
