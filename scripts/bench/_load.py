"""Puts load on one target with wrk and answers what it took: rate, times, CPU, memory, and every failure."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from _servers import Absent, Caller, Rig, Server, core_busy_seconds

PLAN_BODY = json.dumps(
    {"task": "generate_page", "meta": {"pageType": "home", "description": "Welcome page for new students"}}
).encode()
# Loads are repeated while other work on the two cores takes more than this share of one.
QUIET = 0.1
TRIES = 4
SCRIPT = Path(__file__).with_name("plan.lua")


@dataclass(frozen=True)
class Target:
    """A server that takes the plan body at *path* and must answer 200 with the fields of *expects*."""

    name: str
    server: Server
    path: str = "/autopilot/plan"
    headers: Mapping[str, str] = field(default_factory=dict)
    expects: Mapping[str, object] = field(default_factory=lambda: {"done": True})

    def fault(self) -> str:
        """What is wrong with its answer to one plan, or nothing; raises OSError when nobody listens."""
        caller = Caller(self.server.port, self.headers)
        try:
            status, body = caller.ask("POST", self.path, PLAN_BODY)
        finally:
            caller.close()
        with contextlib.suppress(ValueError, AttributeError):  # not JSON, or no object
            if status == 200 and self.expects.items() <= json.loads(body).items():
                return ""
        return f"a plan was answered {status}: {body[:300].decode(errors='replace')}"

    def wait(self) -> Target:
        """Answer the target itself once it answers well; raises Absent with the reason when it never does."""
        self.server.wait_until_good(self.fault)
        return self


@dataclass(frozen=True)
class Sample:
    """One run of load on one target. Times in microseconds; `alien` is what others used, in cores."""

    requests: int
    rate: float
    p50: float
    p99: float
    cpu: float
    rss: float
    errors: int
    alien: float
    tries: int = 1


class Upstream:
    """The autopilot everyone forwards to: an nginx that answers a constant and counts what it was asked."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._caller = Caller(server.port)

    @property
    def endpoint(self) -> str:
        """The endpoint to register, without `/tasks`."""
        return f"http://127.0.0.1:{self.server.port}"

    def count(self) -> int:
        """Requests it has had since its start, this one included."""
        status, text = self._caller.ask("GET", "/count")
        if status != 200:
            raise Absent(f"the upstream does not tell its count: {status}")
        return int(text.split(b"requests")[1].split()[2])


def shoot(rig: Rig, upstream: Upstream, target: Target, connections: int, seconds: int) -> Sample:
    """Load *target* over *connections* for *seconds*.

    An error is an answer that is not 2xx, a broken or late one, or a request that the upstream
    never saw: whoever answers without forwarding has not done the job.
    """
    asked, before = upstream.count(), _usage(rig, upstream, target)
    seen = _wrk(target, connections, seconds, rig.load_core)
    after = _usage(rig, upstream, target)
    forwarded = upstream.count() - asked - 1
    requests, wall = seen["requests"], seen["microseconds"] / 1e6
    answered = requests - seen["refused"]
    cpu, ours, busy = (now - then for now, then in zip(after, before, strict=True))
    return Sample(
        requests=requests,
        rate=requests / wall,
        p50=seen["p50"],
        p99=seen["p99"],
        cpu=cpu * 1e6 / max(requests, 1),
        rss=target.server.rss_mib(),
        errors=seen["refused"] + seen["broken"] + max(answered - forwarded, 0) + (requests == 0),
        alien=max(busy - ours, 0.0) / wall,
    )


def shoot_in_quiet(rig: Rig, upstream: Upstream, target: Target, connections: int, seconds: int) -> Sample:
    """As `shoot`, again while others use more than `QUIET` of a core, up to `TRIES` times.

    The quietest run counts, whichever target it is; the errors of every run do.
    """
    runs = [shoot(rig, upstream, target, connections, seconds)]
    while runs[-1].alien > QUIET and len(runs) < TRIES:
        runs.append(shoot(rig, upstream, target, connections, seconds))
    quietest = min(runs, key=lambda run: run.alien)
    return replace(quietest, errors=sum(run.errors for run in runs), tries=len(runs))


def _usage(rig: Rig, upstream: Upstream, target: Target) -> tuple[float, float, float]:
    """CPU seconds so far of the target, of the target with all that loads it, and of both cores."""
    own = os.times()
    cpu = target.server.cpu_seconds()
    ours = cpu + own.user + own.system + own.children_user + own.children_system
    if target.server is not upstream.server:
        ours += upstream.server.cpu_seconds()
    return cpu, ours, core_busy_seconds(rig.server_core) + core_busy_seconds(rig.load_core)


def _wrk(target: Target, connections: int, seconds: int, core: int) -> dict[str, int]:
    """Run wrk with one thread; answers the object its script prints."""
    url = f"http://127.0.0.1:{target.server.port}{target.path}"
    headers = {"content-type": "application/json", **target.headers}
    wrk = ["taskset", "-c", str(core), "wrk", "--threads", "1", "--timeout", "10s", "--script", str(SCRIPT)]
    run = subprocess.run(
        [*wrk, "--connections", str(connections), "--duration", f"{seconds}s", url],
        # The key travels in the environment: a command line can be read by everyone.
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "BENCH_BODY": PLAN_BODY.decode(),
            "BENCH_HEADERS": "\n".join(f"{name}: {value}" for name, value in headers.items()),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    last = run.stdout.strip().rpartition("\n")[2]
    if run.returncode != 0 or not last.startswith("{"):
        raise RuntimeError(f"wrk on {target.name} failed: {run.stderr.strip() or run.stdout.strip()}")
    figures: dict[str, int] = json.loads(last)
    return figures
