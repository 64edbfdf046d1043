"""The `Mail` port and its adapters: a mail server over SMTP, or an outbox of `.eml` files."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Protocol

from autopilots.ai_employee.fields import email_address
from autopilots.ai_employee.outside import MaybeDone, OutsideDown, OutsideRefused
from infra.blobs import Blob, Blobs
from router.errors import Invalid

OUTBOX_BUCKET = "employee-private"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message. `file` is BUCKET/KEY of an outbox file, None where a server took it."""

    delivery: str
    file: str | None = None


class Mail(Protocol):
    """A way to deliver one message to one recipient.

    Raises `Invalid` (the address was refused for good), `OutsideDown` or `OutsideRefused` when the message
    was certainly not taken, and `MaybeDone` when that is not known.
    """

    sender: str
    """The From of what is sent: `name@domain`, or `Name <name@domain>`."""

    async def send(self, message: EmailMessage, mail_id: str) -> Sent:
        """Deliver a message that has its From, To, Date and Message-ID. `mail_id` is our id of it."""
        ...


class OutboxMail:
    """Mail of an installation without a mail server: `.eml` files, which any mail program opens."""

    def __init__(self, blobs: Blobs, sender: str = "no-reply@autopilot.invalid") -> None:
        self.sender = _checked(sender)
        self._blobs = blobs

    async def send(self, message: EmailMessage, mail_id: str) -> Sent:
        """Write the message as `outbox/MAIL_ID.eml`; nobody receives it."""
        key = f"outbox/{mail_id}.eml"
        await self._blobs.put(OUTBOX_BUCKET, key, Blob(message.as_bytes(), "message/rfc822"))
        return Sent("outbox", f"{OUTBOX_BUCKET}/{key}")


class SmtpMail:
    """Mail through a server. TLS from the start on port 465, else STARTTLS unless `starttls` is off.

    With `starttls` a server that does not offer it is refused: credentials never travel in the clear.
    `timeout` is in seconds and bounds each step of the exchange.
    """

    def __init__(
        self,
        host: str,
        port: int = 587,
        user: str = "",
        password: str = "",
        *,
        sender: str,
        starttls: bool = True,
        timeout: float = 20.0,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self.sender = _checked(sender)
        self._host, self._port = host, port
        self._user, self._password = user, password
        self._starttls, self._timeout = starttls, timeout
        self._tls_context = tls_context

    async def send(self, message: EmailMessage, mail_id: str) -> Sent:
        """See `Mail.send`; blocking work is done in a thread."""
        await asyncio.to_thread(self._send, message)
        return Sent("smtp")

    def _send(self, message: EmailMessage) -> None:
        server = self._connected()
        try:
            server.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            raise _recipient_refused(error) from None
        except smtplib.SMTPResponseException as error:
            raise _answered(error) from None
        except smtplib.SMTPNotSupportedError as error:
            raise OutsideRefused(f"the mail server cannot take this message: {error}") from None
        except (OSError, smtplib.SMTPException) as error:
            # The connection broke, perhaps after the last dot: the server may have taken the message.
            raise MaybeDone(f"the connection to the mail server broke: {type(error).__name__}") from error
        finally:
            _leave(server)

    def _connected(self) -> smtplib.SMTP:
        """Return a connection that is encrypted and logged in as configured."""
        server: smtplib.SMTP | None = None
        try:
            if self._port == 465:
                server = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout, context=self._tls())
            else:
                server = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
                if self._starttls:
                    server.starttls(context=self._tls())
            if self._user:
                server.login(self._user, self._password)
        except (smtplib.SMTPException, OSError) as error:
            if server is not None:
                _leave(server)
            raise _no_connection(error) from error
        return server

    def _tls(self) -> ssl.SSLContext:
        return self._tls_context or ssl.create_default_context()


def _no_connection(error: Exception) -> OutsideDown | OutsideRefused:
    """Return what a failure before the message was offered means: it was certainly not sent."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return OutsideRefused(f"the mail server refused our credentials ({error.smtp_code})")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return OutsideRefused(f"the mail server lacks what we need: {error}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return OutsideRefused(f"the mail server's certificate is not valid: {error.verify_message}")
    return OutsideDown(f"the mail server could not be reached: {type(error).__name__}")


def _recipient_refused(error: smtplib.SMTPRecipientsRefused) -> Invalid | OutsideDown:
    [(address, (code, answer))] = list(error.recipients.items())[:1]
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
    if code >= 500:
        return Invalid([("meta.to", f"the mail server does not take {address}: {code} {text}")])
    return OutsideDown(f"the mail server does not take {address} now: {code} {text}")


def _answered(error: smtplib.SMTPResponseException) -> OutsideDown | OutsideRefused:
    """Return what an answer of the server means that is not a yes: the message was not taken."""
    answer = error.smtp_error
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
    kind = OutsideRefused if error.smtp_code >= 500 else OutsideDown
    return kind(f"the mail server answered {error.smtp_code} {text}")


def _leave(server: smtplib.SMTP) -> None:
    """Say goodbye. Whatever the server does now changes nothing of what it took."""
    try:
        server.quit()
    except (smtplib.SMTPException, OSError):
        server.close()


def _checked(sender: str) -> str:
    """Return `sender`, or raise `ValueError` when it is no address to send from."""
    email_address(parseaddr(sender)[1])
    if not sender.isprintable():
        raise ValueError("the sender has a control character")
    return sender
