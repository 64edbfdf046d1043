"""Policies as they are meant, and links to a token that has what is needed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.cloudflare_fake import ACCOUNT, ACCOUNT_TOKEN, USER_TOKEN, Fault, Token
from tests.infra.cloudflare.conftest import Rig
from tests.infra.cloudflare.test_diagnose import diagnosis, rows


def policies(*groups: str, effect: str = "allow", resource: str = "", value: Any = "*") -> dict[str, Any]:
    """Return a policy."""
    return {
        "id": "p",
        "effect": effect,
        "resources": {resource or f"com.cloudflare.api.account.{ACCOUNT}": value},
        "permission_groups": [{"id": group, "name": group} for group in groups],
    }


KV = "Workers KV Storage"
KV_WRITE_ID = "f7f0eda5697f475c90846e879bab8666"


@pytest.mark.parametrize(
    ("granted", "has"),
    [
        ([policies(f"{KV} Write")], "Edit"),
        ([policies(f"{KV} Read")], "Read"),
        ([policies(f"{KV} Read", f"{KV} Write")], "Edit"),
        ([policies(f"{KV} Write", resource="com.cloudflare.api.account.*")], "Edit"),
        ([policies(f"{KV} Write", resource=f"com.cloudflare.api.account.{'f' * 32}")], "None"),
        ([policies(f"{KV} Write", value={"com.cloudflare.api.account.zone.*": "*"})], "None"),
        ([policies(f"{KV} Write"), policies(f"{KV} Write", effect="deny")], "None"),
        ([policies(f"{KV} Write", f"{KV} Read"), policies(f"{KV} Write", effect="deny")], "Read"),
        ([{**policies(), "permission_groups": [{"id": KV_WRITE_ID}]}], "Edit"),
        # a known id under another name is that other group
        ([{**policies(), "permission_groups": [{"id": KV_WRITE_ID, "name": "Zone Write"}]}], "None"),
        ([policies("Account Settings Write")], "None"),
        ([], "None"),
        (["odd", {"effect": "allow", "resources": []}, {"effect": 1}], "None"),
    ],
)
async def test_policies_are_read_as_they_are_meant(rig: Rig, granted: list[Any], has: str) -> None:
    """For this account or all, denials first, by name where there is one."""
    rig.fake.tokens[USER_TOKEN].reads_itself = True
    path = f"/user/tokens/{rig.fake.tokens[USER_TOKEN].id}"
    rig.fake.faults = [
        Fault("GET", path, tamper=lambda body: body["result"].update(policies=granted), times=9)
    ]
    said = await diagnosis(rig)
    assert rows(said)[KV].has == has
    account = "Edit" if granted and granted[0] == policies("Account Settings Write") else "None"
    assert rows(said)["Account Settings"].has == account
    hint = rows(said)[KV].hint
    assert hint == ("" if has == "Edit" else f"add the permission group '{KV} Write' to the token")


@pytest.mark.parametrize("kind", ["user", "account"])
async def test_a_link_leads_to_a_token_with_all_that_is_needed(rig: Rig, kind: str) -> None:
    """Prefilled with every kind for editing, the account's settings for reading, and a name."""
    secret = {"user": USER_TOKEN, "account": ACCOUNT_TOKEN}[kind]
    rig.fake.tokens = {secret: Token(secret, kind, "a" * 32, grants={})}
    link = urlsplit((await diagnosis(rig, secret)).link)
    query = parse_qs(link.query)
    wanted = json.loads(unquote(query["permissionGroupKeys"][0]))
    assert (link.scheme, link.netloc) == ("https", "dash.cloudflare.com")
    assert link.path == ("/profile/api-tokens" if kind == "user" else "/")
    assert ("accountId" in query) is (kind == "user")
    assert {one["key"]: one["type"] for one in wanted} == {
        "workers_kv_storage": "edit",
        "workers_r2": "edit",
        "workers_scripts": "edit",
        "d1": "edit",
        "queues": "edit",
        "account_settings": "read",
    }
    assert query["name"] == ["Autopilot Router"]
