"""Templates: what references stand for, what is refused, and that nothing put in becomes a reference."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import Invalid
from router.template import MAX_FILLED, RUN, Reference, escape, fill, references

PARAMS = {"name": "Ann", "count": 3, "list": [1, {"a": None}], "on": True, "none": None}
RESULTS = {"s": {"json": {"items": [{"id": 7}, {"id": "x"}]}, "text": "t"}}
ENV = {"KEY": "hush"}


def expanded(value: Any) -> Any:
    """Read a value once more over the environment, as an autopilot with secrets does."""
    if isinstance(value, str):
        return re.sub(r"\$\$|\$\{env\.(\w+)\}", lambda m: ENV[m[1]] if m[1] else "$", value)
    if isinstance(value, list):
        return [expanded(one) for one in value]
    return {name: expanded(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("${params.name}", "Ann"),
        ("Dear ${params.name}!", "Dear Ann!"),
        ("${params.count}", 3),
        ("n=${params.count} ${params.on} ${params.none}.", "n=3 true ."),
        ("${params.list}", [1, {"a": None}]),
        ("l=${params.list}", 'l=[1,{"a":null}]'),
        ("${steps.s.result.json.items.0.id}", 7),
        ("${steps.s.result}", RESULTS["s"]),
        ("/${steps.s.result.json.items.1.id}/", "/x/"),
        ("${run.id} ${run.started_at}", "r1 now"),
        ("$${params.name} $$ $HOME $1 $", "${params.name} $ $HOME $1 $"),
        ("$$${params.name}", "$Ann"),
        ({"${params.name}": ["${params.name}", ("${params.on}",)]}, {"${params.name}": ["Ann", [True]]}),
        (5, 5),
        (None, None),
        ("", ""),
    ],
)
def test_references_become_what_they_stand_for(template: Any, value: Any) -> None:
    """A text that is one reference becomes the value itself; within other text it is written out."""
    assert fill(template, PARAMS, RESULTS, {"id": "r1", "started_at": "now"}) == value


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("${params.nope}", "${params.nope} is not known"),
        ("${steps.t.result.x}", "${steps.t.result.x} is not known"),
        ("${run.id}", "${run.id} is not known"),
        ("${steps.s.result.json.items.2}", "there is no 2 in what came of it"),
        ("${steps.s.result.json.items.id}", "there is no id in what came of it"),
        ("x ${steps.s.result.text.len}", "there is no len in what came of it"),
        ("${env.KEY}", "${env.KEY} may not be used by this task"),
        ("${what}", "begins no reference"),
        ("a ${", "begins no reference"),
        ("${params.name}" * (MAX_FILLED // 3 + 1), f"more than {MAX_FILLED} characters"),
    ],
)
def test_what_stands_for_nothing_is_refused(template: str, complaint: str) -> None:
    """A reference without a value is an error, never an empty text."""
    with pytest.raises(Invalid, match=re.escape(complaint)):
        fill(template, PARAMS, RESULTS)


def test_all_that_stands_for_nothing_is_listed() -> None:
    """Every reference without a value is reported, not only the first."""
    with pytest.raises(Invalid) as refused:
        fill({"a": "${params.x}", "b": ["${params.y}"]}, {}, {})
    assert len(refused.value.problems) == 2


def test_a_value_that_is_too_large_is_refused_once() -> None:
    """Many large values are refused as soon as they are too much together, with one problem."""
    with pytest.raises(Invalid) as refused:
        fill(["${params.big}"] * 20, {"big": "x" * (MAX_FILLED // 4)}, {})
    assert len(refused.value.problems) == 1


ALPHABET = st.text(alphabet="${}envKY.paramsx\n ", max_size=20)


@given(ALPHABET, ALPHABET, ALPHABET)
def test_nothing_that_is_put_in_can_name_a_secret(left: str, put: str, right: str) -> None:
    """Read once more, filled text has the secret where the template had it, and all else as it was."""
    template = escape(left) + "${params.x}" + escape(right) + "${env.KEY}"
    filled = fill({"t": template}, {"x": put}, {}, keep_env=True)
    assert expanded(filled) == {"t": left + put + right + "hush"}


@given(ALPHABET)
def test_a_whole_value_cannot_name_a_secret_either(put: str) -> None:
    """Objects and lists that are put in whole are read once more as they were."""
    value = {"k": [put, {"${env.KEY}": put}]}
    filled = fill(["${params.x}"], {"x": value}, {}, keep_env=True)
    assert expanded(filled) == [value]


@given(st.text(alphabet="${}aparms.ids", max_size=30))
def test_any_text_is_filled_or_refused(text: str) -> None:
    """No text crashes, and one without a brace only loses doubled dollar signs."""
    found = list(references(text))
    try:
        filled = fill(text, {"a": "A"}, {})
    except Invalid:
        assert found
    else:
        assert "{" in text or filled == text.replace("$$", "$")


@given(st.text(max_size=30))
def test_escaped_text_reads_as_it_was(text: str) -> None:
    """Escaping and filling give the text again."""
    assert fill(escape(text), {}, {}) == text
    assert list(references(escape(text))) == []


def test_what_is_no_text_is_put_in_as_it_is() -> None:
    """Numbers, truth and nothing need no escape."""
    assert fill(["${params.list}"], PARAMS, {}, keep_env=True) == [[1, {"a": None}]]


def test_nothing_is_filled_any_more_once_it_is_too_much() -> None:
    """A text of many large values is given up at the first that is too much."""
    with pytest.raises(Invalid) as refused:
        fill("-${params.big}-${params.big}-${params.nope}", {"big": "x" * (MAX_FILLED // 2 + 1)}, {})
    assert len(refused.value.problems) == 1


def test_references_say_where_they_are() -> None:
    """Each is found with the path of its text; what begins none is found as well."""
    found = list(references({"a": [1, "${run.id}${", {"b": "${steps.x-1.result.y}"}]}, "meta"))
    assert found == [
        ("meta.a[1]", Reference("run", "id")),
        ("meta.a[1]", None),
        ("meta.a[2].b", Reference("steps", "x-1", ("y",))),
    ]
    assert [str(one.reference) for one in found if one.reference] == ["${run.id}", "${steps.x-1.result.y}"]
    assert RUN == ("id", "started_at")
