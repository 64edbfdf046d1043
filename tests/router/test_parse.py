"""What arrives as JSON: every problem at once, the edges of the grammar, and nothing but `Invalid`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.table import MAX_TRANSACTION
from infra.table.sqlite import SqliteTable
from router.errors import Invalid, Problem
from router.model import (
    MAX_CAPABILITIES,
    Autopilot,
    Binding,
    Bucket,
    Capability,
    Needs,
    PlanRequest,
    Worker,
)
from router.needs import MAX_NEEDS, MAX_WORKER, parse_needs
from router.parse import (
    MAX_FAMILIES,
    MAX_TASKS,
    MAX_TIMEOUT_MS,
    parse_autopilot,
    parse_capability,
    parse_plan,
)
from tests.fakes import FakeClock
from tests.router.parts import core, dump, record_of, rows_expected

SMALLEST: dict[str, Any] = {
    "name": "stylist",
    "endpoint": "https://stylist.example",
    "capabilities": ["web.pages.generate"],
}


def body(**changes: Any) -> dict[str, Any]:
    """Give a good registration with some fields changed."""
    return {**SMALLEST, **changes}


def complaints(parse: Callable[[Any], object], value: Any) -> dict[str, str]:
    """Return what a parser finds wrong, by field."""
    with pytest.raises(Invalid) as refused:
        parse(value)
    return {problem.field: problem.message for problem in refused.value.problems}


def refuses(**changes: Any) -> set[str]:
    """Return the fields of a registration that are found wrong."""
    return set(complaints(parse_autopilot, body(**changes)))


def test_the_smallest_registration_gets_the_documented_defaults() -> None:
    """Name, endpoint and one capability are enough."""
    assert parse_autopilot(SMALLEST) == Autopilot(
        name="stylist",
        endpoint="https://stylist.example",
        capabilities=(Capability("web.pages.generate"),),
        needs=Needs(),
        tasks={},
        priority=100,
        weight=1,
        lease_seconds=None,
        description="",
    )


def test_the_contracts_example_is_taken_whole() -> None:
    """Every field of the contract's registration arrives in the value."""
    parsed = parse_autopilot(
        {
            "name": "ai-stylist",
            "endpoint": "https://stylist.example/base",
            "capabilities": [
                "web.pages.generate",
                {"name": "web.asset.generate", "description": "Images", "input_schema": {"type": "object"}},
                {"name": "crm.*", "configure": True},
                {"name": "payouts.batch.run", "requires_approval": True},
            ],
            "needs": {
                "kvNamespaces": ["CACHE"],
                "r2Buckets": ["assets"],
                "workers": [{"name": "w", "content": "export default {}\n"}],
                "d1Databases": ["Main_DB"],
                "queues": ["jobs"],
            },
            "tasks": {"generate_banner": "web.asset.generate", "score_lead": "crm.lead.score"},
            "priority": 10,
            "weight": 3,
            "lease_seconds": 60,
            "description": "Makes pages",
        }
    )
    assert parsed.capabilities == (
        Capability("web.pages.generate"),
        Capability("web.asset.generate", "Images", {"type": "object"}),
        Capability("crm.*", configure=True),
        Capability("payouts.batch.run", requires_approval=True),
    )
    assert parsed.needs == Needs(
        ("CACHE",), ("assets",), (Worker("w", "export default {}\n"),), ("Main_DB",), ("jobs",)
    )
    assert parsed.tasks == {"generate_banner": "web.asset.generate", "score_lead": "crm.lead.score"}
    assert (parsed.priority, parsed.weight, parsed.lease_seconds) == (10, 3, 60)
    assert parsed.description == "Makes pages"


def test_every_problem_of_a_registration_is_reported_with_its_path() -> None:
    """A caller who corrects everything that is listed needs no second try."""
    found = complaints(
        parse_autopilot,
        {
            "name": "-bad-",
            "endpoint": "ftp://x",
            "capabilities": [
                "web.pages.generate",
                "single",
                7,
                {"name": "Web.Pages", "description": 5, "input_schema": [], "configure": "yes", "extra": 1},
                {"name": "a.b", "input_schema": {"type": "nonsense"}, "requires_approval": 1},
                "web.pages.generate",
            ],
            "needs": {
                "kvNamespaces": ["ok", "../up"],
                "r2Buckets": "assets",
                "workers": [{"name": "w"}, {"content": "x", "more": 1}, "w"],
                "lambdas": ["x"],
            },
            "tasks": {"Bad": "web.pages.generate", "good": "nope", "other": "crm.lead.create"},
            "priority": -1,
            "weight": 0,
            "lease_seconds": True,
            "description": "bell\a inside",
            "secret": "s",
        },
    )
    assert set(found) == {
        "name",
        "endpoint",
        "capabilities",
        "capabilities[1]",
        "capabilities[2]",
        "capabilities[3].name",
        "capabilities[3].description",
        "capabilities[3].input_schema",
        "capabilities[3].configure",
        "capabilities[3].extra",
        "capabilities[4].input_schema",
        "capabilities[4].requires_approval",
        "needs.kvNamespaces[1]",
        "needs.r2Buckets",
        "needs.workers[0].content",
        "needs.workers[1].name",
        "needs.workers[1].more",
        "needs.workers[2]",
        "needs.lambdas",
        "tasks.Bad",
        "tasks.good",
        "tasks.other",
        "priority",
        "weight",
        "lease_seconds",
        "description",
        "secret",
    }
    assert found["capabilities"] == "web.pages.generate is listed twice"
    assert found["secret"] == "is not a known field"


@pytest.mark.parametrize("value", [None, [], "x", 1, True, [SMALLEST]])
def test_what_is_no_object_is_one_problem(value: object) -> None:
    """Whoever sends a list is not told about fields that a list cannot have."""
    assert complaints(parse_autopilot, value) == {"body": "must be an object"}
    assert complaints(lambda it: parse_plan(it, b"{}"), value) == {"body": "must be an object"}


def test_missing_fields_are_each_named() -> None:
    """An empty object lacks exactly the three required fields."""
    assert complaints(parse_autopilot, {}) == dict.fromkeys(
        ("name", "endpoint", "capabilities"), "is required"
    )


def test_problems_are_bounded_in_length() -> None:
    """A field's name of any length is echoed only in part."""
    found = complaints(parse_autopilot, body(**{"x" * 5000: 1}))
    assert set(found) == {"x" * 64}


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a--b", "9-z", "a" * 64])
def test_names_within_the_grammar(name: str) -> None:
    """1 to 64 of a-z, 0-9 and -, with no - at either end."""
    assert parse_autopilot(body(name=name)).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-",
        "-a",
        "a-",
        "A",
        "a_b",
        "a.b",
        "a b",
        "a\n",
        "ä",
        "٣",
        "a" * 65,
        "../admin",
        None,
        1,
        ["a"],
        {},
    ],
)
def test_names_outside_the_grammar(name: object) -> None:
    """Anything else is no name."""
    assert refuses(name=name) == {"name"}


@pytest.mark.parametrize(
    "name",
    ["a.b", "a1.2b", "web.pages.generate", "a.b.c.d.e.f", "ai_employee.send-mail", "a.*", "web-x.*", "0.0"],
)
def test_capabilities_within_the_grammar(name: str) -> None:
    """2 to 6 dotted words, or one word and a star."""
    assert parse_capability(name) == Capability(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "a.",
        ".a",
        "a..b",
        "a.b.c.d.e.f.g",
        "A.b",
        "a.B",
        "a._b",
        "a.b-",
        "a.b--c",
        "a.b_-c",
        "*",
        "*.*",
        "a.b.*",
        "a.*.b",
        "a.**",
        "a.b\n",
        "a b.c",
        "é.b",
        "a." + "b" * 127,
        "a" * 127 + ".*",
    ],
)
def test_capabilities_outside_the_grammar(name: str) -> None:
    """Anything else is no capability."""
    assert set(complaints(parse_capability, name)) == {"capability"}


def test_the_longest_capability_has_128_characters() -> None:
    """The limit is inclusive for names and families."""
    assert parse_capability("a." + "b" * 126).name.endswith("b")
    assert parse_capability("a" * 126 + ".*").family == "a" * 126


@pytest.mark.parametrize("value", [None, 1, [], ["a.b"], True])
def test_a_capability_is_a_name_or_an_object(value: object) -> None:
    """Anything else is one problem, not a list of fields that it lacks."""
    found = complaints(parse_autopilot, body(capabilities=[value]))
    assert found == {"capabilities[0]": "must be a name or an object"}


@pytest.mark.parametrize("value", [None, "abc", {}, 1, []])
def test_capabilities_must_be_a_list_with_something_in_it(value: object) -> None:
    """A text is not read as letters, and an autopilot that can do nothing is none."""
    assert refuses(capabilities=value) == {"capabilities"}


def test_an_autopilot_offers_at_most_32_capabilities() -> None:
    """The 33rd is one too many."""
    names = [f"a.b{number}" for number in range(MAX_CAPABILITIES + 1)]
    assert len(parse_autopilot(body(capabilities=names[:-1])).capabilities) == 32
    assert refuses(capabilities=names) == {"capabilities"}


def test_an_autopilot_extends_at_most_4_families() -> None:
    """A family counts once, whether by its star or by `configure`."""
    good = ["a.*", {"name": "a.x", "configure": True}, {"name": "b.x", "configure": True}, "c.*", "d.*"]
    assert len(parse_autopilot(body(capabilities=good)).capabilities) == len(good)
    assert refuses(capabilities=[*good, {"name": "e.x", "configure": True}]) == {"capabilities"}
    assert parse_autopilot(body(capabilities=[*good, "e.x"]))


def test_an_autopilot_brings_at_most_12_tasks() -> None:
    """The 13th is one too many."""
    tasks = {f"task{number}": "web.pages.generate" for number in range(MAX_TASKS + 1)}
    assert refuses(tasks=tasks) == {"tasks"}
    del tasks["task0"]
    assert len(parse_autopilot(body(tasks=tasks)).tasks) == 12


@pytest.mark.parametrize("task", ["a", "make_page", "a-b_c", "a1", "a" * 64])
def test_tasks_within_the_grammar(task: str) -> None:
    """Words that start with a letter, joined by _ or -."""
    assert parse_autopilot(body(tasks={task: "web.pages.generate"})).tasks == {task: "web.pages.generate"}


@pytest.mark.parametrize("task", ["", "1a", "A", "a__b", "_a", "a_", "a b", "a/b", "a.b", "a\n", "a" * 65])
def test_tasks_outside_the_grammar(task: str) -> None:
    """Anything else cannot name a task."""
    assert refuses(tasks={task: "web.pages.generate"}) == {f"tasks.{task[:64]}"}


@pytest.mark.parametrize("value", [None, "x", 1, ["web.pages.generate"], [], "web.*", "crm.lead.create"])
def test_a_task_stands_for_a_capability_of_the_same_autopilot(value: object) -> None:
    """A task that leads to somebody else's capability, or to none, is refused."""
    assert refuses(tasks={"make": value}) == {"tasks.make"}


@pytest.mark.parametrize("offered", ["crm.*", {"name": "crm.lead.update", "configure": True}])
def test_a_task_may_stand_for_a_capability_of_an_extensible_family(offered: object) -> None:
    """It can be configured once it is asked for."""
    parsed = parse_autopilot(body(capabilities=[offered], tasks={"lead": "crm.lead.create"}))
    assert parsed.tasks == {"lead": "crm.lead.create"}


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_tasks_must_be_an_object(value: object) -> None:
    """Anything else is refused."""
    assert refuses(tasks=value) == {"tasks"}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("kvNamespaces", ["A", "a_b-C9", "x" * 128], ["", "-a", "_a", "a.b", "a b", "a/b", "x" * 129, "a\n"]),
        ("r2Buckets", ["abc", "a-b", "x" * 63], ["ab", "-ab", "ab-", "A-b", "a_b", "a.b", "x" * 64, "abc\n"]),
        ("d1Databases", ["a", "A_b-c", "x" * 64], ["", "-a", "../x", "x" * 65]),
        ("queues", ["a", "a-b", "x" * 63], ["", "-a", "a-", "A", "a_b", "x" * 64]),
    ],
)
def test_names_of_storage(kind: str, good: list[str], bad: list[str]) -> None:
    """Each kind of storage has the names its provider gives it, and no path gets through."""
    assert parse_autopilot(body(needs={kind: good})).needs
    found = refuses(needs={kind: [*bad, None, 1, {}]})
    expected = {f"needs.{kind}[{index}]" for index in range(len(bad) + 3)}
    if kind == "r2Buckets":  # which may be objects, so that one lacks its name
        expected = (expected - {f"needs.{kind}[{len(bad) + 2}]"}) | {f"needs.{kind}[{len(bad) + 2}].name"}
    assert found == expected


def test_workers_need_a_name_and_content() -> None:
    """A Worker's source may have lines; an empty one, or a name with a path, is refused."""
    good = [{"name": "a", "content": "x\n\ty"}, {"name": "a_b-" + "c" * 59, "content": "x"}]
    assert len(parse_autopilot(body(needs={"workers": good})).needs.workers) == 2
    bad = [{"name": "a", "content": ""}, {"name": "../a", "content": "x"}, {"name": "x" * 64, "content": "x"}]
    assert refuses(needs={"workers": bad}) == {
        "needs.workers[0].content",
        "needs.workers[1].name",
        "needs.workers[2].name",
    }


def test_sources_of_workers_are_bounded_together() -> None:
    """200,000 characters are the most, in one Worker or in several."""
    half = MAX_WORKER // 2
    both = [{"name": "a", "content": "x" * half}, {"name": "b", "content": "x" * half}]
    assert parse_autopilot(body(needs={"workers": both})).needs.workers[1].content == "x" * half
    both[0]["content"] += "x"
    assert refuses(needs={"workers": both}) == {"needs.workers"}
    assert refuses(needs={"workers": [{"name": "a", "content": "x" * (MAX_WORKER + 1)}]}) == {
        "needs.workers[0].content"
    }


def test_at_most_50_of_each_kind_are_needed_and_none_twice() -> None:
    """The 51st is one too many; a name counts once."""
    names = [f"bucket-{number}" for number in range(MAX_NEEDS + 1)]
    assert len(parse_autopilot(body(needs={"r2Buckets": names[:-1]})).needs.r2_buckets) == 50
    assert refuses(needs={"r2Buckets": names}) == {"needs.r2Buckets"}
    assert refuses(needs={"queues": ["jobs", "jobs"]}) == {"needs.queues"}
    twice = [{"name": "w", "content": "1"}, {"name": "w", "content": "2"}]
    assert refuses(needs={"workers": twice}) == {"needs.workers"}


@pytest.mark.parametrize("value", [None, [], "kv", 1])
def test_needs_must_be_an_object(value: object) -> None:
    """Anything else is refused, in a registration and on its own."""
    assert complaints(parse_autopilot, body(needs=value)) == {"needs": "must be an object"}
    assert complaints(lambda it: parse_needs(it, "want"), value) == {"want": "must be an object"}


def test_needs_on_their_own_say_where_they_stand() -> None:
    """`want` of ensure-infra is read by the same rules, under its own path."""
    assert parse_needs({"queues": ["jobs"]}, "want") == Needs(queues=("jobs",))
    found = complaints(lambda it: parse_needs(it, "want"), {"queues": [""], "kv": []})
    assert set(found) == {"want.queues[0]", "want.kv"}


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://a.example",
        "http://127.0.0.1:8080/base",
        "local:ai-stylist",
        "lambda:my_function:7",
        "lambda:" + "f" * 170,
    ],
)
def test_endpoints_that_are_well_formed(endpoint: str) -> None:
    """Whether it may be called is decided elsewhere; here it only has to be an endpoint."""
    assert parse_autopilot(body(endpoint=endpoint)).endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "/run",
        "stylist.example",
        "ftp://a.example",
        "file:///etc/passwd",
        "https://u:p@a.example",
        "https://a.example/\r\nX: y",
        "https://a.example/" + "a" * 9000,
        "https://",
        "https://a.example:0",
        "local:",
        "local:../x",
        "local:a b",
        "lambda:" + "f" * 171,
        "LOCAL:x",
        None,
        1,
        [],
    ],
)
def test_endpoints_that_are_none(endpoint: object) -> None:
    """No URL, credentials in it, control characters or too long: refused with the field's name."""
    assert refuses(endpoint=endpoint) == {"endpoint"}


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("priority", [0, 1_000_000, 1.0], [-1, 1_000_001, 1.5, "1", True, None]),
        ("weight", [1, 1_000_000], [0, -1, 1_000_001, 1.5, False, None]),
        ("lease_seconds", [None, 1, 86_400], [0, 86_401, "60", True, 60.5, 1e300]),
        ("description", ["", "x" * 2000, "ends with a line\n"], ["x" * 2001, None, 1, "a\x00b", "a\x1bb"]),
    ],
)
def test_numbers_and_texts_at_their_edges(field: str, good: list[object], bad: list[object]) -> None:
    """Limits are inclusive, 1.0 is the whole number 1 as JSON Schema has it, a truth value is no number."""
    for value in good:
        taken = getattr(parse_autopilot(body(**{field: value})), field)
        assert taken == value
        assert not isinstance(taken, float)
    for value in bad:
        assert refuses(**{field: value}) == {field}


def test_a_plan_takes_a_task_or_a_capability() -> None:
    """Both forms become the same kind of request; meta is `{}` when there is none."""
    assert parse_plan({"task": " generate_page "}, b"{}") == PlanRequest("generate_page", None, b"{}", {})
    full = {
        "capability": "web.pages.generate",
        "task": " ",
        "meta": {"a": 1},
        "mode": "explain",
        "timeout_ms": MAX_TIMEOUT_MS,
        "autopilot": "stylist",
    }
    assert parse_plan(full, b'{"a": 1}') == PlanRequest(
        "", "web.pages.generate", b'{"a": 1}', {"a": 1}, "explain", MAX_TIMEOUT_MS, "stylist"
    )
    later = {"task": "x", "mode": "async", "callback_url": "https://a.example/hook?x=1"}
    assert parse_plan(later, b"{}") == PlanRequest(
        "x", None, b"{}", {}, "async", callback_url="https://a.example/hook?x=1"
    )
    nulls = {"task": "x", "timeout_ms": None, "autopilot": None, "callback_url": None}
    assert parse_plan(nulls, b"{}") == PlanRequest("x", None, b"{}", {})


def test_every_problem_of_a_plan_is_reported() -> None:
    """All at once, as with registrations."""
    found = complaints(
        lambda it: parse_plan(it, b"{}"),
        {
            "task": 7,
            "capability": "web.*",
            "meta": [],
            "mode": "fast",
            "timeout_ms": 0,
            "autopilot": "A",
            "Task": "x",
        },
    )
    assert set(found) == {"task", "capability", "meta", "mode", "timeout_ms", "autopilot", "Task"}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"task": "x", "capability": "a.b"}, "capability"),
        ({"task": "x" * 201}, "task"),
        ({"task": "a\x00b"}, "task"),
        ({"task": "x", "mode": None}, "mode"),
        ({"task": "x", "mode": "Async"}, "mode"),
        ({"task": "x", "callback_url": "https://a.example"}, "callback_url"),
        ({"task": "x", "mode": "explain", "callback_url": "https://a.example"}, "callback_url"),
        ({"task": "x", "mode": "async", "callback_url": "a.example"}, "callback_url"),
        ({"task": "x", "mode": "async", "callback_url": "local:stylist"}, "callback_url"),
        ({"task": "x", "mode": "async", "callback_url": "https://ann:pw@a.example"}, "callback_url"),
        ({"task": "x", "mode": "async", "callback_url": ["https://a.example"]}, "callback_url"),
        ({"task": "x", "timeout_ms": MAX_TIMEOUT_MS + 1}, "timeout_ms"),
        ({"task": "x", "timeout_ms": True}, "timeout_ms"),
        ({"task": "x", "meta": None}, "meta"),
    ],
)
def test_plans_that_are_refused(value: object, field: str) -> None:
    """Each one names its field."""
    assert set(complaints(lambda it: parse_plan(it, b"{}"), value)) == {field}


_word = st.from_regex(r"[a-z0-9]{1,5}([_-][a-z0-9]{1,3})?", fullmatch=True)
_capability_name = st.lists(_word, min_size=2, max_size=6).map(".".join)
_schema = st.sampled_from(
    [{}, {"type": "object"}, {"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "string"}}}]
)
_line = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
_capability = st.builds(
    Capability, _capability_name, _line, st.none() | _schema, st.just(value=False)
) | st.builds(
    Capability,
    st.sampled_from(["web.*", "crm.*", "a.*"]),
    configure=st.booleans(),
    requires_approval=st.booleans(),
)
_kv = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)
_slug = st.from_regex(r"[a-z0-9][a-z0-9-]{1,8}[a-z0-9]", fullmatch=True)
_needs = st.builds(
    Needs,
    st.lists(_kv, max_size=3, unique=True).map(tuple),
    st.lists(_slug, max_size=3, unique=True).map(tuple),
    st.lists(
        st.builds(Worker, _slug, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)),
        max_size=2,
        unique_by=lambda worker: worker.name,
    ).map(tuple),
    st.lists(_kv, max_size=3, unique=True).map(tuple),
    st.lists(_slug, max_size=3, unique=True).map(tuple),
)


@st.composite
def autopilots(draw: st.DrawFn) -> Autopilot:
    """Draw any registration that is allowed."""
    capabilities = draw(st.lists(_capability, min_size=1, max_size=6, unique_by=lambda one: one.name))
    names = [one.name for one in capabilities if not one.name.endswith(".*")]
    task = st.from_regex(r"[a-z][a-z0-9]{0,5}(_[a-z]{1,4})?", fullmatch=True)
    return Autopilot(
        name=draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)),
        endpoint=draw(st.sampled_from(["https://a.example/x", "http://10.0.0.1:99", "local:a", "lambda:b"])),
        capabilities=tuple(capabilities),
        needs=draw(_needs),
        tasks=draw(st.dictionaries(task, st.sampled_from(names), max_size=4)) if names else {},
        priority=draw(st.integers(0, 1_000_000)),
        weight=draw(st.integers(1, 1_000_000)),
        lease_seconds=draw(st.none() | st.integers(1, 86_400)),
        description=draw(_line),
    )


@given(autopilots())
@settings(max_examples=80, deadline=None)
def test_a_registration_shown_can_be_registered_again(autopilot: Autopilot) -> None:
    """What the API shows, sent back as JSON, is the same registration."""
    assert parse_autopilot(json.loads(json.dumps(autopilot.document()))) == autopilot


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = """
name endpoint capabilities needs tasks priority weight lease_seconds description task capability meta mode
timeout_ms callback_url autopilot kvNamespaces r2Buckets workers d1Databases queues content
input_schema configure requires_approval
"""
_field = st.sampled_from(FIELDS.split())
_shaped = st.recursive(
    _json | st.sampled_from(["a", "a.b", "web.*", "https://a.example", "sync", 5]),
    lambda inner: st.dictionaries(_field, inner, max_size=5) | st.lists(inner, max_size=3),
    max_leaves=20,
)


@given(_json | _shaped)
@example({"capabilities": [{"name": {"name": []}}], "tasks": {"\ud800": "\ud800"}})
@settings(max_examples=250, deadline=None)
def test_any_json_is_a_value_or_invalid(value: Any) -> None:
    """No value of any shape raises anything but `Invalid`, which always names at least one problem."""
    for parse in (parse_autopilot, parse_needs, parse_capability, lambda it: parse_plan(it, b"{}")):
        problems: list[Problem] | None = None
        try:
            parse(value)
        except Invalid as error:
            problems = error.problems
        assert problems != []


def largest(prefix: str) -> Autopilot:
    """Give the registration with the most rows that is allowed, none of them shared between prefixes."""
    families = [f"{prefix}{number}" for number in range(MAX_FAMILIES)]
    capabilities: list[object] = [{"name": f"{family}.x", "configure": True} for family in families]
    capabilities += [f"{prefix}.c{number}" for number in range(MAX_CAPABILITIES - MAX_FAMILIES)]
    tasks = {f"{prefix}_{number}": f"{prefix}.c{number}" for number in range(MAX_TASKS)}
    lease = 60 if prefix == "old" else None
    return parse_autopilot(body(capabilities=capabilities, tasks=tasks, lease_seconds=lease))


async def test_the_largest_registration_can_be_replaced_by_a_different_largest_one(
    table: SqliteTable, clock: FakeClock, tmp_path: Any
) -> None:
    """All rows of both fit one transaction, so a change is never half done."""
    parts = core(table, clock)
    await parts.register(largest("old"))
    assert len(dump(tmp_path / "table.db")) == 50
    await parts.register(largest("new"))
    record = await record_of(parts, "stylist")
    assert record.autopilot == largest("new")
    rows = {key: document for key, (document, _) in dump(tmp_path / "table.db").items()}
    assert rows == rows_expected(record)
    assert 2 * len(record.rows()) + 2 <= MAX_TRANSACTION


WORKER = {"name": "edge", "content": "export default {}"}


def test_a_bucket_may_say_where_it_has_to_be() -> None:
    """In a jurisdiction, or near a place; one that says neither is its name, as it always was."""
    given = ["plain", {"name": "bare"}, {"name": "far", "jurisdiction": "eu", "location_hint": "weur"}]
    parsed = parse_autopilot(body(needs={"r2Buckets": given})).needs
    assert parsed.r2_buckets == ("plain", "bare", Bucket("far", "eu", "weur"))
    shown = parse_autopilot(body(needs={"r2Buckets": given})).document()["needs"]
    assert shown == {"r2Buckets": ("plain", "bare", given[2])}
    wrong = [
        {"name": "x" * 64},
        {"name": "abc", "jurisdiction": "mars"},
        {"location_hint": ["weur"], "at": 1},
    ]
    assert refuses(needs={"r2Buckets": wrong}) == {
        "needs.r2Buckets[0].name",
        "needs.r2Buckets[1].jurisdiction",
        "needs.r2Buckets[2].name",
        "needs.r2Buckets[2].location_hint",
        "needs.r2Buckets[2].at",
    }
    assert refuses(needs={"r2Buckets": ["abc", {"name": "abc", "jurisdiction": "eu"}]}) == {"needs.r2Buckets"}


def test_a_worker_says_how_it_is_to_run() -> None:
    """Its date, what it is bound to, whether it has a route and when it runs by itself."""
    needs = {
        "kvNamespaces": ["CACHE"],
        "r2Buckets": [{"name": "assets", "jurisdiction": "eu"}],
        "d1Databases": ["crm"],
        "queues": ["jobs"],
        "workers": [
            {
                **WORKER,
                "compatibility_date": "2028-02-29",
                "bindings": {
                    "KV": {"kv": "CACHE"},
                    "R2": {"r2": "assets"},
                    "DB": {"d1": "crm"},
                    "Q_1": {"queue": "jobs"},
                },
                "workers_dev": True,
                "crons": ["*/15 * * * *", "0 6 LW JAN-MAR MON#1"],
            }
        ],
    }
    parsed = parse_autopilot(body(needs=needs))
    [worker] = parsed.needs.workers
    assert worker == Worker(
        "edge",
        "export default {}",
        "2028-02-29",
        {
            "KV": Binding(kv="CACHE"),
            "R2": Binding(r2="assets"),
            "DB": Binding(d1="crm"),
            "Q_1": Binding(queue="jobs"),
        },
        workers_dev=True,
        crons=("*/15 * * * *", "0 6 LW JAN-MAR MON#1"),
    )
    assert [one.target for one in worker.bindings.values()] == [
        ("kv", "CACHE"), ("r2", "assets"), ("d1", "crm"), ("queues", "jobs"),
    ]  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(parsed.document()))["needs"] == needs


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"compatibility_date": "2026-02-29"}, "compatibility_date"),
        ({"compatibility_date": "tomorrow"}, "compatibility_date"),
        ({"bindings": ["KV"]}, "bindings"),
        ({"bindings": {str(n): {"kv": "CACHE"} for n in range(51)}}, "bindings"),
        ({"bindings": {"1KV": {"kv": "CACHE"}}}, "bindings.1KV"),
        ({"bindings": {"KV": "CACHE"}}, "bindings.KV"),
        ({"bindings": {"KV": {}}}, "bindings.KV"),
        ({"bindings": {"KV": {"kv": "CACHE", "queue": "jobs"}}}, "bindings.KV"),
        ({"bindings": {"KV": {"kv": "CACHEE"}}}, "bindings.KV.kv"),
        ({"bindings": {"KV": {"kv": ["CACHE"]}}}, "bindings.KV.kv"),
        ({"bindings": {"KV": {"kv": "CACHE", "mode": "r"}}}, "bindings.KV.mode"),
        ({"workers_dev": 1}, "workers_dev"),
        ({"crons": "* * * * *"}, "crons"),
        ({"crons": ["* * * * *"] * 2}, "crons"),
        ({"crons": [f"{n} * * * *" for n in range(6)]}, "crons"),
        ({"crons": ["60 * * * *"]}, "crons[0]"),
        ({"crons": ["* * * *"]}, "crons[0]"),
        ({"crons": ["* * * * 0"]}, "crons[0]"),
    ],
)
def test_a_worker_that_could_not_run_so_is_refused(wrong: dict[str, Any], field: str) -> None:
    """The field is named; among them a binding to something that the same needs do not list."""
    needs = {"kvNamespaces": ["CACHE"], "queues": ["jobs"], "workers": [{**WORKER, **wrong}]}
    assert refuses(needs=needs) == {f"needs.workers[0].{field}"}
