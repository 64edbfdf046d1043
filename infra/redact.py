"""Takes secrets, known ones and what looks like one, out of text that is kept, shown or sent to a model."""

from __future__ import annotations

import html
import json
import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

STARS = "****"
_SHORTEST = 8
"""Known secrets shorter than this are left alone: they would take ordinary words with them."""
_PIECE = 12
"""So many first characters of a known secret are it, too: texts are cut off at some length."""


def _word(prefix: str, rest: str) -> str:
    """Return a pattern for a prefix that no letter or digit stands before, unless that ends an escape.

    The prefix comes first and the look behind after it: `re` finds plain text a hundred times faster.
    """
    escapes = ["%[0-9A-Fa-f]{2}", r"\\[nrtbf]", r"\\u[0-9A-Fa-f]{4}", r"\x1b\[[0-9]m", r"\x1b\[[0-9]{2}m"]
    before = [f"(?<![A-Za-z0-9]{prefix})", *(f"(?<={escape}{prefix})" for escape in escapes)]
    return f"{prefix}(?:{'|'.join(before)}){rest}"


# Each goes on over all that tokens are made of, so that one right behind another goes with it.
_SHAPES = [
    r"cf(?:k|[a-z]{1,3}t)_[A-Za-z0-9_-]{8,}",  # Cloudflare: cfk_, cfut_, cfat_, cfoat_
    _word("sk-", "[A-Za-z0-9_-]{8,}"),  # OpenAI and Anthropic
    *(
        _word(f"{kind}k_{mode}_", "[A-Za-z0-9]{8}[A-Za-z0-9_-]*")  # Stripe
        for kind in "rs"
        for mode in ("live", "test")
    ),
    r"whs(?:ec|k)_(?:[A-Za-z0-9+/=_-]|%2[BbFf]|%3[Dd]|\\/){8,}",  # Standard Webhooks, also within a URL
    r"apr_[0-9A-Za-z]{16}[A-Za-z0-9_-]*",  # our own keys, whole or cut off
    r"A(?:KIA|SIA|BIA|CCA)[0-9A-Z]{16}",  # AWS access key ids
    *(_word(f"gh{kind}_", "[A-Za-z0-9]{20}[A-Za-z0-9_-]*") for kind in "pousr"),  # GitHub
    r"github_pat_[A-Za-z0-9]{20}[A-Za-z0-9_-]*",
    r"xox[abeoprs]-[A-Za-z0-9-]{10}[A-Za-z0-9_-]*",  # Slack
    # JSON web tokens. What may stand before is bounded, or a long run of `-eyJ` would take a very long time.
    r"(?<![A-Za-z0-9_-])([A-Za-z0-9_-]{0,40}?)eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)+",
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY[\s\S]*?(?:-----END [A-Z ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----|\Z)",
    # Secrets that only what stands before them gives away; it is the first group and stays.
    r"((?i:bearer)(?:[ \t+]|%20)+)[A-Za-z0-9._~+/=%-]{8,}",
    r"""((?i:authorization)[\\"']*\s*[:=,]\s*b?[\\"']*(?:(?i:basic|bearer|digest|token)\s+)?)[^\s"'\\,;]{8,}""",
    r"""((?i:secret_?access_?key|session_?token|security-token|x-amz-signature)[\\"']*\s*[:=]\s*[\\"']*)"""
    r"[A-Za-z0-9+/=%]{16,}",  # AWS, also in a signed URL
    r"""(:(?:\\?/){2})[^\s/:@"'<>\\]{0,80}:[^\s/"'<>\\]{1,4000}(?=@)""",  # credentials in a URL
]
_LOOK_SECRET = [re.compile(shape) for shape in _SHAPES]

Span = tuple[int, int]


class Redactor:
    """Replaces secrets by stars. `known` are secrets of this installation, however they look."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = [_Known(one) for one in {*known} if len(one) >= _SHORTEST]

    def finds(self, text: str) -> bool:
        """Whether there is a secret in `text`."""
        return next(self._spans(text), None) is not None

    def text(self, text: str) -> str:
        """Return `text` with every secret replaced."""
        while spans := sorted(self._spans(text)):
            # Once more: what stood right behind a secret may show as one now that it is gone.
            text = _starred(text, spans)
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON value with every secret in its texts and keys replaced."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(member) for key, member in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(member) for member in value]
        return value

    def _spans(self, text: str) -> Iterator[Span]:
        """Find every secret in the text as it is: they may overlap, and one may hide another's prefix."""
        for pattern in _LOOK_SECRET:
            for match in pattern.finditer(text):
                yield (match.end(1) if pattern.groups else match.start(), match.end())
        for known in self._known:
            yield from known.spans(text)


class _Known:
    """A known secret."""

    def __init__(self, secret: str) -> None:
        forms = [_in_any_form(character) for character in secret]
        self._whole = re.compile("".join(forms))
        self._start = re.compile("".join(forms[:_PIECE]))
        self._rest = [re.compile(form) for form in forms[_PIECE:]]

    def spans(self, text: str) -> Iterator[Span]:
        """Find it, whole or cut off, wherever it starts: also where a search would step over it."""
        at = 0
        while match := self._start.search(text, at):
            at = match.start() + 1
            whole = self._whole.match(text, match.start())
            yield match.start(), whole.end() if whole else self._end(text, match.end())

    def _end(self, text: str, end: int) -> int:
        """Return how far it goes on, being cut off somewhere."""
        for one in self._rest:
            following = one.match(text, end)
            if following is None:
                break
            end = following.end()
        return end


def _starred(text: str, spans: list[Span]) -> str:
    """Return the text with stars for each span, for those that touch once. `spans` are in order."""
    parts: list[str] = []
    at = 0
    for start, end in spans:
        if start > at or not parts:
            parts.append(text[at:start] + STARS)
        at = max(at, end)
    return "".join(parts) + text[at:]


def _in_any_form(character: str) -> str:
    """Return a pattern for a character as it is, or as URLs, JSON, Python or HTML escape it."""
    if character.isascii() and character.isalnum():
        return character
    escapes = {
        quote(character, safe="", errors="surrogatepass"),
        json.dumps(character)[1:-1],
        f"\\u{ord(character):04x}",
        html.escape(character),
    }
    forms = [re.escape(form) for form in escapes - {character}]
    forms += [r"\+"] if character == " " else []
    return rf"(?:\\?{re.escape(character)}|(?i:{'|'.join(sorted(forms))}))"


# What would start a new line, drive a terminal, or not encode.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class RedactingFormatter(logging.Formatter):
    """Formats log records without their secrets: a message is one line, a traceback is indented under it.

    So no text from outside can pass for another record.
    """

    def __init__(self, redactor: Redactor, format: str) -> None:  # noqa: A002  logging's own word
        super().__init__(format)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        try:
            record.message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # `logging` would write the arguments to stderr as they are.
            record.message = f"{record.msg!r} does not go with {record.args!r}"
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        lines = [_plain(self._redactor.text(self.formatMessage(record)))]
        if record.exc_info:
            lines += self._indented(self.formatException(record.exc_info))
        if record.stack_info:
            lines += self._indented(record.stack_info)
        return "\n".join(lines)

    def _indented(self, text: str) -> list[str]:
        return [f"    {_plain(line)}" for line in self._redactor.text(text).split("\n")]


def _plain(line: str) -> str:
    """Return a line with what is not to be printed as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), line)
