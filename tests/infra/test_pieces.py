"""Bytes longer than one document."""

from __future__ import annotations

import random

import pytest

from infra.pieces import PIECE, joined, pieces, written
from infra.table.sqlite import SqliteTable
from tests.fakes import FakeClock


@pytest.mark.parametrize("size", [0, 1, 1000, PIECE, 5 << 20])
@pytest.mark.parametrize("kind", ["noise", "text"])
async def test_what_was_kept_comes_back(table: SqliteTable, clock: FakeClock, size: int, kind: str) -> None:
    """Byte for byte, whether or not it can be packed, in rows that the store takes."""
    data = random.Random(size).randbytes(size) if kind == "noise" else b'{"a": 1}' * (size // 8)
    puts = pieces("p", "a", data, clock() + 10)
    assert len(puts) == 1 or size == 5 << 20 or kind == "noise"
    await table.transact(await written(table, puts))
    assert await joined(table, "p", "a", len(puts)) == data


async def test_names_are_apart(table: SqliteTable, clock: FakeClock) -> None:
    """Neither a name before, nor one after, nor one that starts the same gets into another's bytes."""
    for name, text in (("a", b"1"), ("a-2", b"2"), ("a0", b"3"), ("b", b"4")):
        await table.transact(pieces("p", name, text, clock() + 10))
    assert await joined(table, "p", "a", 1) == b"1"
    assert await joined(table, "p", "a", 2) is None
    assert await joined(table, "p", "c", 1) is None


async def test_what_is_not_whole_is_nothing(table: SqliteTable, clock: FakeClock) -> None:
    """A piece that is gone, or is not what was written, makes all of it nothing."""
    noise = random.Random(1).randbytes(600_000)
    puts = pieces("p", "a", noise, clock() + 10)
    await table.transact(await written(table, puts))
    await table.put(puts[1].key, {"part": "x" * 100})
    assert await joined(table, "p", "a", len(puts)) is None
    await table.put(puts[1].key, {"part": "\\u00e9"})
    assert await joined(table, "p", "a", len(puts)) is None
    await table.delete(puts[1].key)
    assert await joined(table, "p", "a", len(puts)) is None


async def test_what_was_left_of_an_earlier_try_is_no_hindrance(table: SqliteTable, clock: FakeClock) -> None:
    """Whoever got as far as some of the pieces may have died then; the next one has other bytes."""
    for seed, done in ((1, False), (2, True)):
        noise = random.Random(seed).randbytes(600_000)
        puts = pieces("p", "a", noise, clock() + 10)
        writes = await written(table, puts)
        if done:
            await table.transact(writes)
    assert await joined(table, "p", "a", len(puts)) == noise


async def test_it_expires(table: SqliteTable, clock: FakeClock) -> None:
    """With whatever it belongs to."""
    await table.transact(pieces("p", "a", b"1", clock() + 10))
    clock.forward(10)
    assert await joined(table, "p", "a", 1) is None
