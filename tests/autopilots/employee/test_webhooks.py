"""Mail and forms that come by themselves: what is signed becomes tasks, what is not has no effect."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from autopilots.ai_employee import EmployeeParts, pilot
from autopilots.ai_employee.leads import LEADS
from autopilots.ai_employee.processing import EMAILS
from autopilots.ai_employee.webhooks import FORM, MAIL, MAX_NOTE, webhooks
from autopilots.kit import Answered
from infra.signing import REMEMBERED, SeenInTable, Verifier, new_secret, sign
from infra.table import Key
from infra.table.sqlite import SqliteTable
from router.errors import ForwardFailed, NotFound, StoreUnavailable
from tests.autopilots.employee.parts import employee_parts, send
from tests.fakes import FakeClock

SECRET, EARLIER = new_secret(), new_secret()
RAW = "From: Ada <ada@example.com>\nSubject: Enrol\n\nI want to enroll. When does the course start?"
WISH = {
    "email": "Ada@Example.com",
    "name": "Ada",
    "phone": "+1 555 0100",
    "message": "When does the course start?",
}
TASKS = {"create_lead": "crm.lead.create", "process_email": "email.process"}


class Planning:
    """A planner that really gives tasks to the employee, unless told to fail."""

    def __init__(self) -> None:
        self.parts: EmployeeParts | None = None
        self.calls: list[tuple[str, dict[str, Any], str]] = []
        self.fails: dict[str, Exception] = {}
        self.refuses: dict[str, int] = {}

    async def __call__(self, task: str, meta: Mapping[str, Any], *, idempotency_key: str) -> Answered:
        self.calls.append((task, dict(meta), idempotency_key))
        if task in self.fails:
            raise self.fails.pop(task)
        status = self.refuses.get(task, 200)
        if status != 200:
            return Answered(ok=False, status=status, autopilot="ai-employee", result={"code": "x"})
        assert self.parts is not None
        result = await send(self.parts, TASKS[task], dict(meta), idempotency_key)
        return Answered(ok=True, status=200, autopilot="ai-employee", result=result)


class Hooked:
    """The routes on an app, with what they lead to."""

    def __init__(self, table: SqliteTable, clock: FakeClock, folder: Path, verifier: Verifier | None) -> None:
        self.table, self.clock = table, clock
        self.plan = Planning()
        parts = employee_parts(table, clock, folder, plan=self.plan)
        self.plan.parts = parts
        app = pilot.app(parts, webhooks(parts, verifier))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://router.test")

    async def post(
        self, path: str, body: Any, message_id: str = "msg_1", *, secret: str = SECRET, **headers: str
    ) -> httpx.Response:
        """Send a webhook, signed at this moment; `headers` go over those it has."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        now = int(self.clock())
        given = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(secret, message_id, now, content),
        }
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, content=content, headers=given)

    async def effects(self) -> tuple[int, int]:
        """Return how many leads and processed mails there are."""
        return len((await self.table.range(LEADS)).items), len((await self.table.range(EMAILS)).items)

    async def lead(self) -> dict[str, Any]:
        """Return the only lead."""
        [item] = (await self.table.range(LEADS)).items
        return item.document


@pytest.fixture
def hooked(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> Hooked:
    """Give the routes with two secrets, as during a rotation."""
    verifier = Verifier([SECRET, EARLIER], clock, SeenInTable(table, clock))
    return Hooked(table, clock, tmp_path, verifier)


# What becomes of them


@pytest.mark.parametrize(
    "body", [{"raw": RAW}, {"from": "ada@example.com", "subject": "Enrol", "text": "Please"}]
)
async def test_a_mail_is_processed_as_a_task(hooked: Hooked, body: dict[str, Any]) -> None:
    """It is planned under the webhook's id, and the answer is what the task answered."""
    answer = await hooked.post(MAIL, body)
    assert answer.status_code == 200
    document = answer.json()
    assert (document["ok"], document["id"]) == (True, "msg_1")
    [done] = document["tasks"]
    assert (done["task"], done["autopilot"], done["status"]) == ("process_email", "ai-employee", 200)
    assert done["result"]["from"] == "ada@example.com"
    assert done["result"]["repeated"] is False
    assert hooked.plan.calls == [("process_email", body, "msg_1")]
    assert await hooked.effects() == (0, 1), "a mail makes no lead by itself"


async def test_a_large_mail_arrives_whole(hooked: Hooked) -> None:
    """A message of 900 kB in one text, as mail providers send it, is taken."""
    answer = await hooked.post(MAIL, {"raw": RAW + "x" * 900_000})
    assert answer.status_code == 200


async def test_a_form_makes_a_lead_and_is_judged(hooked: Hooked) -> None:
    """Both tasks carry the webhook's id; the lead has what the visitor gave."""
    answer = await hooked.post(
        FORM, {**WISH, "interest": "Data Science", "city": "Turin", "newsletter": True}
    )
    assert answer.status_code == 200
    created, judged = answer.json()["tasks"]
    assert (created["task"], created["result"]["created"]) == ("create_lead", True)
    assert (judged["task"], judged["result"]["category"]) == ("process_email", "enrollment_inquiry")
    assert judged["result"]["from"] == "ada@example.com"
    assert judged["result"]["from_name"] == "Ada"
    assert [key for _, _, key in hooked.plan.calls] == ["msg_1", "msg_1"]
    lead = await hooked.lead()
    assert (lead["email"], lead["name"], lead["phone"]) == ("ada@example.com", "Ada", "+1 555 0100")
    assert (lead["source"], lead["interest"]) == ("form", "Data Science")
    assert lead["notes"][0]["text"] == "When does the course start?\ncity: Turin\nnewsletter: yes"


async def test_an_address_is_enough(hooked: Hooked) -> None:
    """A form with nothing else makes a lead without a note."""
    assert (
        await hooked.post(FORM, {"email": "ada@example.com", "name": " ", "age": None})
    ).status_code == 200
    lead = await hooked.lead()
    assert (lead["name"], lead["notes"]) == (None, [])


async def test_nothing_a_visitor_writes_loses_the_lead_or_another_ones_name(hooked: Hooked) -> None:
    """A phone number that is none is noted, a long message is cut, a name cannot pose as a sender."""
    form = {
        "email": "ada@example.com",
        "name": 'Eve" <eve@example.com>, "\\x\r\nBcc: all@example.com',
        "phone": "after five, please",
        "source": "Landing\npage",
        "message": "a\x00b\x1b[31m\r\n" + "word " * 900,
        "consent": False,
        "visits": 3,
    }
    answer = await hooked.post(FORM, form)
    assert answer.status_code == 200
    assert answer.json()["tasks"][1]["result"]["from"] == "ada@example.com"
    lead = await hooked.lead()
    assert (lead["phone"], lead["source"]) == (None, "Landing page")
    note = lead["notes"][0]["text"]
    assert len(note) <= MAX_NOTE
    assert note.startswith("a b [31m\nword")
    assert note.endswith(" …")
    mail = hooked.plan.calls[1][1]
    assert mail["text"].endswith("phone: after five, please\nconsent: no\nvisits: 3")
    assert "\n" not in mail["from"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": ["ada@example.com"]}, "email"),
        ({**WISH, "message": "x" * 20_001}, "message"),
        ({**WISH, "name": {"first": "Ada"}}, "name"),
        ({**WISH, "n" * 65: "x"}, "n" * 64),
        ({**WISH, **{f"f{number}": "x" for number in range(37)}}, "body"),
        ([], "body"),
    ],
)
async def test_a_form_that_is_none_makes_nothing(hooked: Hooked, body: Any, field: str) -> None:
    """422 names the field, and no task is planned."""
    answer = await hooked.post(FORM, body)
    assert answer.status_code == 422
    assert field in {one["field"] for one in answer.json()["errors"]}
    assert hooked.plan.calls == []


@pytest.mark.parametrize("value", [{"a": 1}, [1], "x" * 2001])
async def test_a_form_is_flat(hooked: Hooked, value: Any) -> None:
    """A field of its own that is no short text, number or truth is refused by its name."""
    answer = await hooked.post(FORM, {**WISH, "extra": value})
    assert answer.status_code == 422
    assert all(one["field"].startswith("extra") for one in answer.json()["errors"])
    assert hooked.plan.calls == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"email":"a@example.com","email":"b@example.com"}', 400),
        (b'{"email":"a@example.com","message":"' + b"x" * (1 << 20) + b'"}', 413),
    ],
)
async def test_bodies_are_read_strictly(hooked: Hooked, body: bytes, status: int) -> None:
    """What is signed may still be broken: it is refused before any task."""
    for path in (MAIL, FORM):
        assert (await hooked.post(path, body)).status_code == status
    assert hooked.plan.calls == []


# Who may send them


@pytest.mark.parametrize("path", [MAIL, FORM])
async def test_what_is_not_signed_has_no_effect(hooked: Hooked, path: str, clock: FakeClock) -> None:
    """Unsigned, forged, altered and outdated ones get 401 before they are read, and nothing is done."""
    body = json.dumps({"raw": RAW} if path == MAIL else WISH).encode()
    good = {"webhook_signature": sign(SECRET, "msg_1", int(clock()), body)}
    refused = [
        await hooked.client.post(path, content=body, headers={"content-type": "application/json"}),
        await hooked.post(path, body, secret=new_secret()),
        await hooked.post(path, body + b" ", **good),
        await hooked.post(path, body.replace(b"Ada", b"Eve"), **good),
        await hooked.post(path, body, "msg_2", **good),
        await hooked.post(path, body, webhook_timestamp=str(int(clock()) - 301)),
        await hooked.post(path, body, webhook_signature="v1,"),
        await hooked.post(path, b"no JSON", secret=new_secret()),
    ]
    for answer in refused:
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert SECRET not in answer.text
    assert hooked.plan.calls == []
    assert await hooked.effects() == (0, 0)


async def test_both_secrets_of_a_rotation_are_taken(hooked: Hooked) -> None:
    """The sender may change over at any moment."""
    for number, secret in enumerate((SECRET, EARLIER)):
        answer = await hooked.post(FORM, {"email": f"a{number}@example.com"}, f"msg_{number}", secret=secret)
        assert answer.status_code == 200


async def test_a_replay_makes_no_second_lead(hooked: Hooked, clock: FakeClock) -> None:
    """For ten minutes it is refused; after that the work is found done, under the same key."""
    body = json.dumps(WISH).encode()
    headers = {
        "webhook_timestamp": str(int(clock())),
        "webhook_signature": sign(SECRET, "msg_1", int(clock()), body),
    }
    assert (await hooked.post(FORM, body, **headers)).status_code == 200
    for seconds in (0, 299, 301):
        clock.forward(seconds)
        assert (await hooked.post(FORM, body, **headers)).status_code == 401
    assert (await hooked.post(FORM, body)).status_code == 401, "signed anew within the time: came before"
    assert len(hooked.plan.calls) == 2
    clock.forward(REMEMBERED - 600)
    again = await hooked.post(FORM, body)
    assert again.status_code == 200
    created, judged = again.json()["tasks"]
    assert (created["result"]["created"], judged["result"]["repeated"]) == (False, True)
    assert await hooked.effects() == (1, 1)


async def test_a_webhook_that_failed_may_be_sent_again_at_once(hooked: Hooked) -> None:
    """A task that could not be forwarded answers 502, and the retry with the same id finishes the work."""
    hooked.plan.fails = {"process_email": ForwardFailed("down")}
    assert (await hooked.post(FORM, WISH)).status_code == 502
    assert await hooked.effects() == (1, 0)
    again = await hooked.post(FORM, WISH)
    assert again.status_code == 200
    assert [one["ok"] for one in again.json()["tasks"]] == [True, True]
    assert await hooked.effects() == (1, 1)


@pytest.mark.parametrize("status", [404, 409, 410, 429])
async def test_a_refused_task_ends_the_work(hooked: Hooked, status: int) -> None:
    """422 shows it with its status, what stands behind it is not planned, and a retry is let in."""
    hooked.plan.refuses = {"create_lead": status}
    for count in (1, 2):
        answer = await hooked.post(FORM, WISH)
        assert answer.status_code == 422
        assert answer.json()["ok"] is False
        assert [(one["task"], one["status"]) for one in answer.json()["tasks"]] == [("create_lead", status)]
        assert len(hooked.plan.calls) == count


async def test_what_cannot_be_remembered_is_not_done(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """A store that fails answers 503; one that fails at letting go hides nothing of what went wrong."""

    class Failing(SeenInTable):
        adds = True

        async def add(self, message_id: str) -> bool:
            if self.adds:
                raise StoreUnavailable
            return True

        async def forget(self, message_id: str) -> None:
            raise StoreUnavailable

    seen = Failing(table, clock)
    hooked = Hooked(table, clock, tmp_path, Verifier([SECRET], clock, seen))
    assert (await hooked.post(FORM, WISH)).status_code == 503
    assert hooked.plan.calls == []
    seen.adds = False
    hooked.plan.fails = {"create_lead": NotFound("gone")}
    assert (await hooked.post(FORM, WISH)).status_code == 404


async def test_a_sender_that_leaves_is_no_crash(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """Half a webhook has no effect and is no error of ours."""
    parts = employee_parts(table, clock, tmp_path)
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send_back(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": FORM, "query_string": b""}
    scope["headers"] = [(b"content-type", b"application/json")]
    app = Starlette(routes=webhooks(parts, Verifier([SECRET], clock)))
    await app(scope, receive, send_back)
    assert sent[0]["status"] == 400


async def test_without_a_secret_there_are_no_webhooks(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """404 says which variable is to be set; nothing is taken unsigned."""
    hooked = Hooked(table, clock, tmp_path, None)
    for path in (MAIL, FORM):
        answer = await hooked.post(path, WISH)
        assert answer.status_code == 404
        assert "AUTOPILOT_WEBHOOK_SECRET" in answer.json()["detail"]
        assert (await hooked.client.get(path)).status_code == 405
    assert hooked.plan.calls == []


async def test_ids_are_kept_where_every_process_finds_them(hooked: Hooked) -> None:
    """The memory is a row that expires, and holds nothing of the message."""
    await hooked.post(FORM, WISH)
    key: Key = ("webhook:msg_1", "seen")
    item = await hooked.table.get(key)
    assert item is not None
    assert (item.document, item.expires_at) == ({}, hooked.clock() + REMEMBERED)
