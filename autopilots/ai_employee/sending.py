"""`email.send`: composes one message and hands it over at most once."""

from __future__ import annotations

import datetime
import html
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Any

from pydantic import Field, model_validator

from autopilots.ai_employee.fields import Email, Line, Prose
from autopilots.ai_employee.once import DAY, digest, fingerprint, id_for
from autopilots.ai_employee.outside import MaybeDone
from autopilots.ai_employee.parts import EmployeeParts
from autopilots.ai_employee.templates import TemplateName, Written, write
from autopilots.kit import Call, Meta
from infra.clock import rfc3339
from infra.table import Key
from router.errors import AutopilotError, Conflict, Stale

SENT = "employee:sent"
"""Partition of what was sent; the sort key is a hash of the idempotency key, or the mail's id."""

KEPT = 30 * DAY


class SendEmail(Meta):
    """A letter from a template with its variables, or one with a subject and a text of its own."""

    to: Email = Field(description="The recipient.")
    template: TemplateName | None = Field(None, description="Which letter; else give subject and text.")
    variables: dict[str, Any] = Field(default_factory=dict, description="Values for the template.")
    subject: Line | None = Field(None, description="Subject of a letter without a template.")
    text: Prose | None = Field(None, description="Body of a letter without a template.")
    reply_to: Email | None = Field(None, description="Where answers go, if not to the sender.")

    @model_validator(mode="after")
    def _one_kind(self) -> SendEmail:
        if self.template and (self.subject or self.text):
            raise ValueError("give either template or subject and text, not both")
        if not self.template and not (self.subject and self.text):
            raise ValueError("give a template, or both subject and text")
        if self.variables and not self.template:
            raise ValueError("variables need a template")
        return self


async def send_once(meta: SendEmail, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Send the message and return what became of it.

    At most once per idempotency key: the key is claimed in the table before the message leaves. When the
    process dies in between, or the connection breaks after the message was offered, nobody knows whether
    it went out; a repeat then gets `Conflict` and sends nothing. When it certainly did not go out, the claim
    is given back and a repeat sends. A repeat after success returns the first result with `repeated`.
    """
    parts = call.parts
    mail_id = id_for(call, "mail")
    message = compose(meta, parts.mail.sender, mail_id, parts.clock())
    record: Key = (SENT, digest(call.idempotency_key) if call.idempotency_key else mail_id)
    claim = {"state": "sending", "body": fingerprint(meta.model_dump(mode="json")), "id": mail_id}
    expires_at = parts.clock() + KEPT
    try:
        await parts.table.put(record, claim, if_revision=0, expires_at=expires_at)
    except Stale:
        return await _repeated(call, record, claim["body"])
    try:
        sent = await parts.mail.send(message, mail_id)
    except MaybeDone:
        await parts.table.put(record, {**claim, "state": "unknown"}, expires_at=expires_at)
        raise
    except AutopilotError:
        await parts.table.delete(record)
        raise
    result = {
        "id": mail_id,
        "delivery": sent.delivery,
        "messageId": str(message["Message-ID"]),
        "to": meta.to,
        "subject": str(message["Subject"]),
        "template": meta.template,
        "at": rfc3339(parts.clock()),
        "repeated": False,
    }
    if sent.file is not None:
        result["file"] = sent.file
        result["note"] = "No mail server is configured: the message was written to a file, nobody got it."
    await parts.table.put(record, {**claim, "state": "sent", "result": result}, expires_at=expires_at)
    return result


async def _repeated(call: Call[EmployeeParts], record: Key, body: str) -> dict[str, Any]:
    """Return the result of the first delivery of this key, or raise `Conflict`; send nothing."""
    item = await call.parts.table.get(record)
    if item is None:
        raise Conflict("the first attempt with this idempotency key has just failed: try again")
    if item.document["body"] != body:
        raise Conflict("this idempotency key was used for another message: nothing was sent")
    if item.document["state"] != "sent":
        raise Conflict(
            "a message with this idempotency key is being sent, or its sending was cut off: it may have gone "
            "out, so it is not sent again"
        )
    return {**item.document["result"], "repeated": True}


def compose(meta: SendEmail, sender: str, mail_id: str, now: float) -> EmailMessage:
    """Return the message, with text and HTML, its Date from `now` and its Message-ID from `mail_id`."""
    written = write(meta.template, meta.variables) if meta.template else _plain(meta)
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = meta.to
    if meta.reply_to:
        message["Reply-To"] = meta.reply_to
    message["Subject"] = written.subject
    message["Date"] = format_datetime(datetime.datetime.fromtimestamp(int(now), datetime.UTC))
    message["Message-ID"] = f"<{mail_id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    message.set_content(written.text)
    message.add_alternative(written.html, subtype="html")
    return message


def _plain(meta: SendEmail) -> Written:
    assert meta.subject is not None
    assert meta.text is not None
    paragraphs = "".join(
        f"<p>{html.escape(block).replace(chr(10), '<br>')}</p>\n"
        for block in meta.text.replace("\r\n", "\n").split("\n\n")
        if block.strip()
    )
    title = html.escape(meta.subject)
    page = (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body>\n{paragraphs}</body>\n</html>\n"
    )
    return Written(meta.subject, meta.text, page)
