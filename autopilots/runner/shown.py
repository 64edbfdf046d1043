"""What of an output is shown: without secrets, and not more of it than anybody reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from infra.redact import Redactor

HALF = 12_000
"""Characters of the beginning, and of the end, of a text that is shown: however they are escaped, what is
kept of a call stays below the limit of a document in the table."""
SEEN = 200
"""Characters of a value in a sentence about it."""
HELD = 1 << 17
"""Bytes of a text that are looked through for secrets."""
_TORN = 8192
"""Characters next to a tear that are not shown: half a secret is not recognised, so it may be there."""


def pieces_of(data: bytes) -> tuple[list[bytes], int]:
    """Return a text as `text_of` takes it."""
    if len(data) <= HELD:
        return [data], 0
    return [data[: HELD // 2], data[-HELD // 2 :]], len(data) - HELD


def text_of(pieces: Sequence[bytes], left_out: int, redactor: Redactor) -> tuple[str, bool]:
    """Return a text, and whether it is not the whole one.

    `pieces` are all of it, or its beginning and its end with `left_out` bytes between. They are redacted
    first and cut then.
    """
    texts = [redactor.text(piece.decode("utf-8", "replace")) for piece in pieces]
    texts[-1] = texts[-1].rstrip("\r\n")
    if left_out:
        texts = [texts[0][:-_TORN], texts[-1][_TORN:]]
    elif len(texts[0]) <= 2 * HALF:
        return texts[0], False
    return f"{texts[0][:HALF]}\n[… not all of it is shown …]\n{texts[-1][-HALF:]}", True


def json_of(value: Any, most: int, redactor: Redactor) -> tuple[Any, bool]:
    """Return a JSON value, null where it has more than `most` bytes, and whether that is so."""
    if len(msgspec.json.encode(value)) > most:
        return None, True
    return redactor.value(value), False


def seen(value: Any, redactor: Redactor) -> str:
    """Return a value as it stands in a sentence about it."""
    text, _ = text_of(*pieces_of(msgspec.json.encode(value)), redactor)
    return text if len(text) <= SEEN else f"{text[:SEEN]}…"
