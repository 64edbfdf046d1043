"""`file.check`: whether a file is as expected."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec

from autopilots.kit import Call
from autopilots.runner import files
from autopilots.runner.expect import MISSING, unmet_in
from autopilots.runner.files import Found, sha256
from autopilots.runner.forms import Check
from autopilots.runner.parts import RunnerParts
from autopilots.runner.places import place
from autopilots.runner.shown import json_of, seen
from autopilots.runner.unmet import Unmet

MAX_JSON = 40_000
"""Bytes of the JSON in a result."""


async def check(meta: Check, call: Call[RunnerParts]) -> dict[str, Any]:
    """Return `{path, exists, bytes, sha256, json}` of a file that is as expected.

    `json` is there when something is expected of it, and is not long. Of a folder only `exists` is known.
    Raises `Unmet` with that, `Invalid`, `Forbidden` and `TooLarge`.
    """
    return await asyncio.to_thread(_check, meta, call.parts)


def _check(meta: Check, parts: RunnerParts) -> dict[str, Any]:
    path = place(parts.root, meta.cwd, meta.path)
    there = files.about(path)
    is_folder = there is not None and there.is_folder
    size = None if there is None or is_folder else there.size
    long = size is not None and meta.at_most_bytes is not None and size > meta.at_most_bytes
    found = None if size is None or long else files.read(path)
    document = _json_of(found) if found and meta.json_ else MISSING
    shown, _ = json_of(None if document is MISSING else document, MAX_JSON, parts.redactor)
    result = {
        "path": str(path.relative_to(parts.root)),
        "exists": there is not None,
        "bytes": size,
        "sha256": sha256(found.data) if found else None,
        "json": shown,
    }
    unmet: list[str] = []
    if result["exists"] != meta.exists:
        unmet = [f"there is {'no' if meta.exists else 'a'} file {result['path']}"]
    elif long:
        unmet = [f"it has {size} bytes, not at most {meta.at_most_bytes}"]
    elif is_folder and (meta.contains or meta.lacks or meta.json_ or meta.sha256):
        unmet = ["it is a folder"]
    elif found:
        unmet = list(_unmet(meta, found.data, document, parts))
    if unmet:
        raise Unmet(unmet, result)
    return result


def _json_of(found: Found) -> Any:
    try:
        return msgspec.json.decode(found.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return MISSING


def _unmet(meta: Check, data: bytes, document: Any, parts: RunnerParts) -> Iterator[str]:
    if meta.sha256 and sha256(data) != meta.sha256:
        yield f"its SHA-256 is {sha256(data)}"
    show = partial(seen, redactor=parts.redactor)
    for text in meta.contains:
        if text.encode() not in data:
            yield f"it does not contain {show(text)}"
    for text in meta.lacks:
        if text.encode() in data:
            yield f"it contains {show(text)}"
    if meta.json_ and document is MISSING:
        yield "it is no JSON"
    elif meta.json_:
        yield from unmet_in("its JSON", document, meta.conditions(), show)
