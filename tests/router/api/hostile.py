"""A whole product with canaries for secrets, and everything outside it saying back what it is sent.

The canaries are texts that are found again wherever they turn up. There are those of the settings; those that
prove who calls; those that only look like secrets, in names, values and paths; and what is in `meta`, which
belongs to the task and to nobody else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from infra.redact import RedactingFormatter, Redactor
from router.settings import Secret, Settings, read
from router.wiring import System, build
from tests.cloudflare_fake import ACCOUNT, ROOT, CloudflareFake, Token, refusal
from tests.upstream import Received, Told, Upstream, upstream

RUN = "q7Wm2Zx9Lk4Vb8Nc1Rt6Yp3H"
MAIL_PASSWORD = f"mail-word-{RUN}"
WEBHOOK = "whsec_" + base64.b64encode(f"webhook-{RUN}".encode()).decode()
CALLBACK = "whsec_" + base64.b64encode(f"callback-{RUN}".encode()).decode()
SETTINGS = {
    "AUTOPILOT_API_KEY": f"admin-word-{RUN}",
    "AUTOPILOT_AUDIT_KEY": f"audit-word-{RUN}",
    "CF_API_TOKEN": f"cloud-word-{RUN}-abcdefghi",
    "OPENAI_API_KEY": f"model-word-{RUN}",
    "STRIPE_API_KEY": f"money-word-{RUN}",
    "AUTOPILOT_WEBHOOK_SECRET": WEBHOOK,
    "AUTOPILOT_CALLBACK_SECRET": CALLBACK,
}
OURS = [*SETTINGS.values(), MAIL_PASSWORD]
"""The secrets of this installation."""

SHAPED = f"sk-shaped{RUN}"
"""What looks like a secret; it stands where callers put names, values and paths."""
META = f"meta {RUN}"
UPSTREAM = f"upstream {RUN}"
"""What an autopilot says when it fails."""
RESOLVER = f"resolver {RUN}"
CREDENTIALS = {
    "cookie": f"session=cookie-{RUN}",
    "proxy-authorization": f"Digest proxy-{RUN}",
    "x-api-key": f"header-{RUN}",
    "x-auth-token": f"token-{RUN}",
    "x-forwarded-access-token": f"forwarded-{RUN}",
}


@dataclass
class Answer:
    """What one call was answered."""

    call: str
    status: int
    text: str
    """Headers and body."""


@dataclass
class Left:
    """All that a walk leaves behind."""

    answers: list[Answer] = field(default_factory=list)
    upstream: list[Received] = field(default_factory=list)
    outside: list[Received] = field(default_factory=list)
    """What the model's and the payment provider's stand-ins were sent."""
    cloud: list[Received] = field(default_factory=list)
    """What Cloudflare's stand-in was sent."""
    log: list[str] = field(default_factory=list)
    """As the server writes it."""
    raw_log: list[str] = field(default_factory=list)
    """Before anything was taken out."""
    rows: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    key: str = ""
    """The key of the caller."""
    poor_key: str = ""
    """One that is good for nearly nothing."""
    walked: set[tuple[str, str]] = field(default_factory=set)
    unknown: set[tuple[str, str]] = field(default_factory=set)
    """Endpoints that nobody has said how to call."""


def tell(request: Received) -> Told:
    """Be an autopilot that says in every way it knows what it was sent, or that it does not work."""
    asked = request.body.decode()
    if "answer:500" in asked:
        return Told(500, UPSTREAM.encode())
    if "answer:redirect" in asked:
        return Told(302, b"", {"location": f"http://127.0.0.1/{quote(UPSTREAM)}"})
    if "answer:broken" in asked:
        return Told(200, UPSTREAM.encode() * 2, cut=True)
    if "answer:bad header" in asked:
        return Told(200, b"{}", {"transfer-encoding": UPSTREAM})
    return Told(200, json.dumps({"headers": request.headers, "body": asked}).encode())


class Cloud:
    """A Cloudflare account, where the API says our token back to us about one queue."""

    def __init__(self) -> None:
        self.fake = CloudflareFake(tokens=[Token(secret=SETTINGS["CF_API_TOKEN"])])

    def tell(self, request: Received) -> Told:
        """Answer a request."""
        if request.method == "POST" and b"leaky" in request.body:
            self.fake.requests.append(request)
            return refusal(400, 11005, f"{request.headers['authorization']} may not, and {SHAPED} neither")
        return self.fake.tell(request)


def refuse(request: Received) -> Told:
    """Be a service outside that says our key back to us, and by which status as its path tells."""
    key = request.headers.get("authorization", "")
    error = {"message": f"no such key: {key}", "type": "invalid_request_error", "param": "amount"}
    return Told(400 if "checkout" in request.path else 401, json.dumps({"error": error}).encode())


async def mail_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a mail server that says the password to everybody it does not want to write to."""
    password = ""
    writer.write(b"220 mail\r\n")
    while line := (await reader.readline()).decode().strip():
        verb = line.split()[0].upper()
        if verb == "AUTH":
            password = base64.b64decode(line.split()[2]).decode().split("\0")[2]
        told = {
            "EHLO": "250-mail\r\n250 AUTH PLAIN",
            "AUTH": "235 welcome",
            "RCPT": f"550 nobody here, {password}",
            "QUIT": "221 bye",
        }
        writer.write(f"{told.get(verb, '250 ok')}\r\n".encode())
        if verb == "QUIT":
            break
    writer.close()


class _Handler(logging.Handler):
    """Keeps what is logged, as it came and as the server would write it."""

    def __init__(self, settings: Settings, left: Left) -> None:
        super().__init__()
        self._left = left
        self.setFormatter(RedactingFormatter(Redactor(settings.secrets()), "%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "httpx":  # the client of this walk; the server has it silent
            return
        self._left.log.append(self.format(record))
        self._left.raw_log.append(f"{record.getMessage()} {record.exc_info!r}")


@asynccontextmanager
async def running(folder: Path, left: Left) -> AsyncIterator[tuple[System, Upstream]]:
    """Give the whole product with every secret set, and an autopilot; what is logged is kept."""
    server = await asyncio.start_server(mail_server, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with upstream() as autopilot, upstream() as outside, upstream() as cloud:
        autopilot.tell, outside.tell, cloud.tell = tell, refuse, Cloud().tell
        autopilot.received, outside.received, cloud.received = left.upstream, left.outside, left.cloud
        settings = read(
            {
                **SETTINGS,
                "AUTOPILOT_DATA": str(folder),
                "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.1",
                "AUTOPILOT_SMTP_URL": f"smtp+plain://ann:{MAIL_PASSWORD}@127.0.0.1:{port}",
                "OPENAI_BASE_URL": f"{outside.url}/v1",
                "STRIPE_API_BASE": outside.url,
                "CF_API_BASE": cloud.url + ROOT,
                "CF_ACCOUNT_ID": ACCOUNT,
                "AUTOPILOT_REQUIRE_APPROVAL": "text.guarded",
                "AUTOPILOT_MAIL_FROM": "school@example.com",
            }
        )
        assert set(OURS) <= set(settings.secrets())
        kept = [getattr(settings, name) for name in settings.__slots__]
        assert all(one for one in kept if isinstance(one, Secret)), "every secret setting has a canary here"
        handler = _Handler(settings, left)
        root = logging.getLogger()
        before = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        system = build(settings, url="http://127.0.0.1:8080")
        try:
            yield system, autopilot
        finally:
            await system.close()
            root.removeHandler(handler)
            root.setLevel(before)
            server.close()
