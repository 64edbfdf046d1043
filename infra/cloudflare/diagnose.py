"""What the token is and what it may do, each with the evidence that it was read from.

Three kinds of evidence: the token's own policy, where it may read that; the lists that were answered or
refused; and, where it is asked for, creations that cannot succeed. What could not be told is `Unknown`, which
is never counted as missing.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from infra.clock import Clock
from infra.cloudflare.client import Client
from infra.cloudflare.failures import (
    BadToken,
    CloudflareError,
    Denied,
    NotEnabled,
    WrongAccount,
    kind_of,
)
from infra.cloudflare.kinds import TABLE, Kind
from infra.cloudflare.permissions import (
    ACCOUNT_PERMISSION,
    ACCOUNT_READS,
    ESSENTIAL,
    Has,
    account_by_policy,
    by_policy,
    link,
)
from infra.provider import Diagnosis, Inventory, Permission, Unread, unread

SOON_SECONDS = 14 * 86_400
"""A token that expires within two weeks is told of."""

_SHOWN = 5
"""How many accounts are named."""

_DENIED_LIST = "the list was refused"
_READ_ONLY = (
    "An answered list proves that reading is allowed. Whether creating is, probing finds out by creations "
    "that cannot succeed: '?probe_writes=true', or 'autopilot diagnose --probe-writes'."
)


class Token(NamedTuple):
    """What is known of the token. `kind` is `user`, `account` or `unknown`; `details` hold its policies."""

    kind: str
    verified: Mapping[str, Any]
    details: Mapping[str, Any] | None


async def diagnose(
    client: Client,
    token: str,
    found: Inventory,
    *,
    clock: Clock,
    nobody: Callable[[], str],
    probe_writes: bool,
) -> Diagnosis:
    """Return what there is to say. `nobody` gives a name that no Worker has."""
    useless = False
    shown: Mapping[str, Any] | Unread
    try:
        known = await _identify(client, token, found)
    except CloudflareError as error:
        shown, useless = unread(error), isinstance(error, BadToken)
        known = Token(_kind_by_prefix(token), {}, None)
    else:
        shown = _shown(known, clock())
    account, permissions = await asyncio.gather(
        _account_row(client, known), _rows(client, known, found, nobody if probe_writes else None)
    )
    where = link(known.kind)
    rows = [one._replace(link=where) if _lacks(one) else one for one in (*permissions, account)]
    if not isinstance(shown, Unread) and (strange := await _account_it_lacks(client, rows)):
        shown = {**shown, "warning": "; ".join(filter(None, (shown.get("warning"), strange)))}
    missing = [_group(one) for one in rows if _lacks(one) and _essential(one)]
    blind = isinstance(shown, Unread) and all(one.has == "Unknown" for one in rows)
    return Diagnosis(
        shown,
        shown if isinstance(shown, Unread) and blind else rows,
        missing,
        link=where if missing or useless else "",
        note="" if probe_writes or blind or known.details is not None else _READ_ONLY,
    )


async def _identify(client: Client, token: str, found: Inventory) -> Token:
    """Ask both endpoints that may know the token. Raises `CloudflareError` where neither does."""
    first = _kind_by_prefix(token)
    kinds = ("account", "user") if first == "account" else ("user", "account")
    refused: CloudflareError | None = None
    for kind in kinds:
        try:
            verified = await (
                client.tokens.verify_user() if kind == "user" else client.tokens.verify_account()
            )
        except BadToken as error:
            refused = refused or error
        except WrongAccount as error:
            if refused is None:
                raise
            raise BadToken(
                f"{refused.detail}; a token of an account can only be checked with CF_ACCOUNT_ID",
                number=refused.number,
                hint=error.hint,
            ) from error
        else:
            return Token(kind, verified, await _details(client, kind, verified))
    if len(found.unread) < len(TABLE):
        # Lists are answered, so it works all the same: what cannot be checked is not wrong.
        return Token("unknown", {"status": "active"}, None)
    assert refused is not None
    raise refused


def _kind_by_prefix(token: str) -> str:
    return {"cfut_": "user", "cfat_": "account"}.get(token[:5], "unknown")


async def _details(client: Client, kind: str, verified: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the token's policies where it may read them: few tokens may, and few should."""
    identity = verified.get("id")
    if not isinstance(identity, str) or verified.get("status") != "active":
        return None
    try:
        return await client.tokens.details(kind, identity)
    except CloudflareError:
        return None


def _shown(token: Token, now: float) -> dict[str, Any]:
    """Return the token as diagnose shows it."""
    verified = token.verified
    shown: dict[str, Any] = {
        "id": verified.get("id"),
        "status": str(verified.get("status", "unknown")),
        "kind": token.kind,
    }
    expires = verified.get("expires_on")
    if isinstance(expires, str):
        shown["expires_at"] = expires
    if token.details is not None:
        condition = token.details.get("condition")
        if isinstance(condition, dict) and condition.get("request_ip"):
            shown["ip_condition"] = condition["request_ip"]
    warning = _warning(token, expires, now)
    if warning:
        shown["warning"] = warning
    return shown


def _warning(token: Token, expires: object, now: float) -> str:
    status = token.verified.get("status")
    if status in {"disabled", "expired"}:
        return f"the token is {status}: create another, or enable it in the dashboard"
    if token.kind == "unknown":
        return "neither endpoint that checks tokens knows it, though lists are answered"
    left = None if not isinstance(expires, str) else _seconds(expires)
    if left is not None and left - now < SOON_SECONDS:
        return f"the token expires in {max(0, int((left - now) // 86_400))} days"
    return ""


def _seconds(text: str) -> float | None:
    try:
        instant = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant.timestamp() if instant.tzinfo else None


async def _rows(
    client: Client, token: Token, found: Inventory, nobody: Callable[[], str] | None
) -> list[Permission]:
    asked = await asyncio.gather(*(_row(client, token, found, kind, nobody) for kind in TABLE))
    return list(asked)


async def _row(
    client: Client, token: Token, found: Inventory, kind: Kind, nobody: Callable[[], str] | None
) -> Permission:
    """Return what the token may do with one kind, from the strongest evidence there is."""
    failed = found.unread.get(kind.kind)
    why = None if failed is None else kind_of(kind.kind, failed)
    if why is NotEnabled and failed is not None:
        return _permission(kind, "Unknown", f"not enabled: {failed.message}", "none", failed.hint)
    if why is Denied and failed is not None:
        return _permission(kind, "None", _DENIED_LIST, "read", failed.hint)
    if token.details is not None:
        has = by_policy(token.details, client.account.known, kind)
        return _permission(kind, has, "the token's policy", "policy", _what_for(kind, has))
    if nobody is not None and failed is None:
        return await _probed(client, kind, nobody())
    if failed is None:
        return _permission(kind, "Read", "the list was answered", "read", "")
    return _permission(kind, "Unknown", f"the list was not answered: {failed.message}", "none", failed.hint)


async def _probed(client: Client, kind: Kind, nobody: str) -> Permission:
    """Try a creation that cannot succeed: which refusal comes back says whether it was authorised."""
    try:
        await kind.probe(client, nobody)
    except CloudflareError as error:
        if error.number in kind.allowed:
            return _permission(kind, "Edit", "a creation that cannot succeed was authorised", "write", "")
        if isinstance(error, Denied):
            text = "the list was answered, a creation refused"
            return _permission(kind, "Read", text, "write", error.hint)
        if isinstance(error, NotEnabled):
            return _permission(kind, "Unknown", f"not enabled: {error.detail}", "none", error.hint)
        return _permission(
            kind, "Read", f"the list was answered; a creation told nothing: {error.detail}", "read", ""
        )
    return _permission(kind, "Edit", "a creation that cannot succeed was answered", "write", "")


def _permission(kind: Kind, has: Has, probe: str, evidence: Any, hint: str) -> Permission:
    return Permission(kind.permission, "Edit", has, probe, evidence, hint)


def _what_for(kind: Kind, has: Has) -> str:
    if has == "Edit":
        return ""
    return f"add the permission group '{kind.writes}' to the token"


async def _account_row(client: Client, token: Token) -> Permission:
    """Return whether the token may read the account's own record."""
    if token.details is not None:
        has = account_by_policy(token.details, client.account.known)
        return Permission(ACCOUNT_PERMISSION, "Read", has, "the token's policy", "policy")
    try:
        await client.account.details()
    except Denied as error:
        return Permission(
            ACCOUNT_PERMISSION, "Read", "None", "the account's record was refused", "read", error.hint
        )
    except CloudflareError as error:
        text = f"the account's record was not answered: {error.detail}"
        return Permission(ACCOUNT_PERMISSION, "Read", "Unknown", text, "none", error.hint)
    return Permission(ACCOUNT_PERMISSION, "Read", "Read", "the account's record was answered", "read")


async def _account_it_lacks(client: Client, rows: Sequence[Permission]) -> str:
    """Say that the account is not one of the token's: where all is refused in it, and others are seen."""
    configured = client.account.configured
    if not configured or any(one.has != "None" for one in rows):
        return ""
    try:
        seen = [str(one["id"]) for one in await client.account.visible()]
    except CloudflareError:
        return ""
    if not seen or configured in seen:
        return ""
    some = ", ".join(seen[:_SHOWN])
    return f"the token sees {some} but no account {configured}: correct CF_ACCOUNT_ID, or use a token for it"


def _lacks(one: Permission) -> bool:
    """Whether it is shown that the token has less than is needed. An answered list shows no such thing."""
    if one.has == "None":
        return True
    return one.has == "Read" and one.needs == "Edit" and one.evidence in {"policy", "write"}


def _essential(one: Permission) -> bool:
    return one.permission == ACCOUNT_PERMISSION or any(
        row.kind in ESSENTIAL for row in TABLE if row.permission == one.permission
    )


def _group(one: Permission) -> str:
    """Return the permission group that is missing, as the API calls it."""
    return ACCOUNT_READS if one.permission == ACCOUNT_PERMISSION else f"{one.permission} Write"
