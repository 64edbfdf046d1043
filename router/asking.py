"""How the `autopilot` command asks a router, and how it reads and prints."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from infra.body import parse
from router.errors import AutopilotError, Invalid, Malformed

if TYPE_CHECKING:
    import httpx

FAILED = 1
WRONG_USAGE = 2


class Refused(AutopilotError):
    """Raise when the router answers with a problem. `why` is its code."""

    def __init__(self, detail: str, why: str = "") -> None:
        super().__init__(detail)
        self.why = why


@contextmanager
def client_of(parsed: argparse.Namespace) -> Iterator[httpx.Client]:
    """Give a client of the router that the arguments or the environment name."""
    import httpx

    from router.settings import read_client

    url, key = read_client(os.environ)
    url = parsed.url or url
    if not url.startswith(("http://", "https://")):
        _wrong(f"the router's URL must start with http:// or https://, not be {url!r}")
    if not (key.isascii() and key.isprintable()):
        _wrong("AUTOPILOT_API_KEY: a key has printable ASCII characters only")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        client = httpx.Client(base_url=url, headers=headers, timeout=310.0, trust_env=False)
    except httpx.InvalidURL as error:
        _wrong(f"the router's URL {url!r} is none: {error}")
    with client:
        yield client


def ask(client: httpx.Client, method: str, path: str, field: str, **options: Any) -> Any:
    """Return the JSON of an answer; reports of partial failure count as answers.

    Every answer to this question has `field`: without it, it is not a router that answered.
    """
    import httpx

    waiting = threading.Timer(1.0, lambda: say(f"waiting for {client.base_url} …"))
    waiting.daemon = True
    waiting.start()
    try:
        answer = client.request(method, path, **options)
    except httpx.HTTPError as error:
        raise Refused(
            f"cannot reach the router at {client.base_url}: {error}. "
            "Is it running? 'autopilot serve' starts it."
        ) from None
    finally:
        waiting.cancel()
    if answer.status_code == 204:
        return {}
    try:
        document = answer.json()
    except ValueError:
        raise Refused(f"{client.base_url} answered {answer.status_code}, but not in JSON") from None
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        raise Refused(_problem_text(document), str(document.get("code", "")))
    if not isinstance(document, dict) or field not in document:
        raise Refused(f"{client.base_url} answered {answer.status_code}, but not as a router does")
    return document


def ask_all(
    parsed: argparse.Namespace, path: str, field: str, *, cursor: str = "cursor", **query: str | None
) -> list[dict[str, Any]]:
    """Return the rows of every page of a list; `cursor` is the parameter that asks for the next page."""
    rows: list[dict[str, Any]] = []
    given = {"limit": "200", **{name: value for name, value in query.items() if value}}
    with client_of(parsed) as client:
        while True:
            answer = ask(client, "GET", path, field, params=given)
            rows += answer[field]
            if answer["next"] is None:
                return rows
            given[cursor] = answer["next"]


def _problem_text(problem: Mapping[str, Any]) -> str:
    lines = [problem.get("error") or problem["title"]]
    errors = problem.get("errors", ())
    lines += [f"  {one['field']}: {one['message']}" for one in errors]
    if not errors and problem["detail"] != lines[0]:
        lines.append(f"  {problem['detail']}")
    lines += [
        f"  {one.get('kind')} {one.get('name')}: {one['message']}" for one in problem.get("details", ())
    ]
    if problem.get("did_you_mean"):
        lines.append(f"  did you mean {', '.join(problem['did_you_mean'])}?")
    if problem.get("hint"):
        lines.append(f"  {problem['hint']}")
    return "\n".join(lines)


def read_json(file: str) -> Any:
    """Return the JSON in a file, `-` for standard input; ends the command when there is none."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _wrong(f"cannot read {file}: {error}")
    return json_of(text, file)


def json_of(text: str, where: str) -> Any:
    """Return the value of a JSON text, read as strictly as the router will read it."""
    try:
        return parse(text.encode("utf-8", "surrogateescape"))
    except (Malformed, Invalid) as error:
        _wrong(f"{where} is not JSON as the router takes it: {error.detail}")


def _wrong(message: str) -> NoReturn:
    say(message)
    raise SystemExit(WRONG_USAGE)


def say(message: str) -> None:
    """Tell a person something that is not the command's output."""
    print(message, file=sys.stderr, flush=True)


def print_json(document: Any) -> int:
    """Print a document and return success."""
    print(json.dumps(document, indent=2, ensure_ascii=False))
    return 0


def visible(text: str) -> str:
    """Return a text with what a terminal would obey or hide as escapes, but for the ends of lines."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
