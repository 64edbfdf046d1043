"""Carrying out a plan: in which order, what is recorded when, and what a failure stops."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from infra.ensure import Ensurer, Happened, Report, by_kind, report_of
from infra.ledger import GRACE, Ledger
from infra.plan import Allowance, Demand, Entry
from infra.provider import Bound, Inventory, ProviderFailed, Resource, Unread, Want, digest_of
from infra.redact import Redactor
from infra.table.sqlite import SqliteTable
from router.errors import AutopilotError, StoreUnavailable
from router.model import Binding, Bucket, Worker
from tests.fakes import FakeClock
from tests.infra.storage import Faulty, Storage
from tests.router.parts import Watched

KV, R2, QUEUE = Want("kv", "SESSIONS"), Want("r2", "assets"), Want("queues", "jobs")
BINDINGS = {"KV": Binding(kv="SESSIONS"), "FILES": Binding(r2="assets")}
EDGE = Want("workers", "edge", Worker("edge", "export default {}", bindings=BINDINGS))
BARE = Want("workers", "bare", Worker("bare", "export default {}"))


class Scripted(Faulty):
    """A provider that fails with names as it is told to, and notes what Workers were bound to."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(Storage(clock), random.Random(1))
        self.fails: dict[str, Exception] = {}
        """By the name of what is created or updated."""
        self.lost: dict[str, Exception] = {}
        """By the name of what is made, but not answered so."""
        self.unseen: dict[str, AutopilotError] = {}
        """By the name of what is looked for."""
        self.bound: dict[str, Bound] = {}
        self.under_way = self.most = 0
        self.seconds = 0.0
        """How long a creation takes."""

    async def find(self, want: Want, id: str = "") -> Resource | None:  # noqa: A002  as in the port
        if want.name in self.unseen:
            raise self.unseen[want.name]
        return await super().find(want, id)

    async def create(self, want: Want, bound: Bound) -> Resource:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await self._do(want, bound, again=False)
        finally:
            self.under_way -= 1

    async def update(self, want: Want, bound: Bound) -> Resource:
        return await self._do(want, bound, again=True)

    async def _do(self, want: Want, bound: Bound, *, again: bool) -> Resource:
        await asyncio.sleep(self.seconds)
        self.bound[want.name] = dict(bound)
        if want.name in self.fails:
            self.calls.append(("update" if again else "create", want.name))
            raise self.fails[want.name]
        made = await (super().update(want, bound) if again else super().create(want, bound))
        if want.name in self.lost:
            raise self.lost[want.name]
        return made


class Kept(list[Happened]):
    """A record of what happened; it can be told to fail."""

    down = False

    async def __call__(self, happened: Happened) -> None:
        if self.down:
            raise StoreUnavailable("the audit is down")
        self.append(happened)


@pytest.fixture
def provider(clock: FakeClock) -> Scripted:
    """Give a provider without anything."""
    return Scripted(clock)


@pytest.fixture
def kept() -> Kept:
    """Give a record."""
    return Kept()


@pytest.fixture
def watched(table: SqliteTable) -> Watched:
    """Give a table that counts and can be down."""
    return Watched(table)


@pytest.fixture
def ensurer(provider: Scripted, watched: Watched, clock: FakeClock, kept: Kept) -> Ensurer:
    """Give one that makes sure of things and does not wait for others."""
    return Ensurer(
        provider, watched, clock=clock, record=kept, redactor=Redactor(["hunter2-hunter2"]), patience=0.0
    )


def of(*wanted: Want) -> list[Demand]:
    """Give demands of one autopilot."""
    return [Demand(want, ("a",)) for want in wanted]


async def ensure(ensurer: Ensurer, *wanted: Want) -> Report:
    """Make sure of a few things."""
    return await ensurer.ensure(of(*wanted), by="pass_1")


def names(found: Sequence[Resource]) -> list[str]:
    """Return the names of what was found."""
    return [one.name for one in found]


async def test_workers_are_bound_to_what_was_just_created(ensurer: Ensurer, provider: Scripted) -> None:
    """Storage comes first, and its ids are at hand."""
    report = await ensure(ensurer, EDGE, R2, KV)
    assert report.ok
    assert names(report.created) == ["edge", "assets", "SESSIONS"]
    assert provider.writes[-1] == "edge"
    there = {one.key: one for one in provider.storage.there}
    assert provider.bound["edge"] == {key: there[key] for key in (R2.key, KV.key)}
    assert there[EDGE.key].digest == digest_of(EDGE, there)


async def test_a_worker_is_bound_anew_when_its_namespace_is(
    ensurer: Ensurer, provider: Scripted, clock: FakeClock
) -> None:
    """Where what vanished may be made again, what was bound to it follows in the same pass."""
    await ensure(ensurer, KV, R2, EDGE)
    provider.storage.there = [one for one in provider.storage.there if one.key != KV.key]
    ensurer.allowance = Allowance(recreate=True)
    clock.forward(900)
    report = await ensure(ensurer, KV, R2, EDGE)
    assert [action.action for action in report.plan] == ["create", "keep", "update"]
    assert report.ok
    assert [action.action for action in (await ensure(ensurer, KV, R2, EDGE)).plan] == ["keep"] * 3


async def test_what_a_worker_is_bound_to_could_not_be_made(ensurer: Ensurer, provider: Scripted) -> None:
    """Then it is not uploaded, and says why; the next pass does both."""
    provider.fails["SESSIONS"] = ProviderFailed("no", word="10000")
    report = await ensure(ensurer, KV, R2, EDGE, BARE)
    assert [(one["name"], one["code"]) for one in report.errors] == [
        ("SESSIONS", "10000"),
        ("edge", "unbound"),
    ]
    assert names(report.created) == ["assets", "bare"]
    provider.fails.clear()
    assert names((await ensure(ensurer, KV, R2, EDGE, BARE)).created) == ["SESSIONS", "edge"]


async def test_a_dry_run_is_the_plan_and_no_more(
    ensurer: Ensurer, provider: Scripted, watched: Watched
) -> None:
    """Nothing is called but lists, nothing is written, and what exists is told."""
    provider.storage.put("r2", "assets")
    view = await ensurer.survey([KV, R2])
    report = report_of(ensurer.plan(of(KV, R2), view), dry_run=True)
    assert [(action.action, action.want.name) for action in report.plan] == [
        ("create", "SESSIONS"),
        ("adopt", "assets"),
    ]
    assert (report.ok, report.created, names(report.skipped)) == (True, [], ["assets"])
    assert provider.writes == []
    assert {verb for verb, _ in watched.calls} == {"range"}


async def test_what_speaks_against_it_is_told_by_a_dry_run_as_well(
    ensurer: Ensurer, provider: Scripted
) -> None:
    """Errors and alerts are those of the run after it."""
    provider.unread["kv"] = Unread("10000", "Authentication error", "Give it more.")
    provider.storage.put("workers", "bare", ours=False)
    plan = ensurer.plan(of(KV, BARE), await ensurer.survey([KV, BARE]))
    dry = report_of(plan, dry_run=True)
    run = await ensure(ensurer, KV, BARE)
    assert not dry.ok
    assert (dry.errors, dry.alerts, dry.plan) == (run.errors, run.alerts, run.plan)
    assert [(one["kind"], one["name"], one["code"]) for one in run.alerts] == [
        ("kv", "", "10000"),
        ("workers", "bare", "not_ours"),
    ]


async def test_an_intent_stands_before_the_call_and_the_id_after_it(
    ensurer: Ensurer, provider: Scripted, table: SqliteTable, clock: FakeClock
) -> None:
    """Who looks meanwhile finds who is making it, and until when that is theirs."""
    ledger = Ledger(table, provider.place, clock)
    seen: list[Entry | None] = []
    creating = provider._do

    async def spy(want: Want, bound: Bound, *, again: bool) -> Resource:
        seen.append(await ledger.entry(want.key))
        return await creating(want, bound, again=again)

    provider._do = spy  # type: ignore[method-assign]
    await ensure(ensurer, KV)
    assert seen == [Entry("making", until=clock() + GRACE, revision=1)]
    assert await ledger.entry(KV.key) == Entry("made", provider.storage.there[0].id, revision=2)


async def test_what_was_refused_is_free_to_try_at_once(
    ensurer: Ensurer, provider: Scripted, table: SqliteTable
) -> None:
    """A refusal made nothing: no intent stays behind."""
    provider.fails["SESSIONS"] = ProviderFailed("no", word="10014")
    assert not (await ensure(ensurer, KV)).ok
    assert (await table.range(f"infra:{provider.place}")).items == []
    provider.fails.clear()
    assert (await ensure(ensurer, KV)).ok


async def test_an_answer_that_was_lost_is_looked_for_at_once(ensurer: Ensurer, provider: Scripted) -> None:
    """What was made all the same is there, and is not made again."""
    provider.lost = {name: ProviderFailed("timeout", done=True) for name in ("SESSIONS", "bare", "assets")}
    report = await ensure(ensurer, KV, BARE, R2)
    assert report.ok
    assert names(report.created) == ["SESSIONS", "bare", "assets"]
    assert provider.storage.twins() == []


async def test_an_answer_that_stays_lost_keeps_its_intent(
    ensurer: Ensurer, provider: Scripted, clock: FakeClock
) -> None:
    """Until it can have no effect any more nobody tries again; then it is looked for before anything else."""
    provider.fails["SESSIONS"] = ProviderFailed("timeout", word="unknown", done=True)
    report = await ensure(ensurer, KV)
    assert [one["code"] for one in report.errors] == ["unknown"]
    provider.fails.clear()
    report = await ensure(ensurer, KV)
    assert [one["code"] for one in report.errors] == ["conflict"]
    clock.forward(GRACE)
    provider.unseen["SESSIONS"] = ProviderFailed("no answer", word="unknown")
    provider.calls.clear()
    assert [one["code"] for one in (await ensure(ensurer, KV)).errors] == ["unknown"]
    assert provider.writes == []
    provider.unseen.clear()
    assert names((await ensure(ensurer, KV)).created) == ["SESSIONS"]


async def test_what_exists_as_somebody_elses_is_not_taken_for_ours(
    ensurer: Ensurer, provider: Scripted
) -> None:
    """A Worker that appears between the list and the upload carries no mark: the failure stands."""

    def appear(verb: str) -> None:
        if verb == "list":
            provider.before = lambda verb: None
            provider.storage.listed_at["id1"] = 9e12
            provider.storage.put("workers", "bare", digest="theirs", ours=False)

    provider.before = appear
    provider.fails["bare"] = ProviderFailed("it exists", word="exists", done=True)
    report = await ensure(ensurer, BARE)
    assert [one["code"] for one in report.errors] == ["exists"]
    assert report.created == []


@pytest.mark.parametrize(("reach", "untried"), [("one", 0), ("kind", 11), ("all", 12)])
async def test_what_cannot_succeed_is_not_tried(
    ensurer: Ensurer, provider: Scripted, reach: Any, untried: int
) -> None:
    """A missing permission ends its kind, a revoked token everything; what was not tried says why."""
    wanted = [Want("kv", f"A{number}") for number in range(19)]
    for want in wanted:
        provider.fails[want.name] = ProviderFailed("Authentication error", word="10000", reach=reach)
    report = await ensure(ensurer, *wanted, BARE)
    assert names(report.created) == ([] if reach == "all" else ["bare"])
    assert {one["code"] for one in report.errors} == {"10000"}
    assert sum(one["message"].startswith("not tried") for one in report.errors) == untried
    assert len(provider.writes) == 20 - untried


async def test_not_too_much_at_once(ensurer: Ensurer, provider: Scripted, watched: Watched) -> None:
    """Fifty creations are eight at a time, fifty calls and one list, and two writes of the ledger each."""
    ensurer.allowance = Allowance(max_creations=50)
    provider.seconds = 0.02
    report = await ensure(ensurer, *(Want("kv", f"NAMESPACE_{number:02d}" * 2) for number in range(50)))
    assert len(report.created) == 50
    assert provider.most == 8
    assert len(provider.calls) == 51
    assert watched.count("put") == 100


async def test_a_list_that_says_too_little_of_workers_is_looked_into(
    ensurer: Ensurer, provider: Scripted
) -> None:
    """Once: as long as the version stays nobody has uploaded it since, and the ledger knows the rest."""
    provider.tells_all = False
    await ensure(ensurer, BARE)
    provider.calls.clear()
    assert [one.action for one in (await ensure(ensurer, BARE)).plan] == ["keep"]
    assert provider.calls == [("list", "")]
    [there] = provider.storage.there
    provider.storage.there = [there._replace(digest="theirs", version="v9")]
    report = await ensure(ensurer, BARE)
    assert [one.action for one in report.plan] == ["update"]
    assert ("find", "bare") in provider.calls
    provider.storage.there = [there._replace(version="v10")]
    assert [one.action for one in (await ensure(ensurer, BARE)).plan] == ["adopt"]
    provider.calls.clear()
    assert [one.action for one in (await ensure(ensurer, BARE)).plan] == ["keep"]
    assert provider.calls == [("list", "")]


async def test_a_look_without_an_answer_blocks_what_was_looked_for(
    ensurer: Ensurer, provider: Scripted
) -> None:
    """And nothing else; what is unknown is neither missing nor there."""
    await ensure(ensurer, KV, R2)
    provider.storage.there = [one for one in provider.storage.there if one.key != KV.key]
    provider.storage.put("kv", "OTHER")
    provider.unseen["SESSIONS"] = ProviderFailed("no answer", word="unknown")
    ensurer.allowance = Allowance(recreate=True)
    report = await ensure(ensurer, KV, R2, QUEUE)
    assert [(one.action, one.code) for one in report.plan] == [
        ("blocked", "unknown"),
        ("keep", ""),
        ("create", ""),
    ]
    assert [(one["kind"], one["name"]) for one in report.alerts] == [("kv", "")]


async def test_buckets_are_looked_for_where_they_are_wanted(ensurer: Ensurer, provider: Scripted) -> None:
    """One of that name in another jurisdiction is neither it nor a reason for it."""
    far = Want("r2", "assets", Bucket("assets", "eu"))
    assert names((await ensure(ensurer, far)).created) == ["assets"]
    assert provider.storage.there[0].jurisdiction == "eu"
    assert [one.action for one in (await ensure(ensurer, far)).plan] == ["keep"]
    report = await ensure(ensurer, R2)
    assert [one["code"] for one in report.errors] == ["elsewhere"]


async def test_what_happened_is_recorded_action_by_action(
    ensurer: Ensurer, provider: Scripted, kept: Kept
) -> None:
    """What was done, failed, or needs a person; not what was left as it is, nor what waits its turn."""
    provider.storage.put("r2", "assets")
    provider.storage.put("workers", "bare", ours=False)
    provider.storage.put("workers", "older", digest="old", ours=True)
    provider.storage.put("d1", "crm-data")
    provider.fails["jobs"] = ProviderFailed("no", word="11003")
    older = Want("workers", "older", Worker("older", "new"))
    wanted = (KV, R2, QUEUE, BARE, older, Want("d1", "crm_data"))
    await ensure(ensurer, *wanted)
    told = [(one.by, one.action.action, one.action.want.name, one.outcome) for one in kept]
    assert told == [
        ("pass_1", "create", "SESSIONS", "done"),
        ("pass_1", "adopt", "assets", "done"),
        ("pass_1", "create", "jobs", "failed"),
        ("pass_1", "blocked", "bare", "blocked"),
        ("pass_1", "update", "older", "done"),
    ]
    assert [one.error.code for one in kept if one.error] == ["11003", "not_ours"]
    assert kept[0].resource == provider.storage.there[-1]
    kept.clear()
    provider.fails.clear()
    await ensure(ensurer, *wanted)
    assert [one.action.want.name for one in kept] == ["jobs", "bare"]


async def test_a_record_that_fails_is_told(ensurer: Ensurer, kept: Kept) -> None:
    """What was done is done; that nobody can look it up later is an error of the pass."""
    kept.down = True
    report = await ensure(ensurer, KV)
    assert names(report.created) == ["SESSIONS"]
    assert [(one["name"], one["code"]) for one in report.errors] == [("SESSIONS", "store_unavailable")]


async def test_a_ledger_that_fails_after_the_call_is_told(
    ensurer: Ensurer, provider: Scripted, watched: Watched, clock: FakeClock
) -> None:
    """What was made is in the report, and the next look takes it over."""
    creating = provider._do

    async def last(want: Want, bound: Bound, *, again: bool) -> Resource:
        made = await creating(want, bound, again=again)
        watched.down = True
        return made

    provider._do = last  # type: ignore[method-assign]
    report = await ensure(ensurer, KV)
    assert names(report.created) == ["SESSIONS"]
    assert [one["code"] for one in report.errors] == ["store_unavailable"]
    watched.down = False
    report = await ensure(ensurer, KV)
    assert report.ok
    assert [(one.action, one.why) for one in report.plan] == [
        ("adopt", "an earlier attempt made it after all")
    ]


async def test_nothing_is_begun_that_cannot_be_recorded(
    ensurer: Ensurer, provider: Scripted, watched: Watched
) -> None:
    """Without an intent there is no call."""
    plan = ensurer.plan(of(KV), view := await ensurer.survey([KV]))
    watched.down = True
    report = await ensurer.apply(plan, view, by="pass_1")
    assert (provider.writes, [one["code"] for one in report.errors]) == ([], ["store_unavailable"])


async def test_a_pass_that_may_not_go_on_stops(ensurer: Ensurer, provider: Scripted) -> None:
    """What it did not get to is told as that."""
    wanted = [Want("kv", f"{letter * 6}") for letter in "abcdefghijkl"]
    plan = ensurer.plan(of(*wanted), view := await ensurer.survey(wanted))
    report = await ensurer.apply(plan, view, by="pass_1", may_go_on=lambda: len(provider.writes) < 3)
    assert 3 <= len(report.created) < len(wanted)
    assert {one["code"] for one in report.errors} == {"conflict"}
    assert len(report.created) + len(report.errors) == len(wanted)


async def test_a_bug_of_a_provider_is_no_report(ensurer: Ensurer, provider: Scripted) -> None:
    """An error that is none of ours is raised, after everything else was given its chance."""
    provider.fails["SESSIONS"] = KeyError("bug")
    with pytest.raises(KeyError):
        await ensure(ensurer, KV, R2)
    assert provider.writes == ["SESSIONS", "assets"]


async def test_an_upload_that_fails_is_tried_again(ensurer: Ensurer, provider: Scripted) -> None:
    """The Worker is as it was, and is not told as created."""
    await ensure(ensurer, BARE)
    other = Want("workers", "bare", Worker("bare", "export default 2"))
    provider.fails["bare"] = ProviderFailed("timeout", word="unknown", done=True)
    report = await ensure(ensurer, other)
    assert (report.ok, report.created, report.skipped) == (False, [], [])
    provider.fails.clear()
    assert names((await ensure(ensurer, other)).created) == ["bare"]
    assert [one.action for one in (await ensure(ensurer, other)).plan] == ["keep"]


async def test_no_secret_comes_back_from_a_provider(ensurer: Ensurer, provider: Scripted, kept: Kept) -> None:
    """Whatever it says when it fails is cleaned before it is shown, kept or recorded."""
    secret = "hunter2-hunter2"
    provider.unread["d1"] = Unread("1000", f"token {secret}", f"not {secret}")
    provider.fails["SESSIONS"] = ProviderFailed(f"token {secret}", hint=f"not {secret}")
    report = await ensure(ensurer, KV, Want("d1", "crm"))
    assert len(report.errors) == 2
    assert secret not in str(report.document()) + str(kept)


async def test_who_waits_for_somebody_that_fails_is_told(
    ensurer: Ensurer, provider: Scripted, table: SqliteTable, clock: FakeClock
) -> None:
    """Somebody else began it after we looked: their failure is ours, and nothing is tried twice."""
    ledger = Ledger(table, provider.place, clock)
    waiting = Ensurer(provider, table, clock=clock, patience=1.0)
    plan = waiting.plan(of(KV), view := await waiting.survey([KV]))
    intent = await ledger.intend(KV.key, None, "another")
    applying = asyncio.create_task(waiting.apply(plan, view, by="pass_1"))
    await asyncio.sleep(0.06)
    await ledger.withdraw(KV.key, intent, None, absent=True)
    report = await applying
    assert [one["code"] for one in report.errors] == ["conflict"]
    assert provider.writes == []


async def test_who_waits_for_what_vanished_and_stays_so_is_told(
    ensurer: Ensurer, provider: Scripted, table: SqliteTable, clock: FakeClock
) -> None:
    """What is recorded as it was before is not what somebody else has made."""
    await ensure(ensurer, KV)
    provider.storage.there.clear()
    ensurer.allowance = Allowance(recreate=True)
    plan = ensurer.plan(of(KV), view := await ensurer.survey([KV]))
    ledger = Ledger(table, provider.place, clock)
    before = await ledger.entry(KV.key)
    await ledger.withdraw(KV.key, await ledger.intend(KV.key, before, "another"), before, absent=True)
    report = await ensurer.apply(plan, view, by="pass_1")
    assert [one["code"] for one in report.errors] == ["conflict"]
    assert provider.writes == ["SESSIONS"]
    assert (await ensure(ensurer, KV)).ok


async def test_what_a_provider_says_is_not_kept_without_end(ensurer: Ensurer, provider: Scripted) -> None:
    """A page of HTML in the place of an answer does not outgrow the report."""
    provider.fails["SESSIONS"] = ProviderFailed("<html>" * 100_000)
    report = await ensure(ensurer, KV)
    assert len(report.errors[0]["message"]) == 1000


async def test_a_late_withdrawal_takes_nothing_from_the_next_one(
    table: SqliteTable, clock: FakeClock
) -> None:
    """Who was so slow that somebody else has the right by now leaves it to them."""
    ledger = Ledger(table, "place", clock)
    slow = await ledger.intend(KV.key, None, "slow")
    clock.forward(GRACE)
    entry = await ledger.entry(KV.key)
    quick = await ledger.intend(KV.key, entry, "quick")
    for before in (None, entry):
        await ledger.withdraw(KV.key, slow, before, absent=True)
    assert await ledger.entry(KV.key) == quick


async def test_a_ledger_of_many_pages_is_whole(table: SqliteTable, clock: FakeClock) -> None:
    """More rows than fit a page are all read, and only those of the place."""
    ledger = Ledger(table, "here", clock)
    for number in range(501):
        await ledger.record(("kv", f"K/{number:03d}"), Resource("kv", "", str(number)), None, "made")
    await Ledger(table, "there", clock).record(KV.key, Resource("kv", "", "1"), None, "made")
    entries = await ledger.entries()
    assert len(entries) == 501
    assert entries["kv", "K/500"] == Entry("made", "500", revision=1)


def test_reports_show_every_kind() -> None:
    """Names with ids, by kind, and the plan line by line."""
    assert Report([], dry_run=True).document() == {
        "ok": True,
        "created": {"kv": [], "r2": [], "workers": [], "d1": [], "queues": []},
        "skipped": by_kind([]),
        "errors": [],
        "alerts": [],
        "plan": [],
        "dry_run": True,
    }
    assert by_kind([Resource("kv", "A", "1")])["kv"] == [{"name": "A", "id": "1"}]


async def test_an_inventory_of_before_is_enough_to_compare(ensurer: Ensurer, provider: Scripted) -> None:
    """Diagnose lists once and looks at that twice."""
    view = await ensurer.survey([KV], Inventory([Resource("kv", "SESSIONS", "7")]))
    assert [one.action for one in ensurer.plan(of(KV), view)] == ["adopt"]
    assert provider.calls == []
