"""The contact and the enrolment form. A form exists only where there is somewhere to send it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autopilots.ai_stylist.markup import Attribute, Html, el, join


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to fill in; `kind` is an input type or `textarea`."""

    name: str
    kind: str
    autocomplete: str
    required: bool = False


_NAME = Field("name", "text", "name", required=True)
_EMAIL = Field("email", "email", "email", required=True)

CONTACT = (_NAME, _EMAIL, Field("message", "textarea", "off", required=True))
ENROLL = (_NAME, _EMAIL, Field("phone", "tel", "tel"), Field("interest", "textarea", "off"))


def form(action: str, page_type: str, say: Mapping[str, str]) -> Html:
    """Return a form that is posted to `action`, an https or mailto link that was checked before."""
    enroll = page_type == "enroll"
    rows = [_row(field, say) for field in (ENROLL if enroll else CONTACT)]
    return el(
        "form",
        join(*rows),
        el("p", el("button", say["form.enroll" if enroll else "form.send"], class_="button", type="submit")),
        method="post",
        action=action,
        # A mail program shows what it is given: plain lines, not an encoded query.
        enctype="text/plain" if action.startswith("mailto:") else None,
    )


def _row(field: Field, say: Mapping[str, str]) -> Html:
    name = f"field-{field.name}"
    shared: dict[str, Attribute] = {
        "id": name,
        "name": field.name,
        "autocomplete": field.autocomplete,
        "required": field.required,
    }
    if field.kind == "textarea":
        control = el("textarea", rows=5, **shared)
    else:
        control = el("input", None, type=field.kind, **shared)
    return el("p", el("label", say[f"form.{field.name}"], for_=name), control, class_="field")
