"""Judging mail: every category and priority by a message somebody might send, and what is suggested."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from autopilots.ai_employee import EmployeeParts
from autopilots.ai_employee.leads import CreateLead
from autopilots.ai_employee.processing import EMAILS
from autopilots.ai_employee.schedule import ScheduleTask
from autopilots.ai_employee.sending import SendEmail, compose
from autopilots.ai_employee.triage import Category, Judgement
from infra.model import Answer, ModelUnavailable
from infra.table.sqlite import SqliteTable
from tests.autopilots.employee.parts import employee_parts, send
from tests.fakes import FakeClock

MAILS: dict[str, tuple[str, str, str]] = {
    "enrollment_inquiry": (
        "Question about the Data Science course",
        "Hello, I am interested in the Data Science course. When does the next cohort start, and how do I "
        "enroll? Are there prerequisites?",
        "medium",
    ),
    "payment_question": (
        "Charged twice for my tuition!",
        "My credit card was charged twice on Monday. Please send a refund of $490 as soon as possible, and "
        "an invoice for the other payment.",
        "high",
    ),
    "technical_support": (
        "Locked out before the exam",
        "I cannot log in to the portal, it says error 403 after I reset my password, and my exam "
        "is tomorrow.",
        "high",
    ),
    "affiliate_inquiry": (
        "Affiliate program",
        "I run a blog about careers and would like to promote your courses to my audience. What is the "
        "commission rate, and how do payouts work?",
        "medium",
    ),
    "general_question": (
        "Visiting you",
        "Just wondering: what are your office hours, and is there parking? No rush.",
        "low",
    ),
    "spam": (
        "You have been selected!!!",
        "Congratulations, you have won our international lottery of 2.5 million dollars. Act now and click "
        "here to claim your prize by wire transfer.",
        "low",
    ),
}

METAS: dict[str, type[BaseModel]] = {
    "create_lead": CreateLead,
    "send_followup": SendEmail,
    "schedule_task": ScheduleTask,
}


def message(category: str, message_id: str = "<1@example.com>") -> dict[str, Any]:
    """Give the meta for a message of that category, whole."""
    subject, text, _ = MAILS[category]
    head = f"From: Ada Lovelace <ada@example.com>\nSubject: {subject}\nMessage-ID: {message_id}\n"
    return {"raw": f"{head}Date: Thu, 1 Jan 2026 12:00:00 +0000\n\n{text}\n"}


def test_a_mail_for_every_category() -> None:
    """The table of messages covers all categories and all priorities."""
    assert set(MAILS) == set(get_args(Category))
    assert {priority for _, _, priority in MAILS.values()} == {"high", "medium", "low"}


@pytest.mark.parametrize("category", MAILS)
async def test_rules_reach_every_category_and_priority(parts: EmployeeParts, category: str) -> None:
    """Without a model the rules judge each message as a person would, and say that they did."""
    result = await send(parts, "email.process", message(category))
    assert (result["category"], result["priority"]) == (category, MAILS[category][2])
    assert result["decidedBy"] == "rules"
    assert 0.5 < result["confidence"] <= 1
    assert result["intent"].endswith(".")
    assert "Ada Lovelace" in result["intent"]
    assert (result["from"], result["messageId"]) == ("ada@example.com", "<1@example.com>")
    assert (result["at"], result["date"]) == ("2026-01-01T00:00:00.000Z", "2026-01-01T12:00:00.000Z")


async def test_confidence_follows_the_evidence(parts: EmployeeParts) -> None:
    """A message that says nothing gets 0.5; one that speaks of two things gets less than one of one thing."""
    nothing = await send(parts, "email.process", {"from": "a@b.co", "subject": "Hm", "text": "Well."})
    clear = await send(parts, "email.process", message("affiliate_inquiry"))
    torn = await send(
        parts,
        "email.process",
        {"from": "a@b.co", "subject": "refund", "text": "I want to enroll, or a refund of my payment."},
    )
    assert (nothing["category"], nothing["confidence"]) == ("general_question", 0.5)
    assert nothing["confidence"] < torn["confidence"] < clear["confidence"]


@pytest.mark.parametrize("category", MAILS)
async def test_suggestions_can_be_planned_as_they_are(parts: EmployeeParts, category: str) -> None:
    """Each suggested meta satisfies its capability, letters can be written from it, and spam has none."""
    result = await send(parts, "email.process", message(category))
    actions = result["suggestedActions"]
    assert bool(actions) == (category != "spam")
    for action in actions:
        checked = METAS[action["task"]].model_validate(action["meta"])
        assert action["reason"]
        letter = checked if isinstance(checked, SendEmail) else None
        if isinstance(checked, ScheduleTask):
            letter = SendEmail.model_validate(checked.meta)
            assert checked.at is not None
            assert checked.at.timestamp() == parts.clock() + 86_400
        if letter:
            assert compose(letter, "o@school.example", "mail_1", parts.clock())["To"] == "ada@example.com"


async def test_enrollment_inquiry_suggests_a_lead_and_an_answer(parts: EmployeeParts) -> None:
    """The lead has the sender's address and name and the course; the answer is our letter about it."""
    result = await send(parts, "email.process", message("enrollment_inquiry"))
    lead, reply = result["suggestedActions"]
    assert lead["task"] == "create_lead"
    assert lead["meta"] == {
        "email": "ada@example.com",
        "name": "Ada Lovelace",
        "source": "email",
        "interest": "Data Science",
    }
    assert reply["meta"] == {
        "to": "ada@example.com",
        "template": "enrollment_inquiry",
        "variables": {"name": "Ada", "course": "Data Science"},
    }


async def test_pressing_mail_suggests_a_reminder(parts: EmployeeParts) -> None:
    """High priority adds a schedule for the next day."""
    result = await send(parts, "email.process", message("technical_support"))
    assert [one["task"] for one in result["suggestedActions"]] == ["send_followup", "schedule_task"]


async def test_machines_get_no_answer(parts: EmployeeParts) -> None:
    """An automatic reply is low priority and nothing is suggested, so no two machines write to each other."""
    raw = message("payment_question")["raw"].replace("Subject:", "Auto-Submitted: auto-replied\nSubject:")
    result = await send(parts, "email.process", {"raw": raw})
    assert (result["automatic"], result["priority"], result["suggestedActions"]) == (True, "low", [])


@pytest.mark.parametrize("header", ["X-Spam-Flag: YES", "List-Unsubscribe: <mailto:a@b.co>"])
async def test_marks_of_spam_count(parts: EmployeeParts, header: str) -> None:
    """A filter's mark, and mass mailing, tip a message that only hints at spam."""
    hint = "Subject: Hello\n\nInterested in a course? No obligation."
    assert (await send(parts, "email.process", {"raw": hint}))["category"] != "spam"
    assert (await send(parts, "email.process", {"raw": f"{header}\n{hint}"}))["category"] == "spam"


async def test_concurrent_deliveries_are_judged_alike(parts: EmployeeParts, table: SqliteTable) -> None:
    """Of deliveries of one message at once, one is kept and all get its result."""
    results = await asyncio.gather(*(send(parts, "email.process", message("spam")) for _ in range(3)))
    assert len({result["id"] for result in results}) == 1
    assert sorted(result["repeated"] for result in results) == [False, True, True]


async def test_suggesting_is_all_it_does(parts: EmployeeParts, table: SqliteTable) -> None:
    """Processing a message sends nothing and creates no lead."""
    await send(parts, "email.process", message("enrollment_inquiry"))
    assert await parts.blobs.list("employee-private") == []
    assert (await table.range("employee:lead")).items == []


async def test_message_is_processed_once(parts: EmployeeParts, table: SqliteTable) -> None:
    """The same Message-ID from the same sender gives the first result; from another sender it is another."""
    first = await send(parts, "email.process", message("enrollment_inquiry"))
    again = await send(parts, "email.process", message("enrollment_inquiry"))
    forged = message("spam")["raw"].replace("ada@example.com", "eve@example.net")
    other = await send(parts, "email.process", {"raw": forged})
    assert again == {**first, "repeated": True}
    assert other["category"] == "spam"
    assert len((await table.range(EMAILS)).items) == 2


async def test_message_without_id_is_known_by_key_or_content(parts: EmployeeParts) -> None:
    """Without a Message-ID the idempotency key tells messages apart, and without that their content."""
    meta = {"from": "a@b.co", "subject": "Hi", "text": "Hello"}
    first = await send(parts, "email.process", meta, key="k1")
    assert (await send(parts, "email.process", meta, key="k1"))["id"] == first["id"]
    assert (await send(parts, "email.process", meta, key="k2"))["id"] != first["id"]
    bare = await send(parts, "email.process", meta)
    assert (await send(parts, "email.process", meta))["repeated"] is True
    assert (await send(parts, "email.process", {**meta, "text": "Bye"}))["id"] != bare["id"]


async def test_record_is_kept_thirty_days(parts: EmployeeParts, clock: FakeClock) -> None:
    """After 30 days the record is gone and the message counts as new."""
    first = await send(parts, "email.process", message("spam"))
    clock.forward(30 * 86_400 - 1)
    assert (await send(parts, "email.process", message("spam")))["repeated"] is True
    clock.forward(1)
    assert (await send(parts, "email.process", message("spam")))["id"] != first["id"]


async def test_base64_message_with_attachment(parts: EmployeeParts) -> None:
    """A message in base64 is decoded, its attachment listed and its defects passed on."""
    raw = (
        b"From: a@b.co\r\nMessage-ID: <2@b.co>\r\nSubject: my papers\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nAttached.\r\n--b\r\n"
        b"Content-Type: image/png\r\nContent-Disposition: attachment; filename=id.png\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\niVBORw0K\r\n"
    )
    result = await send(parts, "email.process", {"raw_base64": base64.b64encode(raw).decode()})
    assert result["attachments"] == [{"name": "id.png", "type": "image/png", "size": 6}]
    assert "no Date header" in result["defects"]


class Judge:
    """A model that gives one answer, or none, and keeps what it was asked."""

    name = "judge-1"

    def __init__(self, answer: Judgement | None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    async def ask(self, instructions: str, data: str, answer: type[Answer]) -> Answer:
        self.asked.append((instructions, data))
        if self.answer is None:
            raise ModelUnavailable("down")
        return answer.model_validate(self.answer.model_dump())


async def test_model_decides_where_there_is_one(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """The model's judgement is used and named; the mail is its data, never among its instructions."""
    said = Judgement(category="payment_question", priority="low", intent="Wants\na receipt.", confidence=0.93)
    model = Judge(said)
    parts = employee_parts(table, clock, tmp_path, model=model)
    result = await send(parts, "email.process", message("general_question"))
    assert (result["category"], result["priority"], result["confidence"]) == ("payment_question", "low", 0.93)
    assert (result["decidedBy"], result["intent"]) == ("judge-1", "Wants a receipt.")
    [(instructions, data)] = model.asked
    assert "parking" in data
    assert "parking" not in instructions


async def test_rules_decide_when_the_model_fails(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """A model that gives no answer is replaced by the rules, and the result says so."""
    parts = employee_parts(table, clock, tmp_path, model=Judge(None))
    result = await send(parts, "email.process", message("spam"))
    assert (result["category"], result["decidedBy"]) == ("spam", "rules")
