"""The audit chain: whatever is changed in the store is found, and nothing that happens breaks the chain."""

from __future__ import annotations

import asyncio
import copy
import math
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.contract.conftest as contract
from infra.redact import Redactor
from infra.table import MAX_TRANSACTION, Document, Item, Key, Put, Table
from infra.table.sqlite import SqliteTable
from router.audit import ANCHOR_EVERY, ANCHORS, MAX_DETAIL, Audit, Deed, Finding, records, seal, verify
from router.errors import AutopilotError, Stale, StoreUnavailable
from tests.fakes import FakeClock
from tests.router.faults import Failing, fail

credentials = contract.credentials
ministack = contract.ministack
shared = contract.shared
clock = contract.clock

KEY = b"the key that stands outside the store"
DEED = Deed("ann", "registry.put", "page-deployer", {"revision": 3, "hosts": ["a", "b"]}, "0" * 32)

AT = "2026-01-01T00:00:00.000Z"
"""What the clock says all the time."""

Rows = dict[Key, Document]


@pytest.fixture
async def sqlite(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteTable]:
    """Give a table in a file."""
    opened = SqliteTable(tmp_path / "audit.db", clock)
    yield opened
    await opened.close()


def audit(table: Table, writer: str = "w1", *, key: bytes = KEY, known: tuple[str, ...] = ()) -> Audit:
    """Return the audit of one process."""
    return Audit(table, key=key, clock=FakeClock(), writer=writer, redactor=Redactor(known))


async def rows_of(table: Table) -> Rows:
    """Return all there is, found by its own account."""
    partitions = ["audit-head", "audit-index", f"audit:{ANCHORS}"]
    heads = (await table.range("audit-head", limit=1000)).items
    partitions += [f"audit:{item.key[1]}" for item in heads if item.key[1] != ANCHORS]
    pages = [await table.range(partition, limit=1000) for partition in partitions]
    return {item.key: item.document for page in pages for item in page.items}


class Kept(SqliteTable):
    """A table in memory that is filled with rows."""

    @classmethod
    async def of(cls, rows: Rows) -> Kept:
        """Return a table with these rows."""
        table = cls(Path(":memory:"), FakeClock())
        writes = [Put(key, document) for key, document in rows.items()]
        for at in range(0, len(writes), MAX_TRANSACTION):
            await table.transact(writes[at : at + MAX_TRANSACTION])
        return table


async def found(rows: Rows, key: bytes = KEY) -> tuple[int, list[Finding]]:
    """Return what is found in a store of these rows."""
    table = await Kept.of(rows)
    try:
        return await verify(table, key)
    finally:
        await table.close()


async def three_chains() -> Rows:
    """Return the rows of three writers: one record, several, and enough to be anchored more than once."""
    table = await Kept.of({})
    one, some, many = audit(table, "one"), audit(table, "some"), audit(table, "many")
    await one.write(DEED)
    for number in range(ANCHOR_EVERY + 2):
        if number % 25 == 0:
            await some.write(DEED._replace(target=f"target {number}"))
        await many.write(DEED._replace(detail={"number": number}))
    await some.close()
    rows = await rows_of(table)
    await table.close()
    return rows


ROWS = asyncio.run(three_chains())
KEYS = sorted(key for key in ROWS if key[0] != "audit-index")
PARTITIONS = sorted({key[0] for key in KEYS})


class TestUntouched:
    """Stores nobody changed."""

    async def test_nothing_found(self) -> None:
        """In a store as it was written nothing is wrong, and every record is counted."""
        assert await found(ROWS) == (1 + 5 + ANCHOR_EVERY + 2, [])

    async def test_empty(self, sqlite: SqliteTable) -> None:
        """In an empty store there is nothing wrong."""
        assert await verify(sqlite, KEY) == (0, [])

    async def test_another_key(self) -> None:
        """With another key nothing holds, which tells that the key is the wrong one."""
        count, findings = await found(ROWS, b"another key")
        assert count == 108
        assert len(findings) >= len(KEYS)

    async def test_record(self, sqlite: SqliteTable) -> None:
        """A record says who did what to what, when, and on which trace."""
        await audit(sqlite).write(DEED)
        item = await sqlite.get(("audit:w1", "000000000001"))
        assert item is not None
        code = item.document.pop("code")
        assert item.document == {
            "writer": "w1",
            "number": 1,
            "previous": "0" * 64,
            "at": "2026-01-01T00:00:00.000Z",
            "actor": "ann",
            "action": "registry.put",
            "target": "page-deployer",
            "detail": {"revision": 3, "hosts": ["a", "b"]},
            "trace_id": "0" * 32,
        }
        assert code == seal(KEY, item.document)
        assert code != seal(KEY + b"x", item.document)

    @settings(max_examples=60, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
            ),
            max_leaves=12,
        )
    )
    def test_any_detail(self, detail: Any) -> None:
        """Whatever JSON a detail is, what comes back from the store is what was sealed."""

        async def check() -> None:
            table = await Kept.of({})
            await audit(table).write(DEED._replace(detail={"d": detail}))
            assert await verify(table, KEY) == (1, [])
            await table.close()

        asyncio.run(check())

    async def test_odd_values(self, sqlite: SqliteTable) -> None:
        """Values that JSON has no word for are sealed as what the store makes of them."""
        odd = {"t": (1, 2), "nan": math.nan, "big": 2**80, "b": b"x", 7: "n", "s": {"x"}}
        await audit(sqlite).write(DEED._replace(detail=odd))  # type: ignore[arg-type]
        assert await verify(sqlite, KEY) == (1, [])


def changed(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """Return a JSON value that differs from another in one place."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: changed(value[name], draw)}
    if isinstance(value, dict):
        what = draw(st.sampled_from(["add", "remove"] if value else ["add"]))
        if what == "add":
            return {**value, draw(st.text(min_size=1, max_size=3).filter(lambda name: name not in value)): 1}
        gone = draw(st.sampled_from(sorted(value)))
        return {name: member for name, member in value.items() if name != gone}
    if isinstance(value, str) and value:
        at = draw(st.integers(0, len(value) - 1))
        other = draw(st.characters(codec="utf-8").filter(lambda c: c != value[at]))
        return value[:at] + other + value[at + 1 :]
    others = st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=3)
    return draw((others | st.just([]) | st.just({})).filter(lambda x: repr(x) != repr(value)))


class TestTampering:
    """Any change of the store is found."""

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_edit(self, data: st.DataObject) -> None:
        """A change in one place of one record, head or anchor is found, whatever it is."""
        key = data.draw(st.sampled_from(KEYS))
        document = changed(ROWS[key], data.draw)
        _, findings = asyncio.run(found({**ROWS, key: document}))
        assert findings, (key, document)

    @pytest.mark.parametrize("key", KEYS[:: max(1, len(KEYS) // 40)] + KEYS[-1:])
    async def test_deletion(self, key: Key) -> None:
        """Any one row that is gone is missed."""
        _, findings = await found({other: row for other, row in ROWS.items() if other != key})
        assert findings

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(PARTITIONS), st.data())
    def test_truncation(self, partition: str, data: st.DataObject) -> None:
        """The end of any chain, of the heads or of the anchors is missed, and the whole of it too."""
        keys = [key for key in KEYS if key[0] == partition]
        keep = data.draw(st.integers(0, len(keys) - 1))
        gone = set(keys[keep:])
        _, findings = asyncio.run(found({key: row for key, row in ROWS.items() if key not in gone}))
        assert findings, gone

    @pytest.mark.parametrize("writer", ["one", "some", "many", ANCHORS])
    async def test_whole_chain(self, writer: str) -> None:
        """A chain that is gone together with its head is missed, the chain of the anchors too."""
        gone = {key for key in KEYS if key == ("audit-head", writer) or key[0] == f"audit:{writer}"}
        count, findings = await found({key: row for key, row in ROWS.items() if key not in gone})
        assert findings
        assert count == 108 - (len(gone) - 1 if writer != ANCHORS else 0)

    @pytest.mark.parametrize("keep", ["audit-head", f"audit:{ANCHORS}"])
    async def test_all_but(self, keep: str) -> None:
        """Heads alone, and anchors alone, tell that there was more."""
        _, findings = await found({key: row for key, row in ROWS.items() if key[0] == keep})
        assert findings

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(KEYS), st.sampled_from(KEYS))
    def test_swap(self, one: Key, other: Key) -> None:
        """Two rows that changed places are found, whatever they are; one put in another's place too."""
        if one == other:
            return
        _, findings = asyncio.run(found({**ROWS, one: ROWS[other], other: ROWS[one]}))
        assert findings, (one, other)
        _, findings = asyncio.run(found({**ROWS, one: ROWS[other]}))
        assert findings, (one, other)

    @pytest.mark.parametrize("key", KEYS[:: max(1, len(KEYS) // 20)])
    async def test_insertion(self, key: Key) -> None:
        """A row written a second time at the end, or between two, is found."""
        for sort in ("000000000103", "000000000050x", "~"):
            _, findings = await found({**ROWS, (key[0], sort): ROWS[key]})
            assert findings, sort

    @pytest.mark.parametrize("key", KEYS[:: max(1, len(KEYS) // 20)])
    async def test_moved(self, key: Key) -> None:
        """A row that stands elsewhere is found, even where the order stays the same."""
        rest = {other: row for other, row in ROWS.items() if other != key}
        _, findings = await found({**rest, (key[0], key[1] + "!"): ROWS[key]})
        assert findings

    @pytest.mark.parametrize("writer", ["one", "many", ANCHORS])
    async def test_record_as_head(self, writer: str) -> None:
        """A record in the place of its chain's head is found, though it was sealed with the same key."""
        record = max(key for key in KEYS if key[0] == f"audit:{writer}")
        _, findings = await found({**ROWS, ("audit-head", writer): ROWS[record]})
        assert findings

    async def test_copied_chain(self) -> None:
        """A whole chain under another name is found: what it tells was not done twice."""
        copies = {(key[0].replace("some", "copy"), key[1].replace("some", "copy")): key for key in KEYS}
        _, findings = await found({**{copy: ROWS[key] for copy, key in copies.items()}, **ROWS})
        assert {finding.chain for finding in findings} == {"copy"}

    @pytest.mark.parametrize("number", [1, 2, 3])
    async def test_from_another_store(self, number: int) -> None:
        """Records sealed with the same key for such a writer elsewhere do not fit, one or all of them."""

        async def store(actor: str) -> Rows:
            table = await Kept.of({})
            writer = audit(table)
            for _ in range(3):
                await writer.write(DEED._replace(actor=actor))
            rows = await rows_of(table)
            await table.close()
            return rows

        ours, theirs = await store("ann"), await store("bob")
        key = ("audit:w1", f"{number:012d}")
        _, findings = await found({**ours, key: theirs[key]})
        assert findings
        anchors = {key: row for key, row in ours.items() if ANCHORS in key[0] + key[1]}
        _, findings = await found({**theirs, **anchors})
        assert findings

    async def test_old_head(self) -> None:
        """A head put back to an earlier one does not hide records, nor a truncation past an anchor."""
        table = await Kept.of({})
        writer = audit(table)
        await writer.write(DEED)
        early = copy.deepcopy(await rows_of(table))
        for _ in range(ANCHOR_EVERY):
            await writer.write(DEED)
        rows = await rows_of(table)
        await table.close()
        head = ("audit-head", "w1")
        _, findings = await found({**rows, head: early[head]})
        assert [finding.what for finding in findings] == ["the head does not know the record"]
        cut = {key: row for key, row in rows.items() if key[0] != "audit:w1" or key in early}
        _, findings = await found({**cut, head: early[head]})
        assert findings[0] == Finding("w1", ANCHOR_EVERY, "the record is gone")
        assert len(findings) == 1 + ANCHOR_EVERY  # and the index names each of those that were cut off

    async def test_forged_record(self) -> None:
        """A whole chain made up with another key, head and all, is found."""
        table = await Kept.of({})
        await audit(table, "one", key=b"the forger's own key").write(DEED)
        forged = await rows_of(table)
        await table.close()
        _, findings = await found({**ROWS, **{key: row for key, row in forged.items() if "one" in str(key)}})
        assert findings

    @pytest.mark.parametrize(
        "key", [KEYS[0], ("audit:one", "000000000001"), ("audit:anchors", "000000000001")]
    )
    @pytest.mark.parametrize("raw", [b"not json", b"[]", b"7", b"null", b'"\xff"', b"", b"{}", b'{"code":7}'])
    async def test_unreadable(self, tmp_path: Path, clock: FakeClock, key: Key, raw: bytes) -> None:
        """A row that is no document any more is a finding and stops nothing."""
        table = SqliteTable(tmp_path / "raw.db", clock)
        for writer in (audit(table, "one"), audit(table, "many")):
            for _ in range(3):
                await writer.write(DEED)
        await table.close()
        with closing(sqlite3.connect(tmp_path / "raw.db")) as database, database:
            changes = database.execute(
                "UPDATE item SET document = ? WHERE partition = ? AND sort = ?", (raw, *key)
            )
            assert changes.rowcount == 1
        table = SqliteTable(tmp_path / "raw.db", clock)
        _, findings = await verify(table, KEY)
        assert findings
        await table.close()

    async def test_says_where(self) -> None:
        """A finding names the chain, the number and what is wrong there."""
        key = ("audit:many", "000000000007")
        _, findings = await found({**ROWS, key: {**ROWS[key], "actor": "bob"}})
        assert findings == [Finding("many", 7, "the record was changed")]
        _, findings = await found({other: row for other, row in ROWS.items() if other != key})
        assert findings == [
            Finding("many", 8, "a record before it is missing or out of place"),
            Finding("many", 0, f"the index names {AT}-many-000000000007, which is not there"),
        ]


class TestIndex:
    """The one list of the records of all chains."""

    async def test_order(self, sqlite: SqliteTable, clock: FakeClock) -> None:
        """Records of all writers are listed in the order they were written, a page at a time."""
        writers = [Audit(sqlite, key=KEY, clock=clock, writer=f"w{n}", redactor=Redactor()) for n in range(3)]
        for number in range(50):
            clock.forward(1)
            await writers[number % 3].write(DEED._replace(target=str(number)))
        listed, after = [], None
        while True:
            page, after = await records(sqlite, after=after, limit=7)
            listed += page
            if after is None:
                break
        assert [record["target"] for record in listed] == [str(number) for number in range(50)]
        assert listed[0]["id"] < listed[-1]["id"]

    @pytest.mark.parametrize("key", [key for key in ROWS if key[0] == "audit-index"][::25])
    async def test_entry_gone(self, key: Key) -> None:
        """A record that the list no longer shows is found."""
        _, findings = await found({other: row for other, row in ROWS.items() if other != key})
        assert [finding.what for finding in findings] == ["the index does not name the record"]

    @pytest.mark.parametrize("sort", ["x", f"{AT}-many-000000000999", f"{AT}-nobody-000000000001"])
    async def test_entry_made_up(self, sort: str) -> None:
        """An entry that names no record is found."""
        _, findings = await found({**ROWS, ("audit-index", sort): {}})
        assert len(findings) == 1
        assert sort in findings[0].what

    async def test_listed_meanwhile(self, sqlite: SqliteTable, clock: FakeClock) -> None:
        """A record that is written while the chains are walked is no finding."""
        writer = audit(sqlite)
        await writer.write(DEED)

        class Busy(Failing):
            async def get(self, key: Key) -> Item | None:
                if key[0] == "audit-head":
                    await writer.write(DEED)
                return await super().get(key)

        assert (await verify(Busy(sqlite), KEY))[1] == []


class TestWriting:
    """What happens while records are written."""

    async def test_writers_at_once(self, shared: Table) -> None:
        """Six processes that write at once leave six whole chains."""
        writers = [audit(shared, f"w{number}") for number in range(6)]

        async def work(writer: Audit) -> None:
            for number in range(4):
                await writer.write(DEED._replace(target=str(number)))
            await writer.close()

        await asyncio.gather(*map(work, writers))
        assert await verify(shared, KEY) == (24, [])

    async def test_one_writer_at_once(self, sqlite: SqliteTable) -> None:
        """A hundred and fifty writes of one process at once are one chain."""
        writer = audit(sqlite)
        await asyncio.gather(*(writer.write(DEED) for _ in range(150)))
        assert await verify(sqlite, KEY) == (150, [])

    async def test_verified_while_written(self, sqlite: SqliteTable) -> None:
        """Walking the chains while others write to them finds nothing wrong."""
        store = Failing(sqlite)
        writers = [audit(sqlite, f"w{number}") for number in range(3)]
        await writers[0].write(DEED)

        async def more() -> None:
            for writer in writers:
                for _ in range(ANCHOR_EVERY // 20):
                    await writer.write(DEED)

        for verb in ("range", "get"):
            for nth in range(1, 5):
                store.at(verb, nth, before=more, after=more)
        for _ in range(5):
            _, findings = await verify(store, KEY)
            assert findings == []

    async def test_close_anchors(self, sqlite: SqliteTable) -> None:
        """What is written before a process ends is anchored, once."""
        writer = audit(sqlite)
        await writer.close()
        for _ in range(3):
            await writer.write(DEED)
        await writer.close()
        await writer.close()
        rows = await rows_of(sqlite)
        anchors = [row for key, row in sorted(rows.items()) if key[0] == f"audit:{ANCHORS}"]
        assert [(row["chain"], row["length"]) for row in anchors] == [("w1", 1), ("w1", 3)]
        assert await verify(sqlite, KEY) == (3, [])

    async def test_restart(self, sqlite: SqliteTable) -> None:
        """A process that starts again is a new writer, beside the chain it left without closing."""
        for writer in ("w1", "w2", "w3"):
            one = audit(sqlite, writer)
            for _ in range(3):
                await one.write(DEED)
        assert await verify(sqlite, KEY) == (9, [])

    async def test_same_writer_twice(self, sqlite: SqliteTable) -> None:
        """Two processes with one name cannot fork a chain: the second is refused, the first goes on."""
        first, second = audit(sqlite), audit(sqlite)
        await first.write(DEED)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await second.write(DEED)
        await first.write(DEED)
        assert await verify(sqlite, KEY) == (2, [])

    async def test_a_changed_head_stops_the_writer(self, sqlite: SqliteTable) -> None:
        """A process whose head somebody removed writes no more, rather than mend what should be found."""
        writer = audit(sqlite)
        for _ in range(2):
            await writer.write(DEED)
        await sqlite.delete(("audit-head", "w1"))
        with pytest.raises(StoreUnavailable):
            await writer.write(DEED)
        _, findings = await verify(sqlite, KEY)
        assert [finding.what for finding in findings] == ["the head is gone"]

    @pytest.mark.parametrize("key", [b"", b"short"])
    async def test_weak_key(self, sqlite: SqliteTable, key: bytes) -> None:
        """A key that could be guessed is refused at the start."""
        with pytest.raises(ValueError, match="at least 16 bytes"):
            audit(sqlite, key=key)

    async def test_reserved_writer(self, sqlite: SqliteTable) -> None:
        """No process writes into the chain of the anchors."""
        with pytest.raises(ValueError, match="anchors"):
            audit(sqlite, ANCHORS)

    async def test_secrets(self, sqlite: SqliteTable) -> None:
        """Neither known secrets nor what looks like one gets into a record, and the chain still holds."""
        writer = audit(sqlite, known=("hunter2hunter2",))
        event = Deed(
            "ann sk-abcdefgh1234", "x", "https://u:p4ss@host/", {"a": ["hunter2hunter2"], "whsec_12345678": 1}
        )
        await writer.write(event)
        text = str(await rows_of(sqlite))
        assert not any(secret in text for secret in ("sk-abc", "p4ss", "hunter2", "whsec_1234"))
        assert await verify(sqlite, KEY) == (1, [])

    async def test_never_too_large(self, sqlite: SqliteTable) -> None:
        """What was done is kept however much it says: a large detail by its hash, a word by its start."""
        await audit(sqlite).write(
            Deed("a" * 10**5, "b" * 10**5, "c" * 10**5, {"body": "d" * 10**5}, "e" * 10**5)
        )
        item = await sqlite.get(("audit:w1", "000000000001"))
        assert item is not None
        assert item.document["detail"].keys() == {"omitted_bytes", "sha256"}
        assert item.document["detail"]["omitted_bytes"] == 10**5 + len('{"body":""}')
        assert len(str(item.document)) < MAX_DETAIL
        assert await verify(sqlite, KEY) == (1, [])


class TestStoreFails:
    """A store that fails, before a write or with its answer lost."""

    @pytest.mark.parametrize("number", [1, 2, ANCHOR_EVERY])
    @pytest.mark.parametrize("lost", [False, True])
    @pytest.mark.parametrize("verb", ["transact", "get"])
    async def test_once(self, sqlite: SqliteTable, number: int, lost: bool, verb: str) -> None:
        """One failure at any record, anchored or not, is told and leaves a chain that goes on."""
        store = Failing(sqlite)
        writer = audit(store)
        for _ in range(number - 1):
            await writer.write(DEED)
        store.at(verb, before=None if lost else fail, after=fail if lost else None)
        reads_nothing = verb == "get" and number == 2
        if reads_nothing:
            await writer.write(DEED)
        else:
            with pytest.raises(StoreUnavailable):
                await writer.write(DEED)
        written = number - 1 + (reads_nothing or (lost and verb == "transact"))
        assert await verify(sqlite, KEY) == (written, [])
        for _ in range(3):
            await writer.write(DEED)
        await writer.close()
        assert await verify(sqlite, KEY) == (written + 3, [])

    async def test_again_and_again(self, sqlite: SqliteTable) -> None:
        """Through a mixture of failures the chain neither forks nor ends, and no record told is missing."""
        store = Failing(sqlite)
        writer = audit(store)
        told = 0
        for number in range(90):
            match number % 6:
                case 0:
                    store.at("transact", before=fail)
                case 1 | 2:
                    store.at("transact", after=fail)
                case 3:
                    store.at("get", before=fail)
                case _:
                    pass
            try:
                await writer.write(DEED._replace(detail={"number": number}))
                told += 1
            except StoreUnavailable:
                continue
        await writer.close()
        count, findings = await verify(sqlite, KEY)
        assert findings == []
        assert told <= count <= 90
        assert told >= 20

    async def test_cancelled(self, sqlite: SqliteTable) -> None:
        """A write whose caller gave up may have been done: the next one finds out."""
        store = Failing(sqlite)
        writer = audit(store)
        await writer.write(DEED)

        async def give_up() -> None:
            raise asyncio.CancelledError

        store.at("transact", after=give_up)
        with pytest.raises(asyncio.CancelledError):
            await writer.write(DEED)
        await writer.write(DEED)
        assert await verify(sqlite, KEY) == (3, [])

    async def test_late(self, sqlite: SqliteTable) -> None:
        """A write given up for lost that lands in the middle of the next takes its place, once."""
        store = Failing(sqlite)
        writer = audit(store)
        await writer.write(DEED)
        held: list[Any] = []

        class Holding(Failing):
            """A store that holds the next write back."""

            async def transact(self, writes: Any) -> list[int]:
                if not held:
                    held.append(writes)
                    raise StoreUnavailable("no answer in time")
                if len(held) == 1:
                    held.append(None)
                    await self.inner.transact(held[0])
                return await super().transact(writes)

        writer._table = Holding(sqlite)
        with pytest.raises(StoreUnavailable):
            await writer.write(DEED)
        await writer.write(DEED)
        assert await verify(sqlite, KEY) == (3, [])

    @pytest.mark.parametrize("error", [fail, None])
    async def test_close(self, sqlite: SqliteTable, error: Any) -> None:
        """A store that is down when a process ends does not stop it from ending, and nothing is lost."""
        store = Failing(sqlite)
        writer = audit(store)
        for _ in range(2):
            await writer.write(DEED)

        async def stale() -> None:
            raise Stale

        store.at("transact", before=error or stale)
        await writer.close()
        assert await verify(sqlite, KEY) == (2, [])

    async def test_down_for_long(self, sqlite: SqliteTable) -> None:
        """While the store is down every write says so; afterwards the chain goes on where it was."""
        store = Failing(sqlite)
        writer = audit(store)
        await writer.write(DEED)
        for nth in range(1, 60):
            store.at("transact", nth, before=fail)
        failures = 0
        for _ in range(59):
            try:
                await writer.write(DEED)
            except AutopilotError:
                failures += 1
        assert failures == 59
        await writer.write(DEED)
        assert await verify(sqlite, KEY) == (2, [])
        assert not writer._doubtful
