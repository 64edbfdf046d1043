"""Signing secrets are rotated: two sign for a while, then the new one alone."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from infra.outbound import Guard, parse_allowed
from infra.pool import Pool
from infra.signing import sign
from infra.table import Key
from infra.table.sqlite import SqliteTable
from router.errors import Conflict, NotFound, StoreUnavailable
from router.forward import Forward
from router.model import Capability
from router.registry import MAX_RETIRED, Record
from router.routes import Candidate, Retired
from tests.fakes import START, CountingIds, FakeClock
from tests.infra.scripted import headers_of, ok, says, scripted
from tests.router.parts import Core, autopilot, core, dump, record_of, rows_expected
from tests.router.test_forward import SECRET, candidate, message

CAP = "web.pages.generate"


async def chosen(parts: Core) -> Candidate:
    """Return the only candidate, as the hot path reads it."""
    [one] = await parts.routes.candidates(CAP)
    return one


async def test_a_rotated_secret_goes_on_for_the_overlap(parts: Core) -> None:
    """The record and what the hot path reads have the new secret, and the old one until then."""
    first = (await parts.registry.put(autopilot("a", CAP))).record
    assert (await chosen(parts)).retired == ()
    parts.clock.forward(5)
    record, until = await parts.registry.rotate("a", overlap=60)
    assert until == START + 65
    assert record.secret != first.secret
    assert record.retired == (Retired(first.secret, START + 65),)
    assert (record.revision, record.registered_at, record.updated_at) == (2, START, START + 5)
    assert await record_of(parts, "a") == record
    candidate = await chosen(parts)
    assert (candidate.secret, candidate.retired) == (record.secret, record.retired)
    assert candidate.version != first.candidate(Capability(CAP)).version


async def test_an_update_keeps_both_secrets_while_they_sign(parts: Core, tmp_path: Path) -> None:
    """Registering again neither cuts an overlap short nor keeps an old secret that is over."""
    await parts.registry.put(autopilot("a", CAP))
    record, _ = await parts.registry.rotate("a", overlap=60)
    again = (await parts.registry.put(autopilot("a", CAP, priority=1))).record
    assert (again.secret, again.retired) == (record.secret, record.retired)
    parts.clock.forward(60)
    over = (await parts.registry.put(autopilot("a", CAP))).record
    assert (over.secret, over.retired) == (record.secret, ())
    rows = {key: document for key, (document, _) in dump(tmp_path / "table.db").items()}
    assert rows == rows_expected(over), "nothing of the old secret is left in the store"


async def test_without_an_overlap_the_old_secrets_end_at_once(parts: Core, tmp_path: Path) -> None:
    """Whoever has lost a secret to somebody ends it, and those before it."""
    await parts.registry.put(autopilot("a", CAP))
    await parts.registry.rotate("a", overlap=60)
    record, until = await parts.registry.rotate("a", overlap=0)
    assert until == START
    assert record.retired == ()
    rows = {key: document for key, (document, _) in dump(tmp_path / "table.db").items()}
    assert rows == rows_expected(record)


async def test_rotating_again_ends_nobody_early_and_nobody_late(parts: Core) -> None:
    """Each earlier secret goes on until its own end, or that of the new overlap if it comes first."""
    first = (await parts.registry.put(autopilot("a", CAP))).record
    second, _ = await parts.registry.rotate("a", overlap=60)
    third, _ = await parts.registry.rotate("a", overlap=600)
    assert third.retired == (Retired(second.secret, START + 600), Retired(first.secret, START + 60))
    fourth, _ = await parts.registry.rotate("a", overlap=30)
    assert [one.until for one in fourth.retired] == [START + 30] * 3
    with pytest.raises(Conflict, match="until 2026-01-01T00:00:30"):
        await parts.registry.rotate("a", overlap=60)
    assert await record_of(parts, "a") == fourth
    assert len(fourth.retired) == MAX_RETIRED
    parts.clock.forward(30)
    fifth, _ = await parts.registry.rotate("a", overlap=60)
    assert [one.secret for one in fifth.retired] == [fourth.secret]


async def test_rotating_renews_no_lease(parts: Core) -> None:
    """Whether an autopilot is alive is for its own heartbeats to say."""
    await parts.registry.put(autopilot("a", CAP, lease_seconds=60))
    parts.clock.forward(59)
    await parts.registry.rotate("a", overlap=60)
    await chosen(parts)
    assert parts.routes.lease_alive("a")
    parts.clock.forward(1)
    await chosen(parts)
    assert not parts.routes.lease_alive("a")


async def test_rotations_at_the_same_time_each_get_a_secret_of_their_own(
    parts: Core, table: SqliteTable, clock: FakeClock
) -> None:
    """In two processes, beside an update: nobody's secret is lost before its time."""
    other = core(table, clock)
    other.registry._new_secret = lambda: CountingIds()("theirs")
    await parts.registry.put(autopilot("a", CAP))
    (ours, _), (theirs, _), _ = await asyncio.gather(
        parts.registry.rotate("a", overlap=60),
        other.registry.rotate("a", overlap=60),
        parts.registry.put(autopilot("a", CAP, priority=3)),
    )
    last = await record_of(parts, "a")
    assert {ours.secret, theirs.secret} <= {last.secret, *(one.secret for one in last.retired)}
    assert len(last.retired) == 2
    assert (last.autopilot.priority, last.revision) == (3, 4)


async def test_nobody_cannot_be_rotated(parts: Core) -> None:
    """An autopilot that is not there, and a store that does not answer, change nothing."""
    with pytest.raises(NotFound):
        await parts.registry.rotate("a", overlap=60)
    first = (await parts.registry.put(autopilot("a", CAP))).record
    parts.table.down = True
    with pytest.raises(StoreUnavailable):
        await parts.registry.rotate("a", overlap=60)
    parts.table.down = False
    assert await record_of(parts, "a") == first


async def test_what_earlier_versions_stored_still_loads(parts: Core) -> None:
    """A record and rows with one secret and nothing of rotation are read, and can be rotated."""
    row: dict[str, Any] = {"capability": {"name": CAP}, "endpoint": "https://a.example", "priority": 100}
    row |= {"weight": 1, "leased": False, "needy": False, "revision": 1, "secret": "old"}
    kept = {"name": "a", "endpoint": "https://a.example", "capabilities": [{"name": CAP}]}
    record = {"autopilot": kept, "secret": "old", "registered_at": START, "updated_at": START}
    stored: dict[Key, dict[str, Any]] = {("capability:" + CAP, "a"): row, ("autopilot", "a"): record}
    for key, document in stored.items():
        await parts.table.inner.put(key, document)
    candidate = await chosen(parts)
    assert (candidate.secret, candidate.retired) == ("old", ())
    rotated, _ = await parts.registry.rotate("a", overlap=60)
    assert rotated.retired == (Retired("old", START + 60),)


# What an autopilot receives

OLD = "whsec_" + base64.b64encode(bytes(24)).decode()


async def test_a_forward_carries_both_signatures_while_the_overlap_runs(clock: FakeClock) -> None:
    """The new one first, the old one behind a blank, and to the second the new one alone."""
    pool = Pool(Guard(parse_allowed(["127.0.0.0/8"])))
    async with scripted(says(ok())) as server:
        plain = candidate(server.url)
        rotated = Candidate(
            **{name: getattr(plain, name) for name in plain.__slots__ if name != "retired"},
            retired=(Retired(OLD, START + 60),),
        )
        for now in (START, START + 59.9, START + 60):
            clock.now = now
            deadline = asyncio.get_running_loop().time() + 5
            await Forward(pool, {}, clock).post(rotated, "/tasks", message(), deadline)
        both, still, alone = (dict(headers_of(request))["webhook-signature"] for request in server.requests)
    pool.close()
    body = message().body
    assert both == f"{sign(SECRET, 'msg_1', int(START), body)} {sign(OLD, 'msg_1', int(START), body)}"
    assert len(still.split(" ")) == 2
    assert alone == sign(SECRET, "msg_1", int(START) + 60, body)


def test_a_record_shows_no_secret() -> None:
    """Neither the present secret nor an earlier one is in what callers see."""
    record = Record(autopilot("a", CAP), 1, "present-one", START, START, (Retired("earlier-one", START),))
    assert "-one" not in str(record.document("healthy"))
