"""`lms.enrollment.create`: who takes which course, once each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from autopilots.ai_employee.fields import Email, Line, RecordId
from autopilots.ai_employee.once import id_for
from autopilots.ai_employee.parts import EmployeeParts
from autopilots.kit import Call, Meta
from infra.clock import rfc3339
from infra.table import Key
from router.errors import Conflict, Stale

ENROLLMENTS = "employee:enrollment"
"""Partition of the enrollments; the sort key is ADDRESS/COURSE with the course's name folded."""

_Course = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]


class EnrollStudent(Meta):
    """A student and a course."""

    student_email: Email = Field(description="The student's address.")
    course: _Course = Field(description="The course's name; case and blanks do not matter.")
    student_name: Line | None = Field(None, description="The student's name.")
    checkout_id: RecordId | None = Field(None, description="The checkout that pays for it.")


async def enroll(meta: EnrollStudent, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Enrol the student; for a course they are in already, return that enrollment with `created` false."""
    table = call.parts.table
    folded = " ".join(meta.course.casefold().split())
    key: Key = (ENROLLMENTS, f"{meta.student_email}/{folded}")
    document = {
        **meta.model_dump(),
        "id": id_for(call, "enrollment"),
        "status": "enrolled",
        "created_at": rfc3339(call.parts.clock()),
    }
    try:
        await table.put(key, document, if_revision=0)
    except Stale:
        known = await table.get(key)
        if known is None:
            raise Conflict("the enrollment was removed while it was being made: try again") from None
        return {"created": False, "enrollment": known.document}
    return {"created": True, "enrollment": document}
