"""Write docs/reference/texts.md: `python docs/make_texts.py`.

Every text that a user can meet, by module, read from the source: messages of errors, help of commands and options,
heads of tables, and all other sentences (answers, headings, notes, progress), with the words of the report's templates.
What is filled in stands in braces. So a reader can judge the language in one place; tests/project/test_texts.py makes
the page again and compares.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "texts.md"
NOTE = "<!-- written by docs/make_texts.py: change the code, then run it again -->"
KINDS = ("errors", "help", "table heads", "sentences")
# strings that nobody reads: generated source, styles, paths of pictures, tables of operators and of networks, JSON
_NO_TEXT = re.compile(
    r"var\(--|^[MLHVZ\d{} .,-]+$|^(import|def|del|use strict)\b|\nimport |[;{]\s*$|[^\w.]}\s*$|^\W*[a-z_]+="
    r"|\\b|\[\^|\(\?|</?\w+[ >]|float32 [01]\.|\b[a-z]+_[a-z_]+ [a-z]+_[a-z_]+"
    r"|^((mid|quiet|small|end|strong|halo|on)\b ?-?)+"
    r"|^zeros |^conv conv_|^bernoulli |^copy _|isinstance\(|^\{?\"\w+\": "
)
_TWO_WORDS = re.compile(r"[^\W\d_]{2,}[^\w{}]*\s+[^\w{}]*(?:\{|[^\W_]{1,})|\}\s+[^\W\d_]{2,}")
# functions of the command line, by the table in entry.py
_TABLE = (ROOT / "pararev_hw" / "cli" / "entry.py").read_text("utf-8")
_VERBS = re.findall(r'^    "\w+": \("\w+", "(\w+)"\),$', _TABLE, re.MULTILINE)
_HEADS = ("heads", "HEADS", "accuracy_heads", "phase_heads")
_CALLS_OF_HEADS = ("columns", "add_column")


def page() -> str:
    parts = [
        "# Texts",
        NOTE,
        "Every text that a user can meet, by the module that holds it; in braces what is filled in. The fields of JSON "
        "have a page of their own: [JSON](json.md).",
    ]
    for path in sorted((ROOT / "pararev_hw").rglob("*.py")):
        verbs = _VERBS if path.parent.name == "cli" else ()
        parts += _section(path, _of_module(ast.parse(path.read_text("utf-8")), verbs))
    for path in sorted((ROOT / "pararev_hw" / "reports").glob("*.j2")):
        parts += _section(path, (("sentences", text) for text in _of_template(path.read_text("utf-8"))))
    for path in sorted((ROOT / "pararev_hw" / "reports").glob("*.js")):
        strings = re.findall(r'"([^"\n]+)"|`([^`\n]+)`', path.read_text("utf-8"))
        parts += _section(path, (("sentences", a or b) for a, b in strings if _is_text(a or b)))
    return "\n\n".join(parts) + "\n"


def _section(path: Path, texts: Iterable[tuple[str, str]]) -> list[str]:
    by_kind: dict[str, dict[str, None]] = {kind: {} for kind in KINDS}
    for kind, text in texts:
        by_kind[kind][" ".join(text.split())] = None
    parts = [
        f"{kind.capitalize()}:\n\n```text\n" + "\n".join(texts_of_kind) + "\n```"
        for kind, texts_of_kind in by_kind.items()
        if texts_of_kind
    ]
    return [f"## {path.relative_to(ROOT / 'pararev_hw').as_posix()}", *parts] if parts else []


def _of_module(tree: ast.Module, verbs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Kind and text of all texts, in the order of the source; what the verbs say of themselves comes first."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in verbs:
            yield "help", ast.get_docstring(node) or ""
    yield from _walk(tree, "sentences")


def _walk(node: ast.AST, kind: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Raise):
        kind = "errors"
    elif isinstance(node, ast.keyword) and node.arg == "help":
        kind = "help"
    elif isinstance(node, ast.keyword | ast.Assign) and _target(node) in _HEADS:
        kind = "table heads"
    elif isinstance(node, ast.keyword) and kind == "table heads":
        return  # how a column is aligned
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in _CALLS_OF_HEADS:
        kind = "table heads"
    if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
        text = _shown(node)
        if text is not None and (_is_text(text) or (kind == "table heads" and text.strip())):
            yield kind, text
        for value in ast.walk(node):
            if isinstance(value, ast.FormattedValue):
                yield from _walk(value.value, kind)
        if text is not None:
            return
    for child in ast.iter_child_nodes(node):
        if not (
            isinstance(node, ast.arg | ast.AnnAssign) and child is node.annotation and "Option" not in ast.dump(child)
        ):
            yield from _walk(child, kind)


def _target(node: ast.keyword | ast.Assign) -> str | None:
    """The name that a keyword or an assignment gives a value to."""
    return node.arg if isinstance(node, ast.keyword) else ast.unparse(node.targets[0])


def _shown(node: ast.expr) -> str | None:
    """A string expression as a reader meets it; None for what is none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(v.value) if isinstance(v, ast.Constant) else "{" + _name(v.value) + "}"  # type: ignore[attr-defined]
            for v in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _shown(node.left), _shown(node.right)
        if left is None and right is None:
            return None
        return (left if left is not None else "{...}") + (right if right is not None else "{...}")
    return None


def _name(node: ast.expr) -> str:
    """A word for what is filled in."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    inner = {ast.Call: "args", ast.Subscript: "value", ast.BinOp: "left", ast.IfExp: "body", ast.GeneratorExp: "elt"}
    value = getattr(node, inner[type(node)]) if type(node) in inner else None
    if isinstance(value, list):
        value = value[0] if value else node.func  # type: ignore[attr-defined]
    return "..." if value is None else _name(value)


def _is_text(text: str) -> bool:
    return bool(_TWO_WORDS.search(text)) and not _NO_TEXT.search(text)


def _of_template(source: str) -> Iterator[str]:
    """What stands between the tags of an HTML template."""
    plain = re.sub(r"\{%.*?%\}|\{#.*?#\}|<style.*?</style>|<script.*?</script>", " ", source, flags=re.DOTALL)
    plain = re.sub(r"\{\{\s*([\w.]+).*?\}\}", lambda m: "{" + m[1].rpartition(".")[2] + "}", plain, flags=re.DOTALL)
    yield from re.findall(r'(?:title|placeholder|aria-label)="([^"]*[a-z][^"]*)"', plain)
    for piece in re.split(r"</?(?!b\b|code\b|em\b|a\b|/)[a-z][^>]*>", plain):
        text = " ".join(re.sub(r"<[^>]*>", "", piece).split())
        if re.search(r"[A-Za-z]{2,}", re.sub(r"\{[^}]*\}", "", text)):
            yield text


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
