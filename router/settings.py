"""Settings, read once from a mapping such as `os.environ`. Nothing else in the product reads it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from infra.outbound import LOOPBACK, Allowed, parse_allowed
from router.errors import Invalid


class Secret:
    """A text that prints as stars. `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret('****')"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def reveal(self) -> str:
        """Return the text itself."""
        return self._value


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. See the README for what each variable means."""

    auth: Literal["local", "required"] = "local"
    api_key: Secret = field(default_factory=lambda: Secret(""))
    table: str = ""
    data: Path = Path(".autopilot")
    allowed: Allowed = field(default_factory=Allowed)
    public_url: str = ""
    dynamodb_endpoint: str = ""
    cf_token: Secret = field(default_factory=lambda: Secret(""))
    openai_key: Secret = field(default_factory=lambda: Secret(""))
    openai_base_url: str = ""
    model: str = "gpt-4o-mini"
    stripe_key: Secret = field(default_factory=lambda: Secret(""))
    stripe_base_url: str = ""
    smtp_url: Secret = field(default_factory=lambda: Secret(""))
    mail_from: str = "autopilot@localhost"

    def secrets(self) -> list[str]:
        """Return every secret there is, for what has to keep them out of its output."""
        values = [self.api_key, self.cf_token, self.openai_key, self.stripe_key, self.smtp_url]
        return [value.reveal() for value in values if value]


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read(environment: Mapping[str, str], *, host: str = "127.0.0.1") -> Settings:
    """Return the settings of a process that serves on `host`.

    Raises `Invalid` naming every variable that is wrong; among them a `host` others can reach while there
    is no key they would need.
    """
    problems = []
    key = environment.get("AUTOPILOT_API_KEY", "")
    auth = environment.get("AUTOPILOT_AUTH") or ("local" if is_loopback(host) and not key else "required")
    if auth not in {"local", "required"}:
        problems.append(("AUTOPILOT_AUTH", "must be local or required"))
    elif auth == "local" and not is_loopback(host):
        problems.append(("AUTOPILOT_AUTH", f"local serves this machine only and cannot bind to {host}"))
    elif auth == "required" and not key:
        problems.append(
            ("AUTOPILOT_API_KEY", f"is needed to serve on {host}: without a key anyone could use the router")
        )
    if key and len(key) < 16 and not is_loopback(host):
        problems.append(("AUTOPILOT_API_KEY", f"must have at least 16 characters to serve on {host}"))
    listed = [entry.strip() for entry in environment.get("AUTOPILOT_ALLOW_ENDPOINTS", "").split(",")]
    entries = [entry for entry in listed if entry] or (list(LOOPBACK) if auth == "local" else [])
    allowed = Allowed()
    try:
        allowed = parse_allowed(entries)
    except ValueError as error:
        problems.append(("AUTOPILOT_ALLOW_ENDPOINTS", str(error)))
    if problems:
        raise Invalid(problems)
    return Settings(
        auth="local" if auth == "local" else "required",
        api_key=Secret(key),
        table=environment.get("AUTOPILOT_TABLE", ""),
        data=Path(environment.get("AUTOPILOT_DATA") or ".autopilot"),
        allowed=allowed,
        public_url=environment.get("AUTOPILOT_PUBLIC_URL", "").rstrip("/"),
        dynamodb_endpoint=environment.get("DYNAMODB_ENDPOINT_URL", ""),
        cf_token=Secret(environment.get("CF_API_TOKEN", "")),
        openai_key=Secret(environment.get("OPENAI_API_KEY", "")),
        openai_base_url=environment.get("OPENAI_BASE_URL", ""),
        model=environment.get("AUTOPILOT_MODEL") or "gpt-4o-mini",
        stripe_key=Secret(environment.get("STRIPE_API_KEY", "")),
        stripe_base_url=environment.get("STRIPE_API_BASE", ""),
        smtp_url=Secret(environment.get("AUTOPILOT_SMTP_URL", "")),
        mail_from=environment.get("AUTOPILOT_MAIL_FROM") or "autopilot@localhost",
    )


def read_client(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return what a client needs: the router's URL and the key, empty for none."""
    url = environment.get("ORCHESTRATOR_URL") or "http://127.0.0.1:8080"
    return url.rstrip("/"), environment.get("AUTOPILOT_API_KEY", "")
