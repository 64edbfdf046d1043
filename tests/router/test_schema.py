"""Schemas from outside: what they say of meta, and what a hostile one cannot do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.schema import MAX_PROBLEMS, Schema, complaint_about


def found(document: dict[str, Any], meta: dict[str, Any]) -> dict[str, str]:
    """Return what an accepted schema finds wrong with `meta`, by field."""
    assert complaint_about(document) is None
    return {problem.field: problem.message for problem in Schema(document).problems(meta)}


@contextmanager
def quickly(seconds: float = 20.0) -> Iterator[None]:
    """Fail when the processor was busy for longer."""
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds


PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "home": {"$ref": "#/$defs/address"},
    },
    "required": ["name", "home"],
    "additionalProperties": False,
    "$defs": {
        "address": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        }
    },
}


def test_good_meta_has_no_problems() -> None:
    """What the schema allows is let through, references within it included."""
    assert found(PERSON, {"name": "Ann", "age": 3, "tags": ["a"], "home": {"city": "Graz"}}) == {}


def test_every_problem_has_the_path_of_its_field() -> None:
    """Missing, unknown and wrong fields are named where they stand, also behind a reference and in a list."""
    problems = found(
        PERSON, {"age": -1, "tags": ["a", "x", 3], "home": {"zip": 1}, "extra": True, "y" * 100: 1}
    )
    assert problems == {
        "meta.name": "is required",
        "meta.age": "is less than the minimum of 0",
        "meta.tags[1]": "is not one of ['a', 'b']",
        "meta.tags[2]": "is not one of ['a', 'b']",
        "meta.home.city": "is required",
        "meta.home.zip": "is not a known field",
        "meta.extra": "is not a known field",
        "meta." + "y" * 64: "is not a known field",
    }


def test_several_missing_fields_are_each_reported_once() -> None:
    """One problem per field."""
    problems = Schema({"required": ["a", "b", "c"]}).problems({"b": 1})
    assert [problem.field for problem in problems] == ["meta.a", "meta.c"]


def test_problems_are_bounded() -> None:
    """A meta that is wrong everywhere does not make an endless answer."""
    items = {"properties": {"list": {"items": {"type": "string"}}}}
    assert len(Schema(items).problems({"list": list(range(4000))})) == MAX_PROBLEMS
    unknown = Schema({"additionalProperties": False}).problems({f"f{n}": n for n in range(4000)})
    assert len(unknown) == MAX_PROBLEMS
    long = Schema({"properties": {"a": {"type": "object"}}}).problems({"a": "x" * 60_000})
    assert len(long[0].message) <= 300


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ({"type": "nonsense"}, "is not a JSON Schema"),
        ({"properties": []}, "is not a JSON Schema"),
        ({"required": "name"}, "is not a JSON Schema"),
        ({"properties": {"a": {"minimum": "x"}}}, "is not a JSON Schema"),
        ({"$ref": "https://evil.example/schema"}, "refers to"),
        ({"properties": {"a": {"$ref": "http://169.254.169.254/"}}}, "refers to"),
        ({"properties": {"a": {"items": {"anyOf": [{"$ref": "file:///etc/passwd"}]}}}}, "refers to"),
        ({"properties": {"a": {"$ref": "#/$defs/missing"}}}, "refers to"),
        ({"properties": {"a": {"$ref": "#anchor"}}}, "refers to"),
        ({"properties": {"a": {"$dynamicRef": "#anchor"}}}, "refers to"),
        ({"$defs": {"a": {"$ref": "other.json"}}}, "refers to"),
        ({"properties": {"a": {"$ref": "https://json-schema.org/draft/2020-12/schema"}}}, "refers to"),
        ({"a": [1], "$ref": "#/a/b"}, "refers to"),
        ({"a": [1], "$ref": "#/a/0"}, "refers to"),
        ({"a": 5, "$ref": "#/a/0"}, "refers to"),
        ({"a": "x", "properties": {"b": {"$ref": "#/a"}}}, "refers to"),
        ({"a": {"type": 7}, "properties": {"b": {"$ref": "#/a"}}}, "refers to"),
        ({"$ref": "#x%ZZ"}, "refers to"),
        ({"$id": "http://[", "$ref": "x"}, ""),
        ({"properties": {"a": {"$id": "http://[", "$ref": "x"}}}, ""),
        ({"$ref": "#"}, "itself"),
        ({"allOf": [{"$ref": "#"}]}, "itself"),
    ],
)
def test_schemas_that_cannot_serve_are_refused_at_registration(document: dict[str, Any], part: str) -> None:
    """Not a schema, or a reference that leads out of it or nowhere, however deep it is hidden."""
    complaint = complaint_about(document)
    assert complaint is not None
    assert part in complaint


def test_an_id_that_is_no_uri_is_refused_where_it_matters() -> None:
    """Nothing can be found relative to it."""
    document = {"$id": "http://[", "$defs": {"x": {"$id": "y"}}}
    assert "is no URI" in (complaint_about(document) or "")


def test_a_schema_nested_beyond_all_bodies_is_refused() -> None:
    """An autopilot's answer to /configure may be deeper than any registration."""
    document: dict[str, Any] = {}
    for _ in range(400):
        document = {"not": document}
    assert complaint_about(document) == "is nested too deep"


def test_a_reference_is_only_one_where_a_schema_stands() -> None:
    """A field called $ref, and values that look like references, are left alone."""
    document = {
        "properties": {"$ref": {"type": "string"}, "a": {"enum": [{"$ref": "http://x/"}], "default": 1}},
        "examples": [{"$ref": "nowhere"}],
    }
    assert found(document, {"$ref": "http://x/", "a": {"$ref": "http://x/"}}) == {}
    assert set(found(document, {"$ref": 1})) == {"meta.$ref"}


@pytest.mark.parametrize(
    "document",
    [
        {"properties": {"a": {"$ref": "#/definitions/b"}}, "definitions": {"b": {"type": "string"}}},
        {"properties": {"a": {"$ref": "#b"}}, "$defs": {"x": {"$anchor": "b", "type": "string"}}},
        {"properties": {"a": {"$ref": "b"}}, "$defs": {"x": {"$id": "b", "type": "string"}}},
        {
            "$id": "https://a.example/s",
            "properties": {"a": {"$ref": "s#/$defs/b"}},
            "$defs": {"b": {"type": "string"}},
        },
        {
            "properties": {"a": {"$ref": "#/$defs/b"}},
            "$defs": {"b": {"$ref": "#/$defs/c"}, "c": {"type": "string"}},
        },
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "string"}}},
        {"properties": {"a": {"$ref": "#/$defs/b%25c"}}, "$defs": {"b%c": {"type": "string"}}},
    ],
)
def test_references_within_the_schema_work(document: dict[str, Any]) -> None:
    """By pointer, by anchor, by id and through one another."""
    assert found(document, {"a": "x"}) == {}
    assert set(found(document, {"a": 1})) == {"meta.a"}


def test_a_schema_may_contain_itself() -> None:
    """A tree is checked to its leaves."""
    tree = {
        "properties": {"next": {"$ref": "#"}, "value": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert found(tree, {"value": 1, "next": {"next": {"value": 2}}}) == {}
    assert set(found(tree, {"next": {"next": {"value": "x"}}})) == {"meta.next.next.value"}


def test_the_deepest_meta_is_checked_against_a_schema_that_contains_itself() -> None:
    """The limit of a body's depth is within what can be checked."""
    node = {"anyOf": [{"type": "null"}, {"allOf": [{"properties": {"a": {"$ref": "#/$defs/node"}}}]}]}
    meta: dict[str, Any] = {}
    for _ in range(61):
        meta = {"a": meta}
    assert found({"$defs": {"node": node}, "$ref": "#/$defs/node"}, meta) == {}


def test_a_reference_that_turns_in_a_circle_is_a_problem_of_the_meta_it_meets() -> None:
    """A circle that only some meta enters cannot take the process down."""
    problems = Schema({"properties": {"a": {"$ref": "#/properties/a"}}}).problems({"a": 1})
    assert [problem.field for problem in problems] == ["meta"]
    assert "input_schema" in problems[0].message


REDOS = "^(a|a|aa)+$"
VICTIM = "a" * 60 + "!"


@pytest.mark.parametrize(
    "document",
    [
        {"properties": {"a": {"pattern": REDOS}}},
        {"patternProperties": {REDOS: {"type": "string"}}},
        {"patternProperties": {REDOS: {}}, "additionalProperties": False},
        {"patternProperties": {REDOS: {}}, "additionalProperties": {"type": "string"}},
        {"patternProperties": {REDOS: {}}, "unevaluatedProperties": False},
        {"allOf": [{"patternProperties": {REDOS: {}}}], "unevaluatedProperties": False},
        {"propertyNames": {"pattern": REDOS}},
    ],
)
def test_a_hostile_pattern_is_never_run(document: dict[str, Any]) -> None:
    """Patterns, and all that depends on which of them match, are left to the autopilot."""
    with quickly():
        assert found(document, {"a": VICTIM, VICTIM: "x"}) == {}


@pytest.mark.parametrize(
    "pattern", [r"^\p{L}+$", "(", "a{99999999999999}", "(?<year>x)", "(" * 3000 + ")" * 3000]
)
def test_a_pattern_need_not_be_pythons(pattern: str) -> None:
    """JSON Schema's patterns are of another dialect: they are neither compiled nor judged here."""
    assert found({"properties": {"a": {"pattern": pattern}}}, {"a": "x"}) == {}


def test_unknown_fields_are_still_refused_where_no_pattern_could_allow_them() -> None:
    """Leaving patterns out leaves the rest of the schema in force."""
    document = {"properties": {"a": {"additionalProperties": False}}, "patternProperties": {"x": {}}}
    assert set(found(document, {"a": {"b": 1}})) == {"meta.a.b"}
    assert set(found({"properties": {"a": {}}, "unevaluatedProperties": False}, {"b": 1})) == {"meta"}


def test_references_that_double_at_each_step_do_not_hold_the_process() -> None:
    """2^40 checks are not done: such a schema is refused, or reported when only some meta meets it."""
    doubling: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    doubling["d40"] = {}
    with quickly():
        assert "steps" in (complaint_about({"$defs": doubling, "$ref": "#/$defs/d0"}) or "")
    hidden = {"$defs": doubling, "properties": {"a": {"$ref": "#/$defs/d0"}}}
    with quickly():
        assert "input_schema" in found(hidden, {"a": 1})["meta"]


@pytest.mark.parametrize(
    "items",
    [
        [one for n in range(2400) for one in (n, str(n))],
        [{"i": n} for n in range(2400)],
        [[n, {"x": [n]}] for n in range(1200)],
    ],
)
def test_unique_items_are_counted_in_one_pass(items: list[Any]) -> None:
    """Thousands of items that cannot be sorted are no reason to compare each with each."""
    document = {"properties": {"a": {"uniqueItems": True}}}
    with quickly():
        assert found(document, {"a": items}) == {}
    with quickly():
        assert set(found(document, {"a": [*items, items[7]]})) == {"meta.a"}


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ([1, True], True),
        ([0, False], True),
        ([1, 1.0], False),
        ([[1], [True]], True),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1.0}], False),
        ([{"a": 1}, [["a", 1]]], True),
        (["1", 1], True),
        ([None, False, 0, "", [], {}], True),
        ([[], []], False),
        ([{}, {}], False),
    ],
)
def test_what_counts_as_equal_items(items: list[Any], unique: bool) -> None:
    """Numbers by value, objects whatever their order; true is not 1."""
    problems = found({"properties": {"a": {"uniqueItems": True}}}, {"a": items})
    assert (problems == {}) is unique
    assert found({"properties": {"a": {"uniqueItems": False}}}, {"a": items}) == {}


def test_a_large_list_against_a_usual_schema_is_within_the_steps() -> None:
    """The bound on steps is far beyond what an honest schema needs."""
    item = {
        "type": "object",
        "properties": {"id": {"type": "integer", "minimum": 0}, "name": {"type": "string", "maxLength": 50}},
        "required": ["id", "name"],
        "additionalProperties": False,
    }
    document = {"properties": {"list": {"type": "array", "items": item}}}
    assert found(document, {"list": [{"id": n, "name": "x"} for n in range(1600)]}) == {}


KEYWORDS = """
$ref $id $schema $anchor $dynamicRef $dynamicAnchor $defs properties items allOf anyOf not if then type
enum const required additionalProperties unevaluatedProperties patternProperties uniqueItems
multipleOf minimum a b
"""
PLACES = "# #/$defs/a #/a a #a http://x/y http://[ urn:x object % #/% #/a/0/b #/~ // \ud800"
_words = st.sampled_from(KEYWORDS.split())
_values: st.SearchStrategy[Any] = st.sampled_from(
    [*PLACES.split(" "), "", 0, 1, 0.5, 1e308, True, False, None, [], {}, ["a"]]
)
_schemas = st.recursive(
    _values,
    lambda inner: st.dictionaries(_words, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(_words, _schemas, max_size=4), st.dictionaries(_words, _schemas, max_size=3))
@settings(max_examples=250, deadline=None)
def test_any_schema_is_refused_or_serves(document: dict[str, Any], meta: dict[str, Any]) -> None:
    """Whatever is registered: a complaint then, or a list of problems later, never an exception."""
    if complaint_about(document) is None:
        assert isinstance(Schema(document).problems(meta), list)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({"type": "integer"}, "a canary"),
        ({"enum": ["a"]}, "a canary"),
        ({"const": "a"}, "a canary"),
        ({"maxLength": 3}, "a canary"),
        ({"minLength": 99}, "a canary"),
        ({"not": {"type": "string"}}, "a canary"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "a canary"),
        ({"oneOf": [{"type": "string"}, {"minLength": 1}]}, "a canary"),
        ({"type": "array", "uniqueItems": True}, ["a canary", "a canary"]),
        ({"type": "array", "maxItems": 1}, ["a canary", "b"]),
        ({"type": "array", "contains": {"type": "integer"}}, ["a canary"]),
        ({"type": "object", "maxProperties": 0}, {"a": "a canary"}),
        ({"type": "object", "minProperties": 3}, {"a": "a canary"}),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, {"a": "a canary"}),
        ({"type": "object", "unevaluatedProperties": False}, {"a": "a canary"}),
    ],
)
def test_no_problem_says_what_the_value_was(rule: dict[str, Any], value: Any) -> None:
    """A message may be kept where a meta must not be: it says what is wrong, not with what."""
    problems = Schema({"properties": {"x": rule}}).problems({"x": value})
    assert problems
    for problem in problems:
        assert "canary" not in problem.message
        assert len(problem.message) > 3
