"""Bytes longer than one document of a table, in several rows that expire with whatever they belong to.

    (PARTITION, NAME.000) (PARTITION, NAME.001) …     {"part": a piece of them, packed, in base64}

How many rows there are is for whoever wrote them to remember.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import replace

from infra.table import Put, Table, Write

PIECE = 300_000
"""Characters of base64 in one row."""


def pieces(partition: str, name: str, data: bytes, expires_at: float) -> list[Put]:
    """Return the writes that keep `data` under a name that is not in use, at least one."""
    packed = base64.b64encode(zlib.compress(data, 1)).decode("ascii")
    parts = [packed[at : at + PIECE] for at in range(0, len(packed), PIECE)]
    return [
        Put((partition, f"{name}.{number:03d}"), {"part": part}, if_revision=0, expires_at=expires_at)
        for number, part in enumerate(parts)
    ]


async def written(table: Table, puts: Sequence[Put]) -> list[Write]:
    """Write all pieces but the last, which is returned: it goes with what says how many there are.

    All together may be more than one transaction takes. What nothing tells of is as good as never written,
    and may be there from a time when whoever wrote it did not get to the end.
    """
    for put in puts[:-1]:
        await table.transact([replace(put, if_revision=None)])
    return [*puts[-1:]]


async def joined(table: Table, partition: str, name: str, count: int) -> bytes | None:
    """Return what was kept in `count` rows, None when it is not all there."""
    page = await table.range(partition, after=f"{name}.", limit=count)
    if [item.key[1] for item in page.items] != [f"{name}.{number:03d}" for number in range(count)]:
        return None
    try:
        return zlib.decompress(base64.b64decode("".join(item.document["part"] for item in page.items)))
    except (binascii.Error, zlib.error):
        return None
