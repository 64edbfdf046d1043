"""The `Blobs` port: bytes by key, with a content type and small metadata.

A key is one or more segments of `A-Za-z0-9._-`, joined by `/`, no segment `.`, `..` or longer than 200, at
most 512 characters. No key may continue another (`a` and `a/b`): S3 would keep both, a folder raises
`Conflict`. A bucket is named as R2 and S3 name theirs: 3 to 63 of `a-z0-9-.`, a letter or digit at both ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router.errors import Invalid

_SEGMENT = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,200}")
_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with what is known of them."""

    data: bytes
    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Blobs(Protocol):
    """What an adapter has to do; a missing key is None or False, never an error.

    Raises `Invalid` for what is no key or no bucket name, and `StoreUnavailable` when the store cannot be
    reached: then nothing was kept. `tests/contract/test_blobs.py` holds every adapter to it.
    """

    async def put(self, bucket: str, key: str, blob: Blob) -> None:
        """Store a blob, whole or not at all, replacing what the key held."""
        ...

    async def get(self, bucket: str, key: str) -> Blob | None:
        """Return the blob, or None."""
        ...

    async def delete(self, bucket: str, key: str) -> bool:
        """Remove a blob and return whether there was one."""
        ...

    async def list(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys that start with `prefix`, sorted."""
        ...


def check_key(key: str) -> str:
    """Return `key`, or raise `Invalid` when it is none."""
    if len(key) > 512 or not key or not all(_SEGMENT.fullmatch(part) for part in key.split("/")):
        raise Invalid([("key", f"{key[:80]!r} is not a blob key: segments of A-Za-z0-9._- joined by /")])
    return key


def check_bucket(bucket: str) -> str:
    """Return `bucket`, or raise `Invalid` when it is no name of one."""
    if not _BUCKET.fullmatch(bucket):
        raise Invalid([("bucket", f"{bucket[:80]!r} is not a bucket name: 3 to 63 of a-z 0-9 - .")])
    return bucket
