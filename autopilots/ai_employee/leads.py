"""`crm.lead.create` and `crm.lead.update`: people who may become students, one record per address."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from autopilots.ai_employee.fields import Email, Line, RecordId
from autopilots.ai_employee.once import id_for
from autopilots.ai_employee.parts import EmployeeParts
from autopilots.kit import Call, Meta
from infra.clock import rfc3339
from infra.table import Document, Item, Key, Put, Table
from router.errors import Conflict, NotFound, Stale

LEADS = "employee:lead"
"""Partition of the leads; the sort key is the lead's id."""

EMAILS = "employee:lead-email"
"""Partition that keeps addresses unique: one item per address, with the lead's id."""

MAX_NOTES = 100
REMEMBERED_KEYS = 20
"""Idempotency keys of updates that a lead remembers."""

_TRIES = 5

Status = Literal["new", "contacted", "qualified", "enrolled", "lost"]
_Note = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]
_Phone = Annotated[str, Field(min_length=3, max_length=40, pattern=r"^[0-9+() ./x-]+$")]


class CreateLead(Meta):
    """A person, known by an email address."""

    email: Email = Field(description="Their address; kept in lower case and unique.")
    name: Line | None = Field(None, description="Their name.")
    phone: _Phone | None = Field(None, description="Their telephone number.")
    source: Line | None = Field(None, description="Where they come from, such as email or website.")
    interest: Line | None = Field(None, description="The course or offer they asked about.")
    status: Status = Field("new", description="How far they are.")
    note: _Note | None = Field(None, description="A first note.")


class UpdateLead(Meta):
    """A change of a lead, named by its id or its address. What is not given stays."""

    id: RecordId | None = Field(None, description="The lead's id; or give its email.")
    email: Email | None = Field(None, description="The lead's address; or give its id.")
    name: Line | None = Field(None, description="A new name.")
    phone: _Phone | None = Field(None, description="A new telephone number.")
    source: Line | None = Field(None, description="A new source.")
    interest: Line | None = Field(None, description="A new interest.")
    status: Status | None = Field(None, description="A new status.")
    note: _Note | None = Field(None, description="Text to append to the notes.")
    revision: int | None = Field(None, ge=1, description="Change only if this is its revision now.")

    @model_validator(mode="after")
    def _complete(self) -> UpdateLead:
        if (self.id is None) == (self.email is None):
            raise ValueError("give either id or email")
        if not self.changes() and self.note is None:
            raise ValueError("give at least one of name, phone, source, interest, status, note")
        return self

    def changes(self) -> Document:
        """Return the fields to overwrite."""
        fields = self.model_dump(include={"name", "phone", "source", "interest", "status"})
        return {name: value for name, value in fields.items() if value is not None}


async def create_lead(meta: CreateLead, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Create a lead; for an address that has one, return that one unchanged with `created` false."""
    table, now = call.parts.table, rfc3339(call.parts.clock())
    lead_id = id_for(call, "lead")
    document = {
        **meta.model_dump(exclude={"note"}),
        "id": lead_id,
        "notes": [{"at": now, "text": meta.note}] if meta.note else [],
        "keys": [],
        "created_at": now,
        "updated_at": now,
    }
    known = await _by_email(table, meta.email)
    if known is None:
        writes = [
            Put((EMAILS, meta.email), {"id": lead_id}, if_revision=0),
            Put((LEADS, lead_id), document, if_revision=0),
        ]
        try:
            await table.transact(writes)
        except Stale:  # somebody was faster, or this task was delivered before
            known = await _by_email(table, meta.email)
            if known is None:
                raise Conflict("this idempotency key was used for another lead") from None
        else:
            return {"created": True, "merged": False, "lead": _shown(document, 1)}
    return {
        "created": False,
        "merged": False,
        "note": "A lead with this email exists and was left as it is; crm.lead.update changes it.",
        "lead": _shown(known.document, known.revision),
    }


async def update_lead(meta: UpdateLead, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Change a lead and return it.

    Raises `NotFound`, `Stale` when `revision` is no longer the current one, and `Conflict` when its notes
    are full. A repeat with the same idempotency key changes nothing.
    """
    table = call.parts.table
    for _ in range(_TRIES):
        item = await _named(table, meta)
        if call.idempotency_key and call.idempotency_key in item.document["keys"]:
            return {"updated": False, "repeated": True, "lead": _shown(item.document, item.revision)}
        if meta.revision not in (None, item.revision):
            raise Stale(f"the lead is at revision {item.revision}, not {meta.revision}")
        document = _changed(item.document, meta, rfc3339(call.parts.clock()), call.idempotency_key)
        try:
            revision = await table.put(item.key, document, if_revision=item.revision)
        except Stale:  # changed in between: read it again, unless the caller insists on the revision
            continue
        return {"updated": True, "repeated": False, "lead": _shown(document, revision)}
    raise Conflict("the lead is being changed by others: try again")


def _changed(lead: Document, meta: UpdateLead, now: str, key: str) -> Document:
    """Return the lead with the change applied."""
    notes = lead["notes"]
    if meta.note is not None:
        if len(notes) >= MAX_NOTES:
            raise Conflict(f"the lead has {MAX_NOTES} notes already: no room for another")
        notes = [*notes, {"at": now, "text": meta.note}]
    keys = [*lead["keys"], key][-REMEMBERED_KEYS:] if key else lead["keys"]
    return {**lead, **meta.changes(), "notes": notes, "keys": keys, "updated_at": now}


async def _named(table: Table, meta: UpdateLead) -> Item:
    item = await find_lead(table, meta.id) if meta.id else await _by_email(table, meta.email or "")
    if item is None:
        raise NotFound(f"there is no lead {meta.id or meta.email}")
    return item


async def find_lead(table: Table, lead_id: str) -> Item | None:
    """Return the lead with this id, or None."""
    return await table.get((LEADS, lead_id))


async def _by_email(table: Table, email: str) -> Item | None:
    entry = await table.get((EMAILS, email))
    if entry is None:
        return None
    key: Key = (LEADS, entry.document["id"])
    return await table.get(key)


def _shown(document: Document, revision: int) -> Document:
    """Return a lead as results show it."""
    return {**{name: value for name, value in document.items() if name != "keys"}, "revision": revision}
