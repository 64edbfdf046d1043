"""What the `autopilot` command asks about storage: how it is, what is missing, and to make it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from router.asking import FAILED, ask, client_of, print_json, print_table

_DRIFT = ("missing", "changed", "unmanaged")


def diagnose(parsed: argparse.Namespace) -> int:
    """Show token, permissions, storage and drift."""
    query = {"probe_writes": "true"} if parsed.probe_writes else {}
    with client_of(parsed) as client:
        answer = ask(client, "GET", "/autopilot/diagnose", "provider", params=query)
    unread = _unread(answer)
    status = FAILED if unread or answer.get("missing") else 0
    if parsed.json:
        print_json(answer)
        return status
    print(f"provider {answer['provider']}, token {answer['token'].get('status', 'unreadable')}")
    for name in ("warning", "note"):
        if text := answer["token"].get(name) or answer.get(name):
            print(text)
    _print_permissions(answer)
    _print_storage(answer)
    _print_drift(answer["drift"])
    for part, error in unread.items():
        print(f"{part} could not be read: {error['message']} ({error['code']})")
        print(f"  {error['hint']}")
    return status


def _unread(answer: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Return what could not be read, by its name."""
    parts = {"token": answer["token"], "permissions": answer.get("permissions", []), "drift": answer["drift"]}
    parts |= answer["resources"]
    return {name: part["error"] for name, part in parts.items() if isinstance(part, dict) and "error" in part}


def _print_permissions(answer: Mapping[str, Any]) -> None:
    permissions = answer.get("permissions", [])
    if isinstance(permissions, list) and permissions:
        print_table(
            ("PERMISSION", "NEEDS", "HAS", "EVIDENCE", "KNOWN BY"),
            [tuple(one[name] for name in _PERMISSION) for one in permissions],
        )
    if answer.get("missing"):
        print(f"the token lacks: {', '.join(answer['missing'])}")
        for hint in dict.fromkeys(one["hint"] for one in permissions if one["hint"] and one["has"] == "None"):
            print(f"  {hint}")
    if answer.get("link"):
        print(f"a token with what is missing: {answer['link']}")


_PERMISSION = ("permission", "needs", "has", "evidence", "probe")


def _print_storage(answer: Mapping[str, Any]) -> None:
    rows = [
        (kind, str(len(found)) if isinstance(found, list) else "unknown")
        for kind, found in answer["resources"].items()
    ]
    print_table(("KIND", "FOUND"), rows)


def _print_drift(drift: Mapping[str, Any]) -> None:
    rows = [
        (how, one["kind"], one["name"], ", ".join(one.get("needed_by", ())) or "nobody", one.get("why", ""))
        for how in _DRIFT
        for one in drift.get(how, ())
    ]
    if rows:
        print_table(("DRIFT", "KIND", "NAME", "NEEDED BY", "WHY"), rows)


def ensure(parsed: argparse.Namespace) -> int:
    """Create what is needed and missing."""
    with client_of(parsed) as client:
        answer = ask(client, "POST", "/autopilot/ensure-infra", "plan", json={"dry_run": parsed.dry_run})
    return _print_report(parsed, answer)


def heal(parsed: argparse.Namespace) -> int:
    """Run one self-heal pass."""
    with client_of(parsed) as client:
        answer = ask(client, "POST", "/__scheduled", "plan")
    return _print_report(parsed, answer)


def _print_report(parsed: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    if parsed.json:
        print_json(answer)
        return 0 if answer["ok"] else FAILED
    rows = [
        (one["action"], one["kind"], one["name"], ", ".join(one["needed_by"]), one["why"])
        for one in answer["plan"]
    ]
    if rows:
        print_table(("ACTION", "KIND", "NAME", "NEEDED BY", "WHY"), rows)
    for error in answer["errors"]:
        print(f"failed: {error['kind']} {error['name']}: {error['message']} ({error['code']})")
        if error["hint"]:
            print(f"  {error['hint']}")
    for alert in answer["alerts"]:
        print(f"alert: {alert['kind']} {alert['name']}".rstrip() + f": {alert['message']}")
    created = sum(len(found) for found in answer["created"].values())
    print("nothing was created: a dry run" if answer["dry_run"] else f"created {created}")
    return 0 if answer["ok"] else FAILED
