"""The YAML that books are written in: what words mean, where everything stands, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autopilots.runbooks import source
from autopilots.runbooks.source import MAX_MISTAKES, MAX_NODES, MAX_TEXT, read

PYTHON = "tag:yaml.org,2002:python/name:os.system"
ALIAS = "aliases are not read; write it out"
TEXT = st.characters(
    codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"], exclude_characters="\ufeff"
)


@pytest.fixture(autouse=True, params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with the parser written in C, and with the one that is always there."""
    if not hasattr(yaml, request.param):
        pytest.skip(f"this PyYAML has no {request.param}")
    monkeypatch.setattr(source, "_LOADER", getattr(yaml, request.param))


def refused(text: str) -> list[str]:
    """Return the mistakes of a text, without what the parser says in its own words."""
    return [str(mistake).partition("no YAML")[0] for mistake in read(text).mistakes]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("5", 5),
        ("-7", -7),
        ("0", 0),
        ("1.5", 1.5),
        ("-0.25e-3", -0.00025),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("on", "on"),
        ("NO", "NO"),
        ("True", "True"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        (".5", ".5"),
        (".inf", ".inf"),
        ("1e3", "1e3"),
        ("9" * 40, "9" * 40),
        ("'5'", "5"),
        ('"true"', "true"),
        ("|\n  5\n", "5\n"),
    ],
)
def test_plain_words_are_texts_but_for_json_s_own(word: str, value: Any) -> None:
    """Only null, true, false and decimal numbers are no texts, and nothing quoted is."""
    found = read(f"a: {word}").value["a"]
    assert (found, type(found)) == (value, type(value))


def test_every_value_knows_its_line_and_column() -> None:
    """Members stand where their names are, elements where they begin."""
    found = read("a: 1\nb:\n  - x\n  - c: |\n      text\n    d: [1, 2]\n")
    assert found.value == {"a": 1, "b": ["x", {"c": "text\n", "d": [1, 2]}]}
    assert found.marks["b",] == (2, 1)
    assert found.marks["b", 0] == (3, 5)
    assert found.marks["b", 1, "d"] == (6, 5)
    assert found.marks["b", 1, "d", 1] == (6, 12)
    assert str(found.mistake(("b", 1, "d", 7, "x"), "m")) == "line 6: b[1].d: m"
    assert str(found.mistake((), "m")) == "line 1: m"


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ('a: "\\0"', ["line 1: a: has a character that no text has"]),
        ('"\\e": 1', ["line 1: a name has a character that no text has"]),
        ("a: 1\na: 2\nb: {c: 1, c: 2}", ["line 2: a: is given twice", "line 3: b.c: is given twice"]),
        ("a: &x 1\nb: *x", ["line 1: a: &x: anchors are not read", f"line 2: b: *x: {ALIAS}"]),
        ("a: !!python/name:os.system x", [f"line 1: a: {PYTHON}: tags are not read"]),
        ("a: !thing 5", ["line 1: a: !thing: tags are not read"]),
        ("&k a: 1", ["line 1: anchors and tags are not read"]),
        ("? [a, b]\n: 1", ["line 1: a name must be text"]),
        ("a: 1\n---\nb: 2", ["line 2: a book is one document"]),
        ("", ["line 1: is empty"]),
        ("# nothing", ["line 1: is empty"]),
        ("a: 1\nb: [1\nc: 2\n", ["line 3: "]),
        ("a:\n\t- b", ["line 2: "]),
        ("a: 'x\n", ["line 2: "]),
        ("a: \x07", ["line 1: "]),
        ("a: \ud800", ["line 1: is no Unicode text"]),
        ("x" * (MAX_TEXT + 1), [f"line 1: a book has at most {MAX_TEXT} characters"]),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_with_its_line(text: str, mistakes: list[str]) -> None:
    """Duplicates, anchors, aliases, tags, further documents and what is no YAML are mistakes with a line."""
    assert refused(text) == mistakes


def test_a_first_value_counts_and_all_mistakes_are_kept() -> None:
    """A name given twice keeps its first value; mistakes before a broken place are told as well."""
    assert read("a: 1\na: 2").value == {"a": 1}
    assert len(refused("a: 1\na: 2\nb: [")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 5000 + "]" * 5000,
        "a:\n" + "\n".join(" " * n + "- " for n in range(200)),
        "a: [" + "1," * MAX_NODES + "]",
        "\n".join("a: &a [*a, *a]" for _ in range(5000)),
    ],
)
def test_bombs_are_refused(text: str) -> None:
    """What is deep, wide, or made of aliases is refused before it is large."""
    found = read(text)
    assert found.value is None
    assert 1 <= len(found.mistakes) <= MAX_MISTAKES + 1


def test_aliases_do_not_multiply() -> None:
    """Nine lines that would be a billion words are nine mistakes and a few nulls."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30))]
    found = read("\n".join(lines))
    assert found.value["a29"] == [None, None]
    assert len(found.mistakes) == 30 + 58


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(TEXT, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc~ 1:'", max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON)
def test_json_is_read_as_json(value: Any) -> None:
    """What another writer of YAML says in plain JSON is read back as it was."""
    text = json.dumps(value, ensure_ascii=False)
    assert read(text).value == value
    assert read(text).mistakes == []


@given(st.text(alphabet="a:-[]{}&*!|>'\"#,?\n \t~1.", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader fail in another way than with mistakes."""
    found = read(text)
    assert found.value is not None or found.mistakes or text
    for mistake in found.mistakes:
        assert mistake.line >= 1
        assert mistake.column >= 1
