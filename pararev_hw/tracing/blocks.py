"""Which block and branch a module belongs to, found from the module tree.

A *structural* module is the network itself, a list or sequence that holds modules made of layers, or whatever contains
such a list. Going down from the root, the first module that is not structural is a block; a child of a block that is
made of layers itself is a branch. So `stages.0.blocks.3.f.conv1` is block `stages.0.blocks.3`, branch
`f`, and `layer1.0.conv2` of a ResNet is block `layer1.0`, branch "". Patterns given by the user come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from pararev_hw.errors import BadInput
from pararev_hw.torch_private import buffers_of, parameters_of

_LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


class BlockFinder:
    """Answers for module paths of one network; `patterns` like "encoder.layers.*" name its blocks by hand."""

    def __init__(self, model: nn.Module, patterns: Sequence[str] = ()) -> None:
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._patterns = tuple(patterns)
        for p in self._patterns:
            if not any(_matches(path.split("."), p.split(".")) for path in self._modules if path):
                raise BadInput(f"--blocks {p!r} matches no module: {_some([path for path in self._modules if path])}")
        self._structural: dict[int, bool] = {}
        self._place_of: dict[str, tuple[str, str, bool]] = {}

    def locate(self, path: str) -> tuple[str, str, bool]:
        """Block, branch, and whether ops at exactly this module stand between branches: it is structural, or a block
        that has branches."""
        if path not in self._place_of:
            self._place_of[path] = self._find(path)
        return self._place_of[path]

    def _find(self, path: str) -> tuple[str, str, bool]:
        parts = path.split(".") if path else []
        depths = [k for k in range(len(parts), 0, -1) if any(_matches(parts[:k], p.split(".")) for p in self._patterns)]
        composite = [k for k in range(1, len(parts) + 1) if not self._is_structural(self._modules[".".join(parts[:k])])]
        for k in (*depths, *composite):
            block = ".".join(parts[:k])
            between = k == len(parts) and any(map(_is_composite, self._modules[block].children()))
            return block, self._branch(block, parts[k:]), between
        module = self._modules.get(path)
        return path, "", module is not None and next(module.children(), None) is not None

    def _branch(self, block: str, rest: Sequence[str]) -> str:
        if not rest:
            return ""
        child = self._modules[f"{block}.{rest[0]}"]
        return rest[0] if _is_composite(child) else ""

    def _is_structural(self, module: nn.Module) -> bool:
        structural = self._structural.get(id(module))
        if structural is None:
            children = list(module.children())
            structural = (isinstance(module, _LISTS) and any(map(_is_composite, children))) or any(
                map(self._is_structural, children)
            )
            self._structural[id(module)] = structural
        return structural


def _some(paths: Sequence[str]) -> str:
    """A few module paths, those near the root first."""
    if not paths:
        return "the network holds no module"
    listed = sorted(paths, key=lambda path: path.count("."))[:5]
    return f"its modules are {', '.join(listed)}{f' and {len(paths) - 5} more' if len(paths) > 5 else ''}"


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether every part fits its part of the pattern: a star stands for one part, not for several."""
    return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))


def _is_composite(module: nn.Module) -> bool:
    """Whether it is made of layers: something inside holds tensors. A neuron that owns its surrogate is one layer."""
    inside = list(module.modules())[1:]
    return any(parameters_of(m) or buffers_of(m) for m in inside)
