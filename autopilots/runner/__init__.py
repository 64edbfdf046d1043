"""The runner: commands, HTTP calls and files, on a machine with a checkout.

It is part of a process only where the operator names a folder for it. Nothing outside that folder is where a
command starts or what a file's name leads to, no variable of the process is handed on unless it is listed,
and a shell is used only where that is allowed. A command runs as the user that the router runs as: whoever
may plan `command.run` may do what that user may.
"""

from __future__ import annotations

from typing import Any

from autopilots.kit import Call, Pilot
from autopilots.runner.change import change
from autopilots.runner.check import check
from autopilots.runner.command import run
from autopilots.runner.forms import Change, Check, Command, Http
from autopilots.runner.parts import RunnerParts
from autopilots.runner.web import call_http

__all__ = ["RunnerParts", "pilot"]

pilot: Pilot[RunnerParts] = Pilot(
    "runner", "Runs commands, makes HTTP calls and changes files in one folder of its machine"
)


@pilot.capability("command.run")
async def command_run(meta: Command, call: Call[RunnerParts]) -> dict[str, Any]:
    """Run a program and say how it ended; what it started does not outlive it."""
    return await run(meta, call)


@pilot.capability("http.call")
async def http_call(meta: Http, call: Call[RunnerParts]) -> dict[str, Any]:
    """Make an HTTP call, or repeat it until the answer is as expected."""
    return await call_http(meta, call)


@pilot.capability("file.change")
async def file_change(meta: Change, call: Call[RunnerParts]) -> dict[str, Any]:
    """Write, append to, replace in, delete or restore a file, whole or not at all, with a backup."""
    return await change(meta, call)


@pilot.capability("file.check")
async def file_check(meta: Check, call: Call[RunnerParts]) -> dict[str, Any]:
    """Look whether a file is as expected. Changes nothing."""
    return await check(meta, call)
