"""Leads: one record per address, updates that do not lose each other."""

from __future__ import annotations

import asyncio

import pytest

from autopilots.ai_employee import EmployeeParts
from autopilots.ai_employee.fields import email_address, money
from autopilots.ai_employee.leads import LEADS, MAX_NOTES
from infra.table.sqlite import SqliteTable
from tests.autopilots.employee.parts import send
from tests.fakes import FakeClock


async def test_create_returns_the_lead(parts: EmployeeParts) -> None:
    """A new lead has an id, a normalised address, a status, times, its note and a revision."""
    result = await send(
        parts,
        "crm.lead.create",
        {"email": " Ada@Example.COM ", "name": "Ada", "phone": "+1 (555) 010", "note": "Met at the fair."},
    )
    assert result["created"] is True
    lead = result["lead"]
    assert lead["id"].startswith("lead_")
    assert (lead["email"], lead["status"], lead["revision"]) == ("ada@example.com", "new", 1)
    assert lead["notes"] == [{"at": "2026-01-01T00:00:00.000Z", "text": "Met at the fair."}]
    assert lead["created_at"] == lead["updated_at"] == "2026-01-01T00:00:00.000Z"


async def test_second_create_returns_the_first_lead(parts: EmployeeParts) -> None:
    """The same address in other letters gives the existing lead, unchanged, and says so."""
    first = await send(parts, "crm.lead.create", {"email": "ada@example.com", "name": "Ada"})
    second = await send(parts, "crm.lead.create", {"email": "ADA@example.com", "name": "Eve"})
    assert (second["created"], second["merged"]) == (False, False)
    assert second["lead"] == first["lead"]
    assert "left as it is" in second["note"]


async def test_concurrent_creates_make_one_lead(parts: EmployeeParts, table: SqliteTable) -> None:
    """Of several creates of one address at once exactly one creates, and all return the same lead."""
    results = await asyncio.gather(
        *(send(parts, "crm.lead.create", {"email": "ada@example.com"}) for _ in range(4))
    )
    assert sorted(result["created"] for result in results) == [False, False, False, True]
    assert len({result["lead"]["id"] for result in results}) == 1
    assert len((await table.range(LEADS)).items) == 1


async def test_key_of_another_lead_is_a_conflict(parts: EmployeeParts) -> None:
    """An idempotency key that made one lead does not make another."""
    await send(parts, "crm.lead.create", {"email": "a@example.com"}, key="k")
    assert (await send(parts, "crm.lead.create", {"email": "a@example.com"}, key="k"))["created"] is False
    await send(parts, "crm.lead.create", {"email": "b@example.com"}, key="k", status=409)


async def test_update_by_email_and_by_id(parts: EmployeeParts, clock: FakeClock) -> None:
    """An update changes what is given, appends the note, and leaves the rest."""
    created = await send(parts, "crm.lead.create", {"email": "ada@example.com", "name": "Ada", "note": "One"})
    clock.forward(60)
    await send(parts, "crm.lead.update", {"email": "ADA@example.com", "status": "contacted"})
    result = await send(
        parts, "crm.lead.update", {"id": created["lead"]["id"], "note": "Two", "interest": "Logic"}
    )
    lead = result["lead"]
    assert (lead["name"], lead["status"], lead["interest"]) == ("Ada", "contacted", "Logic")
    assert [note["text"] for note in lead["notes"]] == ["One", "Two"]
    assert (lead["revision"], lead["updated_at"]) == (3, "2026-01-01T00:01:00.000Z")


async def test_update_of_an_unknown_lead(parts: EmployeeParts) -> None:
    """A lead that does not exist is 404."""
    await send(parts, "crm.lead.update", {"id": "lead_none", "note": "x"}, status=404)
    await send(parts, "crm.lead.update", {"email": "no@example.com", "note": "x"}, status=404)


async def test_update_with_a_stale_revision(parts: EmployeeParts) -> None:
    """A revision that is no longer the current one is 412 and changes nothing."""
    await send(parts, "crm.lead.create", {"email": "ada@example.com"})
    await send(parts, "crm.lead.update", {"email": "ada@example.com", "status": "qualified", "revision": 1})
    problem = await send(
        parts, "crm.lead.update", {"email": "ada@example.com", "status": "lost", "revision": 1}, status=412
    )
    assert problem["code"] == "stale"
    now = await send(parts, "crm.lead.update", {"email": "ada@example.com", "note": "x", "revision": 2})
    assert now["lead"]["status"] == "qualified"


async def test_concurrent_notes_are_all_kept(parts: EmployeeParts) -> None:
    """Updates at the same time do not overwrite each other."""
    await send(parts, "crm.lead.create", {"email": "ada@example.com"})
    await asyncio.gather(
        *(send(parts, "crm.lead.update", {"email": "ada@example.com", "note": f"n{n}"}) for n in range(3))
    )
    last = await send(parts, "crm.lead.update", {"email": "ada@example.com", "status": "lost"})
    assert {note["text"] for note in last["lead"]["notes"]} == {"n0", "n1", "n2"}


async def test_repeated_update_appends_once(parts: EmployeeParts) -> None:
    """A second delivery of an update changes nothing, even when it insists on the old revision."""
    await send(parts, "crm.lead.create", {"email": "ada@example.com"})
    meta = {"email": "ada@example.com", "note": "Called.", "revision": 1}
    first = await send(parts, "crm.lead.update", meta, key="k")
    again = await send(parts, "crm.lead.update", meta, key="k")
    assert (first["repeated"], again["repeated"], again["updated"]) == (False, True, False)
    assert again["lead"] == first["lead"]
    assert "keys" not in again["lead"]


async def test_full_notes_are_a_conflict(parts: EmployeeParts) -> None:
    """A lead takes a bounded number of notes and then says so, rather than dropping old ones."""
    await send(parts, "crm.lead.create", {"email": "ada@example.com"})
    for n in range(MAX_NOTES):
        await send(parts, "crm.lead.update", {"email": "ada@example.com", "note": f"{n}"})
    await send(parts, "crm.lead.update", {"email": "ada@example.com", "note": "more"}, status=409)
    await send(parts, "crm.lead.update", {"email": "ada@example.com", "status": "lost"})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("o'brien+news@a-b.example", "o'brien+news@a-b.example"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
    ],
)
def test_addresses_are_normalised(given: str, kept: str) -> None:
    """An address is kept in one form."""
    assert email_address(given) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@b.co",
        "a@",
        "a@b",
        "a b@c.co",
        "a@b..co",
        ".a@b.co",
        "a@-b.co",
        "a@1.2.3.4",
        "a@b.co\nBcc: x@y.z",
        "a@b.co,c@d.co",
        "Ada <a@b.co>",
        "ä@b.co",
        "x" * 65 + "@b.co",
        "a@" + "b" * 64 + ".co",
        "a@b.co" * 50,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Anything but one plain address is refused."""
    with pytest.raises(ValueError, match="email address"):
        email_address(text)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (4900, "usd", "49.00 USD"),
        (5, "eur", "0.05 EUR"),
        (123456789, "usd", "1,234,567.89 USD"),
        (4900, "jpy", "4,900 JPY"),
        (12345, "kwd", "12.345 KWD"),
    ],
)
def test_money_is_written_by_its_currency(amount: int, currency: str, text: str) -> None:
    """Minor units become the digits that the currency has."""
    assert money(amount, currency) == text
