"""How the request headers that carry values of ours are written, and which of them say a thing once."""

from __future__ import annotations

import re
from collections.abc import Iterable

from router.errors import Malformed

REVISION = re.compile(r'(?:W/)?"[0-9]{1,15}"|[0-9]{1,15}')
"""A revision in `If-Match`: as an `ETag` shows it, or the bare number."""

IDEMPOTENCY_KEY = re.compile(r"[\x21\x23-\x7e]{1,255}")
"""An idempotency key without the quotes around it."""

SINGLE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"if-match",
        b"origin",
        b"transfer-encoding",
        b"x-autopilot-hops",
    }
)
"""Headers that decide what a call may do or what it means. Of two, a proxy may have judged the other one."""


def check_single(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise `Malformed` when a header of `SINGLE` is there twice, whether or not both say the same."""
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen and name in SINGLE:
            raise Malformed(f"the header {name.decode()} is given twice")
        seen.add(name)
