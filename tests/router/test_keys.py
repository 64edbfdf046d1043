"""API keys: their form, what they allow, and that one which has ended ends everywhere in time."""

from __future__ import annotations

import asyncio
import math
import os
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import router.keys as module
from infra.table.sqlite import SqliteTable
from router.auth import Gate, Scope
from router.errors import Conflict, Invalid, NotFound, StoreUnavailable, Unauthenticated
from router.keys import Identity, Keys, covers, id_of, new_key, parse_scopes
from tests.fakes import FakeClock
from tests.router.faults import Failing, fail

LETTERS = string.digits + string.ascii_letters
GOOD = """
    read operate admin register register:page-deployer
    plan:* plan:web.* plan:web.pages.* plan:web.pages.generate plan:a.b.c.d.e.f plan:a.b.c.d.e.*
"""
BAD = """
    Read write plan plan: plan:web plan:web. plan:.* plan:** plan:*.web plan:web.*.x plan:Web.x plan:*.*
    plan:a.b.c.d.e.f.* plan:a.b.c.d.e.f.g register: register:* register:-a register:a/b admin:x operate:x
"""


@pytest.fixture
def store(table: SqliteTable) -> Failing:
    """Give a table that counts its calls and can fail."""
    return Failing(table)


@pytest.fixture
def monotonic() -> FakeClock:
    """Give the clock that what was read is believed by."""
    return FakeClock(1000.0)


@pytest.fixture
def keys(store: Failing, clock: FakeClock, monotonic: FakeClock) -> Keys:
    """Give the keys of one process."""
    return Keys(store, clock=clock, monotonic=monotonic, random_bytes=os.urandom)


def edits(key: str) -> list[str]:
    """Return every text that is one edit away from a key."""
    characters = LETTERS + "_-. é\n"
    places = range(len(key))
    replaced = [key[:i] + c + key[i + 1 :] for i in places for c in characters if c != key[i]]
    removed = [key[:i] + key[i + 1 :] for i in places]
    added = [key[:i] + c + key[i:] for i in range(len(key) + 1) for c in characters]
    swapped = [key[:i] + key[i + 1] + key[i] + key[i + 2 :] for i in places[:-1] if key[i] != key[i + 1]]
    return replaced + removed + added + swapped


def contents(folder: Path) -> bytes:
    """Return all bytes of the files in a folder."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


class TestForm:
    """What a key looks like."""

    def test_shape(self) -> None:
        """A key is its prefix and 38 letters and digits, of which the first eight are its id."""
        key, key_id = new_key(os.urandom)
        assert key.startswith("apr_")
        assert len(key) == 42
        assert set(key[4:]) <= set(LETTERS)
        assert id_of(key) == key_id == key[4:12]

    def test_random_bits(self) -> None:
        """The random part alone has more than 128 bits, and no two keys share it."""
        assert 24 * math.log2(62) > 128
        assert len({new_key(os.urandom)[0][12:36] for _ in range(2000)}) == 2000

    def test_every_character_is_as_likely(self) -> None:
        """Each of the 62 characters stands for four byte values; the eight left over are drawn again."""
        drawn = iter(list(range(256)) * 40)
        counts: Counter[str] = Counter()
        for _ in range(310):
            counts.update(new_key(lambda size: bytes(next(drawn) for _ in range(size)))[0][4:36])
        assert set(counts.values()) == {310 * 32 // 62}
        assert len(counts) == 62

    async def test_edits_are_refused_unread(self, keys: Keys, store: Failing) -> None:
        """Every replaced, removed, added or swapped character is refused before the store is asked."""
        key, _ = await keys.create("ann", ["read"])
        store.calls.clear()
        tried = edits(key)
        assert len(tried) > 5_000
        for edited in tried:
            assert id_of(edited) is None, edited
        for edited in tried[::50]:
            with pytest.raises(Unauthenticated):
                await keys.identify(edited)
        assert store.calls == []

    async def test_edits_are_refused_at_the_gate(self, keys: Keys, store: Failing) -> None:
        """So is each of them as a call would bring it: 401, and not one read for over 5,000 calls."""
        key, _ = await keys.create("ann", ["read"])
        gate = Gate("required", "the-admin-key-of-tests", keys)
        assert (await gate.admit({}, {b"authorization": f"Bearer {key}".encode()}, Scope.READ)).name == "ann"
        store.calls.clear()
        refused = 0
        for edited in edits(key):
            headers = {b"authorization": f"Bearer {edited}".encode("latin-1")}
            if edited.strip() == key:
                continue  # blanks around a key are not of it
            with pytest.raises(Unauthenticated):
                await gate.admit({}, headers, Scope.READ)
            refused += 1
        assert refused > 5_000
        assert store.calls == []

    @pytest.mark.parametrize(
        "text", ["", "apr_", "Bearer", "apr_" + "é" * 38, "APR_" + "0" * 38, "\ud800" * 42]
    )
    async def test_other_texts(self, keys: Keys, store: Failing, text: str) -> None:
        """What is no key at all is refused in the same way."""
        with pytest.raises(Unauthenticated, match="the key is not valid"):
            await keys.identify(text)
        assert store.calls == []


class TestScopes:
    """What a key may be allowed, and what that allows."""

    @pytest.mark.parametrize(
        "scope",
        GOOD.split(),
    )
    def test_good(self, scope: str) -> None:
        """Every documented form is taken."""
        assert parse_scopes([scope]) == [scope]

    @pytest.mark.parametrize(
        "scope",
        [
            *BAD.split(),
            "",
            "read ",
            "read\n",
            "plan:" + "a." * 5 + "a" * 200,
            7,
            None,
            ["read"],
            {"read": True},
        ],
    )
    def test_bad(self, scope: object) -> None:
        """Anything else is refused, by its place in the list."""
        with pytest.raises(Invalid) as caught:
            parse_scopes(["read", scope])
        assert [problem.field for problem in caught.value.problems] == ["scopes[1]"]

    @pytest.mark.parametrize("value", [None, "read", {}, [], ["read"] * 51])
    def test_no_list(self, value: object) -> None:
        """A list of 1 to 50 is needed."""
        with pytest.raises(Invalid, match="scopes: must be a list of 1 to 50 scopes"):
            parse_scopes(value)

    def test_sorted_once(self) -> None:
        """Scopes are kept in order, each once."""
        assert parse_scopes(["read", "operate", "read"]) == ["operate", "read"]

    @pytest.mark.parametrize(
        ("pattern", "capability", "covered"),
        [
            ("*", "web.pages.generate", True),
            ("web.*", "web.pages.generate", True),
            ("web.*", "web.pages", True),
            ("web.*", "webby.pages", False),
            ("web.*", "web", False),
            ("web.*", "my.web.pages", False),
            ("web.pages.*", "web.pages.generate", True),
            ("web.pages.*", "web.pagesx.generate", False),
            ("web.pages.*", "web.pages", False),
            ("web.pages", "web.pages", True),
            ("web.pages", "web.pages.generate", False),
        ],
    )
    def test_patterns(self, pattern: str, capability: str, covered: bool) -> None:
        """A pattern covers whole dotted words, never part of one."""
        assert covers(pattern, capability) is covered
        assert Identity("ann", frozenset({f"plan:{pattern}"})).may_plan(capability) is covered

    def test_kinds_do_not_mix(self) -> None:
        """No scope but admin allows what another one is for."""
        everything: dict[str, Callable[[Identity], bool]] = {
            "read": lambda who: who.may("read"),
            "operate": lambda who: who.may("operate"),
            "register": lambda who: who.may_register("x"),
            "plan:*": lambda who: who.may_plan("web.pages.generate"),
        }
        for held in everything:
            allowed = {
                scope for scope, check in everything.items() if check(Identity("a", frozenset({held})))
            }
            assert allowed == {held}
        admin = Identity("a", frozenset({"admin"}))
        assert all(check(admin) for check in everything.values())
        assert not any(check(Identity("a", frozenset())) for check in everything.values())

    def test_register_one(self) -> None:
        """The right to register one name is a form of `register`, and none to register another."""
        who = Identity("ann", frozenset({"register:stylist"}))
        assert who.may("register")
        assert who.may_register("stylist")
        assert not who.may_register("stylist2")
        assert not who.may_register("")
        assert not who.may("admin")


class TestCreate:
    """Making keys and showing them."""

    async def test_identify(self, keys: Keys) -> None:
        """A new key is its holder's, with its scopes."""
        key, _ = await keys.create("ann", ["plan:web.*", "read"])
        assert await keys.identify(key) == Identity("ann", frozenset({"plan:web.*", "read"}))

    async def test_shown(self, keys: Keys, clock: FakeClock) -> None:
        """A record shows when a key was made and ends, and neither the key nor its hash."""
        key, record = await keys.create("ann", ["read"], expires_at=clock() + 60)
        assert record == {
            "id": key[4:12],
            "name": "ann",
            "scopes": ["read"],
            "created_at": "2026-01-01T00:00:00.000Z",
            "expires_at": "2026-01-01T00:01:00.000Z",
            "revoked_at": None,
            "last_used_at": None,
        }
        assert await keys.list() == [record]

    async def test_nothing_raw_at_rest(self, tmp_path: Path, clock: FakeClock, monotonic: FakeClock) -> None:
        """After making, using and rotating keys, the store's files hold the secret part of none."""
        table = SqliteTable(tmp_path / "raw.db", clock)
        keys = Keys(table, clock=clock, monotonic=monotonic, random_bytes=os.urandom)
        made = [(await keys.create(f"key{n}", ["read"]))[0] for n in range(5)]
        for key in made:
            await keys.identify(key)
        made += [(await keys.rotate(key[4:12], overlap=60))[0] for key in made]
        for _ in range(2):
            stored = contents(tmp_path)
            assert made[0][4:12].encode() in stored
            for key in made:
                assert key[12:].encode() not in stored
                assert key[12:36].encode() not in stored
            await table.close()

    async def test_many(self, keys: Keys, table: SqliteTable) -> None:
        """The list goes on past the first page of the store."""
        _, record = await keys.create("ann", ["read"])
        item = await table.get(("key", record["id"]))
        assert item is not None
        for number in range(220):
            await table.put(("key", f"{number:08d}"), {**item.document, "name": f"key {number}"})
        assert len(await keys.list()) == 221

    @pytest.mark.parametrize(
        "name",
        [
            "",
            " ann",
            "ann ",
            "a\nb",
            "a\x1b[0m",
            "é",
            "a" * 65,
            "admin",
            "local",
            "anyone",
            "router",
            "a/b",
            '"',
        ],
    )
    async def test_bad_name(self, keys: Keys, name: str) -> None:
        """A name that could break a log line, or is that of a built-in caller, is refused."""
        with pytest.raises(Invalid, match="name: must be 1 to 64"):
            await keys.create(name, ["read"])
        assert await keys.list() == []

    @pytest.mark.parametrize("ends", [-1.0, 0.0, math.nan, math.inf, 1e18])
    async def test_bad_end(self, keys: Keys, clock: FakeClock, ends: float) -> None:
        """A key ends at some moment ahead: one without meaning would never end, or could not be shown."""
        with pytest.raises(Invalid, match="expires_at"):
            await keys.create("ann", ["read"], expires_at=clock() + ends)

    async def test_bad_scope(self, keys: Keys) -> None:
        """Scopes are checked wherever a key is made."""
        with pytest.raises(Invalid, match=r"scopes\[0\]"):
            await keys.create("ann", ["everything"])

    async def test_name_taken(self, keys: Keys, clock: FakeClock) -> None:
        """A name stands for one holder until the key has ended: who it is decides whose answers it gets."""
        _, record = await keys.create("ann", ["read"], expires_at=clock() + 60)
        with pytest.raises(Conflict, match="'ann'"):
            await keys.create("ann", ["admin"])
        clock.forward(60)
        _, again = await keys.create("ann", ["admin"])
        await keys.revoke(again["id"])
        await keys.create("ann", ["read"])
        assert len(await keys.list()) == 3
        assert record["id"] != again["id"]


class TestRefused:
    """Keys that look right."""

    async def test_forged(self, keys: Keys) -> None:
        """The id of a real key with another secret and a right checksum opens nothing."""
        key, _ = await keys.create("ann", ["read"])
        body = key[4:12] + "0" * 24
        forged = "apr_" + body + module._checksum(body)
        assert id_of(forged) == key[4:12]
        await keys.identify(key)
        with pytest.raises(Unauthenticated):
            await keys.identify(forged)

    async def test_unknown(self, keys: Keys) -> None:
        """A well-formed key that was never made is refused like any other."""
        with pytest.raises(Unauthenticated, match="the key is not valid"):
            await keys.identify(new_key(os.urandom)[0])

    async def test_store_down(self, keys: Keys, store: Failing, monotonic: FakeClock) -> None:
        """A key is believed for five seconds; after that a store that is down lets nobody in."""
        key, _ = await keys.create("ann", ["read"])
        await keys.identify(key)
        store.at("get", before=fail)
        monotonic.forward(4.9)
        assert (await keys.identify(key)).name == "ann"
        monotonic.forward(0.1)
        with pytest.raises(StoreUnavailable):
            await keys.identify(key)

    async def test_belief_counts_from_the_question(
        self, keys: Keys, store: Failing, monotonic: FakeClock
    ) -> None:
        """A slow read does not lengthen the time for which its answer is believed."""
        key, _ = await keys.create("ann", ["read"])

        async def slow() -> None:
            monotonic.forward(3)

        store.at("get", after=slow)
        await keys.identify(key)
        monotonic.forward(2)
        reads = store.calls.count("get")
        await keys.identify(key)
        assert store.calls.count("get") == reads + 1

    async def test_warm_reads_nothing(self, keys: Keys, store: Failing) -> None:
        """A key just seen costs no call to the store."""
        key, _ = await keys.create("ann", ["read"])
        await keys.identify(key)
        store.calls.clear()
        for _ in range(10):
            await keys.identify(key)
        assert store.calls == []

    async def test_bounded(self, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is remembered of keys has a bound."""
        monkeypatch.setattr(module, "MAX_KNOWN", 3)
        for number in range(8):
            key, _ = await keys.create(f"key {number}", ["read"])
            await keys.identify(key)
            assert len(keys._known) <= 3


class TestEnds:
    """Revocation and expiry."""

    async def test_revoked_here(self, keys: Keys, clock: FakeClock) -> None:
        """A key revoked in this process is refused from then on, though it was just used."""
        key, record = await keys.create("ann", ["read"])
        await keys.identify(key)
        clock.forward(1)
        await keys.revoke(record["id"])
        with pytest.raises(Unauthenticated):
            await keys.identify(key)
        await keys.revoke(record["id"])
        [shown] = await keys.list()
        assert shown["revoked_at"] == "2026-01-01T00:00:01.000Z"

    async def test_revoked_elsewhere(self, keys: Keys, table: SqliteTable, clock: FakeClock) -> None:
        """Another process refuses a revoked key within five seconds, not before it must ask again."""
        monotonic = FakeClock(5.0)
        other = Keys(table, clock=clock, monotonic=monotonic, random_bytes=os.urandom)
        key, record = await keys.create("ann", ["read"])
        await other.identify(key)
        await keys.revoke(record["id"])
        monotonic.forward(4.99)
        await other.identify(key)
        monotonic.forward(0.01)
        with pytest.raises(Unauthenticated):
            await other.identify(key)

    @pytest.mark.parametrize("moment", ["before", "after"])
    async def test_revoked_while_read(self, keys: Keys, store: Failing, moment: str) -> None:
        """A use that had read the key before it was revoked is not remembered after."""
        key, record = await keys.create("ann", ["read"])
        reading, goes_on = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reading.set()
            await goes_on.wait()

        store.at("get", 1, after=wait)
        use = asyncio.create_task(keys.identify(key))
        await reading.wait()
        if moment == "before":

            async def use_first() -> None:
                goes_on.set()
                await use

            store.at("transact", before=use_first)
        await keys.revoke(record["id"])
        goes_on.set()
        await use
        with pytest.raises(Unauthenticated):
            await keys.identify(key)

    async def test_revoked_with_answer_lost(self, keys: Keys, store: Failing) -> None:
        """A revocation that was done though nobody heard counts at once."""
        key, record = await keys.create("ann", ["read"])
        await keys.identify(key)
        store.at("transact", after=fail)
        with pytest.raises(StoreUnavailable):
            await keys.revoke(record["id"])
        with pytest.raises(Unauthenticated):
            await keys.identify(key)

    async def test_use_does_not_stop_revocation(
        self, keys: Keys, store: Failing, table: SqliteTable, clock: FakeClock, monotonic: FakeClock
    ) -> None:
        """A use noted between reading and writing makes neither a revocation nor a rotation fail."""
        other = Keys(table, clock=clock, monotonic=monotonic, random_bytes=os.urandom)
        key, record = await keys.create("ann", ["read"])

        async def use() -> None:
            clock.forward(60)
            monotonic.forward(60)
            await other.identify(key)

        store.at("transact", before=use)
        fresh, _ = await keys.rotate(record["id"], overlap=600)
        assert len(await keys.list()) == 2
        store.at("transact", before=use)
        await keys.revoke(record["id"])
        with pytest.raises(Unauthenticated):
            await keys.identify(key)
        assert (await keys.identify(fresh)).name == "ann"

    async def test_revocation_outlives_a_late_use(
        self, keys: Keys, store: Failing, table: SqliteTable, clock: FakeClock, monotonic: FakeClock
    ) -> None:
        """Noting a use that began before the revocation does not undo it."""
        other = Keys(table, clock=clock, monotonic=monotonic, random_bytes=os.urandom)
        key, record = await keys.create("ann", ["read"])
        store.at("put", before=lambda: other.revoke(record["id"]))
        await keys.identify(key)
        monotonic.forward(5)
        with pytest.raises(Unauthenticated):
            await keys.identify(key)

    async def test_expiry(self, keys: Keys, clock: FakeClock) -> None:
        """A key ends at its moment, though it is still believed."""
        key, _ = await keys.create("ann", ["read"], expires_at=clock() + 2)
        clock.forward(1.999)
        await keys.identify(key)
        clock.forward(0.001)
        with pytest.raises(Unauthenticated):
            await keys.identify(key)

    @pytest.mark.parametrize("key_id", ["00000000", "", "x", "a" * 5000, "\ud800", "../../key", "12345678\n"])
    async def test_no_such_key(self, keys: Keys, key_id: str) -> None:
        """What is no id of a key is not found, whatever it is."""
        with pytest.raises(NotFound):
            await keys.revoke(key_id)
        with pytest.raises(NotFound):
            await keys.rotate(key_id, overlap=0)

    async def test_a_key_for_an_id(self, keys: Keys) -> None:
        """Whoever gives a whole key where its id is asked does not find it in the answer."""
        key, _ = await keys.create("ann", ["read"])
        with pytest.raises(NotFound) as caught:
            await keys.revoke(key)
        assert key[12:20] not in str(caught.value)


class TestRotate:
    """A new key for an old one."""

    async def test_overlap(self, keys: Keys, clock: FakeClock) -> None:
        """Both keys are good while they overlap, then only the new one."""
        old, record = await keys.create("ann", ["operate", "read"])
        await keys.identify(old)
        new, shown = await keys.rotate(record["id"], overlap=60)
        assert new != old
        assert (shown["name"], shown["scopes"], shown["expires_at"]) == ("ann", ["operate", "read"], None)
        clock.forward(59.9)
        assert await keys.identify(old) == await keys.identify(new)
        clock.forward(0.1)
        with pytest.raises(Unauthenticated):
            await keys.identify(old)
        assert (await keys.identify(new)).name == "ann"

    async def test_no_overlap(self, keys: Keys) -> None:
        """Without an overlap the old key ends at once."""
        old, record = await keys.create("ann", ["read"])
        await keys.identify(old)
        new, _ = await keys.rotate(record["id"], overlap=0)
        with pytest.raises(Unauthenticated):
            await keys.identify(old)
        await keys.identify(new)

    async def test_lengthens_nothing(self, keys: Keys, clock: FakeClock) -> None:
        """Neither the old key nor the new one lives longer than the old one would have."""
        old, record = await keys.create("ann", ["read"], expires_at=clock() + 10)
        new, _ = await keys.rotate(record["id"], overlap=3600)
        clock.forward(10)
        for key in (old, new):
            with pytest.raises(Unauthenticated):
                await keys.identify(key)

    @pytest.mark.parametrize("end", ["revoked", "expired"])
    async def test_ended(self, keys: Keys, clock: FakeClock, end: str) -> None:
        """A key that has ended cannot be brought back by rotating it."""
        _, record = await keys.create("ann", ["read"], expires_at=clock() + 10)
        if end == "revoked":
            await keys.revoke(record["id"])
        else:
            clock.forward(10)
        with pytest.raises(Conflict, match="has ended"):
            await keys.rotate(record["id"], overlap=60)
        assert len(await keys.list()) == 1

    @pytest.mark.parametrize("overlap", [-1.0, math.nan, math.inf, 31 * 86_400.0])
    async def test_bad_overlap(self, keys: Keys, overlap: float) -> None:
        """An overlap that is no bounded time is refused: kept as JSON it would mean for ever."""
        _, record = await keys.create("ann", ["read"])
        with pytest.raises(Invalid, match="overlap"):
            await keys.rotate(record["id"], overlap=overlap)

    async def test_all_or_nothing(self, keys: Keys, store: Failing) -> None:
        """A rotation the store refuses leaves the old key as it was and no new one."""
        old, record = await keys.create("ann", ["read"])
        store.at("transact", before=fail)
        with pytest.raises(StoreUnavailable):
            await keys.rotate(record["id"], overlap=0)
        assert await keys.list() == [record]
        await keys.identify(old)


class TestLastUse:
    """When a key was last used."""

    async def test_to_the_minute(self, keys: Keys, clock: FakeClock, monotonic: FakeClock) -> None:
        """The last use is kept once a minute, not for each call."""
        key, _ = await keys.create("ann", ["read"])
        seen: list[Any] = []
        for _ in range(5):
            await keys.identify(key)
            [record] = await keys.list()
            seen.append(record["last_used_at"][14:19])
            clock.forward(20)
            monotonic.forward(20)
        assert seen == ["00:00", "00:00", "00:00", "01:00", "01:00"]

    @pytest.mark.parametrize("moment", ["before", "after"])
    async def test_cannot_be_kept(self, keys: Keys, store: Failing, moment: str) -> None:
        """A use that the store does not take is still a use."""
        key, _ = await keys.create("ann", ["read"])
        store.at(
            "put", before=fail if moment == "before" else None, after=fail if moment == "after" else None
        )
        assert (await keys.identify(key)).name == "ann"

    async def test_at_once(self, keys: Keys) -> None:
        """Thirty uses at the same moment all pass."""
        key, _ = await keys.create("ann", ["read"])
        found = await asyncio.gather(*(keys.identify(key) for _ in range(30)))
        assert {who.name for who in found} == {"ann"}
