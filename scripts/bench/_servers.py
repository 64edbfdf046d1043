"""Starts the servers of a bench, each in a process group of its own, reads what they use and ends them."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS = 30.0
STOP_SECONDS = 5.0


class Absent(Exception):
    """A target that cannot take part; the message says why."""


class Caller:
    """One keep-alive connection to a server on loopback, for the requests that are not load."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._headers = {"content-type": "application/json", **(headers or {})}

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send one request; answers status and body. Raises OSError or HTTPException when there is none."""
        try:
            self._connection.request(method, path, body=body, headers=self._headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass
class Server:
    """A started process group, the port it listens on and the file that has what it printed."""

    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def cpu_seconds(self) -> float:
        """CPU time of the whole group since its start, in seconds (10 ms steps)."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self._members()) / TICKS_PER_SECOND

    def rss_mib(self) -> float:
        """Resident memory of the whole group, in MiB."""
        pages = sum(int(fields[21]) for fields in self._members())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def last_words(self) -> str:
        """The last line it printed, for the message when it did not start."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"

    def wait_until_good(self, fault: Callable[[], str], seconds: float = START_SECONDS) -> None:
        """Return once *fault* finds none; raises Absent when the process ends or *seconds* pass first."""
        deadline, found = time.monotonic() + seconds, "no answer"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Absent(f"it ended with {self.process.returncode}: {self.last_words()}")
            try:
                found = fault()
            except (OSError, http.client.HTTPException) as error:
                found = str(error)
            if not found:
                return
            time.sleep(0.002)
        raise Absent(f"not good within {seconds:.0f} s: {found}")

    def stop(self) -> bool:
        """End the group this bench made; answers whether SIGTERM was enough within 5 s."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            # The leader's id names the group only while a member of it lives.
            if any(self._members()):
                os.killpg(self.process.pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline:
                self.process.poll()
                if not any(self._members()):
                    return number == signal.SIGTERM
                time.sleep(0.01)
        return False

    def _members(self) -> Iterator[list[str]]:
        """For each living process of the group, the fields of /proc/PID/stat from `state` on."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended while we looked
                continue
            if int(fields[2]) == self.process.pid and fields[0] != "Z":
                yield fields


class Rig:
    """What one run has: a core for the server, one for the load, a folder, and the servers it started."""

    def __init__(self, server_core: int = 0, load_core: int = 1) -> None:
        require(server_core, load_core)
        self.server_core = server_core
        self.load_core = load_core
        self._servers: list[Server] = []
        self._folder = tempfile.TemporaryDirectory(prefix="autopilot-bench-")
        self.folder = Path(self._folder.name)

    def __enter__(self) -> Rig:
        """Stay off the server's core; make SIGTERM end the run as an error does, so that nothing is left."""
        os.sched_setaffinity(0, {self.load_core})
        signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in reversed(self._servers):
            server.stop()
        self._folder.cleanup()

    def start(
        self,
        name: str,
        port: int,
        argv: list[str],
        *,
        core: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Server:
        """Start *argv* pinned to *core* (the server's by default), *env* added to a clean environment."""
        log = self.folder / f"{name}.log"
        pinned = ["taskset", "-c", str(self.server_core if core is None else core), *argv]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                pinned,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=clean_environment() | dict(env or {}),
                start_new_session=True,
            )
        server = Server(name, port, log, process)
        self._servers.append(server)
        return server


def clean_environment() -> dict[str, str]:
    """This process's environment without the settings of the product, which a bench sets itself."""
    prefixes = ("AUTOPILOT_", "ORCHESTRAT", "CF_", "OPENAI_", "DYNAMODB_", "ENABLE_", "DEPLOY_", "PROJECTS")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def core_busy_seconds(core: int) -> float:
    """Time the core has not been idle since boot, in seconds."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _waiting, interrupt, soft, steal = (int(tick) for tick in ticks[:8])
            return (user + nice + system + interrupt + soft + steal) / TICKS_PER_SECOND
    raise LookupError(f"/proc/stat has no cpu{core}")


def require(*cores: int) -> None:
    """Stop with exit code 2 where the bench cannot run at all: a tool or a core is missing."""
    packages = {"wrk": "wrk", "nginx": "nginx-light", "taskset": "util-linux"}
    missing = [tool for tool in packages if not shutil.which(tool)]
    if missing:
        names = " ".join(packages[tool] for tool in missing)
        print(f"missing: {', '.join(missing)}. On Debian: apt-get install {names}", file=sys.stderr)
        sys.exit(2)
    unknown = set(cores) - os.sched_getaffinity(0)
    if unknown or len(set(cores)) < len(cores):
        print(
            f"server and load need a core each; this process has {sorted(os.sched_getaffinity(0))}",
            file=sys.stderr,
        )
        sys.exit(2)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(143)
