"""Short names: which section of the network a block belongs to, and labels of a task from long to short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pararev_hw.types import Task

MOST_SECTIONS = 12


def sections(blocks: Iterable[str]) -> Mapping[str, str]:
    """Block -> the section it belongs to: "stages.0" for "stages.0.blocks.3".

    A section is a dotted prefix. Its depth is the least that makes the most sections of several blocks, while these
    are at most `MOST_SECTIONS`; where no depth does, every block is a section of its own.
    """
    paths = {block: _path(block) for block in dict.fromkeys(blocks)}
    deepest = max(map(len, paths.values()), default=1)
    best_depth, best_count = deepest, 0
    for depth in range(1, deepest + 1):
        counts = Counter(path[:depth] for path in paths.values())
        several = sum(n > 1 for n in counts.values())
        if best_count < several <= MOST_SECTIONS:
            best_depth, best_count = depth, several
    return {block: ".".join(path[:best_depth]) for block, path in paths.items()}


def _path(block: str) -> tuple[str, ...]:
    """The dotted parts; an op's "aten.add.Tensor" is the one part "add"."""
    parts = block.split(".")
    if "aten" in parts[:-1]:
        at = parts.index("aten")
        parts = [*parts[:at], parts[at + 1]]
    return tuple(parts)


def labels(task: Task, section: str = "") -> tuple[str, ...]:
    """Names for the task, longest first; what stands in `section` already is left out of them."""
    block = ".".join(_path(task.block))
    if section and block.startswith(section + "."):
        block = block[len(section) + 1 :]
    tail = block.split(".")
    shapes = [block, ".".join(tail[-2:]), tail[-1]]
    names = dict.fromkeys(f"{shape} {task.branch}".strip() for shape in shapes)
    # A bare number says nothing: better no name at all.
    return tuple(name for name in names if name == block or not name.isdigit())


def abbreviations(section: str) -> tuple[str, ...]:
    """Names for a section, longest first: "stages.0", "s.0"."""
    *above, last = section.split(".")
    return tuple(dict.fromkeys((section, ".".join((*(part[:1] for part in above), last)))))
