"""What the `autopilot` command asks a running router, one function per command.

Each takes the parsed arguments, prints what came of it, and returns the exit status.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from router.asking import (
    FAILED,
    Refused,
    ask,
    ask_all,
    client_of,
    json_of,
    print_json,
    print_table,
    read_json,
    say,
    visible,
)
from router.errors import EndpointRefused

if TYPE_CHECKING:
    import httpx


def listing(parsed: argparse.Namespace) -> int:
    """List the registered autopilots."""
    rows = ask_all(parsed, "/autopilot/list", "autopilots", capability=parsed.capability)
    if parsed.json:
        return print_json({"autopilots": rows, "count": len(rows), "next": None})
    if not rows:
        print("no autopilots are registered; 'autopilot register --built-in' registers those that ship")
        return 0
    print_table(
        ("NAME", "HEALTH", "ENDPOINT", "CAPABILITIES"),
        [(row["name"], row["health"], row["endpoint"], ", ".join(_names(row))) for row in rows],
    )
    return 0


def _names(row: Mapping[str, Any]) -> list[str]:
    return [one if isinstance(one, str) else one["name"] for one in row["capabilities"]]


def register(parsed: argparse.Namespace) -> int:
    """Register an autopilot from a file, or those that ship."""
    if parsed.built_in:
        from router.wiring import ON_REQUEST, manifests

        bodies, perhaps = manifests(), manifests(ON_REQUEST)
    else:
        bodies, perhaps = [read_json(parsed.file)], []
    with client_of(parsed) as client:
        answers = [_register(client, body, quiet=parsed.json) for body in bodies]
        for body in perhaps:
            try:
                answers.append(_register(client, body, quiet=parsed.json))
            except Refused as refusal:
                # Only the router knows what its process is made of, and says so by refusing the rest.
                if refusal.why != EndpointRefused.code:
                    raise
    return print_json(answers if parsed.built_in else answers[0]) if parsed.json else 0


def _register(client: httpx.Client, body: Any, *, quiet: bool) -> dict[str, Any]:
    answer: dict[str, Any] = ask(client, "POST", "/autopilot/registry", "autopilot", json=body)
    if not quiet:
        print(answer["message"])
        for warning in answer.get("warnings", ()):
            print(f"  warning: {warning}")
        remote = not answer["autopilot"]["endpoint"].startswith("local:")
        if remote and "signing_secret" in answer:
            print(f"  signing secret, shown only now: {answer['signing_secret']}")
    return answer


def plan(parsed: argparse.Namespace) -> int:
    """Send a task, or explain where it would go."""
    meta = read_json(parsed.meta[1:]) if parsed.meta.startswith("@") else json_of(parsed.meta, "--meta")
    body: dict[str, Any] = {"capability" if "." in parsed.task else "task": parsed.task, "meta": meta}
    if parsed.autopilot:
        body["autopilot"] = parsed.autopilot
    if parsed.explain or parsed.later:
        body["mode"] = "explain" if parsed.explain else "async"
    if parsed.callback_url:
        body["callback_url"] = parsed.callback_url
    with client_of(parsed) as client:
        answer = ask(client, "POST", "/autopilot/plan", "id" if parsed.later else "capability", json=body)
    if parsed.later:
        return _print_queued(parsed, answer)
    if parsed.json:
        print_json(answer)
    elif parsed.explain:
        _print_decision(answer)
    elif "autopilot" in answer:
        _print_outcome(answer)
    else:
        print(f"{answer['id']} waits for approval until {answer['expires_at']}; nothing was sent")
        print(f"somebody else sends it: autopilot approvals approve {answer['id']}")
    return 0 if parsed.explain or answer.get("ok") else FAILED


def _print_queued(parsed: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    if parsed.json:
        return print_json(answer)
    print(f"{answer['id']} is {answer['status']}: autopilot tasks show {answer['id']}")
    return 0


def _print_outcome(answer: Mapping[str, Any]) -> None:
    print(f"{answer['autopilot']} answered {answer['status']} in {answer['duration_ms']:.0f} ms")
    print_json(answer["result"])


def _print_decision(answer: Mapping[str, Any]) -> None:
    print(f"{answer['task'] or answer['capability']} needs {answer['capability']}")
    rows = [
        (str(one["rank"]), one["autopilot"], one["health"], one["reason"]) for one in answer["candidates"]
    ]
    if rows:
        print_table(("RANK", "AUTOPILOT", "HEALTH", "REASON"), rows)
    for name in answer["would_configure"]:
        print(f"nobody offers it yet; {name} would be asked to")


def catalogue(parsed: argparse.Namespace) -> int:
    """List every task."""
    with client_of(parsed) as client:
        answer = ask(client, "GET", "/autopilot/catalogue", "tasks")
    if parsed.json:
        return print_json(answer)
    print_table(
        ("TASK", "CAPABILITY", "SOURCE", "AUTOPILOTS"),
        [
            (one["task"], one["capability"], one["source"], ", ".join(one["autopilots"]) or "nobody")
            for one in answer["tasks"]
        ],
    )
    return 0


def audit_list(parsed: argparse.Namespace) -> int:
    """List the records of the audit, all of them."""
    events = ask_all(parsed, "/autopilot/audit", "events", cursor="after")
    if parsed.json:
        return print_json({"events": events, "next": None})
    rows = [(one["timestamp"], one["source"], one["type"], one["payload"]["target"]) for one in events]
    print_table(("TIME", "WHO", "WHAT", "TO"), rows)
    return 0


def secret_rotate(parsed: argparse.Namespace) -> int:
    """Replace the signing secret of an autopilot."""
    path = f"/autopilot/registry/{quote(parsed.name, safe='')}/secret"
    with client_of(parsed) as client:
        answer = ask(client, "POST", path, "signing_secret", json={"overlap_seconds": parsed.overlap})
    if parsed.json:
        return print_json(answer)
    say(f"earlier secrets of {answer['autopilot']} sign until {answer['previous_until']}; the new one:")
    print(answer["signing_secret"])
    return 0


def approvals_list(parsed: argparse.Namespace) -> int:
    """List tasks that wait, or waited, for approval, all of them."""
    rows = ask_all(parsed, "/autopilot/approvals", "approvals", status=parsed.status)
    rows.sort(key=lambda one: str(one["requested_at"]))
    if parsed.json:
        return print_json({"approvals": rows, "count": len(rows), "next": None})
    print_table(
        ("ID", "STATUS", "CAPABILITY", "ASKED BY", "EXPIRES", "DECIDED BY"),
        [
            (
                one["id"],
                one["status"],
                one["capability"],
                one["requested_by"],
                one["expires_at"],
                one["decided_by"] or "",
            )
            for one in rows
        ],
    )
    return 0


def approvals_show(parsed: argparse.Namespace) -> int:
    """Show one task that waits, or waited, for approval, with all that is to be known for a decision."""
    with client_of(parsed) as client:
        answer = ask(client, "GET", f"/autopilot/approvals/{parsed.id}", "approval")
    if parsed.json:
        return print_json(answer)
    approval = dict(answer["approval"])
    del approval["text"]
    parts = {name: approval.pop(name) for name in ("meta", "outcome")}
    for name, value in {**approval, **parts}.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        print(f"{name}: {visible(text)}")
    return 0


def approvals_approve(parsed: argparse.Namespace) -> int:
    """Approve a task, which sends it."""
    answer = _decide(parsed, "approve")
    if parsed.json:
        print_json(answer)
    elif answer["outcome"]:
        _print_outcome(answer["outcome"])
    else:
        error = answer["approval"]["error"]
        print(f"{parsed.id} is approved, but got no answer: {error['detail']} ({error['code']})")
        print("approving it again sends it again, as the same task")
    return 0 if answer["ok"] else FAILED


def approvals_refuse(parsed: argparse.Namespace) -> int:
    """Refuse a task, which is then never sent."""
    answer = _decide(parsed, "refuse")
    if parsed.json:
        return print_json(answer)
    print(f"{parsed.id} is refused; nothing was sent")
    return 0


def _decide(parsed: argparse.Namespace, how: str) -> dict[str, Any]:
    body = {"digest": parsed.digest} if parsed.digest else {}
    with client_of(parsed) as client:
        answer: dict[str, Any] = ask(
            client, "POST", f"/autopilot/approvals/{parsed.id}/{how}", "approval", json=body
        )
    return answer


def keys_list(parsed: argparse.Namespace) -> int:
    """List keys."""
    with client_of(parsed) as client:
        answer = ask(client, "GET", "/autopilot/keys", "keys")
    if parsed.json:
        return print_json(answer)
    rows = [
        (one["id"], one["name"], " ".join(one["scopes"]), _key_state(one), one["last_used_at"] or "never")
        for one in answer["keys"]
    ]
    print_table(("ID", "NAME", "SCOPES", "STATE", "LAST USED"), rows)
    return 0


def _key_state(record: Mapping[str, Any]) -> str:
    if record["revoked_at"]:
        return f"revoked {record['revoked_at']}"
    return f"ends {record['expires_at']}" if record["expires_at"] else "valid"


def keys_create(parsed: argparse.Namespace) -> int:
    """Create a key."""
    body = {"name": parsed.name, "scopes": parsed.scopes}
    if parsed.expires_at:
        body["expires_at"] = parsed.expires_at
    with client_of(parsed) as client:
        return _print_key(parsed, ask(client, "POST", "/autopilot/keys", "key", json=body))


def keys_rotate(parsed: argparse.Namespace) -> int:
    """Replace a key."""
    with client_of(parsed) as client:
        path = f"/autopilot/keys/{parsed.id}/rotate"
        return _print_key(parsed, ask(client, "POST", path, "key", json={"overlap_seconds": parsed.overlap}))


def _print_key(parsed: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    if parsed.json:
        return print_json(answer)
    say(f"key {answer['record']['id']} of {answer['record']['name']}, shown only now:")
    print(answer["key"])
    return 0


def keys_revoke(parsed: argparse.Namespace) -> int:
    """End a key."""
    with client_of(parsed) as client:
        ask(client, "DELETE", f"/autopilot/keys/{parsed.id}", "")
    if not parsed.json:
        print(f"key {parsed.id} is revoked")
    return 0
