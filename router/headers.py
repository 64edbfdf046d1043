"""How the request headers that carry values of ours are written."""

from __future__ import annotations

import re

REVISION = re.compile(r'(?:W/)?"[0-9]{1,15}"|[0-9]{1,15}')
"""A revision in `If-Match`: as an `ETag` shows it, or the bare number."""

IDEMPOTENCY_KEY = re.compile(r"[\x21\x23-\x7e]{1,255}")
"""An idempotency key without the quotes around it."""
