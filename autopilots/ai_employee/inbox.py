"""Reads an email message, however broken, into the few things that matter. Everything in it is hostile.

Python's parsers are thorough and, on input made for it, take minutes: header parsing and `html.parser` are
quadratic in the length of one header or of an unclosed tag. So every header, the number of parts and the
amount of HTML are bounded before they are parsed, and every `<` that no `>` follows is taken out.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from codecs import lookup
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage, Message
from email.parser import BytesParser, Parser
from email.policy import EmailPolicy
from email.utils import parseaddr, parsedate_to_datetime
from functools import lru_cache
from html.parser import HTMLParser
from typing import Any

from autopilots.ai_employee.fields import email_address
from infra.clock import rfc3339

MAX_HEADER = 4_000
"""Characters of one header that are looked at."""

MAX_TEXT = 100_000
"""Characters of text, or of HTML, that are looked at."""

MAX_CONTENT_HEADER = 800
"""The same for `Content-…`: there is a set of them in every part, and parameters are slow to parse."""

MAX_PARTS = 200
"""Lines that look like boundaries, beyond which a message's structure is not looked at."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MACHINES = re.compile(r"(no-?reply|do-?not-?reply|mailer-daemon|postmaster|bounces?)\b", re.IGNORECASE)
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape"})
"""Codecs of Python that no message is written in; two of them are quadratic."""

_PARSE_ERRORS = (ValueError, LookupError, AttributeError, TypeError, AssertionError, RecursionError)
"""What the standard library raises on broken headers and bodies, besides recording defects."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a message; `size` in bytes, decoded."""

    name: str
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as far as it could be read. What was missing is empty; `defects` says what was broken."""

    sender: str
    """Address in our form, or empty when there is no usable one."""
    sender_name: str
    subject: str
    text: str
    body_from: str
    """`plain`, `html` or `none`."""
    message_id: str
    date: str | None
    to: str
    attachments: tuple[Attachment, ...] = ()
    defects: tuple[str, ...] = ()
    automatic: bool = False
    """Sent by a machine: nobody should answer it."""
    bulk: bool = False
    """Sent to many."""
    marked_spam: bool = False
    """A filter on the way marked it."""
    urgent: bool = False
    """The sender marked it."""
    digest: str = field(default="", repr=False)
    """SHA-256 of what came in."""


_MODERN = EmailPolicy()


class _Bounded(EmailPolicy):
    """The modern policy, with headers cut before they are parsed, and given as plain text if that fails."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        """Return the header parsed, or as text."""
        return _parsed_header(name, value[: _limit(name)])


_POLICY = _Bounded()


def _limit(name: str) -> int:
    return MAX_CONTENT_HEADER if name.lower().startswith("content-") else MAX_HEADER


@lru_cache(maxsize=256)
def _parsed_header(name: str, value: str) -> str:
    """Return the header parsed, or as text. Remembered, since the parser asks for each again and again."""
    value = _readable(value)
    try:
        header: str = _MODERN.header_fetch_parse(name, value)
    except _PARSE_ERRORS:
        return " ".join(value.split())
    return header


def read_message(raw: bytes | str) -> Incoming:
    """Read an RFC 5322 message. Never raises for what is in it."""
    data = raw.encode("utf-8", "replace") if isinstance(raw, str) else raw
    defects: list[str] = []
    message = _parsed(raw, data, defects)
    text, body_from, attachments = _body(message, defects, as_text=isinstance(raw, str))
    for name, value in message.raw_items():
        if len(str(value)) > _limit(name):
            defects.append(f"header {name[:60]} is longer than {_limit(name)} characters: cut")
    defects += [f"no {name} header" for name in ("From", "Date", "Message-ID") if name not in message]
    sender_name, sender = _sender(_header(message, "From"))
    precedence = _header(message, "Precedence").lower()
    automatic = _header(message, "Auto-Submitted").lower() not in ("", "no") or precedence == "auto_reply"
    automatic = automatic or _header(message, "Return-Path").strip() == "<>" or bool(_MACHINES.match(sender))
    return Incoming(
        sender=_address(sender, defects),
        sender_name=clean(sender_name)[:200],
        subject=clean(_header(message, "Subject"))[:500],
        text=text,
        body_from=body_from,
        message_id=clean(_header(message, "Message-ID"))[:500],
        date=_date(_header(message, "Date"), defects),
        to=clean(_header(message, "To"))[:500],
        attachments=tuple(attachments),
        defects=tuple(dict.fromkeys(defects)),
        automatic=automatic,
        bulk="List-Unsubscribe" in message or precedence in ("bulk", "list", "junk"),
        marked_spam=_header(message, "X-Spam-Flag").lower() == "yes",
        urgent=_header(message, "X-Priority")[:1] == "1" or _header(message, "Importance").lower() == "high",
        digest=hashlib.sha256(data).hexdigest(),
    )


def _parsed(raw: bytes | str, data: bytes, defects: list[str]) -> Message:
    """Return the parsed message; one with absurd structure is read as headers and one body."""
    flat = len(re.findall(rb"(?:^|[\r\n])--", data)) > MAX_PARTS
    if flat:
        defects.append(f"more than {MAX_PARTS} boundaries: parts not looked at")
    try:
        return _parse(raw, headers_only=flat)
    except _PARSE_ERRORS:
        defects.append("the structure of the message could not be read")
        return _parse(raw, headers_only=True)


def _parse(raw: bytes | str, *, headers_only: bool) -> Message:
    if isinstance(raw, str):
        return Parser(EmailMessage, policy=_POLICY).parsestr(raw, headersonly=headers_only)
    return BytesParser(EmailMessage, policy=_POLICY).parsebytes(raw, headersonly=headers_only)


def _body(message: Message, defects: list[str], *, as_text: bool) -> tuple[str, str, list[Attachment]]:
    """Return the text, where it came from, and the attachments. `as_text`: the message came as a string."""
    found: dict[str, str] = {}
    attachments: list[Attachment] = []
    for part in _leaves(message):
        if part.is_multipart() and part.get_content_maintype() == "multipart":
            continue
        kind, name = part.get_content_type()[:100], part.get_filename()
        disposition = str(part.get("Content-Disposition", "")).strip().lower()
        if name or disposition.startswith("attachment") or not kind.startswith(("text/", "multipart/")):
            attachments.append(Attachment(clean(name or "")[:200], kind, len(_bytes_of(part))))
        elif kind not in found:
            found[kind] = _text_of(part, defects, as_text=as_text)
    defects += [type(defect).__name__ for part in _leaves(message) for defect in part.defects]
    defects += [f"{kind} is longer than {MAX_TEXT}: cut" for kind in found if len(found[kind]) > MAX_TEXT]
    if found.get("text/html", "").strip() and not found.get("text/plain", "").strip():
        return text_of_html(found["text/html"]), "html", attachments
    text = found.get("text/plain") or next(iter(found.values()), "")
    return _CONTROL.sub("", text)[:MAX_TEXT].strip(), "plain" if text.strip() else "none", attachments


def _leaves(message: Message) -> Iterator[Message]:
    """Yield the message and its parts, but not those of a message inside it."""
    yield message
    if message.get_content_maintype() == "multipart" and message.is_multipart():
        for part in message.get_payload():
            if isinstance(part, Message):
                yield from _leaves(part)


def _bytes_of(part: Message) -> bytes:
    """Return what a part holds, decoded as far as it can be; of a message inside it, its bodies."""
    waiting, held = [part], []
    while waiting:  # not by recursion: messages may be nested deeper than calls
        one = waiting.pop()
        inner = one.get_payload()
        if isinstance(inner, list):
            waiting += [part for part in reversed(inner) if isinstance(part, Message)]
            continue
        payload = one.get_payload(decode=True)
        if isinstance(payload, bytes):
            held.append(payload)
    return b"".join(held)


def _text_of(part: Message, defects: list[str], *, as_text: bool) -> str:
    payload = part.get_payload()
    transfer = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    if as_text and transfer not in ("base64", "quoted-printable") and isinstance(payload, str):
        return payload  # whatever charset it names, its characters are what they are
    data = _bytes_of(part)
    charset = str(part.get_content_charset("") or "utf-8")
    try:
        return data.decode(_codec(charset))
    except LookupError:
        defects.append(f"unknown charset {clean(charset)[:40]}")
    except ValueError:
        defects.append(f"text is not valid {clean(charset)[:40]}")
    try:
        return data.decode("utf-8")
    except UnicodeError:
        return data.decode("latin-1")


def _codec(charset: str) -> str:
    """Return the name of the codec for a charset. Raises `LookupError`, or `ValueError` for a NUL in it."""
    name = lookup(charset).name
    if name in _NO_CHARSETS:
        raise LookupError(charset)
    return name


def _readable(value: str) -> str:
    """Return a header in which bytes that are not ASCII are read as UTF-8, or else as Latin-1."""
    try:
        raw = value.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:  # it came as text
        return value.encode("utf-8", "replace").decode("utf-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _header(message: Message, name: str) -> str:
    return str(message.get(name, ""))


def _sender(header: str) -> tuple[str, str]:
    """Return name and address of the first sender."""
    try:
        return parseaddr(header)
    except _PARSE_ERRORS:
        return "", ""


def _address(address: str, defects: list[str]) -> str:
    try:
        return email_address(address)
    except ValueError:
        defects.append("no usable sender address")
        return ""


def _date(value: str, defects: list[str]) -> str | None:
    if not value:
        return None
    try:
        date = parsedate_to_datetime(value)
        return rfc3339(date.replace(tzinfo=date.tzinfo or datetime.UTC).timestamp())
    except (ValueError, OverflowError, OSError, TypeError, IndexError):
        defects.append("the Date header is not valid")
        return None


def clean(text: str) -> str:
    """Return text on one line without control characters or lone surrogates."""
    plain = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(_CONTROL.sub(" ", plain).split())


class _Words(HTMLParser):
    """Collects the text of a page; blocks become lines, scripts and styles are left out."""

    _SILENT = frozenset({"script", "style", "head", "title", "template", "noscript"})
    _LINES = frozenset(
        {"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "table", "ul", "ol", "blockquote"}
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a line end, or that what follows is not text."""
        if tag in self._SILENT:
            self._silent.append(tag)
        elif tag == "body":
            self._silent.clear()  # a head that was never closed
        elif tag in self._LINES:
            self.words.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """Note a line end, or that text begins again."""
        if tag in self._silent:
            del self._silent[self._silent.index(tag) :]
        elif tag in self._LINES:
            self.words.append("\n")

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        if not self._silent:
            self.words.append(data)


def text_of_html(html: str) -> str:
    """Return the text of an HTML body, one line per block."""
    html = re.sub(r"<!--(?:.*?-->|.*$)", "", html[:MAX_TEXT], flags=re.DOTALL)
    html = re.sub(r"<(?![a-zA-Z/][^<>]*>)", "&lt;", html)
    # What is quoted is of no use here, and an open quote would hide the end of its tag.
    html = re.sub(r"<(/?[a-zA-Z][a-zA-Z0-9]*)[^<>]*>", r"<\1>", html)
    words = _Words()
    words.feed(html)
    words.close()
    lines = (" ".join(line.split()) for line in _CONTROL.sub(" ", "".join(words.words)).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
