"""The product as processes of its own: the server, and the commands people type."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
START_SECONDS = 20.0
NOTHING: Mapping[str, str] = {}


@dataclass
class Served:
    """A running server. `log` is where its standard error goes, `data` its folder."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    data: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=15)


def environment(more: Mapping[str, str] = NOTHING) -> dict[str, str]:
    """Return this process's environment without settings of the product, and with `more`."""
    ours = ("AUTOPILOT_", "ORCHESTRATOR_", "OPENAI_", "STRIPE_", "DYNAMODB_", "AWS_", "CF_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def serving(data: Path, *arguments: str, env: Mapping[str, str] = NOTHING) -> Iterator[Served]:
    """Run `autopilot serve` on a free port until the block ends."""
    data.mkdir(parents=True, exist_ok=True)
    log = data / "server.log"
    command = [str(BIN / "autopilot"), "serve", "--port", "0", "--data", str(data), *arguments]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, cwd=data, env=environment(env), stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
        watchdog.cancel()
        assert line.startswith("listening on http://"), f"{line!r}\n{log.read_text()}"
        yield Served(line.split()[-1], process, log, data)
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def run(
    *command: str | Path, env: Mapping[str, str] = NOTHING, text: str = "", seconds: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout to its end, with `text` as its standard input."""
    return subprocess.run(
        command, cwd=ROOT, env=environment(env), input=text, capture_output=True, text=True, timeout=seconds
    )


def autopilot(
    *arguments: str, env: Mapping[str, str] = NOTHING, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the `autopilot` command."""
    return run(BIN / "autopilot", *arguments, env=env, text=text)
