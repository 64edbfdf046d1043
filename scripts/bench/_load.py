"""Puts load on one target with wrk and answers what it took: rate, times, CPU, memory, and every failure."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from _servers import Absent, Caller, Rig, Server, core_busy_seconds

PLAN_BODY = json.dumps(
    {"task": "generate_page", "meta": {"pageType": "home", "description": "Welcome page for new students"}}
).encode()
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
    """One run of load on one target. Times in microseconds; `alien` is the share of the core others used."""

    requests: int
    rate: float
    p50: float
    p99: float
    cpu: float
    rss: float
    errors: int
    alien: float


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
    server, core = target.server, rig.server_core
    asked, cpu, busy = upstream.count(), server.cpu_seconds(), core_busy_seconds(core)
    seen = _wrk(target, connections, seconds, rig.load_core)
    cpu, busy = server.cpu_seconds() - cpu, core_busy_seconds(core) - busy
    forwarded = upstream.count() - asked - 1
    requests, wall = seen["requests"], seen["microseconds"] / 1e6
    answered = requests - seen["refused"]
    on_core = cpu if target.server is not upstream.server else 0.0
    return Sample(
        requests=requests,
        rate=requests / wall,
        p50=seen["p50"],
        p99=seen["p99"],
        cpu=cpu * 1e6 / max(requests, 1),
        rss=server.rss_mib(),
        errors=seen["refused"] + seen["broken"] + max(answered - forwarded, 0) + (requests == 0),
        alien=max(busy - on_core, 0.0) / wall,
    )


def _wrk(target: Target, connections: int, seconds: int, core: int) -> dict[str, int]:
    """Run wrk with one thread; answers the object its script prints."""
    url = f"http://127.0.0.1:{target.server.port}{target.path}"
    headers = {"content-type": "application/json", **target.headers}
    pinned = ["taskset", "-c", str(core), "wrk"]
    run = subprocess.run(
        [
            *pinned,
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "10s",
            "--script",
            str(SCRIPT),
            url,
        ],
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
