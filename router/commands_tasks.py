"""What the `autopilot` command asks a running router about asynchronous tasks."""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import quote

from router.asking import ask, client_of, print_json, print_table, visible

_PAGE = 200


def listing(parsed: argparse.Namespace) -> int:
    """List asynchronous tasks, newest first."""
    rows: list[dict[str, Any]] = []
    query = {"limit": str(min(parsed.most, _PAGE)), **({"status": parsed.status} if parsed.status else {})}
    with client_of(parsed) as client:
        while True:
            answer = ask(client, "GET", "/autopilot/tasks", "tasks", params=query)
            rows += answer["tasks"]
            if answer["next"] is None or len(rows) >= parsed.most:
                break
            query["cursor"] = answer["next"]
    rows = rows[: parsed.most]
    if parsed.json:
        return print_json({"tasks": rows, "count": len(rows), "next": answer["next"]})
    print_table(
        ("ID", "STATUS", "CAPABILITY", "ASKED BY", "SUBMITTED", "ATTEMPTS", "ERROR"),
        [
            (
                one["id"],
                one["status"],
                one["capability"],
                one["requested_by"],
                one["submitted_at"],
                str(one["attempts"]),
                visible(one["error"]["detail"]) if one["error"] else "",
            )
            for one in rows
        ],
    )
    return 0


def show(parsed: argparse.Namespace) -> int:
    """Show all there is to know of one task, with what it was answered."""
    with client_of(parsed) as client:
        answer = ask(client, "GET", _path(parsed), "id")
    return _print(parsed, answer)


def cancel(parsed: argparse.Namespace) -> int:
    """Cancel a task that is not over."""
    return _change(parsed, "cancel", "is cancelled")


def retry(parsed: argparse.Namespace) -> int:
    """Send a failed task again."""
    return _change(parsed, "retry", "is queued again")


def _change(parsed: argparse.Namespace, how: str, done: str) -> int:
    with client_of(parsed) as client:
        answer = ask(client, "POST", f"{_path(parsed)}/{how}", "id")
    if parsed.json:
        return print_json(answer)
    print(f"{answer['id']} {done}")
    return 0


def _path(parsed: argparse.Namespace) -> str:
    return f"/autopilot/tasks/{quote(parsed.id, safe='')}"


def _print(parsed: argparse.Namespace, answer: dict[str, Any]) -> int:
    if parsed.json:
        return print_json(answer)
    for name, value in answer.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        print(f"{name}: {visible(text)}")
    return 0
