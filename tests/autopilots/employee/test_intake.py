"""Documents: what is taken, what is refused, and where it ends up."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import zipfile
from typing import Any

import pytest

from autopilots.ai_employee import EmployeeParts
from autopilots.ai_employee.intake import MAX_BYTES, UPLOADS, safe_name
from infra.table.sqlite import SqliteTable
from tests.autopilots.employee.parts import send, wrong_fields

WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def zipped(*names: str) -> bytes:
    """Give a zip with files of these names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "<x/>")
    return stream.getvalue()


DOCX = zipped("[Content_Types].xml", "word/document.xml")
PDF = b"%PDF-1.7\n1 0 obj\n"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"


def upload(filename: str, content_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    """Give the meta of an upload."""
    content = base64.b64encode(data).decode()
    return {"filename": filename, "content_type": content_type, "content_base64": content, **more}


@pytest.mark.parametrize(
    ("filename", "content_type", "data", "ending"),
    [
        ("cv.pdf", "application/pdf", PDF, ".pdf"),
        ("photo.PNG", "image/png", PNG, ".png"),
        ("photo.jpeg", "image/jpeg", JPEG, ".jpeg"),
        ("notes.txt", "text/plain", "Grüße\r\n\t.".encode(), ".txt"),
        ("notes", "text/plain", b"no ending", ".txt"),
        ("list.csv", "text/csv", b"\xef\xbb\xbfa,b\n1,2\n", ".csv"),
        ("letter.docx", WORD, DOCX, ".docx"),
    ],
)
async def test_expected_documents_are_stored(
    parts: EmployeeParts, filename: str, content_type: str, data: bytes, ending: str
) -> None:
    """Each kind we take is stored under a key of ours, with its hash and what is known of it."""
    document = (await send(parts, "files.intake.upload", upload(filename, content_type, data)))["document"]
    assert document["key"] == f"intake/{document['id']}{ending}"
    assert (document["size"], document["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert document["at"] == "2026-01-01T00:00:00.000Z"
    blob = await parts.blobs.get("employee-private", document["key"])
    assert blob is not None
    assert (blob.data, blob.content_type) == (data, content_type)
    assert blob.metadata["sha256"] == document["sha256"]


@pytest.mark.parametrize(
    ("filename", "content_type", "data", "fields"),
    [
        ("cv.pdf", "application/pdf", b"MZ\x90\x00", {"meta.content_base64"}),
        ("cv.exe", "application/pdf", PDF, {"meta.filename"}),
        ("cv.pdf.exe", "application/pdf", b"MZ\x90\x00", {"meta.filename", "meta.content_base64"}),
        ("a.png", "image/png", JPEG, {"meta.content_base64"}),
        ("a.jpg", "image/jpeg", PNG, {"meta.content_base64"}),
        ("a.txt", "text/plain", b"a\x00b", {"meta.content_base64"}),
        ("a.csv", "text/csv", b"\xff\xfea\x00", {"meta.content_base64"}),
        ("a.docx", WORD, zipped("readme.txt"), {"meta.content_base64"}),
        ("a.docx", WORD, b"PK\x03\x04 not really", {"meta.content_base64"}),
        ("a.html", "text/html", b"<p>", {"meta.content_type"}),
    ],
)
async def test_what_is_not_what_it_says_is_refused(
    parts: EmployeeParts, filename: str, content_type: str, data: bytes, fields: set[str]
) -> None:
    """Name, type and content must agree, and nothing of what does not is stored."""
    problem = await send(parts, "files.intake.upload", upload(filename, content_type, data), status=422)
    assert wrong_fields(problem) == fields
    assert await parts.blobs.list("employee-private") == []


async def test_size_limit_is_exact(parts: EmployeeParts) -> None:
    """A document of the greatest size is taken, one byte more is not."""
    await send(parts, "files.intake.upload", upload("a.txt", "text/plain", b"x" * MAX_BYTES))
    problem = await send(
        parts, "files.intake.upload", upload("a.txt", "text/plain", b"x" * (MAX_BYTES + 1)), status=413
    )
    assert problem["code"] == "too_large"
    far = upload("a.txt", "text/plain", b"x" * (MAX_BYTES + 3000))
    problem = await send(parts, "files.intake.upload", far, status=422)
    assert wrong_fields(problem) == {"meta.content_base64"}


async def test_broken_base64_is_refused(parts: EmployeeParts) -> None:
    """Base64 with anything foreign in it is refused rather than guessed at."""
    meta = {"filename": "a.txt", "content_type": "text/plain", "content_base64": "aGV sbG8="}
    assert wrong_fields(await send(parts, "files.intake.upload", meta, status=422)) == {"meta.content_base64"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\Lebenslauf.pdf", "Lebenslauf.pdf"),
        ("Résumé (final).pdf", "Resume_final.pdf"),
        ("简历.pdf", "document.pdf"),
        (".htaccess", "document.htaccess"),
        ("a\r\nSet-Cookie: x.txt", "a_Set-Cookie_x.txt"),
        ("..", "document."),
        ("x" * 300 + ".pdf", "x" * 100 + ".pdf"),
    ],
)
def test_file_names_are_made_harmless(given: str, kept: str) -> None:
    """A name keeps its letters and its ending, and loses folders, controls and length."""
    assert safe_name(given) == kept


async def test_document_of_a_lead(parts: EmployeeParts) -> None:
    """A document may belong to a lead, which must exist."""
    lead = (await send(parts, "crm.lead.create", {"email": "ada@example.com"}))["lead"]
    result = await send(
        parts, "files.intake.upload", upload("cv.pdf", "application/pdf", PDF, lead_id=lead["id"])
    )
    assert result["document"]["lead_id"] == lead["id"]
    unknown = upload("cv.pdf", "application/pdf", PDF, lead_id="lead_none")
    await send(parts, "files.intake.upload", unknown, status=404)


async def test_repeated_upload_is_stored_once(parts: EmployeeParts, table: SqliteTable) -> None:
    """A second delivery gives the first record; the key with another document is a conflict."""
    meta = upload("cv.pdf", "application/pdf", PDF)
    first = await send(parts, "files.intake.upload", meta, key="k")
    again = await send(parts, "files.intake.upload", meta, key="k")
    assert (first["repeated"], again["repeated"]) == (False, True)
    assert again["document"] == first["document"]
    await send(
        parts, "files.intake.upload", upload("cv.pdf", "application/pdf", PDF + b"x"), key="k", status=409
    )
    both = await asyncio.gather(*(send(parts, "files.intake.upload", meta, key="k2") for _ in range(2)))
    assert both[0]["document"] == both[1]["document"]
    assert len((await table.range(UPLOADS)).items) == 2
    assert len(await parts.blobs.list("employee-private")) == 2
