"""`file.change`: one file, whole or not at all, and how it was before.

    ("runner-backup", HASH)    the backup of the first time that a change was made within something

Backups are blobs `PATH/MODE-SHA256`, by what is in them: one is kept once, and stays.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from autopilots.kit import Call
from autopilots.runner import files
from autopilots.runner.files import MAX_FILE, Found, sha256
from autopilots.runner.forms import Change
from autopilots.runner.once import KEPT_SECONDS, digest, fingerprint, once
from autopilots.runner.parts import RunnerParts
from autopilots.runner.places import place
from autopilots.runner.unmet import Unmet
from infra.blobs import Blob
from infra.table import Key
from router.errors import Invalid, NotFound, Stale, TooLarge

BUCKET = "runner-backups"


async def change(meta: Change, call: Call[RunnerParts]) -> dict[str, Any]:
    """Change a file and return `{path, action, changed, before, sha256, backup}`.

    `before` and `sha256` are hashes of the file before and after, null for none. `backup` restores what was
    before; empty stands for no file. Under an idempotency key a repeat answers the same; after a death in
    between it finds the file as it should be, and changes nothing. `within` says what several tries belong
    to: of the same change each answers the backup of the first. Raises `Unmet` for a text that is not there,
    or not once, `NotFound` for a backup, `Invalid`, `TooLarge`, and as `once`.
    """
    path = await asyncio.to_thread(place, call.parts.root, meta.cwd, meta.path)
    return await once(call, meta, partial(_change, meta, path, call), again=True)


async def _change(meta: Change, path: Path, call: Call[RunnerParts]) -> dict[str, Any]:
    parts = call.parts
    name = str(path.relative_to(parts.root))
    restored = await _restored(meta, name, parts)
    async with parts.changing:
        before = await asyncio.to_thread(files.read, path)
        after = restored if meta.action == "restore" else _after(meta, before)
        changed = (after and after.data) != (before and before.data)
        backup = await _backup(meta, name, before, call)
        if changed:
            await asyncio.to_thread(_put, path, after, parts.new_id(".autopilot"))
    return {
        "path": name,
        "action": meta.action,
        "changed": changed,
        "before": before and sha256(before.data),
        "sha256": after and sha256(after.data),
        "backup": backup,
    }


def _put(path: Path, after: Found | None, part: str) -> None:
    if after is None:
        files.remove(path)
    else:
        files.write(path, after.data, after.mode or None, part)


def _after(meta: Change, before: Found | None) -> Found | None:
    """Return what a file has to be; a mode of 0 is that of a new one. Raises `Unmet` and `TooLarge`."""
    if meta.action == "delete" or (meta.if_missing and before):
        return None if meta.action == "delete" else before
    old = before.data if before else b""
    if meta.action == "replace":
        if before is None:
            raise Unmet(["there is no such file"])
        new = _replaced(old, (meta.find or "").encode(), (meta.with_ or "").encode(), everywhere=meta.all)
    else:
        text = (meta.text or "").encode()
        new = text if meta.action == "write" else _appended(old, text)
    if len(new) > MAX_FILE:
        raise TooLarge(f"a file of {len(new)} bytes is over the limit of {MAX_FILE}")
    return Found(new, before.mode if before else 0)


def _appended(old: bytes, text: bytes) -> bytes:
    """Return a file with text at its end, on a line of its own; one that has it there as it is."""
    if old.endswith(text):
        return old
    return old + (b"\n" if old and not old.endswith(b"\n") else b"") + text


def _replaced(old: bytes, find: bytes, new: bytes, *, everywhere: bool) -> bytes:
    """Return a file with one text in place of another; what was replaced before is not replaced again.

    Raises `Unmet` when it is not there, or several times.
    """
    # Where the new text has the old one in it, only what is not part of a new one already is to be replaced.
    pieces = old.split(new) if find in new else [old]
    count = sum(piece.count(find) for piece in pieces)
    if count == 0 and new not in old:
        raise Unmet(["the text to replace is not in the file"])
    if count > 1 and not everywhere:
        raise Unmet([f"the text to replace is in the file {count} times, not once"])
    between = new if find in new else b""
    return between.join(piece.replace(find, new) for piece in pieces)


async def _backup(meta: Change, name: str, before: Found | None, call: Call[RunnerParts]) -> str:
    """Keep a file as it is and return the name of that; of a repeated change, what the first kept."""
    parts = call.parts
    backup = ""
    if before is not None:
        backup = f"{_of(name)}/{before.mode:o}-{sha256(before.data)}"
        await parts.blobs.put(BUCKET, backup, Blob(before.data, "application/octet-stream", {"path": name}))
    piece = meta.within or call.idempotency_key
    if not piece:
        return backup
    key: Key = ("runner-backup", digest(piece, fingerprint(meta), name))
    # Before the file is touched: whoever repeats this cannot see any more what it was.
    try:
        expires = parts.clock() + KEPT_SECONDS
        await parts.table.put(key, {"backup": backup}, if_revision=0, expires_at=expires)
    except Stale:
        known = await parts.table.get(key)
        backup = known.document["backup"] if known else backup
    return backup


async def _restored(meta: Change, name: str, parts: RunnerParts) -> Found | None:
    """Return what a backup holds, None for none. Raises `Invalid` for one of another file."""
    if not meta.backup:
        return None
    of, _, rest = meta.backup.partition("/")
    if of != _of(name):
        raise Invalid([("meta.backup", "is that of another file")])
    blob = await parts.blobs.get(BUCKET, meta.backup)
    if blob is None:
        raise NotFound("there is no such backup")
    return Found(blob.data, int(rest.partition("-")[0], 8))


def _of(name: str) -> str:
    return digest(name)[:16]
