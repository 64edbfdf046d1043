"""Takes in the mail and the forms that others send, signed by Standard Webhooks, and makes tasks of them.

    POST /webhooks/mail     {"raw": "the RFC 5322 text"}, or whatever else `process_email` takes
    POST /webhooks/form     {"email": …, "name": …, "phone": …, "message": …, and what else the form asks}

A mail is processed; a form makes a lead, and its text is processed as a mail is. Both are planned as any task
is, with the webhook's id as idempotency key, so that one that comes again does nothing twice. The answer is
200 with what each task answered, or 422 with the same when one was refused. An id that led to no success is
let go: its sender may try it again at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from autopilots.ai_employee.fields import Email
from autopilots.ai_employee.inbox import clean
from autopilots.ai_employee.leads import CreateLead
from autopilots.ai_employee.parts import EmployeeParts
from autopilots.kit import object_of, problems_of
from infra.body import MAX_BODY, USUAL, Disconnected, Limits, read
from infra.signing import Verifier
from router.errors import AutopilotError, Invalid, NotFound

MAIL = "/webhooks/mail"
FORM = "/webhooks/form"

MAX_FIELDS = 40
MAX_LABEL = 64
MAX_NOTE = 2000
"""Characters of a lead's note: a form with more to say has all of it in the processed mail."""

_MAIL_LIMITS = Limits(text=MAX_BODY)

Task = tuple[str, Mapping[str, Any]]
"""The name of a task and its meta."""

_Text = Annotated[str, Field(max_length=2000)]


class Form(BaseModel):
    """What a visitor filled in. Fields beside these are taken too, and told in the lead's note."""

    model_config = ConfigDict(extra="allow", str_strip_whitespace=True)
    __pydantic_extra__: dict[str, _Text | int | float | bool | None]

    email: Email
    name: _Text = ""
    phone: _Text = ""
    subject: _Text = ""
    interest: _Text = ""
    source: _Text = ""
    message: Annotated[str, Field(max_length=20_000)] = ""


def webhooks(parts: EmployeeParts, verifier: Verifier | None) -> list[Route]:
    """Return the routes; without a verifier they answer 404 and say what is to be set.

    They raise `router.errors`, which the app they are on has to answer.
    """

    async def mail(request: Request) -> Response:
        return await _receive(parts, verifier, request, _mail_tasks, _MAIL_LIMITS)

    async def form(request: Request) -> Response:
        return await _receive(parts, verifier, request, _form_tasks, USUAL)

    return [Route(MAIL, mail, methods=["POST"]), Route(FORM, form, methods=["POST"])]


async def _receive(
    parts: EmployeeParts,
    verifier: Verifier | None,
    request: Request,
    tasks_of: Callable[[dict[str, Any]], list[Task]],
    limits: Limits,
) -> Response:
    if verifier is None:
        raise NotFound("webhooks are not set up here: AUTOPILOT_WEBHOOK_SECRET is empty")
    headers = request.scope["headers"]
    try:
        body = await read(headers, request.receive)
    except Disconnected:
        return Response(status_code=400)  # nobody is left to read it
    message_id = await verifier.check(headers, body)
    done = False
    try:
        answers = await _plan(parts, tasks_of(object_of(body, limits)), message_id)
        done = all(map(_is_taken, answers))
    finally:
        if not done:
            with suppress(AutopilotError):  # then it is refused for as long as it is remembered
                await verifier.forget(message_id)
    document = {"ok": done, "id": message_id, "tasks": answers}
    # Of a refusal only that it is one: some statuses, such as 410, tell senders to stop sending for good.
    return Response(msgspec.json.encode(document), 200 if done else 422, media_type="application/json")


async def _plan(parts: EmployeeParts, tasks: list[Task], key: str) -> list[dict[str, Any]]:
    """Plan tasks one after the other, up to the first that is refused, and return what each answered."""
    answers = []
    for task, meta in tasks:
        answered = await parts.plan(task, meta, idempotency_key=key)
        answers.append(
            {
                "task": task,
                "autopilot": answered.autopilot,
                "ok": answered.ok,
                "status": answered.status,
                "result": answered.result,
            }
        )
        if not _is_taken(answers[-1]):
            break
    return answers


def _is_taken(answer: dict[str, Any]) -> bool:
    """Whether a task was done, or is kept until somebody approves it: nobody need send it again."""
    return bool(answer["ok"]) or answer["status"] == 202


def _mail_tasks(body: dict[str, Any]) -> list[Task]:
    return [("process_email", body)]  # whose schema says what is wrong with it


def _form_tasks(body: dict[str, Any]) -> list[Task]:
    """Return a lead and a mail for a form. Raises `Invalid`."""
    form = _form(body)
    name, interest, phone = _line(form.name), _line(form.interest), clean(form.phone)
    told = {**(form.__pydantic_extra__ or {})}
    lead = {"email": form.email, "source": _line(form.source) or "form"}
    if phone and not _is_phone(phone):  # no reason to lose somebody who wants to hear from us
        told, phone = {"phone": phone, **told}, ""
    more = [f"{clean(label)}: {_said(value)}" for label, value in told.items() if value is not None]
    text = "\n".join([_lines(form.message), *more]).strip()
    note = text if len(text) <= MAX_NOTE else text[: MAX_NOTE - 2].rstrip() + " …"
    lead |= _given(name=name, interest=interest, phone=phone, note=note)
    mail = {
        "from": f'"{_unquoted(name)}" <{form.email}>',
        "subject": clean(form.subject) or interest or "Form",
        "text": text or "The form had no message.",
    }
    return [("create_lead", lead), ("process_email", mail)]


def _form(body: dict[str, Any]) -> Form:
    problems = [(label[:MAX_LABEL], "is too long a name") for label in body if len(label) > MAX_LABEL]
    if len(body) > MAX_FIELDS:
        problems.append(("body", f"may have at most {MAX_FIELDS} fields"))
    try:
        form = Form.model_validate(body)
    except ValidationError as error:
        raise Invalid([*problems, *problems_of(error, "")]) from None
    if problems:
        raise Invalid(problems)
    return form


def _given(**texts: str) -> dict[str, str]:
    """Return those that say something."""
    return {name: text for name, text in texts.items() if text}


def _line(text: str) -> str:
    return clean(text)[:200].strip()


def _unquoted(name: str) -> str:
    return name.replace('"', "").replace("\\", "")


def _is_phone(text: str) -> bool:
    try:
        CreateLead.model_validate({"email": "a@example.com", "phone": text})
    except ValidationError:
        return False
    return True


def _said(value: object) -> str:
    """Return the value of a field as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(str(value))


def _lines(text: str) -> str:
    """Return text of several lines without control characters."""
    return "\n".join(clean(line) for line in text.splitlines()).strip()
