"""The payout autopilot through its own app: onboarding, commissions, batches, transfers, statements."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from autopilots.kit import Parts
from autopilots.payout_batch import pilot
from autopilots.payout_batch.report import BUCKET
from infra.table.sqlite import SqliteTable
from tests.fakes import FakeClock, parts_for

NAMES = {
    "commission": "commissions.calculate",
    "batch": "payouts.batch.run",
    "transfer": "payouts.transfer.single",
    "onboard": "payouts.affiliate.onboard",
    "statement": "payouts.statement.read",
}


class Desk:
    """The autopilot as its callers see it."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._app = pilot.app(parts)

    async def ask(self, method: str, url: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk.test") as client:
            return await client.request(method, url, **more)

    async def do(self, what: str, meta: dict[str, Any], key: str = "") -> httpx.Response:
        body = {"task": what, "capability": NAMES[what], "meta": meta}
        return await self.ask("POST", "/tasks", json=body, headers={"idempotency-key": key} if key else {})

    async def done(self, what: str, meta: dict[str, Any], key: str = "") -> dict[str, Any]:
        reply = await self.do(what, meta, key)
        assert reply.status_code == 200, reply.text
        result: dict[str, Any] = reply.json()
        return result

    async def onboard(self, affiliate: str, **more: Any) -> dict[str, Any]:
        """Onboard with a bank account."""
        method = {"type": "bank_account", "last4": "6789"}
        meta = {"affiliate_id": affiliate, "email": "a@b.test", "name": "A", "payout_method": method}
        return await self.done("onboard", {**meta, **more})

    async def sell(self, affiliate: str, sale: str, amount: int, **more: Any) -> dict[str, Any]:
        """Record a sale in dollars at ten percent."""
        meta = {"affiliate_id": affiliate, "sale_id": sale, "amount": amount, "currency": "usd"}
        return await self.done("commission", {**meta, "rate_bps": 1_000, **more})

    async def balance(self, affiliate: str, currency: str = "usd") -> dict[str, int]:
        """Give the balance in one currency."""
        statement = await self.done("statement", {"affiliate_id": affiliate, "currency": currency})
        [balance] = statement["balances"]
        assert balance.pop("currency") == currency
        return dict(balance)

    async def statuses(self, affiliate: str) -> dict[str, str]:
        """Give the status of each commission by sale."""
        statement = await self.done("statement", {"affiliate_id": affiliate, "limit": 1_000})
        return {one["sale_id"]: one["status"] for one in statement["commissions"]}


@pytest.fixture
def desk(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> Desk:
    """Give the autopilot over a real table and folder."""
    return Desk(parts_for(table, clock, tmp_path / "blobs"))


# Onboarding


async def test_onboarding_makes_a_record_with_defaults(desk: Desk) -> None:
    """A new affiliate is onboarded with a rate of ten percent and the standard advance limit."""
    result = await desk.onboard("aff_1")
    assert (result["onboarded"], result["created"], result["changed"]) == (True, True, False)
    assert (result["rate_bps"], result["advance_limit"]) == (1_000, 50_000)
    assert result["onboarded_at"] == "2026-01-01T00:00:00.000Z"
    assert result["payout_method"] == {"type": "bank_account", "last4": "6789"}


async def test_onboarding_again_changes_only_what_is_given(desk: Desk, clock: FakeClock) -> None:
    """A repeat keeps rate, limit and date; a changed name is a change, the same again is none."""
    await desk.onboard("aff_1", rate_bps=250, advance_limit=7)
    clock.forward(60)
    changed = await desk.onboard("aff_1", name="B")
    assert (changed["created"], changed["changed"], changed["name"]) == (False, True, "B")
    assert (changed["rate_bps"], changed["advance_limit"]) == (250, 7)
    assert changed["onboarded_at"] == "2026-01-01T00:00:00.000Z"
    assert (await desk.onboard("aff_1", name="B"))["changed"] is False


async def test_simultaneous_onboarding_makes_one_record(desk: Desk) -> None:
    """Of simultaneous onboardings exactly one creates."""
    results = await asyncio.gather(*(desk.onboard("aff_1") for _ in range(5)))
    assert sum(result["created"] for result in results) == 1


async def test_a_masked_iban_is_a_payout_method(desk: Desk) -> None:
    """An IBAN is taken when its middle is masked."""
    method = {"type": "iban", "iban_masked": "DE89************3000"}
    assert (await desk.onboard("aff_1", payout_method=method))["payout_method"] == method


# Commissions


async def test_a_commission_is_a_share_of_the_sale(desk: Desk) -> None:
    """A sale of 19.99 at ten percent earns 2.00, approved at once."""
    result = await desk.sell("aff_1", "sale-1", 1_999)
    assert (result["amount"], result["currency"], result["status"]) == (200, "usd", "approved")
    assert (result["created"], result["sale_amount"], result["rate_bps"]) == (True, 1_999, 1_000)


async def test_a_sale_earns_once(desk: Desk) -> None:
    """The same sale again gives the same commission and posts nothing."""
    first = await desk.sell("aff_1", "sale-1", 1_000)
    again = await desk.sell("aff_1", "sale-1", 1_000)
    assert again == {**first, "created": False}
    assert (await desk.balance("aff_1"))["earned"] == 100


async def test_simultaneous_reports_of_a_sale_earn_once(desk: Desk) -> None:
    """Ten simultaneous reports of one sale post one commission."""
    results = await asyncio.gather(*(desk.sell("aff_1", "sale-1", 1_000) for _ in range(10)))
    assert sum(result["created"] for result in results) == 1
    assert (await desk.balance("aff_1"))["earned"] == 100


@pytest.mark.parametrize("other", [{"amount": 1_001}, {"currency": "eur"}, {"rate_bps": 999}])
async def test_a_sale_with_other_figures_is_a_conflict(desk: Desk, other: dict[str, Any]) -> None:
    """Another amount, currency or rate for a known sale is refused and names the commission."""
    first = await desk.sell("aff_1", "sale-1", 1_000)
    meta = {"affiliate_id": "aff_1", "sale_id": "sale-1", "amount": 1_000, "currency": "usd", **other}
    reply = await desk.do("commission", meta)
    assert reply.status_code == 409
    assert reply.json()["commission_id"] == first["commission_id"]


async def test_the_rate_comes_from_the_affiliate(desk: Desk) -> None:
    """Without a rate in the call the affiliate's is used, and later changes don't alter what was earned."""
    await desk.onboard("aff_1", rate_bps=2_500)
    assert (await desk.sell("aff_1", "s", 1_000, rate_bps=None))["amount"] == 250
    await desk.onboard("aff_1", rate_bps=100)
    assert (await desk.sell("aff_1", "s", 1_000, rate_bps=None))["amount"] == 250


async def test_a_rate_must_come_from_somewhere(desk: Desk) -> None:
    """For an unknown affiliate a call without a rate is refused and names the field."""
    meta = {"affiliate_id": "aff_1", "sale_id": "s", "amount": 10, "currency": "usd"}
    reply = await desk.do("commission", meta)
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["errors"]] == ["meta.rate_bps"]


async def test_a_pending_commission_is_not_due_until_approved(desk: Desk) -> None:
    """Pending is neither posted nor paid; the same call with approved makes it due."""
    await desk.onboard("aff_1")
    pending = await desk.sell("aff_1", "s", 1_000, status="pending")
    assert (pending["status"], pending["approved_at"]) == ("pending", "")
    assert (await desk.done("batch", {}))["status"] == "empty"
    approved = await desk.sell("aff_1", "s", 1_000)
    assert (approved["status"], approved["created"]) == ("approved", False)
    assert approved["commission_id"] == pending["commission_id"]
    assert (await desk.sell("aff_1", "s", 1_000, status="pending"))["status"] == "approved"
    assert (await desk.done("batch", {}))["commission_count"] == 1


# Batches


@pytest.mark.parametrize("meta", [{}, {"cutoff_date": "2026-01-01"}, {"cutoff_date": "2025-12-31T10:00:00Z"}])
async def test_an_empty_batch_says_nothing_to_pay(desk: Desk, meta: dict[str, Any]) -> None:
    """The minimal metas work without any commission, and the outcome is its own."""
    result = await desk.done("batch", meta)
    assert (result["status"], result["outcome"]) == ("empty", "nothing to pay")
    assert (result["payout_count"], result["totals"], result["refused"]) == (0, [], [])


async def test_a_batch_pays_what_is_due_and_says_how(desk: Desk, clock: FakeClock) -> None:
    """A batch pays per affiliate and currency, in the ledger, and states its totals."""
    for affiliate in ("aff_1", "aff_2"):
        await desk.onboard(affiliate)
        for n in range(3):
            await desk.sell(affiliate, f"s{n}", 10_000)
    clock.forward(3_600)
    result = await desk.done("batch", {"batch_id": "january"})
    assert result["batch_id"] == "january"
    assert result["status"] == "paid"
    assert result["outcome"] == "6 commissions paid in 2 payouts"
    assert result["totals"] == [{"currency": "usd", "amount": 6_000, "transferred": 6_000, "recovered": 0}]
    assert (result["payout_count"], result["commission_count"]) == (2, 6)
    assert result["provider"] == "ledger"
    assert "no bank" in result["settlement"]
    assert result["cutoff_date"] == result["finished_at"] == "2026-01-01T01:00:00.000Z"
    assert await desk.balance("aff_1") == {"earned": 3_000, "transferred": 3_000, "owed": 0, "paid_ahead": 0}
    assert set((await desk.statuses("aff_2")).values()) == {"paid"}


async def test_currencies_are_not_mixed(desk: Desk) -> None:
    """One affiliate's dollars and euros are two payouts, and a batch of one currency leaves the other."""
    await desk.onboard("aff_1")
    await desk.sell("aff_1", "a", 1_000)
    await desk.sell("aff_1", "b", 3_000, currency="EUR")
    only = await desk.done("batch", {"currency": "eur"})
    assert [(total["currency"], total["amount"]) for total in only["totals"]] == [("eur", 300)]
    assert await desk.statuses("aff_1") == {"a": "approved", "b": "paid"}
    await desk.sell("aff_1", "c", 5_000, currency="eur")
    both = await desk.done("batch", {})
    assert both["payout_count"] == 2
    assert [(total["currency"], total["amount"]) for total in both["totals"]] == [("eur", 500), ("usd", 100)]


async def test_who_is_not_onboarded_is_refused_and_stays_due(desk: Desk) -> None:
    """Such affiliates are listed with reason and sums; once onboarded the next batch pays them."""
    await desk.onboard("aff_1")
    for affiliate in ("aff_1", "aff_2", "aff_2"):
        await desk.sell(affiliate, f"s{desk.parts.new_id('n')}", 1_000)
    result = await desk.done("batch", {})
    assert result["status"] == "partial"
    [refused] = result["refused"]
    assert (refused["affiliate_id"], refused["amount"], refused["commission_count"]) == ("aff_2", 200, 2)
    assert "onboard" in refused["reason"]
    assert set((await desk.statuses("aff_2")).values()) == {"approved"}
    await desk.onboard("aff_2")
    assert (await desk.done("batch", {}))["totals"][0]["amount"] == 200


async def test_a_batch_of_only_refused_affiliates_failed(desk: Desk) -> None:
    """When nobody could be paid the batch does not look like a success, nor like an empty one."""
    await desk.sell("aff_1", "s", 1_000)
    result = await desk.done("batch", {})
    assert result["status"] == "failed"
    assert result["outcome"] == "nothing paid: 1 refused for want of onboarding"


@pytest.mark.parametrize(
    ("cutoff", "paid"),
    [
        ("2026-01-10T11:59:59.999Z", 0),
        ("2026-01-10T12:00:00Z", 1),
        ("2026-01-10T13:00:00+01:00", 1),
        ("2026-01-10T12:00:00.000999Z", 1),
        ("2026-01-10t12:00:00.001z", 2),
        ("2026-01-09", 0),
        ("2026-01-10", 2),
    ],
)
async def test_the_cutoff_is_inclusive(desk: Desk, clock: FakeClock, cutoff: str, paid: int) -> None:
    """Commissions approved at the cutoff are in, a millisecond later not; a date is its whole day."""
    await desk.onboard("aff_1")
    clock.forward(9 * 86_400 + 12 * 3_600)
    await desk.sell("aff_1", "noon", 1_000)
    clock.forward(0.001)
    await desk.sell("aff_1", "later", 1_000)
    clock.forward(86_400 * 3)
    assert (await desk.done("batch", {"cutoff_date": cutoff}))["commission_count"] == paid


async def test_a_batch_run_again_is_the_same_batch(desk: Desk, clock: FakeClock) -> None:
    """The same id, or the same idempotency key, answers the first result and pays nothing new."""
    await desk.onboard("aff_1")
    await desk.sell("aff_1", "a", 1_000)
    first = await desk.done("batch", {"batch_id": "b"})
    keyed = await desk.done("batch", {}, "key-1")
    await desk.sell("aff_1", "b", 1_000)
    clock.forward(60)
    assert await desk.done("batch", {"batch_id": "b"}) == first
    assert await desk.done("batch", {}, "key-1") == keyed
    assert (await desk.balance("aff_1"))["owed"] == 100


@pytest.mark.parametrize("other", [{"cutoff_date": "2026-01-02"}, {"currency": "eur"}])
async def test_a_batch_id_is_not_reused_for_something_else(desk: Desk, other: dict[str, Any]) -> None:
    """A known batch with another cutoff or currency is a conflict."""
    await desk.done("batch", {"batch_id": "b", "cutoff_date": "2026-01-01", "currency": "usd"})
    reply = await desk.do("batch", {"batch_id": "b", **other})
    assert reply.status_code == 409
    assert "cutoff" in reply.json()["detail"]


async def test_the_report_of_a_batch_is_stored(desk: Desk) -> None:
    """JSON and CSV name every payout and commission, and their sums are the result's."""
    await desk.onboard("aff_1")
    for n in range(3):
        await desk.sell("aff_1", f"s{n}", 1_000 + n * 10)
    result = await desk.done("batch", {"batch_id": "b"})
    assert result["report"] == {"bucket": BUCKET, "json": "batches/b.json", "csv": "batches/b.csv"}
    kept = await desk.parts.blobs.get(BUCKET, "batches/b.json")
    assert kept is not None
    document = json.loads(kept.data)
    assert {key: document[key] for key in result if key != "resumed"} == {
        key: value for key, value in result.items() if key != "resumed"
    }
    [payout] = document["payouts"]
    assert payout["amount"] == sum(line["amount"] for line in payout["lines"]) == 303
    table = await desk.parts.blobs.get(BUCKET, "batches/b.csv")
    assert table is not None
    rows = list(csv.DictReader(io.StringIO(table.data.decode())))
    assert [(row["sale_id"], row["amount"]) for row in rows] == [("s0", "100"), ("s1", "101"), ("s2", "102")]


async def test_an_empty_batch_has_a_report_too(desk: Desk) -> None:
    """The report of an empty batch says that there was nothing to pay."""
    result = await desk.done("batch", {})
    kept = await desk.parts.blobs.get(BUCKET, result["report"]["json"])
    assert kept is not None
    assert json.loads(kept.data)["outcome"] == "nothing to pay"


async def test_a_commission_of_nothing_is_settled(desk: Desk) -> None:
    """A share that rounds to zero is recorded and goes through a batch without harm."""
    await desk.onboard("aff_1")
    assert (await desk.sell("aff_1", "tiny", 1))["amount"] == 0
    result = await desk.done("batch", {})
    assert (result["commission_count"], result["totals"][0]["amount"]) == (1, 0)
    assert (await desk.done("batch", {}))["status"] == "empty"


# Single transfers


async def test_the_minimal_transfer_works_after_onboarding(desk: Desk) -> None:
    """The documented minimal meta pays an onboarded affiliate, in the ledger."""
    meta = {"affiliate_id": "aff_demo", "amount": 2_500, "currency": "usd"}
    refused = await desk.do("transfer", meta)
    assert refused.status_code == 409
    assert "run onboard_affiliate first" in refused.json()["detail"]
    await desk.onboard("aff_demo")
    result = await desk.done("transfer", meta)
    assert (result["status"], result["kind"], result["created"]) == ("paid", "advance", True)
    assert (result["provider"], result["outstanding_advance"]) == ("ledger", 2_500)
    assert await desk.balance("aff_demo") == {
        "earned": 0,
        "transferred": 2_500,
        "owed": 0,
        "paid_ahead": 2_500,
    }


@pytest.mark.parametrize("by", ["reference", "key"])
async def test_a_transfer_is_made_once(desk: Desk, by: str) -> None:
    """Ten simultaneous equal transfers are one; other figures under the same name are a conflict."""
    await desk.onboard("aff_1")
    meta: dict[str, Any] = {"affiliate_id": "aff_1", "amount": 100, "currency": "usd"}
    meta |= {"reference": "r-1"} if by == "reference" else {}
    key = "key-1" if by == "key" else ""
    results = await asyncio.gather(*(desk.done("transfer", meta, key) for _ in range(10)))
    assert sum(result["created"] for result in results) == 1
    assert len({result["transfer_id"] for result in results}) == 1
    assert (await desk.balance("aff_1"))["transferred"] == 100
    assert (await desk.do("transfer", {**meta, "amount": 101}, key)).status_code == 409


async def test_transfers_without_a_name_are_separate(desk: Desk) -> None:
    """Without reference and key each call pays."""
    await desk.onboard("aff_1")
    for _ in range(2):
        await desk.done("transfer", {"affiliate_id": "aff_1", "amount": 100, "currency": "usd"})
    assert (await desk.balance("aff_1"))["transferred"] == 200


async def test_an_advance_has_a_limit(desk: Desk) -> None:
    """What is owed plus the affiliate's limit may be paid ahead, not a unit more, also at once."""
    await desk.onboard("aff_1", advance_limit=50)
    await desk.sell("aff_1", "s", 1_000)
    reply = await desk.do("transfer", {"affiliate_id": "aff_1", "amount": 151, "currency": "usd"})
    assert (reply.status_code, reply.json()["available"]) == (409, 150)
    meta = {"affiliate_id": "aff_1", "amount": 50, "currency": "usd"}
    replies = await asyncio.gather(*(desk.do("transfer", meta) for _ in range(5)))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 200, 409, 409]


async def test_a_batch_recovers_what_was_advanced(desk: Desk) -> None:
    """A commission paid ahead is not paid again: batches take the advance off until it is recovered."""
    await desk.onboard("aff_1")
    await desk.done("transfer", {"affiliate_id": "aff_1", "amount": 150, "currency": "usd"})
    await desk.done("transfer", {"affiliate_id": "aff_1", "amount": 900, "currency": "eur"})
    await desk.sell("aff_1", "a", 1_000)
    first = await desk.done("batch", {})
    assert first["totals"] == [{"currency": "usd", "amount": 100, "transferred": 0, "recovered": 100}]
    await desk.sell("aff_1", "b", 1_000)
    second = await desk.done("batch", {})
    assert second["totals"] == [{"currency": "usd", "amount": 100, "transferred": 50, "recovered": 50}]
    assert await desk.balance("aff_1") == {"earned": 200, "transferred": 200, "owed": 0, "paid_ahead": 0}
    assert (await desk.balance("aff_1", "eur"))["paid_ahead"] == 900


# Statements


async def test_a_statement_lists_commissions_and_payments(desk: Desk, clock: FakeClock) -> None:
    """A statement has balances from the ledger, commissions with status, and payments in order."""
    await desk.onboard("aff_1")
    await desk.done("transfer", {"affiliate_id": "aff_1", "amount": 30, "currency": "usd"})
    await desk.sell("aff_1", "a", 1_000)
    clock.forward(60)
    await desk.done("batch", {})
    await desk.sell("aff_1", "b", 500)
    statement = await desk.done("statement", {"affiliate_id": "aff_1"})
    assert statement["onboarded"] is True
    assert [(one["sale_id"], one["status"]) for one in statement["commissions"]] == [
        ("a", "paid"),
        ("b", "approved"),
    ]
    assert [(one["kind"], one["transferred"], one["recovered"]) for one in statement["payments"]] == [
        ("advance", 30, 0),
        ("payout", 70, 30),
    ]
    assert statement["balances"] == [
        {"currency": "usd", "earned": 150, "transferred": 100, "owed": 50, "paid_ahead": 0}
    ]


async def test_a_statement_says_what_it_left_off(desk: Desk) -> None:
    """With a limit the balances are still of everything, and what is left off is said."""
    await desk.onboard("aff_1")
    for n in range(3):
        await desk.sell("aff_1", f"s{n}", 1_000)
        await desk.done("transfer", {"affiliate_id": "aff_1", "amount": 1, "currency": "usd"})
    statement = await desk.done("statement", {"affiliate_id": "aff_1", "limit": 2})
    assert (len(statement["commissions"]), len(statement["payments"])) == (2, 2)
    assert (statement["commissions_left_off"], statement["payments_left_off"]) == (True, True)
    assert statement["balances"][0]["earned"] == 300


async def test_a_statement_of_nobody_is_not_found(desk: Desk) -> None:
    """An unknown affiliate is 404; one with a commission but no record has a statement."""
    assert (await desk.do("statement", {"affiliate_id": "nobody"})).status_code == 404
    await desk.sell("aff_1", "a", 1_000)
    assert (await desk.done("statement", {"affiliate_id": "aff_1"}))["onboarded"] is False


# The edge


SALE = {"affiliate_id": "a", "sale_id": "s", "amount": 1, "currency": "usd", "rate_bps": 1}
BANK = {"type": "card", "last4": "1234"}
PERSON = {"affiliate_id": "a", "email": "a@b.test", "name": "A", "payout_method": BANK}


@pytest.mark.parametrize(
    ("what", "meta", "fields"),
    [
        ("commission", {}, ["affiliate_id", "sale_id", "amount", "currency"]),
        ("commission", {**SALE, "amount": 10.0, "rate_bps": "5"}, ["amount", "rate_bps"]),
        ("commission", {**SALE, "amount": 0, "rate_bps": 10_001}, ["amount", "rate_bps"]),
        ("commission", {**SALE, "amount": True, "currency": "xyz"}, ["amount", "currency"]),
        ("commission", {**SALE, "sale_id": "a/b", "affiliate_id": "=1+1"}, ["affiliate_id", "sale_id"]),
        ("commission", {**SALE, "status": "paid", "more": 1}, ["status", "more"]),
        ("batch", {"cutoff_date": "tomorrow", "currency": "dollar"}, ["cutoff_date", "currency"]),
        ("batch", {"cutoff_date": "2026-02-30", "batch_id": "../x"}, ["cutoff_date", "batch_id"]),
        ("batch", {"cutoff_date": "2026-01-01T10:00:00"}, ["cutoff_date"]),
        ("batch", {"cutoff_date": "2026-01-01T25:00:00Z"}, ["cutoff_date"]),
        ("transfer", {"affiliate_id": "a"}, ["amount", "currency"]),
        ("transfer", {"affiliate_id": "a", "amount": -5, "currency": "usd"}, ["amount"]),
        ("onboard", {}, ["affiliate_id", "email", "name", "payout_method"]),
        ("onboard", {**PERSON, "email": "nobody", "name": " "}, ["email", "name"]),
        ("onboard", {**PERSON, "payout_method": {"type": "iban", "last4": "1234"}}, ["payout_method"]),
        (
            "onboard",
            {**PERSON, "payout_method": {"type": "iban", "iban_masked": "DE89370400440532013000"}},
            ["payout_method.iban_masked"],
        ),
        ("onboard", {**PERSON, "payout_method": {"type": "card", "last4": "12345"}}, ["payout_method.last4"]),
        ("statement", {"limit": 0}, ["affiliate_id", "limit"]),
    ],
)
async def test_bad_meta_names_its_fields(
    desk: Desk, what: str, meta: dict[str, Any], fields: list[str]
) -> None:
    """Every wrong field is listed at once, for every capability."""
    reply = await desk.do(what, meta)
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["errors"]] == [f"meta.{field}" for field in fields]


def test_the_manifest_tells_a_router_what_it_needs() -> None:
    """The registration has valid schemas, the bucket, the tasks it brings, and an open payouts family."""
    manifest = pilot.manifest("local:payout-batch")
    assert manifest["needs"] == {"r2Buckets": ["autopilot-payouts-logs"]}
    assert manifest["tasks"] == {
        "calculate_commission": "commissions.calculate",
        "onboard_affiliate": "payouts.affiliate.onboard",
    }
    assert {entry["name"]: entry.get("configure", False) for entry in manifest["capabilities"]} == {
        "commissions.calculate": False,
        "payouts.batch.run": True,
        "payouts.transfer.single": True,
        "payouts.affiliate.onboard": True,
    }
    for entry in manifest["capabilities"]:
        jsonschema.Draft202012Validator.check_schema(entry["input_schema"])
        fields = entry["input_schema"]["properties"].items()
        assert [name for name, field in fields if "description" not in field] == []


def test_the_schema_takes_the_minimal_examples() -> None:
    """A router that checks meta by the registered schema lets the documented examples through."""
    offered = {entry["name"]: entry for entry in pilot.manifest("local:x")["capabilities"]}
    examples: list[tuple[str, dict[str, Any]]] = [
        ("payouts.batch.run", {}),
        ("payouts.batch.run", {"cutoff_date": "2026-01-31"}),
        ("payouts.batch.run", {"cutoff_date": "2026-01-31T00:00:00Z"}),
        ("payouts.transfer.single", {"affiliate_id": "aff_demo", "amount": 2_500, "currency": "usd"}),
        ("payouts.affiliate.onboard", PERSON),
        ("commissions.calculate", SALE),
    ]
    for name, meta in examples:
        jsonschema.validate(meta, offered[name]["input_schema"])


async def test_statements_are_offered_on_request(desk: Desk) -> None:
    """The optional capability is enabled through the configure handshake, with its schema."""
    reply = await desk.ask("POST", "/configure", json={"enable": "payouts.statement.read"})
    assert reply.json()["capability"]["name"] == "payouts.statement.read"
    assert "affiliate_id" in reply.json()["capability"]["input_schema"]["required"]
