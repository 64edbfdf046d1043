"""`scripts/demo`: the whole product once, and what it shows is true."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from router.catalogue import BUILT_IN
from tests.process import ROOT, environment, run

DEMO = ROOT / "scripts/_demo.py"


def test_it_does_each_documented_task_and_exits_0(tmp_path: Path) -> None:
    """One line per task with autopilot, capability, status and time, and a page that is there as a file."""
    ours = {"STRIPE_API_KEY": "sk_live_1", "OPENAI_API_KEY": "sk-1", "AUTOPILOT_API_KEY": "short"}
    done = run(sys.executable, DEMO, "--data", str(tmp_path / "data"), env=ours, seconds=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 of 11 tasks ok" in done.stdout
    documented = done.stdout.partition("the documented tasks\n")[2].partition("\n\n")[0]
    lines = [
        re.fullmatch(r"  (\w+) +([\w-]+) +([\w.]+) +ok 200 +[\d.]+ ms", line)
        for line in documented.splitlines()
    ]
    assert {line[1]: line[3] for line in lines if line} == {
        task: entry.capability for task, entry in BUILT_IN.items()
    }
    page = re.search(
        r"^page  http://127\.0\.0\.1:\d+/pages/\S+  answers 200, as generated$", done.stdout, re.MULTILINE
    )
    file = re.search(r"^file  (.+)$", done.stdout, re.MULTILINE)
    assert page is not None
    assert file is not None
    assert "Welcome" in Path(file[1]).read_text()
    assert "FAILED" not in done.stdout
    assert "Traceback" not in (tmp_path / "data/server.log").read_text()


def test_kept_it_stays_up_until_it_is_told_to_end(tmp_path: Path) -> None:
    """With --keep the page answers at the URL shown; ended like any process, it takes its server along."""
    command = [sys.executable, str(DEMO), "--keep", "--data", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        shown = ""
        for line in demo.stdout:
            shown += line
            if "stays up" in line:
                break
        url = re.search(r"stays up at (\S+) until Ctrl-C; admin page \1/admin", shown)
        page = re.search(r"page  (\S+)", shown)
        assert url is not None
        assert page is not None
        assert "Welcome" in httpx.get(page[1]).text
        assert httpx.get(f"{url[1]}/ready").json() == {"ready": True}
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(timeout=15) == 0
    port = int(url[1].rpartition(":")[2])
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", port)) != 0, "the server was left behind"


def test_a_server_that_does_not_start_fails_the_demo(tmp_path: Path) -> None:
    """A port that is taken is told with the server's own words, and nothing is claimed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(sys.executable, DEMO, "--port", str(taken.getsockname()[1]), "--data", str(tmp_path))
    assert done.returncode == 1
    assert "the server did not start" in done.stderr
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "tasks ok" not in done.stdout
