"""`email.process`: reads an incoming email, judges it and suggests what to do. It does nothing by itself."""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, replace
from typing import Any

from pydantic import Field, model_validator

from autopilots.ai_employee.inbox import Incoming, clean, read_message
from autopilots.ai_employee.once import DAY, digest
from autopilots.ai_employee.parts import EmployeeParts
from autopilots.ai_employee.triage import Judgement, course_in, triage, who
from autopilots.kit import Call, Meta
from infra.clock import rfc3339
from infra.table import Key
from router.errors import Invalid, Stale

EMAILS = "employee:email"
"""Partition of the processed messages; the sort key is a hash of what identifies the message."""

KEPT = 30 * DAY

_MAX_RAW = 1_000_000

_REPLIES = {
    "payment_question": "We are looking into your payment and will tell you what we find.",
    "technical_support": "We are looking into the problem and will write as soon as we know more.",
    "affiliate_inquiry": "We have passed your message to the people who look after our partners.",
    "general_question": "We will answer your question as soon as we can.",
}


class ProcessEmail(Meta):
    """A message: whole, as text or base64; or its sender, subject and text."""

    raw: str | None = Field(None, min_length=1, max_length=_MAX_RAW, description="The RFC 5322 message.")
    raw_base64: str | None = Field(
        None, min_length=1, max_length=_MAX_RAW, description="The same in base64, for messages not in ASCII."
    )
    sender: str | None = Field(None, alias="from", max_length=500, description="Address, or Name <address>.")
    to: str | None = Field(None, max_length=500, description="Recipient.")
    subject: str | None = Field(None, max_length=2000, description="Subject.")
    text: str | None = Field(None, max_length=_MAX_RAW, description="Body as plain text.")
    message_id: str | None = Field(None, max_length=500, description="Its Message-ID, if known.")

    @model_validator(mode="after")
    def _one_form(self) -> ProcessEmail:
        fields = any((self.sender, self.subject, self.text))
        if [self.raw is not None, self.raw_base64 is not None, fields].count(True) != 1:
            raise ValueError("give one of raw, raw_base64, or the fields from, subject and text")
        return self


async def process_email(meta: ProcessEmail, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Return what the message is, what it is about and what could be done, and keep that for 30 days.

    A message is processed once: it is known by its Message-ID and sender, else by the idempotency key, else
    by a hash of its content. A repeat returns the first result with `repeated`.
    """
    parts = call.parts
    mail = _incoming(meta)
    record: Key = (EMAILS, _identity(mail, call.idempotency_key))
    known = await parts.table.get(record)
    if known is None:
        judgement, decided_by = await triage(mail, parts.model)
        result = _result(mail, judgement, decided_by, parts.new_id("email"), parts.clock())
        try:
            await parts.table.put(record, result, if_revision=0, expires_at=parts.clock() + KEPT)
        except Stale:  # another delivery was faster: its judgement stands
            known = await parts.table.get(record)
        if known is None:
            return {**result, "repeated": False}
    return {**known.document, "repeated": True}


def _incoming(meta: ProcessEmail) -> Incoming:
    if meta.raw is not None:
        return read_message(meta.raw)
    if meta.raw_base64 is not None:
        try:
            return read_message(base64.b64decode(meta.raw_base64, validate=True))
        except (binascii.Error, ValueError):
            raise Invalid([("meta.raw_base64", "not valid base64")]) from None
    return _from_fields(meta)


def _from_fields(meta: ProcessEmail) -> Incoming:
    header = f"From: {clean(meta.sender or '')}\nSubject: {clean(meta.subject or '')}\n"
    if meta.message_id:
        header += f"Message-ID: {clean(meta.message_id)}\n"
    if meta.to:
        header += f"To: {clean(meta.to)}\n"
    mail = read_message(f"{header}\n{meta.text or ''}")
    # Fields have no headers to miss.
    return replace(mail, defects=tuple(one for one in mail.defects if not one.endswith(" header")))


def _identity(mail: Incoming, idempotency_key: str) -> str:
    # The sender belongs to it: a stranger who reuses somebody's Message-ID must not get their mail ignored.
    if mail.message_id:
        return digest("message", mail.message_id, mail.sender)
    if idempotency_key:
        return digest("key", idempotency_key)
    return digest("content", mail.digest)


def _result(mail: Incoming, judgement: Judgement, by: str, email_id: str, now: float) -> dict[str, Any]:
    return {
        "id": email_id,
        "messageId": mail.message_id,
        "from": mail.sender,
        "from_name": mail.sender_name,
        "to": mail.to,
        "subject": mail.subject,
        "date": mail.date,
        "excerpt": mail.text[:1000],
        "body_from": mail.body_from,
        "attachments": [asdict(one) for one in mail.attachments[:50]],
        "defects": list(mail.defects[:50]),
        "automatic": mail.automatic,
        "category": judgement.category,
        "priority": judgement.priority,
        "intent": clean(judgement.intent),
        "suggestedActions": suggestions(mail, judgement, now),
        "confidence": judgement.confidence,
        "decidedBy": by,
        "at": rfc3339(now),
    }


def suggestions(mail: Incoming, judgement: Judgement, now: float) -> list[dict[str, Any]]:
    """Return tasks that make sense next, each as {task, meta, reason} ready to be planned.

    The category alone decides which: a model never words an action. Spam, machines and senders without a
    usable address get none, so that no two machines write to each other.
    """
    if judgement.category == "spam" or mail.automatic or not mail.sender:
        return []
    reply = _reply(mail, judgement)
    actions = []
    if judgement.category in ("enrollment_inquiry", "affiliate_inquiry"):
        actions.append(_lead(mail, judgement))
    actions.append({"task": "send_followup", "meta": reply, "reason": "The sender waits for an answer."})
    if judgement.priority == "high":
        question = "has this been settled? If not, reply and we will see to it."
        reminder = {
            "to": mail.sender,
            "subject": _answer_subject(mail),
            "text": f"Hello {_first_name(mail)},\n\n{question}",
        }
        actions.append(
            {
                "task": "schedule_task",
                "meta": {"task": "send_followup", "meta": reminder, "at": rfc3339(now + DAY)},
                "reason": "It is pressing: ask a day later whether it is settled.",
            }
        )
    return actions


def _lead(mail: Incoming, judgement: Judgement) -> dict[str, Any]:
    meta = {"email": mail.sender, "source": "email", "interest": course_in(mail)}
    if judgement.category == "affiliate_inquiry":
        meta["interest"] = "affiliate program"
    if mail.sender_name:
        meta["name"] = mail.sender_name
    return {
        "task": "create_lead",
        "meta": meta,
        "reason": f"{who(mail)[:80]} may become a customer or partner.",
    }


def _reply(mail: Incoming, judgement: Judgement) -> dict[str, Any]:
    if judgement.category == "enrollment_inquiry":
        variables = {"name": _first_name(mail), "course": course_in(mail)}
        return {"to": mail.sender, "template": "enrollment_inquiry", "variables": variables}
    text = f"Hello {_first_name(mail)},\n\nthank you for your message. {_REPLIES[judgement.category]}"
    return {"to": mail.sender, "subject": _answer_subject(mail), "text": text}


def _first_name(mail: Incoming) -> str:
    return mail.sender_name.split()[0] if mail.sender_name else "there"


def _answer_subject(mail: Incoming) -> str:
    subject = mail.subject[:190] or "your message"
    return subject if subject.lower().startswith("re:") else f"Re: {subject}"
