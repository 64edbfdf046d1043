"""The schemas of the OpenAPI document against the parsers they describe: both sides of every rule."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from router.errors import Invalid
from router.keys import MAX_SCOPES, parse_scopes
from router.model import MAX_CAPABILITIES, is_capability, is_family, is_name, is_task
from router.needs import MAX_NEEDS, parse_needs
from router.openapi import Entry, document
from router.openapi.operations import OPERATIONS
from router.parse import MAX_TASKS, MAX_TIMEOUT_MS, parse_autopilot, parse_plan

SMALLEST = {"name": "a", "endpoint": "https://a.example", "capabilities": ["web.pages.generate"]}
WHOLE = document([Entry(method, path, "read", "…") for method, path in OPERATIONS], local=False)
_PYTHON = json.dumps(WHOLE["components"]).replace(')$"', ')\\\\Z"').replace(']*$"', ']*\\\\Z"')


def schema_of(name: str) -> Draft202012Validator:
    """Return a validator of a component, with the end of a pattern as Python writes it."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": json.loads(_PYTHON)})


def edge(least: int, most: int) -> list[Any]:
    """Give numbers at both ends of a range, and things that are no such numbers."""
    return [least - 1, least, most, most + 1, float(most), most - 0.5, str(least), True, None, [], {}]


def texts(most: int) -> list[Any]:
    """Give texts that are and are not too long or without control characters."""
    return [
        "",
        " ",
        "a",
        "a" * most,
        "a" * (most + 1),
        "a\n",
        "\t a",
        "a\tb",
        "a\x00",
        "\x00",
        "\x7fa",
        "a\u2028",
        "\x1c a \x1f\x85",
        "\u200ba",
        None,
        1,
        ["a"],
    ]


NAMES: list[Any] = [
    "",
    "a",
    "a" * 64,
    "a" * 65,
    "-a",
    "a-",
    "a--b",
    "A",
    "a.b",
    "0",
    "a_b",
    "ä",
    "a b",
    None,
    1,
    [],
]
CAPABILITIES: list[Any] = [
    "a.b",
    "a",
    "a.b.c.d.e.f",
    "a.b.c.d.e.f.g",
    "a." + "b" * 126,
    "a." + "b" * 127,
    "a-b.c_d",
    "a..b",
    ".a.b",
    "A.b",
    "web.*",
    "web.pages.*",
    "*",
    "a." + "*",
    "a" * 126 + ".*",
    "a" * 127 + ".*",
    "a-.b",
    "a.b-",
    None,
    1,
]
ENDPOINTS: list[Any] = [
    "https://a.example",
    "https://a.example/",
    "http://a.example:8080/x/y?z=1",
    "https://[::1]:9/",
    "https://a",
    "https://a.example#x",
    "https://u:p@a.example",
    "https://a b",
    "https://",
    "ftp://a.example",
    "//a.example",
    "https://a.example\\x",
    "https://a.example/ä",
    "https://a.example?",
    "https://a.example:",
    "https://a..b",
    "https://a.example.",
    "https://-a.example",
    "https://A.Example",
    "https://a.example/%20",
    "local:x",
    "local:",
    "lambda:arn:aws:x-1",
    "local:-x",
    "local:" + "x" * 170,
    "local:" + "x" * 171,
    "https://" + "a" * 64 + ".b",
    "https://a.example/" + "x" * (2048 - 18),
    "https://a.example/" + "x" * (2049 - 18),
    "",
    None,
    1,
]
REGISTRATIONS: dict[str, list[Any]] = {
    "name": NAMES,
    "endpoint": ENDPOINTS,
    "capabilities": [
        *([one] for one in CAPABILITIES),
        [],
        {},
        "a.b",
        [f"a.b{number}" for number in range(MAX_CAPABILITIES)],
        [f"a.b{number}" for number in range(MAX_CAPABILITIES + 1)],
        ["a.b", "a.b"],
        [{"name": "a.b"}],
        [{"name": "a.*", "configure": True, "input_schema": {"type": "object"}, "description": ""}],
        [{"name": "a.b", "input_schema": None}],
        [{"name": "a.b", "input_schema": True}],
        [{"name": "a.b", "configure": None}],
        [{"name": "a.b", "requires_approval": True}],
        [{"name": "a.b", "requires_approval": "yes"}],
        [{"name": "a.b", "colour": 1}],
        [{"description": "a.b"}],
    ],
    "tasks": [
        {},
        {"a": "web.pages.generate"},
        {"a" * 64: "web.pages.generate"},
        {"a" * 65: "web.pages.generate"},
        {"a-b_c": "web.pages.generate"},
        {"1a": "web.pages.generate"},
        {"a": "web.*"},
        {"a": None},
        {f"a{number}": "web.pages.generate" for number in range(MAX_TASKS)},
        {f"a{number}": "web.pages.generate" for number in range(MAX_TASKS + 1)},
        [],
        None,
    ],
    "priority": edge(0, 1_000_000),
    "weight": edge(1, 1_000_000),
    "lease_seconds": edge(1, 86_400),
    "description": texts(2000),
    "needs": [{}, [], None, {"workers": []}, {"buckets": []}],
    "stranger": [1, None],
}
"""By field of a registration: values on both sides of each of its rules."""


def taken(parse: Any, *value: Any) -> bool:
    """Whether a parser takes a value."""
    try:
        parse(*value)
    except Invalid:
        return False
    return True


@pytest.mark.parametrize("field", REGISTRATIONS)
def test_a_registration_is_described_as_it_is_taken(field: str) -> None:
    """Schema and parser agree about every edge of every field."""
    schema = schema_of("Autopilot")
    for value in REGISTRATIONS[field]:
        body = {**SMALLEST, field: value}
        assert schema.is_valid(body) is taken(parse_autopilot, body), body
    assert (field in WHOLE["components"]["schemas"]["Autopilot"]["properties"]) is (field != "stranger")


@pytest.mark.parametrize("field", SMALLEST)
def test_what_a_registration_cannot_do_without(field: str) -> None:
    """Schema and parser agree about what is required."""
    body = {name: value for name, value in SMALLEST.items() if name != field}
    assert not schema_of("Autopilot").is_valid(body)
    assert not taken(parse_autopilot, body)


PLANS: list[Any] = [
    {},
    [],
    {"task": "x", "stranger": 1},
    {"task": "x", "capability": "a.b"},
    {"task": " ", "capability": "a.b"},
    {"task": "x", "callback_url": None},
    {"task": "x", "callback_url": "https://a.example"},
    *({"task": value} for value in texts(200)),
    *({"capability": value} for value in CAPABILITIES),
    *({"task": "x", "meta": value} for value in list[Any](({}, {"a": [1]}, [], None, "x"))),
    *({"task": "x", "mode": value} for value in list[Any](("sync", "explain", "async", "", None, []))),
    *({"task": "x", "timeout_ms": value} for value in edge(1, MAX_TIMEOUT_MS)),
    *({"task": "x", "autopilot": value} for value in NAMES),
]


def test_a_plan_is_described_as_it_is_taken() -> None:
    """Schema and parser agree; what names no task at all is the planner's to refuse."""
    schema = schema_of("Plan")
    for body in PLANS:
        named = isinstance(body, dict) and (str(body.get("task", "")).strip() or "capability" in body)
        assert schema.is_valid(body) is bool(named and taken(parse_plan, body, b"{}")), body


@pytest.mark.parametrize("kind", ["kvNamespaces", "r2Buckets", "d1Databases", "queues", "workers"])
def test_needs_are_described_as_they_are_taken(kind: str) -> None:
    """Schema and parser agree about the names of every kind of storage, and how many there may be."""
    schema = schema_of("Needs")
    names = [
        "a",
        "abc",
        "A_b",
        "a-b",
        "-a",
        "a-",
        "",
        "a.b",
        *("a" * size for size in (63, 64, 65, 128, 129)),
    ]
    for name in [*names, None, 1]:
        one: Any = {"name": name, "content": "x"} if kind == "workers" else name
        assert schema.is_valid({kind: [one]}) is taken(parse_needs, {kind: [one]}), one
    for count in (MAX_NEEDS, MAX_NEEDS + 1):
        many: list[Any] = [f"abc{number}" for number in range(count)]
        if kind == "workers":
            many = [{"name": name, "content": "x"} for name in many]
        assert schema.is_valid({kind: many}) is taken(parse_needs, {kind: many}) is (count == MAX_NEEDS)
    for wrong in list[Any]((None, {}, "abc", [many[0], many[0]])):
        assert not schema.is_valid({kind: wrong})
        assert not taken(parse_needs, {kind: wrong})


SCOPES: list[Any] = [
    *(
        "read",
        "operate",
        "admin",
        "register",
        "public",
        "plan",
        "plan:",
        "plan:*",
        "register:",
        "register:*",
        "",
    ),
    *(f"plan:{name}" for name in CAPABILITIES),
    *(f"register:{name}" for name in NAMES),
    *("plan:a.b.*", "plan:a.b.c.d.e.*", "plan:a.b.c.d.e.f.*", "plan:*.a", "plan:a.*.b", "plan:.*", "plan:a*"),
    *(f"plan:{'a' * size}.*" for size in (126, 127)),
    *(None, 1, []),
]


@pytest.mark.parametrize("scope", SCOPES)
def test_scopes_are_described_as_they_are_taken(scope: Any) -> None:
    """Schema and parser agree about what a key may be for."""
    assert schema_of("Scope").is_valid(scope) is taken(parse_scopes, [scope])


@pytest.mark.parametrize("count", [0, 1, MAX_SCOPES, MAX_SCOPES + 1])
def test_how_many_scopes_a_key_may_have(count: int) -> None:
    """Schema and parser agree about the number."""
    scopes = ["read"] * count
    valid = schema_of("NewKey").is_valid({"name": "a", "scopes": scopes})
    assert valid is taken(parse_scopes, scopes) is (1 <= count <= MAX_SCOPES)


@given(st.text(alphabet="ab .\n\t\x00\x1c\x1f\x7f\x85\xa0\u2028\u3000\ufeff\u200b", max_size=8))
def test_texts_are_described_to_the_letter(value: str) -> None:
    """White space around a text is let through and control characters within are not, in both."""
    pattern = WHOLE["components"]["schemas"]["Autopilot"]["properties"]["description"]["pattern"]
    matches = re.fullmatch(pattern.removesuffix("$"), value) is not None
    assert matches is taken(parse_autopilot, {**SMALLEST, "description": value})


@given(st.text(alphabet="ab0-_.*A", max_size=12))
def test_names_are_described_to_the_letter(value: str) -> None:
    """The document's patterns are those the router matches names with."""
    schemas = WHOLE["components"]["schemas"]
    for name, test in (
        ("Name", is_name),
        ("CapabilityName", is_capability),
        ("Family", is_family),
        ("TaskName", is_task),
    ):
        assert bool(re.fullmatch(schemas[name]["pattern"].removesuffix("$"), value)) is test(value)
