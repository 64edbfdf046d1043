"""What a real server writes to its log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.process import ROOT

SCRIPT = """
import logging, sys
from router.cli import main
import router.serve
async def serve(settings, bound, ready):
    log = logging.getLogger("router")
    log.warning("the key is the-admin-key-of-this-test\\nfake line")
    raise KeyboardInterrupt
router.serve.serve = serve
sys.exit(main(["serve", "--port", "0"]))
"""


def test_the_log_holds_no_secret_and_no_forged_line(tmp_path: Path) -> None:
    """The server's own handler replaces what it knows to be secret and keeps a record on one line."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={"AUTOPILOT_API_KEY": "the-admin-key-of-this-test", "AUTOPILOT_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    [line] = [line for line in done.stderr.splitlines() if "the key is" in line]
    assert "****" in line
    assert "fake line" in line
    assert "the-admin-key-of-this-test" not in done.stderr
