"""How the modules of the package depend on each other, read from their source: nothing is imported here.

The floors between rooms are import-linter's (`pyproject.toml`); what it does not see stands here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parents[2]
TORCH_PRIVATE = "pararev_hw.torch_private"
SOLVER_PRIVATE = "pararev_hw.schedulers.bounds.linear_program"
OTHERS_PRIVATE = (TORCH_PRIVATE, "pararev_hw.compiled", SOLVER_PRIVATE, "pararev_hw.sweeps.workers")
# torch's, numba's, SciPy's, and those of the standard library's pools, one place each
# of the standard library's documented names, those that begin with an underscore
DOCUMENTED = {"_replace", "_asdict", "_fields", "_repr_html_", "_exit", "_getframe"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    trees = {}
    for path in sorted((ROOT / "pararev_hw").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        trees[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text("utf-8"))
    return trees


def imports(nodes: Sequence[ast.stmt], *, run_at_import: bool) -> Iterator[tuple[str, int]]:
    """Dotted names that statements import, with their lines; `run_at_import`: without those inside functions and
    those for type checkers alone."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif run_at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif run_at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(node.orelse, run_at_import=True)
        else:
            inner = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]
            handlers = [s for h in getattr(node, "handlers", ()) for s in h.body]
            yield from imports([*inner, *handlers], run_at_import=run_at_import)


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = nx.DiGraph()
    for module, tree in modules().items():
        for name, _ in imports(tree.body, run_at_import=True):
            imported = name if name in modules() else name.rpartition(".")[0]
            if imported in modules():
                graph.add_edge(module, imported)
    assert graph.number_of_edges() > len(modules())  # the reader of imports reads them
    assert [sorted(circle) for circle in nx.strongly_connected_components(graph) if len(circle) > 1] == []


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in DOCUMENTED and name.strip("_") != ""


def defined_names(tree: ast.Module) -> set[str]:
    """Names that a module gives to its functions, classes, variables and attributes of its own objects."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
    return names


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_private_members_are_used_in_their_own_module_alone() -> None:
    foreign = []
    for module, tree in modules().items():
        if module in OTHERS_PRIVATE:
            continue
        own = defined_names(tree)
        for name, line in imports(tree.body, run_at_import=False):
            if name.startswith("pararev_hw.") and any(map(private, name.split("."))):
                foreign.append(f"{module}:{line} imports {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and private(node.attr) and not is_self(node.value):
                operator = ast.unparse(node).startswith(("torch.ops.", "_aten."))  # in torch's table of operators
                if node.attr not in own and not operator:
                    foreign.append(f"{module}:{node.lineno} uses {ast.unparse(node)}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
                attribute = node.args[1]
                if isinstance(attribute, ast.Constant) and private(attribute.value) and attribute.value not in own:
                    foreign.append(f"{module}:{node.lineno} uses {ast.unparse(node)}")
    assert foreign == []


def test_one_module_alone_uses_what_torch_does_not_promise() -> None:
    uses = {}
    for module, tree in modules().items():
        names = [(n, line) for n, line in imports(tree.body, run_at_import=False) if n.split(".")[0] == "torch"]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch."):
                names.append((ast.unparse(node), node.lineno))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("torch."):
                names.append((node.value, node.lineno))
        uses[module] = [
            f"{module}:{line} {name}"
            for name, line in names
            if name.startswith("torch.fx.experimental")
            or (any(map(private, name.split("."))) and not name.startswith("torch.ops."))
        ]
    assert uses.pop(TORCH_PRIVATE)
    assert [use for of_module in uses.values() for use in of_module] == []


# how a value came to be, which tells a reader nothing of what it is
EMPTY_NAMES = {"found", "made", "said", "kept", "known", "own", "got", "told", "settled", "priced"}


def test_names_tell_what_a_value_is() -> None:
    empty = []
    for module, tree in modules().items():
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                    pass
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    pass
                case _:
                    continue
            if name.strip("_") in EMPTY_NAMES:
                empty.append(f"{module}:{node.lineno} {name}")
    assert empty == []
