"""YAML as plain data: a safe loader that refuses keys given twice and documents that unfold without end."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

if yaml.__with_libyaml__:  # seven times as fast
    from yaml import CSafeDumper as SafeDumper
    from yaml import CSafeLoader as SafeLoader
else:
    from yaml import SafeDumper as SafeDumper  # type: ignore[assignment]
    from yaml import SafeLoader as SafeLoader  # type: ignore[assignment]

__all__ = ("SafeDumper", "SafeLoader", "StrictLoader", "TooLarge")

_MERGE = "tag:yaml.org,2002:merge"


class TooLarge(ValueError):
    """A document that is too large once its aliases are written out, or that holds itself."""


class StrictLoader(SafeLoader):
    """The safe loader, which refuses a key given twice instead of keeping the last one in silence."""

    @classmethod
    def load(cls, text: str, most_nodes: int) -> Any:
        """The document in `text`. Raises TooLarge, and what PyYAML raises."""
        loader = cls(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node, most_nodes)
            return loader.construct_document(node)
        finally:
            loader.dispose()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[Hashable] = set()
        for key_node, _ in node.value:  # before merged keys are mixed in: those may be overridden
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(problem="a key is not a plain value", problem_mark=key_node.start_mark)
            if key in keys:
                raise yaml.MarkedYAMLError(problem=f"key {key!r:.60} is given twice", problem_mark=key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)


# 5e9 and 5.0e9 are numbers, as in YAML 1.2: YAML 1.1, which PyYAML reads, asks for a point and for a sign
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z")
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def _check_size(root: yaml.Node, most_nodes: int) -> None:
    """Count nodes as if every alias were written out, from the leaves up."""
    size: dict[int, int] = {}
    open_nodes: set[int] = set()
    waiting: list[tuple[yaml.Node, bool]] = [(root, False)]
    while waiting:
        node, children_counted = waiting.pop()
        children = _children(node)
        if children_counted:
            open_nodes.discard(id(node))
            size[id(node)] = 1 + sum(size[id(c)] for c in children)
            if size[id(node)] > most_nodes:
                raise TooLarge(f"more than {most_nodes} values once its aliases are written out")
        elif id(node) not in size:
            if id(node) in open_nodes:
                raise TooLarge("an alias refers to the value that holds it")
            open_nodes.add(id(node))
            waiting.append((node, True))
            for child in children:
                if id(child) in open_nodes:
                    raise TooLarge("an alias refers to the value that holds it")
                waiting.append((child, False))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
