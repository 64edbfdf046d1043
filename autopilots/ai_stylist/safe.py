"""Cleans and checks what a caller or a model wrote: text, links, mail addresses, phone numbers."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

# Joiners and direction marks shape honest text; every other format character only hides or reorders it.
_KEPT_FORMATS = frozenset("\u200c\u200d\u200e\u200f\u00ad")
_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,63}")
_PHONE = re.compile(r"\+?[0-9(][0-9 ().-]{2,30}")
_SCHEME = re.compile(r"[^/?#]*:")
_URL_CHARACTERS = re.compile(r"[^\s\\<>\"'`{}|^\x00-\x20\x7f-\x9f]+")


def prose(value: Any) -> Any:
    """Return text in NFC without control, format or non-characters but line breaks.

    Values that are no text are returned as they are, for pydantic to refuse.
    """
    if not isinstance(value, str):
        return value
    lines = unicodedata.normalize("NFC", value).splitlines()
    return "\n".join("".join(" " if c == "\t" else c for c in line if _visible(c)).strip() for line in lines)


def one_line(value: Any) -> Any:
    """Return text as `prose` does, with every run of blanks and line breaks made one space."""
    return " ".join(prose(value).split()) if isinstance(value, str) else value


def shortened(text: str, limit: int) -> str:
    """Return text of at most `limit` characters, cut between words and ending in an ellipsis when cut."""
    if len(text) <= limit:
        return text
    cut = text[: limit - 1]
    at = cut.rfind(" ")
    return cut[: at if at > limit // 2 else limit].rstrip(" ,;:.-") + "…"


def check_link(link: str) -> str:
    """Return a link that a page may carry: https, mailto, tel, or relative to the page. Raises ValueError."""
    if not link:
        return link
    shown = _URL_CHARACTERS.fullmatch(link) and all(map(_visible, link))
    if not shown or link.startswith("//"):
        raise ValueError("not a link: https://…, mailto:…, tel:… or a path")
    if not _SCHEME.match(link):
        return link
    scheme, _, rest = link.partition(":")
    to = rest.partition("?")[0]
    if scheme == "https":
        _check_https(link)
    elif scheme == "mailto" and to:
        check_mail(to)
    elif scheme == "tel" and rest:
        check_phone(rest)
    else:
        raise ValueError("a link starts with https:, mailto: or tel:, or is a path")
    return link


def check_form_action(link: str) -> str:
    """Return where a form may be sent: an https or mailto link. Raises ValueError."""
    if link and not link.startswith(("https://", "mailto:")):
        raise ValueError("a form is sent to an https:// or mailto: address")
    return check_link(link)


def check_mail(address: str) -> str:
    """Return a mail address, or an empty text. Raises ValueError."""
    if address and not _MAIL.fullmatch(address):
        raise ValueError("not a mail address")
    return address


def check_phone(number: str) -> str:
    """Return a phone number as people write it, or an empty text. Raises ValueError."""
    if number and not _PHONE.fullmatch(number):
        raise ValueError("not a phone number: digits, spaces and ()+-.")
    return number


def _visible(character: str) -> bool:
    category = unicodedata.category(character)
    if character == "\t":
        return True
    if category == "Cf":
        return character in _KEPT_FORMATS
    code = ord(character)
    return (
        category not in ("Cc", "Cs", "Zl", "Zp") and code & 0xFFFE != 0xFFFE and not 0xFDD0 <= code <= 0xFDEF
    )


def _check_https(link: str) -> None:
    parts = urlsplit(link)
    if not link.startswith("https://") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("an https link has a host and no user name")
    _ = parts.port  # raises ValueError where it is no number


Words = Annotated[str, BeforeValidator(one_line), Field(max_length=120)]
"""One short line: a heading, a name, a label."""

Passage = Annotated[str, BeforeValidator(one_line), Field(max_length=600)]
"""A few sentences."""

Prose = Annotated[str, BeforeValidator(prose), Field(max_length=4000)]
"""Longer text in lines."""

Link = Annotated[str, Field(max_length=2000), AfterValidator(check_link)]
"""https, mailto, tel or relative."""

FormAction = Annotated[str, Field(max_length=2000), AfterValidator(check_form_action)]
"""https or mailto."""

Mail = Annotated[str, Field(max_length=254), AfterValidator(check_mail)]
Phone = Annotated[str, Field(max_length=40), AfterValidator(check_phone)]
