"""Faults of every kind at random: what is wanted comes to be, once, and then nothing is written any more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from infra.ensure import Ensurer, Report
from infra.plan import Demand
from infra.provider import Provider, Want
from infra.table.sqlite import SqliteTable
from router.model import Binding, Bucket, Worker
from tests.cloudflare_fake import PAGE, CloudflareFake, Fault, refusal
from tests.fakes import FakeClock
from tests.infra.cloudflare.conftest import Rig
from tests.upstream import Received, Told

SOURCE = "export default {}"
WANTED = [
    Want("kv", "SESSIONS"),
    Want("kv", "REGISTRY"),
    Want("r2", "assets"),
    Want("r2", "private", Bucket("private", "eu")),
    Want("d1", "crm"),
    Want("queues", "mails"),
    Want("workers", "plain", Worker("plain", SOURCE)),
    Want(
        "workers",
        "edge",
        Worker(
            "edge", SOURCE, bindings={"KV": Binding(kv="SESSIONS")}, workers_dev=True, crons=("0 4 * * *",)
        ),
    ),
]
DEMANDS = [Demand(want) for want in WANTED]
TROUBLES: list[tuple[Told | None, bool]] = [
    (None, False),  # no answer, not done
    (None, True),  # no answer, done
    (PAGE, False),
    (PAGE, True),
    (Told(cut=True), True),
    (refusal(500, 10001, "internal error"), False),
    (refusal(403, 10000, "Authentication error"), False),
    (refusal(503, 10043, "unavailable", **{"retry-after": "1"}), False),
]


class Luck(Fault):
    """Trouble for one request in five."""

    def __init__(self, luck: random.Random) -> None:
        super().__init__()
        self._luck = luck

    def strikes(self, request: Received) -> bool:
        """Draw whether there is trouble, and which."""
        self.told, self.done = self._luck.choice(TROUBLES)
        return self._luck.random() < 0.2


async def passes(provider: Provider, table: SqliteTable, clock: FakeClock) -> Report:
    """Run one pass, a quarter of an hour after the one before."""
    clock.forward(900)
    return await Ensurer(provider, table, clock=clock).ensure(DEMANDS, by="test")


@pytest.mark.parametrize("seed", range(60))
async def test_it_comes_to_rest_whatever_happened(seed: int, tmp_path: Path, clock: FakeClock) -> None:
    """From any half-made state, with things that show late: at most five passes after the faults stop."""
    luck = random.Random(seed)
    fake = CloudflareFake(clock)
    rig = Rig(fake, clock)
    table = SqliteTable(tmp_path / "table.db", clock)
    for want in luck.sample(WANTED[:6], luck.randrange(4)):
        await rig.provider().create(want, {})
    fake.products.lag = luck.randrange(3)
    fake.products.route_lag = luck.randrange(3)
    fake.faults = [Luck(luck)]
    for _ in range(3):
        await passes(rig.provider(), table, clock)  # another process each time
    fake.faults = []
    taken = 1
    while any(one.action != "keep" for one in (await passes(rig.provider(), table, clock)).plan):
        taken += 1
        assert taken <= 5
    written = len(fake.writes)
    assert (await passes(rig.provider(), table, clock)).ok
    assert len(fake.writes) == written
    await table.close()
    products = fake.products
    assert sorted(one.row["title"] for one in products.kv.values()) == ["REGISTRY", "SESSIONS"]
    assert sorted(products.r2) == [("default", "assets"), ("eu", "private")]
    assert (list(products.d1), list(products.queues)) == (["crm"], ["mails"])
    assert sorted(products.scripts) == ["edge", "plain"]
    edge = products.scripts["edge"]
    assert (edge.enabled, [one["cron"] for one in edge.crons]) == (True, ["0 4 * * *"])
    [binding] = edge.metadata["bindings"]
    assert binding["namespace_id"] in products.kv
