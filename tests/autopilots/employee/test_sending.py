"""Sending mail: the letters, the outbox, a real SMTP exchange, and at most once per key."""

from __future__ import annotations

import asyncio
import base64
import datetime
import email
import html
import ipaddress
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import default
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from autopilots.ai_employee import EmployeeParts
from autopilots.ai_employee.mail import OutboxMail, Sent, SmtpMail
from autopilots.ai_employee.outside import MaybeDone, OutsideDown
from autopilots.ai_employee.templates import LETTERS
from infra.blobs.folder import FolderBlobs
from infra.table.sqlite import SqliteTable
from tests.autopilots.employee.parts import employee_parts, send, wrong_fields
from tests.fakes import FakeClock

VARIABLES: dict[str, dict[str, Any]] = {
    "enrollment_inquiry": {"name": "Ada", "course": "Logic", "info_url": "https://school.example/logic"},
    "enrollment_checkout": {
        "name": "Ada",
        "course": "Logic",
        "amount": 4900,
        "currency": "usd",
        "checkout_url": "https://pay.example/c/1?a=1&b=2",
    },
    "payment_reminder": {
        "name": "Ada",
        "course": "Logic",
        "amount": 4900,
        "currency": "EUR",
        "due_date": "2026-02-01",
        "payment_url": "https://pay.example/2",
    },
    "welcome_enrolled": {"name": "Ada", "course": "Logic", "access_url": "https://lms.example/logic"},
}
PLAIN = {"to": "ada@example.com", "subject": "Hello", "text": "One.\n\nTwo <b>& three</b>\nfour."}


async def written(parts: EmployeeParts, result: Mapping[str, Any]) -> EmailMessage:
    """Read the outbox file of a result back as a message."""
    bucket, _, key = str(result["file"]).partition("/")
    blob = await parts.blobs.get(bucket, key)
    assert blob is not None
    message = email.message_from_bytes(blob.data, policy=default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def body(message: EmailMessage, kind: str) -> str:
    """Return the text or HTML body of a message."""
    part = message.get_body((kind,))
    assert part is not None
    content: str = part.get_content()
    return content.replace("\r\n", "\n")


def test_every_letter_has_an_example() -> None:
    """The examples of this file cover all letters."""
    assert set(VARIABLES) == set(LETTERS)


@pytest.mark.parametrize("template", VARIABLES)
async def test_letters_are_written_in_both_forms(parts: EmployeeParts, template: str) -> None:
    """A letter has a subject, and every value in its text and in its HTML, with nothing left to fill in."""
    meta = {"to": "ada@example.com", "template": template, "variables": VARIABLES[template]}
    message = await written(parts, await send(parts, "email.send", meta))
    text, page = body(message, "plain"), body(message, "html")
    link = next(value for name, value in VARIABLES[template].items() if name.endswith("_url"))
    for words in (text, html.unescape(page)):
        assert "Ada" in words
        assert "Logic" in words
        assert link in words
        assert "{" not in words.partition("<body")[2] + message["Subject"]
    assert "Logic" in message["Subject"]
    if "amount" in VARIABLES[template]:
        assert f"49.00 {VARIABLES[template]['currency'].upper()}" in text
    HTMLParser().feed(page)


async def test_optional_variables_may_be_missing(parts: EmployeeParts) -> None:
    """A letter without its optional values leaves the sentences about them out."""
    meta = {
        "to": "ada@example.com",
        "template": "welcome_enrolled",
        "variables": {"name": "Ada", "course": "Logic", "access_url": "https://lms.example/"},
    }
    without = body(await written(parts, await send(parts, "email.send", meta)), "plain")
    meta["variables"] = {**VARIABLES["welcome_enrolled"], "start_date": "2026-03-01"}
    having = body(await written(parts, await send(parts, "email.send", meta)), "plain")
    assert "first day" not in without
    assert "Your first day is 2026-03-01." in having


async def test_values_never_become_markup(parts: EmployeeParts) -> None:
    """What a stranger wrote is escaped in HTML, stays as it is in text, and is never a format."""
    name = '<script>alert(1)</script> {course} "O\'Neil"'
    meta = {
        "to": "ada@example.com",
        "template": "enrollment_inquiry",
        "variables": {"name": name, "course": "A & B"},
    }
    message = await written(parts, await send(parts, "email.send", meta))
    assert "<script>" not in body(message, "html")
    assert "A &amp; B" in body(message, "html")
    assert f"Hello {name}," in body(message, "plain")


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", 'https://x.example/" onclick="x', "//x.example", "ftp://a"]
)
async def test_links_must_be_web_links(parts: EmployeeParts, url: str) -> None:
    """A link that is none is refused by name."""
    variables = {**VARIABLES["welcome_enrolled"], "access_url": url}
    meta = {"to": "a@b.co", "template": "welcome_enrolled", "variables": variables}
    problem = await send(parts, "email.send", meta, status=422)
    assert wrong_fields(problem) == {"meta.variables.access_url"}


async def test_outbox_message_parses_back(parts: EmployeeParts) -> None:
    """Without a mail server the message is a file that says all it should, and the result says so."""
    result = await send(
        parts, "email.send", {**PLAIN, "subject": "Größe ok?", "reply_to": "desk@school.example"}
    )
    message = await written(parts, result)
    assert (result["delivery"], result["repeated"]) == ("outbox", False)
    assert "nobody got it" in result["note"]
    assert result["at"] == "2026-01-01T00:00:00.000Z"
    assert message["Subject"] == "Größe ok?"
    assert message["From"] == "School <office@school.example>"
    assert (message["To"], message["Reply-To"]) == ("ada@example.com", "desk@school.example")
    assert message["Date"] == "Thu, 01 Jan 2026 00:00:00 +0000"
    assert message["Message-ID"] == result["messageId"] == f"<{result['id']}@school.example>"
    assert body(message, "plain").strip() == PLAIN["text"]
    assert "<p>One.</p>\n<p>Two &lt;b&gt;&amp; three&lt;/b&gt;<br>four.</p>" in body(message, "html")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subject", "Hi\r\nBcc: eve@example.net"),
        ("subject", "Hi\nX: y"),
        ("subject", "Hi\u2028there"),
        ("subject", "Hi\x85there"),
        ("to", "ada@example.com\r\nBcc: eve@example.net"),
        ("to", "ada@example.com, eve@example.net"),
        ("to", "Ada <ada@example.com>"),
        ("reply_to", "x@y.zz\nBcc: eve@example.net"),
        ("text", "a\x00b"),
    ],
)
async def test_header_injection_is_refused(parts: EmployeeParts, field: str, value: str) -> None:
    """Line ends in a subject or an address, and more than one address, are refused by field."""
    problem = await send(parts, "email.send", {**PLAIN, field: value}, status=422)
    assert wrong_fields(problem) == {f"meta.{field}"}
    assert await parts.blobs.list("employee-private") == []


@pytest.mark.parametrize("sender", ["", "nobody", "A <a@b.co>\r\nBcc: x@y.zz"])
def test_sender_is_checked_at_the_start(tmp_path: Path, sender: str) -> None:
    """A sender that is no address stops the wiring, not the first mail."""
    with pytest.raises(ValueError, match=r"email address|control character"):
        OutboxMail(FolderBlobs(tmp_path), sender)


class Counting:
    """Mail that counts what is sent, waits if told to, and fails with what it is given, once each."""

    sender = "office@school.example"

    def __init__(self, *failures: Exception, gate: asyncio.Event | None = None) -> None:
        self.failures = list(failures)
        self.gate = gate
        self.count = 0
        self.started = asyncio.Event()

    async def send(self, message: EmailMessage, mail_id: str) -> Sent:
        self.count += 1
        self.started.set()
        if self.gate:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return Sent("smtp")


async def test_same_key_sends_once(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """A repeat with the key returns the first result; another key, or none, sends another message."""
    mail = Counting()
    parts = employee_parts(table, clock, tmp_path, mail=mail)
    first = await send(parts, "email.send", PLAIN, key="k")
    clock.forward(60)
    assert await send(parts, "email.send", PLAIN, key="k") == {**first, "repeated": True}
    assert mail.count == 1
    await send(parts, "email.send", PLAIN, key="k2")
    await send(parts, "email.send", PLAIN)
    await send(parts, "email.send", PLAIN)
    assert mail.count == 4


async def test_key_with_another_message_is_a_conflict(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """A key that was used for another message is refused, rather than that message being lost in silence."""
    mail = Counting()
    parts = employee_parts(table, clock, tmp_path, mail=mail)
    await send(parts, "email.send", PLAIN, key="k")
    await send(parts, "email.send", {**PLAIN, "to": "eve@example.net"}, key="k", status=409)
    assert mail.count == 1


async def test_concurrent_deliveries_send_once(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """While a message is on its way a second delivery of it is a conflict and sends nothing."""
    gate = asyncio.Event()
    mail = Counting(gate=gate)
    parts = employee_parts(table, clock, tmp_path, mail=mail)
    first = asyncio.create_task(send(parts, "email.send", PLAIN, key="k"))
    await mail.started.wait()
    await send(parts, "email.send", PLAIN, key="k", status=409)
    gate.set()
    assert (await first)["delivery"] == "smtp"
    assert mail.count == 1


async def test_certain_failure_can_be_repeated(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """A message that was certainly not sent is sent by the next delivery with the same key."""
    mail = Counting(OutsideDown("no route"))
    parts = employee_parts(table, clock, tmp_path, mail=mail)
    problem = await send(parts, "email.send", PLAIN, key="k", status=502)
    assert (problem["code"], problem["retryable"]) == ("forward_failed", True)
    assert (await send(parts, "email.send", PLAIN, key="k"))["repeated"] is False
    assert mail.count == 2


async def test_uncertain_failure_is_never_repeated(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """A message that may have been sent is not sent again: at most once."""
    mail = Counting(MaybeDone("cut off"))
    parts = employee_parts(table, clock, tmp_path, mail=mail)
    problem = await send(parts, "email.send", PLAIN, key="k", status=502)
    assert problem["retryable"] is False
    problem = await send(parts, "email.send", PLAIN, key="k", status=409)
    assert "may have gone out" in problem["detail"]
    assert mail.count == 1


async def test_crash_while_sending_is_never_repeated(
    table: SqliteTable, clock: FakeClock, tmp_path: Path
) -> None:
    """When the process dies after the claim, the next delivery sends nothing and says why."""
    mail = Counting(KeyError("the process dies here"))
    parts = employee_parts(table, clock, tmp_path, mail=mail)
    await send(parts, "email.send", PLAIN, key="k", status=500)
    await send(parts, "email.send", PLAIN, key="k", status=409)
    assert mail.count == 1


class Sink:
    """A small SMTP server that keeps what it is told; `answers` replaces its replies."""

    def __init__(self, answers: Mapping[str, str], hang_up: str, tls: ssl.SSLContext | None) -> None:
        self.answers = answers
        self.tls = tls
        self.hang_up = hang_up
        self.said: list[str] = []
        self.message = b""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        writer.write(b"220 sink ESMTP\r\n")
        try:
            while line := (await reader.readline()).decode().rstrip("\r\n"):
                self.said.append(line)
                verb = line.split(" ")[0].upper()
                if verb == self.hang_up:
                    break
                if verb == "STARTTLS" and self.tls:
                    writer.write(b"220 go on\r\n")
                    await writer.start_tls(self.tls)
                    continue
                if verb == "DATA" and "DATA" not in self.answers:
                    writer.write(b"354 go on\r\n")
                    self.message = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                    if self.hang_up == ".":
                        break
                    verb = "."
                offers = (
                    "250-sink\r\n250-STARTTLS\r\n250 AUTH PLAIN" if self.tls else "250-sink\r\n250 AUTH PLAIN"
                )
                usual = {"EHLO": offers, "AUTH": "235 ok", "QUIT": "221 bye"}
                writer.write(self.answers.get(verb, usual.get(verb, "250 ok")).encode() + b"\r\n")
                if verb == "QUIT":
                    break
        except OSError:  # the client would not go on, such as after a certificate it does not trust
            return
        finally:
            writer.close()


@asynccontextmanager
async def sink(
    answers: Mapping[str, str] | None = None, *, hang_up: str = "", tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Sink, int]]:
    """Run an SMTP sink on a free loopback port."""
    server = Sink(answers or {}, hang_up, tls)
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    async with listener:
        yield server, listener.sockets[0].getsockname()[1]


def smtp(port: int, **options: Any) -> SmtpMail:
    """Give mail through the sink."""
    chosen = {"starttls": False, "timeout": 5.0, **options}
    return SmtpMail("127.0.0.1", port, sender="School <office@school.example>", **chosen)


async def test_smtp_delivers_the_message(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """A server gets envelope, login and the whole message, and the result says it took it."""
    async with sink() as (server, port):
        parts = employee_parts(table, clock, tmp_path, mail=smtp(port, user="u", password="p"))
        result = await send(parts, "email.send", {**PLAIN, "text": "Grüße.\n.\n..dots\n" + "long " * 300})
    assert result["delivery"] == "smtp"
    assert "file" not in result
    assert [line for line in server.said if line.startswith("AUTH")] == [
        f"AUTH PLAIN {base64.b64encode(bytes([0]) + b'u' + bytes([0]) + b'p').decode()}"
    ]
    assert any(line.upper().startswith("MAIL FROM:<OFFICE@SCHOOL.EXAMPLE>") for line in server.said)
    assert "rcpt TO:<ada@example.com>" in server.said
    undotted = server.message.replace(b"\r\n..", b"\r\n.")
    message = email.message_from_bytes(undotted, policy=default)
    assert isinstance(message, EmailMessage)
    assert message["Message-ID"] == result["messageId"]
    assert body(message, "plain").startswith("Grüße.\n.\n..dots\nlong long")
    assert max(len(line) for line in server.message.split(b"\r\n")) <= 998


@pytest.mark.parametrize(
    ("answers", "status", "retryable"),
    [
        ({"RCPT": "550 no such user"}, 422, None),
        ({"RCPT": "451 try later"}, 502, True),
        ({"MAIL": "550 not you"}, 502, False),
        ({"DATA": "451 try later"}, 502, True),
        ({".": "554 looks like spam"}, 502, False),
        ({"AUTH": "535 wrong"}, 502, False),
        ({"EHLO": "421 busy", "HELO": "421 busy"}, 502, True),
    ],
)
async def test_smtp_refusals_say_what_they_mean(
    table: SqliteTable,
    clock: FakeClock,
    tmp_path: Path,
    answers: dict[str, str],
    status: int,
    retryable: bool | None,
) -> None:
    """A refused recipient is a wrong field; other refusals say whether to try again; none counts as sent."""
    async with sink(answers) as (_, port):
        parts = employee_parts(table, clock, tmp_path, mail=smtp(port, user="u", password="secret"))
        problem = await send(parts, "email.send", PLAIN, key="k", status=status)
    assert problem.get("retryable") is retryable
    assert "secret" not in str(problem)
    async with sink() as (server, port):
        parts = employee_parts(table, clock, tmp_path, mail=smtp(port))
        assert (await send(parts, "email.send", PLAIN, key="k"))["repeated"] is False
        assert server.message


async def test_smtp_cut_off_after_the_message(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """When the server vanishes after it got the message, nobody knows, so it is not sent again."""
    async with sink(hang_up=".") as (_, port):
        parts = employee_parts(table, clock, tmp_path, mail=smtp(port))
        problem = await send(parts, "email.send", PLAIN, key="k", status=502)
        assert problem["retryable"] is False
        await send(parts, "email.send", PLAIN, key="k", status=409)


async def test_smtp_rude_goodbye_is_still_sent(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """A server that took the message and then hangs up, or answers QUIT with an error, did take it."""
    for answers, hang_up in (({"QUIT": "500 what"}, ""), ({}, "QUIT")):
        async with sink(answers, hang_up=hang_up) as (_, port):
            parts = employee_parts(table, clock, tmp_path, mail=smtp(port))
            result = await send(parts, "email.send", PLAIN, key=f"key {hang_up}")
            assert (result["delivery"], result["repeated"]) == ("smtp", False)


async def test_smtp_never_logs_in_without_tls(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """A server without STARTTLS is refused, and neither password nor message leaves."""
    async with sink() as (server, port):
        parts = employee_parts(table, clock, tmp_path, mail=smtp(port, starttls=True, user="u", password="p"))
        problem = await send(parts, "email.send", PLAIN, status=502)
    assert problem["retryable"] is False
    assert not any(line.upper().startswith(("AUTH", "MAIL", "DATA")) for line in server.said)


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Give the TLS settings of a server with a certificate for 127.0.0.1, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sink")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = folder / "sink.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(private + made.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def test_smtp_over_starttls(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """With a certificate we trust, login and message travel after STARTTLS; with another, nothing does."""
    server_tls, client_tls = certificate(tmp_path)
    async with sink(tls=server_tls) as (server, port):
        mail = smtp(port, starttls=True, user="u", password="p", tls_context=client_tls)
        parts = employee_parts(table, clock, tmp_path, mail=mail)
        assert (await send(parts, "email.send", PLAIN))["delivery"] == "smtp"
    verbs = [line.split(" ")[0].upper() for line in server.said]
    assert verbs == ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"]
    assert server.message
    async with sink(tls=server_tls) as (server, port):
        parts = employee_parts(table, clock, tmp_path, mail=smtp(port, starttls=True, user="u", password="p"))
        problem = await send(parts, "email.send", PLAIN, key="k", status=502)
    assert (problem["retryable"], "certificate" in problem["detail"]) == (False, True)
    assert [line.split(" ")[0].upper() for line in server.said][:2] == ["EHLO", "STARTTLS"]
    assert not any(line.upper().startswith(("AUTH", "MAIL")) for line in server.said)


async def test_smtp_server_that_is_not_there(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """A server that cannot be reached is a failure that may pass."""
    async with sink() as (_, port):
        pass
    parts = employee_parts(table, clock, tmp_path, mail=smtp(port))
    assert (await send(parts, "email.send", PLAIN, status=502))["retryable"] is True
