"""Files that a user gives: what is refused, in one line, before anything is done with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararev_hw.documents import parse_json, parse_yaml, read_text
from pararev_hw.errors import BadFile

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("a: 1\na: 2\n", "key 'a' is given twice"),
        ("top: {a: 1, a: 2}\n", "key 'a' is given twice"),
        (BOMB, "more than 100000 values once its aliases are written out"),
        ("a: &a [*a]\n", "an alias refers to the value that holds it"),
        ("a: !!bool maybe\n", "not valid YAML"),
        ("a: !!timestamp never\n", "not valid YAML"),
        ("a: !!int twelve\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "a key is not a plain value"),
        ('a: "\\ud800"\n', "half a character"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_yaml_that_is_refused_in_one_line(text: str, fault: str) -> None:
    with pytest.raises(BadFile, match=fault) as caught:
        parse_yaml(text, "x.yaml")
    assert str(caught.value).startswith("x.yaml: ") and "\n" not in str(caught.value)


def test_a_merged_key_may_be_overridden() -> None:
    assert parse_yaml("base: &b {x: 1, y: 2}\nmine: {<<: *b, x: 3}\n", "x")["mine"] == {"x": 3, "y": 2}


@pytest.mark.parametrize("text", ["5e9", "5.0e9", "5E+9", "-2.5e-3", ".5e2", "+1e0"])
def test_numbers_with_exponents_are_numbers(text: str) -> None:
    assert parse_yaml(f"a: {text}\nb: '{text}'\nc: {text}x\n", "x") == {
        "a": float(text), "b": text, "c": f"{text}x"
    }  # fmt: skip


def test_aliases_that_do_not_explode_are_values() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: *a\n", "x") == {k: {"x": 1} for k in "abc"}


@pytest.mark.parametrize(
    "text, fault",
    [
        ('{"a": 1, "a": 2}', "key 'a' is given twice"),
        ('[{"b": {"a": 1, "a": 2}}]', "key 'a' is given twice"),
        ("[NaN]", "holds NaN"),
        ("[-Infinity]", "holds -Infinity"),
        ('["\\ud800"]', "half a character"),
        ('{"\\uDfff": 1}', "half a character"),
        ("[" * 200_000, "nested too deeply"),
        ("[" + "1" * 5000 + "]", "thousands of digits"),
        ('{"a": 1', "cut short"),
    ],
)
def test_json_that_is_refused_in_one_line(text: str, fault: str) -> None:
    with pytest.raises(BadFile, match=fault) as caught:
        parse_json(text, "x.json")
    assert str(caught.value).startswith("x.json: ") and "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_document_or_refused_in_one_line(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(text, "x")
        except BadFile as error:
            assert str(error).startswith("x: ") and "\n" not in str(error)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "marked.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert parse_json(read_text(path, 100, ""), "x") == [1]


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe, device, loop = tmp_path / "pipe.json", tmp_path / "zero.json", tmp_path / "loop.json"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    loop.symlink_to(loop)
    for path in (pipe, device, loop, tmp_path, tmp_path / "gone.json", Path("a\0b")):
        with pytest.raises(BadFile, match="cannot be read"):
            read_text(path, 100, "a text")


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "ten"
    path.write_text("x" * 10)
    assert read_text(path, 10, "a text") == "x" * 10
    with pytest.raises(BadFile, match="larger than 9 bytes"):
        read_text(path, 9, "a text")
    os.truncate(path, 1 << 40)  # takes no room; read, it would take all memory
    with pytest.raises(BadFile, match="larger than"):
        read_text(path, 1 << 39, "a text")
