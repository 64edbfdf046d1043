"""Small steps that the suites of the `Table` port share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.table import Table

KEY = ("thing", "one")


async def sorts(table: Table, partition: str = "p", **how: Any) -> list[str]:
    """Return the sort keys of one page."""
    return [item.key[1] for item in (await table.range(partition, **how)).items]


async def fill(table: Table, names: Sequence[str], partition: str = "p", **how: Any) -> None:
    """Put an empty document under each name."""
    for name in names:
        await table.put((partition, name), {}, **how)
