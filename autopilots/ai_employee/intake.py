"""`files.intake.upload`: takes documents of the kinds we expect, checked by what they contain."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from autopilots.ai_employee.fields import RecordId
from autopilots.ai_employee.leads import find_lead
from autopilots.ai_employee.once import id_for
from autopilots.ai_employee.parts import EmployeeParts
from autopilots.kit import Call, Meta
from infra.blobs import Blob
from infra.clock import rfc3339
from router.errors import Conflict, Invalid, NotFound, Stale, TooLarge

BUCKET = "employee-private"

UPLOADS = "employee:intake"
"""Partition of what was taken in; the sort key is the document's id."""

MAX_BYTES = 700 * 1024
"""Of one document: base64 makes it a third longer, and a task's body may have 1 MiB."""

_MAX_BASE64 = (MAX_BYTES + 2) // 3 * 4

ContentType = Literal[
    "application/pdf",
    "image/png",
    "image/jpeg",
    "text/plain",
    "text/csv",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
]


def _is_text(data: bytes) -> bool:
    """Return whether this is UTF-8 text without control characters other than blanks and line ends."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return not re.search(r"[\x00-\x08\x0b\x0e-\x1f\x7f]", text)


def _is_docx(data: bytes) -> bool:
    """Return whether this is a zip with a Word document's parts; nothing is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return False
    return {"[Content_Types].xml", "word/document.xml"} <= names


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document: the endings its names have, and how its content shows what it is."""

    endings: tuple[str, ...]
    matches: Callable[[bytes], bool]


KINDS: dict[str, Kind] = {
    "application/pdf": Kind((".pdf",), lambda data: data.startswith(b"%PDF-")),
    "image/png": Kind((".png",), lambda data: data.startswith(b"\x89PNG\r\n\x1a\n")),
    "image/jpeg": Kind((".jpg", ".jpeg"), lambda data: data.startswith(b"\xff\xd8\xff")),
    "text/plain": Kind((".txt",), _is_text),
    "text/csv": Kind((".csv",), _is_text),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": Kind((".docx",), _is_docx),
}


class UploadDocument(Meta):
    """A document, whole, in base64."""

    filename: str = Field(min_length=1, max_length=255, description="Its name; never used as a path.")
    content_type: ContentType = Field(description="What it is; the content must agree.")
    content_base64: str = Field(
        min_length=4, max_length=_MAX_BASE64, description=f"The content, at most {MAX_BYTES} bytes."
    )
    lead_id: RecordId | None = Field(None, description="The lead it belongs to.")


async def take_in(meta: UploadDocument, call: Call[EmployeeParts]) -> dict[str, Any]:
    """Store the document and return its record.

    Raises `Invalid` when content, name and type do not agree, `TooLarge`, `NotFound` for an unknown lead and
    `Conflict` when the idempotency key was used for another document.
    """
    data = _decoded(meta.content_base64)
    filename = safe_name(meta.filename)
    ending = _checked_ending(filename, meta.content_type, data)
    if meta.lead_id and await find_lead(call.parts.table, meta.lead_id) is None:
        raise NotFound(f"there is no lead {meta.lead_id}")
    document_id = id_for(call, "doc")
    key = f"intake/{document_id}{ending}"
    checksum = hashlib.sha256(data).hexdigest()
    at = rfc3339(call.parts.clock())
    record = {
        "id": document_id,
        "filename": filename,
        "content_type": meta.content_type,
        "size": len(data),
        "sha256": checksum,
        "lead_id": meta.lead_id,
        "bucket": BUCKET,
        "key": key,
        "at": at,
    }
    known = await call.parts.table.get((UPLOADS, document_id))
    if known is not None:
        return _repeated(known.document, record)
    details = {"filename": filename, "sha256": checksum, "uploaded_at": at}
    if meta.lead_id:
        details["lead_id"] = meta.lead_id
    # The bytes first: a record without its file would be a promise that cannot be kept.
    await call.parts.blobs.put(BUCKET, key, Blob(data, meta.content_type, details))
    try:
        await call.parts.table.put((UPLOADS, document_id), record, if_revision=0)
    except Stale:
        known = await call.parts.table.get((UPLOADS, document_id))
        return _repeated(known.document if known else {}, record)
    return {"stored": True, "repeated": False, "document": record}


def _repeated(known: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    if known.get("sha256") != record["sha256"] or known.get("filename") != record["filename"]:
        raise Conflict("this idempotency key was used for another document")
    return {"stored": True, "repeated": True, "document": known}


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid([("meta.content_base64", "not valid base64")]) from None
    if len(data) > MAX_BYTES:
        raise TooLarge(f"the document has {len(data)} bytes, the limit is {MAX_BYTES}")
    return data


def _checked_ending(filename: str, content_type: str, data: bytes) -> str:
    """Return the ending to store under, or raise `Invalid` with everything that does not agree."""
    kind = KINDS[content_type]
    dot = filename.rfind(".")
    ending = filename[dot:].lower() if dot >= 0 else kind.endings[0]
    problems = []
    if ending not in kind.endings:
        allowed = " or ".join(kind.endings)
        problems.append(("meta.filename", f"a {content_type} document is named {allowed}, not {ending}"))
    if not kind.matches(data):
        problems.append(("meta.content_base64", f"the content is not {content_type}"))
    if problems:
        raise Invalid(problems)
    return ending


def safe_name(filename: str) -> str:
    """Return a file name in ASCII without folders, at most 120 characters."""
    last = re.split(r"[/\\]", filename)[-1]
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode("ascii")
    stem, dot, ending = plain.rpartition(".") if "." in plain else (plain, "", "")
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._") or "document"
    return stem[:100] + dot + re.sub(r"[^A-Za-z0-9]+", "_", ending)[:19]
