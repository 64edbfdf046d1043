"""The autopilot as a router sees it: its manifest, its schemas, and how it refuses a bad meta."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from autopilots.ai_employee import EmployeeParts, pilot
from tests.autopilots.employee.parts import send, wrong_fields

MINIMAL: dict[str, dict[str, Any]] = {
    "email.process": {"from": "ada@example.com", "subject": "Hi", "text": "When does the course start?"},
    "crm.lead.create": {"email": "ada@example.com"},
    "email.send": {"to": "ada@example.com", "subject": "Hello", "text": "We are here."},
    "payment.checkout.create": {"amount": 4900, "currency": "usd", "description": "Course fee"},
    "lms.enrollment.create": {"student_email": "ada@example.com", "course": "Algebra"},
    "files.intake.upload": {"filename": "a.txt", "content_type": "text/plain", "content_base64": "aGVsbG8="},
    "task.schedule": {"task": "create_lead", "at": "2026-02-01T00:00:00Z", "meta": {"email": "a@b.co"}},
}


def test_manifest_states_what_the_contract_fixes() -> None:
    """The registration has the name, the eight capabilities, the two tasks it brings and its needs."""
    manifest = pilot.manifest("local:ai-employee")
    assert manifest["name"] == "ai-employee"
    assert {one["name"] for one in manifest["capabilities"]} == {*MINIMAL, "crm.lead.update"}
    assert manifest["tasks"] == {"update_lead": "crm.lead.update", "schedule_task": "task.schedule"}
    assert manifest["needs"] == {"kvNamespaces": ["AI_EMPLOYEE_LOGS"], "r2Buckets": ["employee-private"]}


def test_every_capability_and_field_is_described() -> None:
    """The schema that travels with the registration is valid, and says what each field means."""
    for capability in pilot.manifest("local:x")["capabilities"]:
        schema = capability["input_schema"]
        jsonschema.Draft202012Validator.check_schema(schema)
        assert capability["description"].endswith(".")
        undescribed = [name for name, one in schema["properties"].items() if not one.get("description")]
        assert not undescribed, capability["name"]


@pytest.mark.parametrize("capability", MINIMAL)
async def test_minimal_examples_work(parts: EmployeeParts, capability: str) -> None:
    """The smallest sensible meta of each capability passes its own schema and is served."""
    schemas = {one["name"]: one["input_schema"] for one in pilot.manifest("local:x")["capabilities"]}
    jsonschema.validate(MINIMAL[capability], schemas[capability])
    assert await send(parts, capability, MINIMAL[capability])


@pytest.mark.parametrize(
    ("capability", "meta", "fields"),
    [
        ("email.process", {}, {"meta"}),
        ("email.process", {"raw": "a", "raw_base64": "YQ=="}, {"meta"}),
        ("email.process", {"raw_base64": "not base64!"}, {"meta.raw_base64"}),
        ("crm.lead.create", {"email": "nobody", "status": "rich"}, {"meta.email", "meta.status"}),
        ("crm.lead.create", {"email": "a@b.co", "nick": "x"}, {"meta.nick"}),
        ("crm.lead.update", {"status": "lost"}, {"meta"}),
        ("crm.lead.update", {"id": "lead_1"}, {"meta"}),
        ("email.send", {"to": "a@b.co"}, {"meta"}),
        ("email.send", {"to": "a@b.co", "template": "farewell"}, {"meta.template"}),
        ("email.send", {"to": "a@b.co", "subject": "x", "text": "y", "variables": {"a": 1}}, {"meta"}),
        (
            "email.send",
            {"to": "a@b.co", "template": "payment_reminder", "variables": {"name": "A", "colour": "red"}},
            {
                "meta.variables.course",
                "meta.variables.amount",
                "meta.variables.currency",
                "meta.variables.due_date",
                "meta.variables.payment_url",
                "meta.variables.colour",
            },
        ),
        (
            "payment.checkout.create",
            {"amount": 0, "currency": "dollars", "description": ""},
            {"meta.amount", "meta.currency", "meta.description"},
        ),
        ("payment.checkout.create", {"amount": 1, "currency": "zzz", "description": "x"}, {"meta.currency"}),
        ("payment.checkout.create", {"amount": 1.5, "currency": "usd", "description": "x"}, {"meta.amount"}),
        (
            "payment.checkout.create",
            {"amount": 1, "currency": "usd", "description": "x", "success_url": "http://a.example/"},
            {"meta.success_url"},
        ),
        ("lms.enrollment.create", {"course": "\x07"}, {"meta.student_email", "meta.course"}),
        ("files.intake.upload", {"filename": "a"}, {"meta.content_type", "meta.content_base64"}),
        ("task.schedule", {"task": "x", "at": "2026-02-01T00:00:00Z", "cron": "* * * * *"}, {"meta"}),
        ("task.schedule", {"task": "x", "at": "2026-02-01T00:00:00"}, {"meta.at"}),
        ("task.schedule", {"task": "x", "cron": "61 * * * *"}, {"meta.cron"}),
        ("task.schedule", {"task": "x", "cron": "* * * *"}, {"meta.cron"}),
        ("task.schedule", {"task": "x", "cron": "r * * * *"}, {"meta.cron"}),
        ("task.schedule", {"task": "x", "cron": "* * * * *", "timezone": "Mars/Olympus"}, {"meta.timezone"}),
        ("task.schedule", {"task": "x", "cron": "* * * * *", "timezone": "America"}, {"meta.timezone"}),
        ("task.schedule", {"task": "schedule_task", "cron": "* * * * *"}, {"meta"}),
        ("task.schedule", {"cancel": "schedule_1", "task": "x"}, {"meta"}),
        ("task.schedule", {"at": "2026-02-01T00:00:00Z"}, {"meta"}),
    ],
)
async def test_bad_meta_is_refused_by_field(
    parts: EmployeeParts, capability: str, meta: dict[str, Any], fields: set[str]
) -> None:
    """A meta that breaks its model is 422 and every wrong field is named."""
    problem = await send(parts, capability, meta, status=422)
    assert problem["code"] == "invalid_body"
    assert wrong_fields(problem) == fields


async def test_enrollment_is_unique_per_student_and_course(parts: EmployeeParts) -> None:
    """The same student and course, in other letters and blanks, give the enrollment that is there."""
    first = await send(
        parts,
        "lms.enrollment.create",
        {"student_email": "Ada@Example.com", "course": "Linear  Algebra", "checkout_id": "checkout_9"},
    )
    again = await send(
        parts, "lms.enrollment.create", {"student_email": "ada@example.com", "course": "linear algebra"}
    )
    other = await send(
        parts, "lms.enrollment.create", {"student_email": "ada@example.com", "course": "Logic"}
    )
    assert first["created"] is True
    assert first["enrollment"]["checkout_id"] == "checkout_9"
    assert first["enrollment"]["created_at"] == "2026-01-01T00:00:00.000Z"
    assert again == {"created": False, "enrollment": first["enrollment"]}
    assert other["created"] is True
    assert other["enrollment"]["id"] != first["enrollment"]["id"]
