"""The `autopilot` command: serve the router, or ask one that runs.

Exit status: 0 done, 1 the task or check failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from router import __version__
from router.body import parse
from router.errors import AutopilotError, Invalid, Malformed

if TYPE_CHECKING:
    import httpx

FAILED = 1
WRONG_USAGE = 2

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parsed = _parser().parse_args(arguments)
    command: Command = parsed.command
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for a terminal that lacks a letter
    try:
        status = command(parsed)
        sys.stdout.flush()  # now: at exit a reader that left could only be complained about
    except Invalid as error:
        for problem in error.problems:
            _say(f"{problem.field}: {problem.message}" if problem.field else problem.message)
        return WRONG_USAGE
    except AutopilotError as error:
        _say(error.detail)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough: `autopilot list | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="autopilot", description="Route tasks to autopilots.")
    parser.add_argument("--version", action="version", version=f"autopilot-router {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str, *, asks: bool = True) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(command=command)
        if asks:
            one.add_argument("--url", help="the router (default: $ORCHESTRATOR_URL, http://127.0.0.1:8080)")
            one.add_argument("--json", action="store_true", help="print what the API answers")
        return one

    serve = add("serve", _serve, "Serve the router on this machine.", asks=False)
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    serve.add_argument("--port", type=int, default=8080, help="the port to listen on, 0 for any free one")
    serve.add_argument("--data", type=Path, help="the folder of store and files (default: $AUTOPILOT_DATA)")

    listing = add("list", _list, "List the registered autopilots.")
    listing.add_argument("--capability", help="only those that offer it")

    register = add("register", _register, "Register the autopilot that a JSON file describes.")
    which = register.add_mutually_exclusive_group(required=True)
    which.add_argument("file", nargs="?", metavar="FILE", help="the registration, - for standard input")
    which.add_argument("--built-in", action="store_true", help="register those that ship with the router")

    plan = add("plan", _plan, "Send a task to an autopilot that can do it.")
    plan.add_argument("task", metavar="TASK", help="a task such as generate_page, or a capability")
    plan.add_argument("--meta", default="{}", help="the task's details: a JSON object, or @FILE")
    plan.add_argument("--autopilot", help="send it to this one only")
    plan.add_argument("--explain", action="store_true", help="show the decision, send nothing")

    add("catalogue", _catalogue, "List every task with who can do it now.")
    add("diagnose", _diagnose, "Show the token, its permissions, what exists and what differs.")
    ensure = add("ensure-infra", _ensure, "Create what registered autopilots need and does not exist.")
    ensure.add_argument("--dry-run", action="store_true", help="print the plan, create nothing")
    add("heal", _heal, "Run one self-heal pass now.")
    return parser


# serving


def _serve(parsed: argparse.Namespace) -> int:
    from router.serve import bind, serve
    from router.settings import read

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = read(os.environ, host=parsed.host)
    if parsed.data is not None:
        settings = replace(settings, data=parsed.data)
    try:
        bound = bind(parsed.host, parsed.port)
    except OSError as error:
        _say(f"cannot listen on {parsed.host}:{parsed.port}: {error}")
        return FAILED

    def ready(url: str) -> None:
        print(f"listening on {url}", flush=True)

    with bound, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings, bound, ready))
        # All is written and closed. A name look-up that hangs sits in a thread nobody can stop: not to wait.
        os._exit(0)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not to be had on Windows
        return None
    return uvloop.new_event_loop


# asking


def _list(parsed: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    query = {"limit": "200", **({"capability": parsed.capability} if parsed.capability else {})}
    with _client(parsed) as client:
        while True:
            answer = _ask(client, "GET", "/autopilot/list", "autopilots", params=query)
            rows += answer["autopilots"]
            if answer["next"] is None:
                break
            query["cursor"] = answer["next"]
    if parsed.json:
        return _print_json({"autopilots": rows, "count": len(rows), "next": None})
    if not rows:
        print("no autopilots are registered; 'autopilot register --built-in' registers those that ship")
        return 0
    _table(
        ("NAME", "HEALTH", "ENDPOINT", "CAPABILITIES"),
        [(row["name"], row["health"], row["endpoint"], ", ".join(_names(row))) for row in rows],
    )
    return 0


def _names(row: Mapping[str, Any]) -> list[str]:
    return [one if isinstance(one, str) else one["name"] for one in row["capabilities"]]


def _register(parsed: argparse.Namespace) -> int:
    if parsed.built_in:
        from router.wiring import manifests

        bodies = manifests()
    else:
        bodies = [_read_json(parsed.file)]
    answers = []
    with _client(parsed) as client:
        for body in bodies:
            answer = _ask(client, "POST", "/autopilot/registry", "autopilot", json=body)
            answers.append(answer)
            if not parsed.json:
                print(answer["message"])
                for warning in answer.get("warnings", ()):
                    print(f"  warning: {warning}")
                remote = not answer["autopilot"]["endpoint"].startswith("local:")
                if remote and "signing_secret" in answer:
                    print(f"  signing secret, shown only now: {answer['signing_secret']}")
    return _print_json(answers if parsed.built_in else answers[0]) if parsed.json else 0


def _plan(parsed: argparse.Namespace) -> int:
    meta = _read_json(parsed.meta[1:]) if parsed.meta.startswith("@") else _json_of(parsed.meta, "--meta")
    body: dict[str, Any] = {"capability" if "." in parsed.task else "task": parsed.task, "meta": meta}
    if parsed.autopilot:
        body["autopilot"] = parsed.autopilot
    if parsed.explain:
        body["mode"] = "explain"
    with _client(parsed) as client:
        answer = _ask(client, "POST", "/autopilot/plan", "autopilot", json=body)
    if parsed.json:
        _print_json(answer)
    elif parsed.explain:
        _print_decision(answer)
    else:
        print(f"{answer['autopilot']} answered {answer['status']} in {answer['duration_ms']:.0f} ms")
        _print_json(answer["result"])
    return 0 if parsed.explain or answer["ok"] else FAILED


def _print_decision(answer: Mapping[str, Any]) -> None:
    print(f"{answer['task'] or answer['capability']} needs {answer['capability']}")
    rows = [
        (str(one["rank"]), one["autopilot"], one["health"], one["reason"]) for one in answer["candidates"]
    ]
    if rows:
        _table(("RANK", "AUTOPILOT", "HEALTH", "REASON"), rows)
    for name in answer["would_configure"]:
        print(f"nobody offers it yet; {name} would be asked to")


def _catalogue(parsed: argparse.Namespace) -> int:
    with _client(parsed) as client:
        answer = _ask(client, "GET", "/autopilot/catalogue", "tasks")
    if parsed.json:
        return _print_json(answer)
    _table(
        ("TASK", "CAPABILITY", "SOURCE", "AUTOPILOTS"),
        [
            (one["task"], one["capability"], one["source"], ", ".join(one["autopilots"]) or "nobody")
            for one in answer["tasks"]
        ],
    )
    return 0


def _diagnose(parsed: argparse.Namespace) -> int:
    with _client(parsed) as client:
        answer = _ask(client, "GET", "/autopilot/diagnose", "provider")
    unread = [part for part in ("token", "resources", "drift") if "error" in answer[part]]
    status = FAILED if unread or answer.get("missing") else 0
    if parsed.json:
        _print_json(answer)
        return status
    print(f"provider {answer['provider']}, token {answer['token'].get('status', 'unreadable')}")
    if answer.get("note"):
        print(answer["note"])
    for permission in answer.get("permissions", ()):
        print(f"  {permission['permission']}: needs {permission['needs']}, has {permission['has']}")
    for kind, found in answer["resources"].items() if "resources" not in unread else ():
        print(f"{kind}: {len(found)}")
    for one in answer["drift"].get("missing", ()):
        print(f"missing: {one['kind']} {one['name']}, needed by {', '.join(one['needed_by'])}")
    for part in unread:
        error = answer[part]["error"]
        print(f"{part} could not be read: {error['message']} ({error['code']})")
    return status


def _ensure(parsed: argparse.Namespace) -> int:
    with _client(parsed) as client:
        answer = _ask(client, "POST", "/autopilot/ensure-infra", "plan", json={"dry_run": parsed.dry_run})
    return _print_report(parsed, answer)


def _heal(parsed: argparse.Namespace) -> int:
    with _client(parsed) as client:
        answer = _ask(client, "POST", "/__scheduled", "plan")
    return _print_report(parsed, answer)


def _print_report(parsed: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    if parsed.json:
        _print_json(answer)
    else:
        rows = [(one["action"], one["kind"], one["name"], one["why"]) for one in answer["plan"]]
        if rows:
            _table(("ACTION", "KIND", "NAME", "WHY"), rows)
        for error in answer["errors"]:
            print(f"failed: {error['kind']} {error['name']}: {error['message']}")
        created = sum(len(found) for found in answer["created"].values())
        print("nothing was created: a dry run" if answer["dry_run"] else f"created {created}")
    return 0 if answer["ok"] else FAILED


class _Refused(AutopilotError):
    """Raise when the router answers with a problem."""


@contextmanager
def _client(parsed: argparse.Namespace) -> Iterator[httpx.Client]:
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


def _ask(client: httpx.Client, method: str, path: str, field: str, **options: Any) -> Any:
    """Return the JSON of an answer; reports of partial failure count as answers.

    Every answer to this question has `field`: without it, it is not a router that answered.
    """
    import httpx

    waiting = threading.Timer(1.0, lambda: _say(f"waiting for {client.base_url} …"))
    waiting.daemon = True
    waiting.start()
    try:
        answer = client.request(method, path, **options)
    except httpx.HTTPError as error:
        raise _Refused(
            f"cannot reach the router at {client.base_url}: {error}. "
            "Is it running? 'autopilot serve' starts it."
        ) from None
    finally:
        waiting.cancel()
    try:
        document = answer.json()
    except ValueError:
        raise _Refused(f"{client.base_url} answered {answer.status_code}, but not in JSON") from None
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        raise _Refused(_problem_text(document))
    if not isinstance(document, dict) or field not in document:
        raise _Refused(f"{client.base_url} answered {answer.status_code}, but not as a router does")
    return document


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


# reading and printing


def _read_json(file: str) -> Any:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _wrong(f"cannot read {file}: {error}")
    return _json_of(text, file)


def _json_of(text: str, where: str) -> Any:
    """Return the value of a JSON text, read as strictly as the router will read it."""
    try:
        return parse(text.encode("utf-8", "surrogateescape"))
    except (Malformed, Invalid) as error:
        _wrong(f"{where} is not JSON as the router takes it: {error.detail}")


def _wrong(message: str) -> NoReturn:
    _say(message)
    raise SystemExit(WRONG_USAGE)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _print_json(document: Any) -> int:
    print(json.dumps(document, indent=2, ensure_ascii=False))
    return 0


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
