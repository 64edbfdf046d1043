"""The plan: one line for whatever is wanted, by rules that can be read one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from infra.plan import Action, Allowance, Demand, Entry, View, doubts_of, is_near, plan_of, union
from infra.provider import KINDS, Key, Resource, Unread, Want, digest_of, wants
from router.model import Binding, Bucket, Needs, Worker

KV = Want("kv", "SESSIONS")
R2 = Want("r2", "assets")
EDGE = Want("workers", "edge", Worker("edge", "export default {}", bindings={"KV": Binding(kv="SESSIONS")}))
NAMESPACE = Resource("kv", "SESSIONS", "id-1")
BUCKET = Resource("r2", "assets", "assets")


def uploaded(want: Want = EDGE, version: str = "v1", ours: bool | None = True) -> Resource:
    """Give a Worker that is as it is wanted, bound to the namespace."""
    digest = digest_of(want, {NAMESPACE.key: NAMESPACE})
    return Resource(*want.key, want.name, digest, ours=ours, version=version)


def entry(resource: Resource, state: Any = "made") -> Entry:
    """Give what is recorded of something that is there."""
    return Entry(state, resource.id, resource.digest, resource.version)


def view(*there: Resource, entries: dict[Key, Entry] | None = None, **more: Any) -> View:
    """Give what was seen; whatever is there is recorded unless `entries` says otherwise."""
    known = {one.key: entry(one) for one in there} if entries is None else entries
    return View(there, known, **more)


def plan(*wanted: Want, seen: View, allowance: Allowance | None = None, needed: Any = ()) -> list[Action]:
    """Plan for a few wants."""
    return plan_of([Demand(want, ("a",)) for want in wanted], seen, allowance or Allowance(), needed)


def told(actions: list[Action]) -> list[tuple[str, str]]:
    """Return the lines as words: what is done, and of what is blocked why."""
    return [(one.action, one.code) for one in actions]


def test_needs_become_single_wants() -> None:
    """Each thing an autopilot needs is wanted by its kind and name, what there is more to say with it."""
    far = Bucket("far", "eu")
    worker = Worker("edge", "export default {}")
    needs = Needs(("SESSIONS",), ("assets", far), (worker,), ("crm",), ("mails",))
    found = list(wants(needs))
    assert found == [
        Want("kv", "SESSIONS"),
        Want("r2", "assets"),
        Want("r2", "far", far),
        Want("workers", "edge", worker),
        Want("d1", "crm"),
        Want("queues", "mails"),
    ]
    assert {want.kind for want in found} == set(KINDS)
    assert [want.jurisdiction for want in found] == ["", "", "eu", "", "", ""]
    assert list(wants(Needs())) == []


def test_what_several_need_is_one_demand() -> None:
    """With the names of all, in the order of the first claim; who asks without a name is none of them."""
    hinted = Want("r2", "assets", Bucket("assets", location_hint="weur"))
    found = union([("b", R2), ("a", KV), ("a", hinted), ("b", R2), ("", KV)])
    assert found == [Demand(hinted, ("b", "a")), Demand(KV, ("a",))]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Want("workers", "w", Worker("w", "one")), Want("workers", "w", Worker("w", "two"))),
        (
            Want("workers", "w", Worker("w", "one")),
            Want("workers", "w", Worker("w", "one", workers_dev=True)),
        ),
        (R2, Want("r2", "assets", Bucket("assets", "eu"))),
    ],
)
def test_what_is_wanted_in_two_ways_is_blocked(one: Want, other: Want) -> None:
    """Each pass would undo the one before, or one of the two would not get what it needs."""
    [demand] = union([("a", one), ("b", other)])
    [action] = plan_of([demand], view(), Allowance())
    assert (action.action, action.code, action.needed_by) == ("blocked", "conflict", ("a", "b"))
    assert not action.alert


def test_what_is_there_is_kept_and_what_is_not_is_made() -> None:
    """The same name of another kind is another thing."""
    seen = view(NAMESPACE, Resource("kv", "assets", "2"))
    assert told(plan(KV, R2, Want("d1", "SESSIONS"), seen=seen)) == [
        ("keep", ""),
        ("create", ""),
        ("create", ""),
    ]


def test_what_is_there_and_not_recorded_is_adopted() -> None:
    """By hand, by an attempt whose end nobody saw, or because another one stands in its place."""
    reasons = {
        "it exists already": {},
        "an earlier attempt made it after all": {KV.key: Entry("making", until=9e9)},
        "another one is in its place": {KV.key: Entry("made", "id-0")},
    }
    for why, entries in reasons.items():
        [action] = plan(KV, seen=view(NAMESPACE, entries=entries))
        assert (action.action, action.why, action.resource) == ("adopt", why, NAMESPACE)


def test_the_lines_stand_in_the_order_of_the_demands() -> None:
    """Though storage is decided before the Workers that are bound to it."""
    assert [one.want for one in plan(EDGE, R2, KV, seen=view())] == [EDGE, R2, KV]


def test_a_worker_is_uploaded_when_it_is_not_as_it_is_wanted() -> None:
    """Because what is wanted changed, somebody changed it, or it is to be bound to something new."""
    old = uploaded(Want("workers", "edge", Worker("edge", "old")))
    assert told(plan(KV, EDGE, seen=view(NAMESPACE, uploaded()))) == [("keep", ""), ("keep", "")]
    [_, changed] = plan(KV, EDGE, seen=view(NAMESPACE, old))
    assert (changed.action, changed.why) == ("update", "what is wanted changed")
    known = {NAMESPACE.key: entry(NAMESPACE), EDGE.key: entry(uploaded(version="v0"))}
    [_, drifted] = plan(KV, EDGE, seen=view(NAMESPACE, old, entries=known))
    assert (drifted.action, drifted.why) == ("update", "it is not as it is wanted")
    [_, rebound] = plan(KV, EDGE, seen=view(NAMESPACE._replace(id="id-2"), uploaded()))
    assert rebound.action == "update"
    [_, waiting] = plan(KV, EDGE, seen=view(uploaded()))
    assert (waiting.action, waiting.why) == ("update", "kv SESSIONS, to which it is bound, is created anew")


def test_a_worker_somebody_uploaded_anew_just_so_is_recorded_anew() -> None:
    """Its version is another one, and else each pass would have to look at it again."""
    known = {NAMESPACE.key: entry(NAMESPACE), EDGE.key: entry(uploaded())}
    [_, action] = plan(KV, EDGE, seen=view(NAMESPACE, uploaded(version="v2"), entries=known))
    assert action.action == "adopt"


@pytest.mark.parametrize("ours", [False, None])
def test_a_worker_without_our_mark_is_not_ours(ours: bool | None) -> None:
    """Not even one with the same content, and not if it was ours: it is left alone, with an alert."""
    there = uploaded(ours=ours)
    for seen in (view(NAMESPACE, there), view(NAMESPACE, there, entries={})):
        [_, action] = plan(KV, EDGE, seen=seen)
        assert (action.action, action.code, action.alert) == ("blocked", "not_ours", True)


def test_a_worker_waits_for_what_it_is_bound_to() -> None:
    """What is blocked, or is not wanted and not there, blocks it as well; what only exists will do."""
    blocked = view(uploaded(), entries={KV.key: entry(NAMESPACE), EDGE.key: entry(uploaded())})
    assert told(plan(KV, EDGE, seen=blocked)) == [("blocked", "vanished"), ("blocked", "unbound")]
    assert told(plan(EDGE, seen=view())) == [("blocked", "unbound")]
    assert told(plan(EDGE, seen=view(NAMESPACE))) == [("create", "")]
    assert told(plan(EDGE, seen=view(NAMESPACE, uploaded()))) == [("keep", "")]


def test_a_kind_that_was_not_read_is_blocked_with_the_providers_words() -> None:
    """Whatever is recorded of it; the others are not concerned."""
    why = Unread("10000", "Authentication error", "Give the token more.")
    seen = View([BUCKET], {KV.key: entry(NAMESPACE), R2.key: entry(BUCKET)}, {"kv": why})
    [blocked, other, kept] = plan(KV, Want("kv", "OTHER"), R2, seen=seen)
    assert (blocked.action, blocked.code, blocked.hint, blocked.alert) == (
        "blocked", "10000", "Give the token more.", True,
    )  # fmt: skip
    assert "Authentication error" in blocked.why
    assert (other.action, kept.action) == ("blocked", "keep")


def test_a_single_thing_that_was_not_seen_is_blocked() -> None:
    """Unknown is neither there nor missing."""
    seen = view(
        NAMESPACE, entries={R2.key: entry(BUCKET)}, unsure={R2.key: Unread("unknown", "no answer", "")}
    )
    assert told(plan(KV, R2, seen=seen)) == [("adopt", ""), ("blocked", "unknown")]


def test_a_bucket_of_that_name_elsewhere_is_no_reason_for_a_twin() -> None:
    """Names are apart by jurisdiction, and who reads the name will not know which one is meant."""
    far = Want("r2", "assets", Bucket("assets", "eu"))
    [action] = plan(far, seen=view(BUCKET))
    assert (action.code, action.why.endswith("the default one")) == ("elsewhere", True)
    [action] = plan(R2, seen=view(BUCKET._replace(jurisdiction="eu")))
    assert (action.code, action.why.endswith("eu")) == ("elsewhere", True)
    both = view(BUCKET, BUCKET._replace(jurisdiction="eu"), entries={})
    assert [one.resource for one in plan(far, seen=both)] == [BUCKET._replace(jurisdiction="eu")]


def test_storage_that_vanished_is_not_replaced_unless_that_is_allowed() -> None:
    """An empty one in its place would hide that everything in it is lost."""
    seen = view(BUCKET, entries={KV.key: entry(NAMESPACE), R2.key: entry(BUCKET)})
    [action, _] = plan(KV, R2, seen=seen)
    assert (action.action, action.code, action.alert) == ("blocked", "vanished", True)
    [action, _] = plan(KV, R2, seen=seen, allowance=Allowance(recreate=True))
    assert (action.action, action.why) == ("create", "it vanished")


def test_a_worker_that_vanished_is_uploaded_again() -> None:
    """Nothing was in it that is not known."""
    seen = view(NAMESPACE, entries={NAMESPACE.key: entry(NAMESPACE), EDGE.key: entry(uploaded())})
    assert told(plan(KV, EDGE, seen=seen)) == [("keep", ""), ("create", "")]


def test_what_was_begun_and_never_seen_has_not_vanished() -> None:
    """It is made."""
    assert told(plan(KV, seen=view(entries={KV.key: Entry("making", until=1.0)}))) == [("create", "")]


def test_a_list_in_doubt_creates_nothing_of_its_kind() -> None:
    """What it has is there all the same."""
    doubt = {"kv": Unread("emptied", "the list is empty", "Look.")}
    [kept, blocked, other] = plan(KV, Want("kv", "OTHER"), R2, seen=view(NAMESPACE, doubts=doubt))
    assert (kept.action, other.action) == ("keep", "create")
    assert (blocked.code, blocked.alert, blocked.hint) == ("emptied", True, "Look.")


def test_when_a_list_is_in_doubt() -> None:
    """Empty where there was something, or without what is found by looking; only the first may be allowed."""
    known = {KV.key: entry(NAMESPACE), R2.key: entry(BUCKET), ("d1", "crm"): Entry("making")}
    assert set(doubts_of([BUCKET], [], known, Allowance())) == {"kv"}
    assert doubts_of([NAMESPACE, BUCKET], [], known, Allowance()) == {}
    assert doubts_of([BUCKET], [], known, Allowance(recreate=True)) == {}
    doubts = doubts_of([BUCKET], [KV.key], known, Allowance(recreate=True))
    assert {kind: (why.code, why.message) for kind, why in doubts.items()} == {
        "kv": ("incomplete", "the list of KV namespaces lacks SESSIONS, which is there")
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("assets", "asset"),
        ("asset", "assets"),
        ("assets", "asets"),
        ("assets", "xassets"),
        ("assets", "assits"),
        ("assets", "assetz"),
        ("assets", "assest"),
        ("ASSETS", "assets"),
        ("my-assets", "my_assets"),
        ("my-assets", "myassets"),
        ("MyAssets", "my_assets"),
        ("a-b", "ab"),
        ("frosty", "frost"),
    ],
)
def test_names_that_are_taken_for_one_another(one: str, other: str) -> None:
    """By one letter, by two swapped, by case or by what joins words; either way round."""
    assert is_near(one, other)
    assert is_near(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("assets", "images"),
        ("assets", "assess2"),
        ("assets", "asse"),
        ("a", "b"),
        ("ab", "abc"),
        ("abcd", "badc"),
    ],
)
def test_names_that_are_not(one: str, other: str) -> None:
    """By two letters, or too short to tell."""
    assert not is_near(one, other)
    assert not is_near(other, one)


def test_a_new_name_like_one_that_nobody_needs_is_asked_back() -> None:
    """A typing error would make an empty twin; what somebody needs, and what is meant, is no error."""
    typed = Want("r2", "asset")
    [action] = plan(typed, seen=view(BUCKET))
    assert (action.code, action.why) == ("did_you_mean", "it does not exist; did you mean assets?")
    assert not action.alert
    assert told(plan(typed, seen=view(BUCKET), needed={R2.key})) == [("create", "")]
    assert told(plan(typed, R2, seen=view(BUCKET))) == [("create", ""), ("keep", "")]
    assert told(plan(typed, seen=view(BUCKET), allowance=Allowance(meant=frozenset({"asset"})))) == [
        ("create", "")
    ]
    assert told(plan(typed, seen=view(Resource("kv", "assets", "1")))) == [("create", "")]
    gone = view(BUCKET, entries={typed.key: Entry("made", "asset")})
    assert told(plan(typed, seen=gone, allowance=Allowance(recreate=True))) == [("create", "")]


def test_at_most_so_many_are_created_in_one_pass() -> None:
    """In the order of the demands, Workers last; who waits says so, and what is bound to it waits as well."""
    few = Allowance(max_creations=1)
    assert told(plan(EDGE, KV, R2, seen=view(), allowance=few)) == [
        ("blocked", "next_pass"),
        ("create", ""),
        ("blocked", "next_pass"),
    ]
    assert told(plan(EDGE, R2, KV, seen=view(), allowance=few)) == [
        ("blocked", "unbound"),
        ("create", ""),
        ("blocked", "next_pass"),
    ]
    assert told(plan(KV, R2, seen=view(NAMESPACE), allowance=Allowance(max_creations=0))) == [
        ("keep", ""),
        ("blocked", "next_pass"),
    ]


def test_a_line_as_reports_show_it() -> None:
    """Kind and name of what is wanted, what is done, why, and for whom."""
    [action] = plan(KV, seen=view())
    assert action.document() == {
        "action": "create",
        "kind": "kv",
        "name": "SESSIONS",
        "why": "it does not exist",
        "needed_by": ["a"],
    }
