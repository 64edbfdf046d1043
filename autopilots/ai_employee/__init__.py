"""The `ai-employee` autopilot: email, leads, payments, enrollments, documents and schedules of a school."""

from __future__ import annotations

from typing import Any

from autopilots.ai_employee.enrollment import EnrollStudent, enroll
from autopilots.ai_employee.intake import UploadDocument, take_in
from autopilots.ai_employee.leads import CreateLead, UpdateLead, create_lead, update_lead
from autopilots.ai_employee.parts import EmployeeParts
from autopilots.ai_employee.paying import CreateCheckout, open_checkout
from autopilots.ai_employee.processing import ProcessEmail, process_email
from autopilots.ai_employee.schedule import ScheduleTask, schedule_task
from autopilots.ai_employee.sending import SendEmail, send_once
from autopilots.kit import Call, Pilot

__all__ = ["EmployeeParts", "pilot"]

pilot: Pilot[EmployeeParts] = Pilot(
    "ai-employee",
    "Reads and writes email, keeps leads, opens checkouts, enrols students, takes documents, schedules tasks",
    needs={"kvNamespaces": ["AI_EMPLOYEE_LOGS"], "r2Buckets": ["employee-private"]},
    tasks={"update_lead": "crm.lead.update", "schedule_task": "task.schedule"},
)


@pilot.capability("email.process")
async def email_process(meta: ProcessEmail, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Read an email, say what it is about and how pressing, and suggest tasks. Acts on nothing by itself."""
    return await process_email(meta, call)


@pilot.capability("crm.lead.create")
async def crm_lead_create(meta: CreateLead, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Create a lead; an address that has one already gets that one back, unchanged."""
    return await create_lead(meta, call)


@pilot.capability("crm.lead.update")
async def crm_lead_update(meta: UpdateLead, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Change a lead named by id or email, and append a note; optionally only at a given revision."""
    return await update_lead(meta, call)


@pilot.capability("email.send")
async def email_send(meta: SendEmail, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Send one email, at most once per idempotency key; into the outbox where no mail server is set up."""
    return await send_once(meta, call)


@pilot.capability("payment.checkout.create")
async def payment_checkout_create(meta: CreateCheckout, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Open a checkout at Stripe; a local record that takes no money where no Stripe key is set."""
    return await open_checkout(meta, call)


@pilot.capability("lms.enrollment.create")
async def lms_enrollment_create(meta: EnrollStudent, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Enrol a student in a course, once."""
    return await enroll(meta, call)


@pilot.capability("files.intake.upload")
async def files_intake_upload(meta: UploadDocument, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Take a document (PDF, PNG, JPEG, text, CSV, Word) after checking what it really is."""
    return await take_in(meta, call)


@pilot.capability("task.schedule")
async def task_schedule(meta: ScheduleTask, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Plan a task once at a time or by a cron expression, or cancel such a schedule."""
    return await schedule_task(meta, call)
