"""The four letters this autopilot writes: their variables, their words, and both of their bodies."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from pydantic import Field, ValidationError

from autopilots.ai_employee.fields import Amount, Currency, Line, WebUrl, money
from autopilots.kit import Meta, problems_of
from router.errors import Invalid

TemplateName = Literal["enrollment_inquiry", "enrollment_checkout", "payment_reminder", "welcome_enrolled"]


@dataclass(frozen=True, slots=True)
class Written:
    """A letter ready to send: the same words as text and as HTML."""

    subject: str
    text: str
    html: str


class Addressed(Meta):
    """What every letter needs."""

    name: Line = Field(description="Whom the letter greets.")
    sender_name: Line = Field("The admissions team", description="Who signs it.")


class Inquiry(Addressed):
    """Variables of `enrollment_inquiry`."""

    course: Line = Field(description="What they asked about.")
    info_url: WebUrl | None = Field(None, description="Where to read more.")


class CheckoutLink(Addressed):
    """Variables of `enrollment_checkout`."""

    course: Line = Field(description="What they enrol in.")
    amount: Amount = Field(description="Price in minor units (cents).")
    currency: Currency = Field(description="ISO 4217 code.")
    checkout_url: WebUrl = Field(description="Where they pay.")


class Reminder(Addressed):
    """Variables of `payment_reminder`."""

    course: Line = Field(description="What the payment is for.")
    amount: Amount = Field(description="What is open, in minor units (cents).")
    currency: Currency = Field(description="ISO 4217 code.")
    due_date: date = Field(description="When it is or was due: YYYY-MM-DD.")
    payment_url: WebUrl = Field(description="Where they pay.")


class Welcome(Addressed):
    """Variables of `welcome_enrolled`."""

    course: Line = Field(description="What they are enrolled in.")
    access_url: WebUrl = Field(description="Where the course is.")
    start_date: date | None = Field(None, description="First day: YYYY-MM-DD.")


@dataclass(frozen=True, slots=True)
class Letter:
    """The words of a letter. `{…}` stands for a variable; a paragraph whose variable is missing is left out.

    `button` is a label and the variable that holds its link.
    """

    variables: type[Addressed]
    subject: str
    before: tuple[str, ...]
    button: tuple[str, str]
    after: tuple[str, ...]


LETTERS: Mapping[str, Letter] = {
    "enrollment_inquiry": Letter(
        Inquiry,
        "Your question about {course}",
        (
            "Thank you for asking about {course}.",
            "Tell us when you would like to start and what you want to achieve, and we will send you the "
            "dates, the price and what you need to apply.",
        ),
        ("Read more", "info_url"),
        ("Simply reply to this email. A person reads every answer.",),
    ),
    "enrollment_checkout": Letter(
        CheckoutLink,
        "Complete your enrollment in {course}",
        (
            "Your place in {course} is reserved.",
            "The price is {price}. Pay here to complete your enrollment:",
        ),
        ("Pay {price}", "checkout_url"),
        ("Your enrollment is confirmed by email once the payment has arrived.",),
    ),
    "payment_reminder": Letter(
        Reminder,
        "Reminder: {price} for {course}, due {due_date}",
        (
            "This is a reminder that {price} for {course} is still open. It is due on {due_date}.",
            "You can pay here:",
        ),
        ("Pay {price}", "payment_url"),
        (
            "If you have paid already, thank you: please ignore this letter.",
            "If you need more time, reply to it and we will find a way.",
        ),
    ),
    "welcome_enrolled": Letter(
        Welcome,
        "Welcome to {course}",
        ("You are enrolled in {course}. We are glad to have you.", "Your first day is {start_date}."),
        ("Open the course", "access_url"),
        ("If something does not work, reply to this email and we will help.",),
    ),
}


def write(template: str, variables: Mapping[str, Any]) -> Written:
    """Return the letter `template` filled in.

    Raises `Invalid` naming each missing, unknown or wrong variable as `meta.variables.NAME`.
    """
    letter = LETTERS[template]
    try:
        checked = letter.variables.model_validate(variables)
    except ValidationError as error:
        raise Invalid(
            [(path.replace("meta", "meta.variables", 1), message) for path, message in problems_of(error)]
        ) from None
    values = _values(checked)
    return Written(letter.subject.format_map(values), _text(letter, values), _html(letter, values))


def _values(checked: Addressed) -> dict[str, str]:
    """Return what may stand for `{…}`: every variable that has a value, and `price`."""
    values = {
        name: str(value) for name, value in checked.model_dump(mode="json").items() if value is not None
    }
    if "amount" in values:
        values["price"] = money(int(values["amount"]), values["currency"])
    return values


def _filled(paragraphs: tuple[str, ...], values: Mapping[str, str]) -> list[str]:
    """Return the paragraphs whose variables all have a value."""
    filled = []
    for paragraph in paragraphs:
        try:
            filled.append(paragraph.format_map(values))
        except KeyError:  # an optional variable that was not given
            continue
    return filled


def _text(letter: Letter, values: Mapping[str, str]) -> str:
    label, link = letter.button
    blocks = [f"Hello {values['name']},", *_filled(letter.before, values)]
    if link in values:
        blocks.append(f"{label.format_map(values)}: {values[link]}")
    blocks += [*_filled(letter.after, values), f"Kind regards\n{values['sender_name']}"]
    return "\n\n".join(blocks) + "\n"


def _html(letter: Letter, values: Mapping[str, str]) -> str:
    # The values are escaped before they meet the words, so nothing a stranger wrote becomes markup.
    safe = {name: html.escape(value) for name, value in values.items()}
    label, link = letter.button
    blocks = [f"<p>Hello {safe['name']},</p>", *(f"<p>{line}</p>" for line in _filled(letter.before, safe))]
    if link in safe:
        blocks.append(f'<p><a href="{safe[link]}">{label.format_map(safe)}</a></p>')
    blocks += [f"<p>{line}</p>" for line in _filled(letter.after, safe)]
    blocks.append(f"<p>Kind regards<br>{safe['sender_name']}</p>")
    title = letter.subject.format_map(safe)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title></head>\n'
        '<body style="font-family: sans-serif; line-height: 1.5; max-width: 36em">\n'
        + "\n".join(blocks)
        + "\n</body>\n</html>\n"
    )
