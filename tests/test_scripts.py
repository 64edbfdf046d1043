"""The scripts that people and machines share: well-formed, and clear about how they are used."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.process import ROOT, Served, environment, run, serving

SHELL = sorted(
    path
    for folder in ("scripts", "scripts/bench", ".ci")
    for path in (ROOT / folder).iterdir()
    if path.is_file() and path.read_bytes().startswith(b"#!") and b"bash" in path.read_bytes().split(b"\n")[0]
)
REGISTER = ROOT / "scripts/register-autopilots"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server with nothing registered."""
    with serving(tmp_path_factory.mktemp("scripts")) as one:
        yield one


def test_the_scripts_of_the_contract_are_there() -> None:
    """Each name that others rely on is a script."""
    names = {path.name for path in SHELL}
    assert {"setup", "check", "test", "serve", "demo", "register-autopilots", "run"} <= names


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_each_script_can_be_run_and_stops_at_the_first_failure(script: Path) -> None:
    """It is executable, bash can read it, and no failing line is passed over."""
    assert script.stat().st_mode & 0o111 == 0o111
    assert "set -euo pipefail" in script.read_text()
    assert run("bash", "-n", script).stderr == ""


@pytest.mark.parametrize(
    "arguments", [(), ("--help",), ("--url",), ("http://x",), ("--url", "http://x", "more")]
)
def test_registering_without_a_url_prints_the_usage(arguments: tuple[str, ...]) -> None:
    """No URL known, or arguments that are none: usage on standard error and exit status 2."""
    done = run(REGISTER, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: scripts/register-autopilots [--url URL]")
    assert "ORCHESTRATOR_URL" in done.stderr


def test_registering_twice_is_as_good_as_once(served: Served) -> None:
    """Both times each autopilot is named, the next commands are shown, and the list has four."""
    for env, arguments in (({"ORCHESTRATOR_URL": served.url}, ()), ({}, ("--url", served.url))):
        done = run(REGISTER, *arguments, env=env)
        # On a busy machine the command may say that it waits.
        said = [line for line in done.stderr.splitlines() if not line.startswith("waiting for ")]
        assert (done.returncode, said) == (0, [])
        assert done.stdout.count("registered successfully") == 4
        for path in ("/autopilot/list", "/autopilot/diagnose", "/autopilot/plan"):
            assert f"curl {served.url}{path}" in done.stdout
    assert httpx.get(f"{served.url}/autopilot/list").json()["count"] == 4


def test_the_command_it_shows_at_the_end_works(served: Served) -> None:
    """The last lines are a task that can be pasted as they stand."""
    shown = run(REGISTER, "--url", served.url).stdout
    task = shown.partition("Send a task:")[2]
    done = run("bash", "-c", task)
    assert '"ok":true' in done.stdout, done.stderr


def test_registering_where_nobody_listens_fails() -> None:
    """The failure of the command is the script's, and no next steps are shown."""
    done = run(REGISTER, "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "cannot reach the router" in done.stderr
    assert done.stdout == ""


def test_serve_becomes_the_server(tmp_path: Path) -> None:
    """Arguments go to `autopilot serve`, and a signal to the script is one to the server."""
    command = [str(ROOT / "scripts/serve"), "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert httpx.get(f"{url}/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0
    assert (tmp_path / "router.db").is_file()
