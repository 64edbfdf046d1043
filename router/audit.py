"""The audit chain: who did what, in records that cannot be changed unnoticed.

    ("audit:WRITER", NUMBER)     a record; it holds the code of the one before it
    ("audit-head", WRITER)       number and code of a chain's last record, always written together with it
    ("audit:anchors", NUMBER)    an anchor: which chain had which record as its last
    ("audit-index", ID)          nothing: that there is a record, by when it was written

One chain per writing process, so writers never wait for each other. A record's code is an HMAC over its
canonical JSON, so an edit breaks it; each names its predecessor's, so a deletion or a swap breaks the chain;
the head says how long the chain is, so a truncation shows. A chain is anchored together with its first
record and now and then after that, so one that is gone as a whole shows. The anchors are a chain like the
others. The index lists the records of all chains in one order; `verify` holds it to the chains. The key
stands outside the store.

One thing no chain can show by itself: a whole store put back to what it was before. That was true once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from infra.clock import Clock, rfc3339
from infra.redact import Redactor
from infra.table import Document, Item, Key, Put, Table, Write
from router.errors import Stale, StoreUnavailable

ANCHORS = "anchors"
"""The chain of the anchors."""
ANCHOR_EVERY = 100
MAX_DETAIL = 16_384
"""Bytes of JSON a detail may have. A larger one is replaced by its hash: a record must never be too large."""
_MAX_WORD = 512
_SHORTEST_KEY = 16
_HEADS = "audit-head"
_INDEX = "audit-index"
RECORD_ID = re.compile(r"[0-9TZ:.-]{24}-([!-~]{1,200})-([0-9]{12})")
"""The name of a record in the index: when it was written, by whom, and its number."""
_AT_ONCE = 20
"""Records read at the same time while a page is listed."""
_START = "0" * 64
_TRIES = 50
"""How often a write starts over because others anchor at the same moment."""


class Deed(NamedTuple):
    """One thing that was done. `target` names what it was done to, `detail` is JSON without secrets."""

    actor: str
    action: str
    target: str
    detail: dict[str, Any]
    trace_id: str = ""


class Finding(NamedTuple):
    """Something that is not as it was written."""

    chain: str
    number: int
    what: str


class Audit:
    """Writes one chain. `writer` is unique to this process: one that starts again needs another."""

    def __init__(self, table: Table, *, key: bytes, clock: Clock, writer: str, redactor: Redactor) -> None:
        if len(key) < _SHORTEST_KEY or writer == ANCHORS:
            raise ValueError(f"a key has at least {_SHORTEST_KEY} bytes, and no writer is named {ANCHORS}")
        self._table = table
        self._key = key
        self._clock = clock
        self._writer = writer
        self._redactor = redactor
        self._turn = asyncio.Lock()
        self._number = 0
        self._code = _START
        self._anchored = 0
        self._doubtful: set[str] = set()
        """Codes of what may stand in the store as the next record, though nobody told us."""

    async def write(self, deed: Deed) -> None:
        """Add a record. Raises `StoreUnavailable`, after which it may be there all the same."""
        entry = self._entry(deed)
        async with self._turn:
            for attempt in range(_TRIES):
                if attempt or self._doubtful:
                    await self._settle()
                record = _following(self._key, self._writer, self._number, self._code, entry)
                writes = _writes(self._key, record)
                if _is_anchored(record["number"]):
                    writes += await self._anchor(record["number"], record["code"])
                try:
                    await self._table.transact(writes)
                except Stale:
                    continue  # somebody anchored at the same moment, or a write we took for lost was done
                except BaseException:
                    self._doubtful.add(record["code"])
                    raise
                self._advance(record)
                return
            raise StoreUnavailable("the audit chain could not be continued")

    async def close(self) -> None:
        """Anchor what was written since the last anchor, if the store allows: the head protects it anyway."""
        async with self._turn:
            for _ in range(_TRIES):
                if self._anchored == self._number:
                    return
                try:
                    await self._table.transact(await self._anchor(self._number, self._code))
                except Stale:
                    continue
                except StoreUnavailable:
                    return
                self._anchored = self._number

    def _entry(self, deed: Deed) -> Document:
        """Return what a deed adds to a record, exactly as the store will give it back."""
        words = deed._asdict()
        detail = msgspec.json.encode(self._redactor.value(words.pop("detail")))
        if len(detail) > MAX_DETAIL:
            detail = msgspec.json.encode(
                {"omitted_bytes": len(detail), "sha256": hashlib.sha256(detail).hexdigest()}
            )
        return {
            "at": rfc3339(self._clock()),
            "detail": msgspec.json.decode(detail),
            **{name: self._redactor.text(word)[:_MAX_WORD] for name, word in words.items()},
        }

    async def _settle(self) -> None:
        """Find out whether a write we were not told of was done. Raises `StoreUnavailable`."""
        item = await self._table.get(_record_key(self._writer, self._number + 1))
        if item is None:
            return
        if item.document.get("code") not in self._doubtful:
            raise StoreUnavailable("somebody else writes the audit chain of this process")
        self._advance(item.document)

    def _advance(self, record: Document) -> None:
        self._number, self._code = record["number"], record["code"]
        if _is_anchored(self._number):
            self._anchored = self._number
        self._doubtful.clear()

    async def _anchor(self, number: int, code: str) -> list[Write]:
        """Return the writes that anchor a record of this chain."""
        head = await self._table.get((_HEADS, ANCHORS))
        last: Document = head.document if head else {"number": 0, "last": _START}
        entry = {"at": rfc3339(self._clock()), "chain": self._writer, "length": number, "last": code}
        return _writes(self._key, _following(self._key, ANCHORS, last["number"], last["last"], entry))


def seal(key: bytes, document: Document) -> str:
    """Return the code of a document: an HMAC-SHA256 over its canonical JSON, in hexadecimal digits."""
    return hmac.digest(key, msgspec.json.encode(document, order="sorted"), "sha256").hex()


def _following(key: bytes, writer: str, number: int, code: str, entry: Document) -> Document:
    """Return the record that follows the record `number` with the code `code`."""
    record = {"writer": writer, "number": number + 1, "previous": code, **entry}
    return {**record, "code": seal(key, record)}


def _writes(key: bytes, record: Document) -> list[Write]:
    """Return the writes that put a record at the end of its chain, and nowhere else."""
    writer, number = record["writer"], record["number"]
    head = {"writer": writer, "number": number, "last": record["code"]}
    listed = [] if writer == ANCHORS else [Put((_INDEX, _id_of(record)), {})]
    return [
        Put(_record_key(writer, number), record, if_revision=0),
        Put((_HEADS, writer), {**head, "code": seal(key, head)}, if_revision=number - 1),
        *listed,
    ]


def _is_anchored(number: int) -> bool:
    return number == 1 or number % ANCHOR_EVERY == 0


def _record_key(writer: str, number: int) -> Key:
    return f"audit:{writer}", f"{number:012d}"


def _id_of(record: Document) -> str:
    """Return the name of a record in the index: ids are in the order of time."""
    return f"{record['at']}-{record['writer']}-{record['number']:012d}"


async def records(table: Table, *, after: str | None, limit: int) -> tuple[list[Document], str | None]:
    """Return some records of all chains, oldest first, each with its `id`, and a cursor.

    They are shown as they stand: whether they are as they were written says `verify`.
    """
    page = await table.range(_INDEX, after=after, limit=limit)
    found: list[Document] = []
    for at in range(0, len(page.items), _AT_ONCE):
        ids = [item.key[1] for item in page.items[at : at + _AT_ONCE]]
        items = await asyncio.gather(*(table.get(_key_of(one)) for one in ids))
        found += [{"id": one, **item.document} for one, item in zip(ids, items, strict=True) if item]
    return found, page.after


def is_id(text: str) -> bool:
    """Whether a text may be the id of a record."""
    return RECORD_ID.fullmatch(text) is not None


def _key_of(record_id: str) -> Key:
    """Return where a record of the index stands; for an id we never gave, a place where nothing stands."""
    match = RECORD_ID.fullmatch(record_id)
    return (f"audit:{match[1]}", match[2]) if match else ("audit:", record_id)


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)

Marks = dict[int, set[str]]
"""Numbers of records of a chain, and the codes they must have."""


@dataclass
class _Walk:
    """A chain from its start: how many records there are, the last one's number, and what is wrong."""

    count: int = 0
    number: int = 0
    previous: str = _START
    findings: list[Finding] = field(default_factory=list)
    anchors: list[Document] = field(default_factory=list)
    listed: dict[str, int] = field(default_factory=dict)
    """What the index has to name, and the number it stands for."""


async def verify(table: Table, key: bytes, witnesses: Sequence[str] = ()) -> tuple[int, list[Finding]]:
    """Walk every chain. Return how many records there are and everything that is wrong.

    Others may go on writing meanwhile: what a chain is held to is read before the chain is. `witnesses` are
    partitions where nothing stands that was not audited: they tell of an audit that is gone as a whole.
    """
    listed = await _names(table, _INDEX)
    heads = await _names(table, _HEADS) - {ANCHORS}
    anchors = await _verify_chain(table, key, ANCHORS, {})
    marks: dict[str, Marks] = {}
    for anchor in anchors.anchors:
        marks.setdefault(anchor["chain"], {}).setdefault(anchor["length"], set()).add(anchor["last"])
    findings: list[Finding | None] = [
        Finding(writer, 0, "no anchor names the chain") for writer in sorted(heads - marks.keys())
    ]
    findings += anchors.findings
    count = 0
    for writer in sorted(heads | marks.keys()):
        walk = await _verify_chain(table, key, writer, marks.get(writer, {}))
        findings += walk.findings
        count += walk.count
        findings += await _unlisted(table, walk, listed)
        listed -= walk.listed.keys()
    findings += [await _gone(table, one) for one in sorted(listed)]
    if not count:
        for witness in witnesses:
            if (await table.range(witness, limit=1)).items:
                findings.append(Finding(witness, 0, "there is no record of what stands here"))
    return count, [finding for finding in findings if finding]


async def _unlisted(table: Table, walk: _Walk, listed: set[str]) -> list[Finding | None]:
    """Return the records of a chain that the index does not name, neither as it was read nor now."""
    return [
        Finding(_key_of(one)[0].removeprefix("audit:"), number, "the index does not name the record")
        for one, number in walk.listed.items()
        if one not in listed and await _absent(table, (_INDEX, one))
    ]


async def _gone(table: Table, record_id: str) -> Finding | None:
    """Return that an entry of the index names no record. One that was changed is told of elsewhere."""
    partition, number = _key_of(record_id)
    if not await _absent(table, (partition, number)):
        return None
    return Finding(partition.removeprefix("audit:"), 0, f"the index names {record_id}, which is not there")


async def _absent(table: Table, key: Key) -> bool:
    try:
        return await table.get(key) is None
    except _UNREADABLE:
        return False


async def _verify_chain(table: Table, key: bytes, writer: str, anchored: Marks) -> _Walk:
    """Walk one chain that was anchored as given."""
    head = await _head(table, writer)
    whole = head is not None and _holds(key, head) and head["writer"] == writer and "last" in head
    marks = {number: set(codes) for number, codes in anchored.items()}
    if head is not None and whole:
        marks.setdefault(head["number"], set()).add(head["last"])
    walk = _Walk()
    try:
        async for item in _all(table, f"audit:{writer}"):
            _step(walk, key, writer, item, marks)
    except _UNREADABLE:
        walk.findings.append(Finding(writer, walk.number + 1, "the record cannot be read, nor what follows"))
    walk.findings += [Finding(writer, number, "the record is gone") for number in sorted(marks)]
    if head is None:
        if walk.count or anchored:
            walk.findings.append(Finding(writer, 0, "the head is gone"))
    elif not whole:
        walk.findings.append(Finding(writer, 0, "the head was changed"))
    elif walk.number > head["number"]:
        head = await _head(table, writer)  # more was written while we walked, or the head was put back
        if head is None or not _holds(key, head) or head["number"] < walk.number:
            walk.findings.append(Finding(writer, walk.number, "the head does not know the record"))
    return walk


def _step(walk: _Walk, key: bytes, writer: str, item: Item, marks: Marks) -> None:
    """Check the next record of a chain, and whether it is the one that some head or anchor named."""
    record: Any = item.document
    walk.count += 1
    if (
        not _holds(key, record)
        or record["writer"] != writer
        or item.key != _record_key(writer, record["number"])
    ):
        walk.number += 1
        walk.findings.append(Finding(writer, walk.number, "the record was changed"))
    else:
        if record.get("previous") != walk.previous:
            what = "a record before it is missing or out of place"
            walk.findings.append(Finding(writer, record["number"], what))
        walk.number = record["number"]
        if writer == ANCHORS:
            walk.anchors.append(record)
        else:
            walk.listed[_id_of(record)] = walk.number
    walk.previous = _code(record)
    if marks.pop(walk.number, {walk.previous}) != {walk.previous}:
        walk.findings.append(Finding(writer, walk.number, "the record is not the one that was anchored"))


def _holds(key: bytes, document: Any) -> bool:
    """Whether a document is as it was sealed; then it has all that documents of its kind have."""
    if not isinstance(document, dict):
        return False
    rest = {name: value for name, value in document.items() if name != "code"}
    return hmac.compare_digest(seal(key, rest).encode(), _code(document).encode())


def _code(document: Any) -> str:
    return str(document.get("code")) if isinstance(document, dict) else ""


async def _head(table: Table, writer: str) -> Document | None:
    try:
        item = await table.get((_HEADS, writer))
    except _UNREADABLE:
        return {}
    return item.document if item else None


async def _names(table: Table, partition: str) -> set[str]:
    """Return what stands in a partition. After a row that cannot be read others have to name the rest."""
    names = set()
    try:
        async for item in _all(table, partition):
            names.add(item.key[1])
    except _UNREADABLE:
        pass
    return names


async def _all(table: Table, partition: str) -> AsyncIterator[Item]:
    after: str | None = None
    while True:
        page = await table.range(partition, after=after, limit=200)
        for item in page.items:
            yield item
        after = page.after
        if after is None:
            return
