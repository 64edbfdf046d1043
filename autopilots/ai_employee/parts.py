"""What this autopilot gets to work with beyond the parts every autopilot has."""

from __future__ import annotations

from dataclasses import dataclass

from autopilots.ai_employee.checkouts import Checkouts
from autopilots.ai_employee.mail import Mail
from autopilots.kit import Parts


@dataclass(frozen=True)
class EmployeeParts(Parts):
    """The kit's parts, a way to send mail and a way to open checkouts."""

    mail: Mail
    checkouts: Checkouts
