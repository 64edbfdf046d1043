"""`command.run`: a program with arguments, in a folder, with the variables that it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from autopilots.kit import Call
from autopilots.runner import process
from autopilots.runner.expect import unmet_in
from autopilots.runner.forms import Command
from autopilots.runner.once import once
from autopilots.runner.parts import RunnerParts
from autopilots.runner.places import folder
from autopilots.runner.process import Capture, Ending
from autopilots.runner.secrets import filled, handed_on
from autopilots.runner.shown import HELD, json_of, pieces_of, seen, text_of
from autopilots.runner.unmet import Unmet
from router.errors import Forbidden

CAPTURED_JSON = 1 << 21
"""Bytes that are held of a standard output which is to be read as JSON; of others it is `HELD`."""
MAX_JSON = 40_000
"""Bytes of the JSON in a result."""


async def run(meta: Command, call: Call[RunnerParts]) -> dict[str, Any]:
    """Run a command and return `{exit_code, stdout, stderr, seconds, timed_out, truncated, json}`.

    Its standard input is empty unless the task says otherwise, and it has no terminal. Under an idempotency
    key it runs once: a repeat answers what it came to, and one whose process died with ours is not run again
    unless it is `idempotent`. Raises `Unmet` with the result when it is not as expected, `Forbidden` for a
    script or a variable that the operator does not allow, `Invalid`, and as `once`.
    """
    parts = call.parts
    if meta.shell and not parts.allow_shell:
        raise Forbidden("the runner takes no scripts: AUTOPILOT_RUNNER_SHELL is not yes")
    command = filled(meta, parts)
    cwd = await asyncio.to_thread(folder, parts.root, command.cwd)
    environment = {**parts.environment, **handed_on(parts, command.env), **command.set}
    return await once(call, meta, partial(_run, command, cwd, environment, parts), again=meta.idempotent)


async def _run(
    command: Command, cwd: Path, environment: dict[str, str], parts: RunnerParts
) -> dict[str, Any]:
    expect = command.expect
    out = Capture(CAPTURED_JSON if expect.json_ else HELD, [*expect.contains, *expect.lacks])
    err = Capture(HELD)
    ending = await process.run(
        ["sh", "-c", *command.run] if command.shell else command.run,
        cwd=cwd,
        environment=environment,
        stdin=command.stdin.encode(),
        seconds=command.timeout_seconds,
        out=out,
        err=err,
        monotonic=parts.monotonic,
    )
    return await asyncio.to_thread(_result, command, ending, out, err, parts)


def _result(
    command: Command, ending: Ending, out: Capture, err: Capture, parts: RunnerParts
) -> dict[str, Any]:
    document = _json_of(out) if command.expect.json_ else None
    stdout, cut_out = text_of(*_held(out), parts.redactor)
    stderr, cut_err = text_of(*_held(err), parts.redactor)
    shown, cut_json = json_of(document, MAX_JSON, parts.redactor)
    result = {
        "exit_code": ending.exit_code,
        "stdout": stdout,
        "stderr": stderr,
        "seconds": ending.seconds,
        "timed_out": ending.late,
        "truncated": cut_out or cut_err or cut_json,
        "json": shown,
    }
    unmet = list(_unmet(command, ending, out, document, parts))
    if unmet:
        raise Unmet(unmet, result)
    return result


def _unmet(
    command: Command, ending: Ending, out: Capture, document: Any, parts: RunnerParts
) -> Iterator[str]:
    expect = command.expect
    if ending.late:
        yield f"it was killed after {command.timeout_seconds:g} seconds"
        return
    if ending.exit_code not in expect.exit:
        yield f"its exit code is {ending.exit_code}, not {' or '.join(map(str, expect.exit))}"
    show = partial(seen, redactor=parts.redactor)
    for text in expect.contains:
        if text not in out.found:
            yield f"its standard output does not contain {show(text)}"
    for text in expect.lacks:
        if text in out.found:
            yield f"its standard output contains {show(text)}"
    if expect.json_ and document is None:
        yield f"its standard output is no JSON of at most {CAPTURED_JSON} bytes"
    elif expect.json_:
        yield from unmet_in("its JSON", document, expect.conditions(), show)


def _held(capture: Capture) -> tuple[list[bytes], int]:
    """Return what is looked through of an output, and how much is missing."""
    if not capture.left_out:
        return pieces_of(capture.pieces[0])
    head, tail = capture.pieces
    return [head[: HELD // 2], tail[-HELD // 2 :]], capture.left_out


def _json_of(out: Capture) -> Any:
    """Return the standard output as JSON, None where it is none."""
    if out.left_out:
        return None
    try:
        return msgspec.json.decode(out.pieces[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
