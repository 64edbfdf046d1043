"""What a token is allowed, read from its policies, and where a token with what is missing is made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import quote

from infra.cloudflare.kinds import TABLE, Kind

Has = Literal["Edit", "Read", "None", "Unknown"]

ACCOUNT_PERMISSION = "Account Settings"
ACCOUNT_READS = "Account Settings Read"
_ACCOUNT_READ_ID = "c1fde68c7bcc44588cbb6ddbc16d6480"

ESSENTIAL = frozenset({"kv", "r2", "workers"})
"""Kinds that every token should be able to create; others only where autopilots need them."""

_DASHBOARD = "https://dash.cloudflare.com"
_NAME = "Autopilot Router"


def by_policy(details: Mapping[str, Any], account: str, row: Kind) -> Has:
    """Return what the token's own policies grant for a kind. A denial outweighs every grant."""
    granted, denied = _groups(details, account)
    if _in(row.writes, row.groups[1], granted - denied):
        return "Edit"
    return "Read" if _in(row.reads, row.groups[0], granted - denied) else "None"


def account_by_policy(details: Mapping[str, Any], account: str) -> Has:
    """Return what the token's own policies grant for the account itself."""
    granted, denied = _groups(details, account)
    if f"{ACCOUNT_PERMISSION} Write" in granted - denied:
        return "Edit"
    return "Read" if _in(ACCOUNT_READS, _ACCOUNT_READ_ID, granted - denied) else "None"


def _in(name: str, identity: str, groups: set[str]) -> bool:
    return name in groups or identity in groups


def _groups(details: Mapping[str, Any], account: str) -> tuple[set[str], set[str]]:
    """Return the names and ids of the groups that are granted and denied on an account."""
    groups: dict[str, set[str]] = {"allow": set(), "deny": set()}
    for policy in _objects(details.get("policies")):
        resources = policy.get("resources")
        named = groups.get(str(policy.get("effect")))
        if named is None or not isinstance(resources, dict) or not _covers(resources, account):
            continue
        for group in _objects(policy.get("permission_groups")):
            # With its name a group is known for sure; ids of public lists are often wrong.
            named.add(str(group.get("name") or group.get("id")))
    return groups["allow"], groups["deny"]


def _covers(resources: Mapping[str, Any], account: str) -> bool:
    """Whether a policy speaks of all that is in the account."""
    keys = (f"com.cloudflare.api.account.{account}", "com.cloudflare.api.account.*")
    return any(resources.get(key) == "*" for key in keys)


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    for one in value if isinstance(value, list) else []:
        if isinstance(one, dict):
            yield one


def link(kind: str) -> str:
    """Return the dashboard's page for a new token with everything that is needed filled in.

    A token of the account outlives the person who made it: that is proposed unless `kind` is `user`.
    """
    wanted = [{"key": row.key, "type": "edit"} for row in TABLE]
    wanted.append({"key": "account_settings", "type": "read"})
    keys = quote(json.dumps(wanted, separators=(",", ":")), safe="")
    name = quote(_NAME, safe="")
    if kind == "user":
        where = "&accountId=*&zoneId=all"
        return f"{_DASHBOARD}/profile/api-tokens?permissionGroupKeys={keys}{where}&name={name}"
    return f"{_DASHBOARD}/?to=/:account/api-tokens&permissionGroupKeys={keys}&name={name}"
