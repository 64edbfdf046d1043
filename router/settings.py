"""Settings, read once from a mapping such as `os.environ`. Nothing else in the product reads it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from infra.outbound import LOOPBACK, Allowed, Guard, parse_allowed, parse_url
from infra.signing import is_secret
from router.errors import EndpointRefused, Invalid

_RATE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,5})")
_SHORTEST_AUDIT_KEY = 32

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_EVERY_COMMAND = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_OWN = ("AUTOPILOT_", "AWS_")
_OWN_SECRETS = frozenset({"CF_API_TOKEN", "OPENAI_API_KEY", "STRIPE_API_KEY"})


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
class RunnerSettings:
    """Where the runner works, and what commands may have."""

    root: Path
    shell: bool
    allowed: frozenset[str]
    """The variables that a task may ask for."""
    given: Mapping[str, Secret]
    """Those of them that are set."""
    environment: Mapping[str, str]
    """The variables that every command finds."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. See the README for what each variable means."""

    auth: Literal["local", "required"] = "local"
    api_key: Secret = field(default_factory=lambda: Secret(""))
    table: str = ""
    data: Path = Path(".autopilot")
    allowed: Allowed = field(default_factory=Allowed)
    rate: tuple[int, int] | None = None
    """Calls each caller may make, and the seconds in which; None for any number."""
    concurrency: int = 500
    """How many calls one process answers at once."""
    audit_key: Secret = field(default_factory=lambda: Secret(""))
    """Empty for one that is kept in the data folder."""
    require_approval: str = ""
    """Patterns of capabilities whose tasks wait for approval, separated by commas."""
    public_url: str = ""
    dynamodb_endpoint: str = ""
    cf_token: Secret = field(default_factory=lambda: Secret(""))
    cf_account: str = ""
    cf_api_base: str = ""
    openai_key: Secret = field(default_factory=lambda: Secret(""))
    openai_base_url: str = ""
    model: str = "gpt-4o-mini"
    stripe_key: Secret = field(default_factory=lambda: Secret(""))
    stripe_base_url: str = ""
    smtp_url: Secret = field(default_factory=lambda: Secret(""))
    mail_from: str = "autopilot@localhost"
    webhook_secrets: tuple[Secret, ...] = ()
    callback_secrets: tuple[Secret, ...] = ()
    heal_max_creations: int = 20
    recreate_vanished: bool = False
    runner: RunnerSettings | None = None
    """None where no command is to be run."""

    def secrets(self) -> list[str]:
        """Return every secret there is, for what has to keep them out of its output."""
        values = [getattr(self, name) for name in self.__slots__]
        values += [*self.webhook_secrets, *self.callback_secrets]
        values += self.runner.given.values() if self.runner else ()
        found = [value.reveal() for value in values if isinstance(value, Secret) and value]
        return [*found, *_passwords(self.smtp_url.reveal())]


def _passwords(url: str) -> list[str]:
    """Return the password in a URL as it is there and as it is sent, none where there is none."""
    match = re.search(r"://[^/@:]*:([^/]+)@", url)
    return [match[1], unquote(match[1])] if match else []


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
    given = _Given(environment)
    auth = _auth(given, host)
    allowed = _allowed(given, auth)
    data = Path(given.text("AUTOPILOT_DATA") or ".autopilot")
    settings = Settings(
        auth=auth,
        api_key=given.secret("AUTOPILOT_API_KEY"),
        table=given.text("AUTOPILOT_TABLE"),
        data=data,
        allowed=allowed,
        rate=_rate(given),
        concurrency=given.number("AUTOPILOT_MAX_CONCURRENCY", 500, least=1, most=100_000),
        audit_key=_audit_key(given),
        require_approval=given.text("AUTOPILOT_REQUIRE_APPROVAL"),
        public_url=given.text("AUTOPILOT_PUBLIC_URL").rstrip("/"),
        dynamodb_endpoint=given.text("DYNAMODB_ENDPOINT_URL"),
        cf_token=_cf_token(given),
        cf_account=given.text("CF_ACCOUNT_ID").strip(),
        cf_api_base=_cf_api_base(given, allowed),
        openai_key=given.secret("OPENAI_API_KEY"),
        openai_base_url=given.text("OPENAI_BASE_URL"),
        model=given.text("AUTOPILOT_MODEL") or "gpt-4o-mini",
        stripe_key=given.secret("STRIPE_API_KEY"),
        stripe_base_url=given.text("STRIPE_API_BASE"),
        smtp_url=given.secret("AUTOPILOT_SMTP_URL"),
        mail_from=given.text("AUTOPILOT_MAIL_FROM") or "autopilot@localhost",
        webhook_secrets=given.signing_secrets("AUTOPILOT_WEBHOOK_SECRET"),
        callback_secrets=given.signing_secrets("AUTOPILOT_CALLBACK_SECRET"),
        heal_max_creations=given.number("AUTOPILOT_HEAL_MAX_CREATIONS", 20, least=0, most=1000),
        recreate_vanished=given.truth("AUTOPILOT_RECREATE_VANISHED"),
        runner=_runner(given, data),
    )
    if given.problems:
        raise Invalid(given.problems)
    return settings


class _Given:
    """The variables as they are given, and what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[tuple[str, str]] = []

    def wrong(self, name: str, message: str) -> None:
        """Note that a variable is not what it has to be."""
        self.problems.append((name, message))

    def text(self, name: str) -> str:
        """Return a variable, empty when it is not set."""
        return self._environment.get(name, "")

    def secret(self, name: str) -> Secret:
        """Return a variable that must not be shown."""
        return Secret(self.text(name))

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number."""
        text = self.text(name) or str(default)
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
        if not least <= number <= most:
            self.wrong(name, f"must be a whole number from {least} to {most}")
        return number

    def truth(self, name: str) -> bool:
        """Return whether something is wanted; it is not unless it is said."""
        text = self.text(name) or "no"
        if text not in {"yes", "no"}:
            self.wrong(name, "must be yes or no")
        return text == "yes"

    def signing_secrets(self, name: str) -> tuple[Secret, ...]:
        """Return secrets of Standard Webhooks: more than one while one is replaced by another."""
        secrets = self.text(name).split()
        if not all(is_secret(one) for one in secrets):
            told = "must be secrets with blanks between them, each whsec_ and 24 to 64 bytes in base64"
            self.wrong(name, told)
        return tuple(Secret(one) for one in secrets)


def _auth(given: _Given, host: str) -> Literal["local", "required"]:
    key = given.text("AUTOPILOT_API_KEY")
    auth = given.text("AUTOPILOT_AUTH") or ("local" if is_loopback(host) and not key else "required")
    if auth not in {"local", "required"}:
        given.wrong("AUTOPILOT_AUTH", "must be local or required")
    elif auth == "local" and not is_loopback(host):
        given.wrong("AUTOPILOT_AUTH", f"local serves this machine only and cannot bind to {host}")
    elif auth == "required" and not key:
        given.wrong(
            "AUTOPILOT_API_KEY", f"is needed to serve on {host}: without a key anyone could use the router"
        )
    if key and len(key) < 16 and not is_loopback(host):
        given.wrong("AUTOPILOT_API_KEY", f"must have at least 16 characters to serve on {host}")
    return "local" if auth == "local" else "required"


def _allowed(given: _Given, auth: Literal["local", "required"]) -> Allowed:
    listed = [entry.strip() for entry in given.text("AUTOPILOT_ALLOW_ENDPOINTS").split(",")]
    entries = [entry for entry in listed if entry] or (list(LOOPBACK) if auth == "local" else [])
    try:
        return parse_allowed(entries)
    except ValueError as error:
        given.wrong("AUTOPILOT_ALLOW_ENDPOINTS", str(error))
        return Allowed()


def _rate(given: _Given) -> tuple[int, int] | None:
    text = given.text("AUTOPILOT_RATE_LIMIT")
    if not text:
        return None
    match = _RATE.fullmatch(text)
    if not match:
        given.wrong("AUTOPILOT_RATE_LIMIT", "must be CALLS/SECONDS, such as 600/60")
        return None
    return int(match[1]), int(match[2])


def _cf_token(given: _Given) -> Secret:
    token = given.text("CF_API_TOKEN").strip()
    if token.startswith("cfk_"):
        given.wrong(
            "CF_API_TOKEN",
            "is a global API key, which may do everything to every account of its owner: create an API token "
            "with only the permissions needed",
        )
    elif not (token.isascii() and token.isprintable()) or " " in token:
        given.wrong("CF_API_TOKEN", "has characters that no token has: copy it again")
    return Secret(token)


def _cf_api_base(given: _Given, allowed: Allowed) -> str:
    base = given.text("CF_API_BASE").strip().rstrip("/")
    if base:
        try:
            Guard(allowed).check(parse_url(base))
        except EndpointRefused as error:
            given.wrong(
                "CF_API_BASE", f"{error}; AUTOPILOT_ALLOW_ENDPOINTS lists what may be called all the same"
            )
    return base


def _audit_key(given: _Given) -> Secret:
    key = given.text("AUTOPILOT_AUDIT_KEY")
    if key and len(key.encode()) < _SHORTEST_AUDIT_KEY:
        given.wrong("AUTOPILOT_AUDIT_KEY", f"must have at least {_SHORTEST_AUDIT_KEY} characters")
    elif not key and given.text("AWS_LAMBDA_FUNCTION_NAME"):
        given.wrong("AUTOPILOT_AUDIT_KEY", "is needed on Lambda: no file there outlives a process")
    return Secret(key)


def _runner(given: _Given, data: Path) -> RunnerSettings | None:
    names = [name.strip() for name in given.text("AUTOPILOT_RUNNER_ENV").split(",") if name.strip()]
    shell = given.truth("AUTOPILOT_RUNNER_SHELL")
    for name in names:
        if not _VARIABLE.fullmatch(name):
            given.wrong("AUTOPILOT_RUNNER_ENV", "must be names of variables with commas between them")
        elif name.startswith(_OWN) or name in _OWN_SECRETS:
            given.wrong("AUTOPILOT_RUNNER_ENV", f"{name} is the router's own and is handed on to nobody")
    if not given.text("AUTOPILOT_RUNNER_ROOT"):
        return None
    root, own = Path(given.text("AUTOPILOT_RUNNER_ROOT")).resolve(), data.resolve()
    if not root.is_dir():
        given.wrong("AUTOPILOT_RUNNER_ROOT", "must be a folder that is there")
    elif own.is_relative_to(root) or root.is_relative_to(own):
        told = "and AUTOPILOT_DATA must not be within one another: tasks change files in it"
        given.wrong("AUTOPILOT_RUNNER_ROOT", told)
    return RunnerSettings(
        root,
        shell,
        frozenset(names),
        {name: given.secret(name) for name in names if given.text(name)},
        {name: given.text(name) for name in _EVERY_COMMAND if given.text(name)},
    )


def read_client(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return what a client needs: the router's URL and the key, empty for none."""
    url = environment.get("ORCHESTRATOR_URL") or "http://127.0.0.1:8080"
    return url.rstrip("/"), environment.get("AUTOPILOT_API_KEY", "")
