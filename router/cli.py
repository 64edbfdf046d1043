"""The `autopilot` command: serve the router, or ask one that runs.

Exit status: 0 done, 1 the task or check failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router import __version__, commands, commands_infra, commands_tasks
from router.asking import FAILED, WRONG_USAGE, print_json, say
from router.errors import AutopilotError, Invalid

if TYPE_CHECKING:
    from router.settings import Settings

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
            say(f"{problem.field}: {problem.message}" if problem.field else problem.message)
        return WRONG_USAGE
    except AutopilotError as error:
        say(error.detail)
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
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Command, text: str, *, asks: bool = True, to: Any = None
    ) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = (to or subparsers).add_parser(name, help=text, description=text)
        one.set_defaults(command=command)
        if asks:
            one.add_argument("--url", help="the router (default: $ORCHESTRATOR_URL, http://127.0.0.1:8080)")
            one.add_argument("--json", action="store_true", help="print what the API answers")
        return one

    serve = add("serve", _serve, "Serve the router on this machine.", asks=False)
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    serve.add_argument("--port", type=int, default=8080, help="the port to listen on, 0 for any free one")
    serve.add_argument("--data", type=Path, help="the folder of store and files (default: $AUTOPILOT_DATA)")

    listing = add("list", commands.listing, "List the registered autopilots.")
    listing.add_argument("--capability", help="only those that offer it")

    register = add("register", commands.register, "Register the autopilot that a JSON file describes.")
    which = register.add_mutually_exclusive_group(required=True)
    which.add_argument("file", nargs="?", metavar="FILE", help="the registration, - for standard input")
    which.add_argument("--built-in", action="store_true", help="register those that ship with the router")

    plan = add("plan", commands.plan, "Send a task to an autopilot that can do it.")
    plan.add_argument("task", metavar="TASK", help="a task such as generate_page, or a capability")
    plan.add_argument("--meta", default="{}", help="the task's details: a JSON object, or @FILE")
    plan.add_argument("--autopilot", help="send it to this one only")
    how = plan.add_mutually_exclusive_group()
    how.add_argument("--explain", action="store_true", help="show the decision, send nothing")
    how.add_argument("--async", dest="later", action="store_true", help="do not wait: it is done by and by")
    plan.add_argument("--callback-url", metavar="URL", help="with --async: whom to tell of its end")

    add("catalogue", commands.catalogue, "List every task with who can do it now.")
    _add_infra(add)

    audit = subparsers.add_parser("audit", help="See who did what, and that it stands.").add_subparsers(
        required=True, metavar="ACTION"
    )
    add("list", commands.audit_list, "List the records of the audit, oldest first.", to=audit)
    verify = add("verify", _verify, "Find out whether the audit is as it was written.", asks=False, to=audit)
    verify.add_argument("--data", type=Path, help="the folder of the store (default: $AUTOPILOT_DATA)")
    verify.add_argument("--json", action="store_true", help="print what was found as JSON")

    _add_tasks(subparsers, add)
    _add_approvals(subparsers, add)
    _add_secrets(subparsers, add)
    return parser


def _add_infra(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what shows and makes the storage that autopilots need."""
    text = "Show the token, its permissions, what exists and what differs."
    diagnose = add("diagnose", commands_infra.diagnose, text)
    diagnose.add_argument(
        "--probe-writes", action="store_true", help="find out what may be written, by what cannot succeed"
    )
    text = "Create what registered autopilots need and does not exist."
    ensure = add("ensure-infra", commands_infra.ensure, text)
    ensure.add_argument("--dry-run", action="store_true", help="print the plan, create nothing")
    add("heal", commands_infra.heal, "Run one self-heal pass now.")


def _add_tasks(subparsers: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what shows and changes asynchronous tasks."""
    tasks = subparsers.add_parser(
        "tasks", help="See, cancel and send again what `plan --async` submitted."
    ).add_subparsers(required=True, metavar="ACTION")
    listing = add("list", commands_tasks.listing, "List asynchronous tasks, newest first.", to=tasks)
    listing.add_argument("--status", help="queued, running, completed, failed or cancelled")
    listing.add_argument("--most", type=int, default=50, metavar="N", help="how many (default: 50)")
    for name, command, text in (
        ("show", commands_tasks.show, "Show one, with what it was answered."),
        ("cancel", commands_tasks.cancel, "Cancel one that is not over."),
        ("retry", commands_tasks.retry, "Send one again that has failed."),
    ):
        add(name, command, text, to=tasks).add_argument("id", metavar="ID")


def _add_approvals(subparsers: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what shows and decides about tasks that wait."""
    approvals = subparsers.add_parser(
        "approvals", help="See, approve and refuse tasks that wait for a second person."
    ).add_subparsers(required=True, metavar="ACTION")
    listing = add("list", commands.approvals_list, "List tasks that wait, or waited.", to=approvals)
    listing.add_argument("--status", help="awaiting_approval, approved, refused or expired")
    show = add("show", commands.approvals_show, "Show all there is to know of one.", to=approvals)
    show.add_argument("id", metavar="ID")
    for name, command, text in (
        ("approve", commands.approvals_approve, "Approve a task that somebody else asked for, and send it."),
        ("refuse", commands.approvals_refuse, "Refuse a task that somebody else asked for."),
    ):
        decision = add(name, command, text, to=approvals)
        decision.add_argument("id", metavar="ID")
        decision.add_argument("--digest", help="only if the task is the one with this digest")


def _add_secrets(subparsers: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what makes and replaces keys and signing secrets."""
    keys = subparsers.add_parser("keys", help="Create, list, rotate and revoke API keys.").add_subparsers(
        required=True, metavar="ACTION"
    )
    add("list", commands.keys_list, "List keys: who they are and what they may do.", to=keys)
    create = add("create", commands.keys_create, "Create a key, which is shown only once.", to=keys)
    create.add_argument("name", metavar="NAME", help="who it is for")
    create.add_argument("scopes", nargs="+", metavar="SCOPE", help="read, plan:web.*, operate, admin, …")
    create.add_argument("--expires-at", metavar="TIME", help="when it ends, such as 2027-01-31T00:00:00Z")
    rotate = add("rotate", commands.keys_rotate, "Replace a key; the old one goes on for a while.", to=keys)
    rotate.add_argument("id", metavar="ID")
    _add_overlap(rotate)
    add("revoke", commands.keys_revoke, "End a key now.", to=keys).add_argument("id", metavar="ID")

    secret = subparsers.add_parser("secret", help="Rotate an autopilot's signing secret.").add_subparsers(
        required=True, metavar="ACTION"
    )
    rotate = add("rotate", commands.secret_rotate, "Replace a secret; the old one signs on.", to=secret)
    rotate.add_argument("name", metavar="NAME", help="the autopilot")
    _add_overlap(rotate)


def _add_overlap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overlap",
        type=int,
        default=86_400,
        metavar="SECONDS",
        help="how long the old one goes on (default: a day)",
    )


# serving


def _serve(parsed: argparse.Namespace) -> int:
    from infra.redact import RedactingFormatter, Redactor
    from router.serve import bind, serve
    from router.settings import read

    settings = read(os.environ, host=parsed.host)
    handler = logging.StreamHandler(sys.stderr)
    redactor = Redactor(settings.secrets())
    handler.setFormatter(RedactingFormatter(redactor, "%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if parsed.data is not None:
        settings = replace(settings, data=parsed.data)
    try:
        bound = bind(parsed.host, parsed.port)
    except OSError as error:
        say(f"cannot listen on {parsed.host}:{parsed.port}: {error}")
        return FAILED

    def ready(url: str) -> None:
        print(f"listening on {url}", flush=True)

    with bound, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings, bound, ready))
        # All is written and closed. A name look-up that hangs sits in a thread nobody can stop: not to wait.
        os._exit(0)


def _verify(parsed: argparse.Namespace) -> int:
    """Walk the audit in the store itself: what a server says of its own audit proves little."""
    from router.settings import read

    settings = read({"AUTOPILOT_AUTH": "local", **os.environ})
    if parsed.data is not None:
        settings = replace(settings, data=parsed.data)
    return asyncio.run(_walk(settings, as_json=parsed.json))


async def _walk(settings: Settings, *, as_json: bool) -> int:
    from router.audit import verify
    from router.outside import audit_key, open_table
    from router.wiring import AUDITED

    if not settings.table and not settings.data.is_dir():
        say(f"there is no store in {settings.data}")
        return FAILED
    table = open_table(settings)
    try:
        count, findings = await verify(table, audit_key(settings), AUDITED)
    finally:
        await table.close()
    if as_json:
        print_json({"records": count, "findings": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            print(f"{finding.chain} {finding.number}: {finding.what}")
        print(f"{count} records, {len(findings)} findings")
    return FAILED if findings else 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not to be had on Windows
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
