"""`autopilot approvals`: see what waits, and decide as somebody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from router.asking import visible
from router.cli import main
from tests.process import Served, autopilot, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server where tasks of payouts and payments wait, with those that ship."""
    env = {"AUTOPILOT_REQUIRE_APPROVAL": "payouts.*,payment.*"}
    with serving(tmp_path_factory.mktemp("approvals"), env=env) as one:
        done = autopilot("register", "--built-in", "--url", one.url)
        assert done.returncode == 0, done.stderr
        yield one


@pytest.fixture(scope="module")
def second(served: Served) -> str:
    """Give a key that decides."""
    return autopilot("keys", "create", "second", "operate", "--url", served.url).stdout.strip()


@pytest.fixture
def ask(served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Give a function that runs a command, with a key or as this machine."""

    def run(*arguments: str, key: str = "") -> tuple[int, str, str]:
        monkeypatch.setenv("ORCHESTRATOR_URL", served.url)
        monkeypatch.setenv("AUTOPILOT_API_KEY", key)
        capsys.readouterr()
        status = main(arguments)
        return status, *capsys.readouterr()

    return run


def waiting(ask: Any, *arguments: str) -> str:
    """Plan a task that waits, and return the id of its approval."""
    status, out, _ = ask("plan", *(arguments or ("run_payout_batch",)), "--json")
    assert status == 1
    return str(json.loads(out)["id"])


def test_a_task_that_waits_says_who_can_send_it(ask: Any) -> None:
    """The command has not done it: exit status 1, and the line that somebody else types."""
    status, out, _ = ask("plan", "run_payout_batch")
    assert status == 1
    assert "waits for approval until" in out
    assert "nothing was sent" in out
    assert "autopilot approvals approve apv_" in out


def test_one_shows_it_another_approves_it(ask: Any, second: str) -> None:
    """List, show with the meta, refusal of whoever asked, approval by the other key, and what came of it."""
    meta = '{"amount": 4900, "currency": "usd", "description": "Course \\u202e"}'
    approval = waiting(ask, "make_checkout", "--meta", meta)
    status, out, _ = ask("approvals", "list", "--status", "awaiting_approval", key=second)
    head, *lines = out.splitlines()
    assert status == 0
    assert head.split()[:2] == ["ID", "STATUS"]
    assert any(
        line.startswith(f"{approval}  awaiting_approval  payment.checkout.create  local") for line in lines
    )
    status, out, _ = ask("approvals", "show", approval, key=second)
    assert status == 0
    assert "requested_by: local" in out
    assert '"amount": 4900' in out
    assert "\\u202e" in out
    digest = out.partition("digest: ")[2].split()[0]

    status, _, err = ask("approvals", "approve", approval)
    assert (status, "autopilot keys create" in err) == (1, True)
    status, _, err = ask("approvals", "approve", approval, "--digest", "0" * 64, key=second)
    assert (status, "another task" in err) == (1, True)
    status, out, _ = ask("approvals", "approve", approval, "--digest", digest, key=second)
    assert status == 0, out
    assert out.startswith("ai-employee answered 200")
    _, out, _ = ask("approvals", "show", approval, "--json", key=second)
    assert json.loads(out)["approval"]["outcome"]["ok"] is True


def test_a_refused_task_is_not_sent(ask: Any, second: str) -> None:
    """It is said so, and approving it afterwards fails."""
    approval = waiting(ask)
    status, out, _ = ask("approvals", "refuse", approval, key=second)
    assert (status, out) == (0, f"{approval} is refused; nothing was sent\n")
    assert ask("approvals", "approve", approval, key=second)[0] == 1
    other = waiting(ask)
    assert json.loads(ask("approvals", "refuse", other, "--json", key=second)[1])["approval"]["id"] == other


def test_json_is_what_the_api_answers(ask: Any, second: str) -> None:
    """Every approval there is, and the answer to a decision."""
    made = {waiting(ask) for _ in range(2)}
    status, out, _ = ask("approvals", "list", "--json", key=second)
    assert status == 0
    assert made <= {one["id"] for one in json.loads(out)["approvals"]}
    status, out, _ = ask("approvals", "approve", made.pop(), "--json", key=second)
    assert (status, json.loads(out)["outcome"]["autopilot"]) == (0, "payout-batch")


def test_an_approval_without_an_answer_says_what_to_do(ask: Any, served: Served, second: str) -> None:
    """A task that failed may be sent again by the same person; the exit status is 1."""
    body = {"name": "gone", "endpoint": "http://127.0.0.1:9", "capabilities": ["payouts.gone.now"]}
    assert httpx.post(f"{served.url}/autopilot/registry", json=body).status_code == 201
    approval = waiting(ask, "payouts.gone.now")
    status, out, _ = ask("approvals", "approve", approval, key=second)
    assert status == 1
    assert "is approved, but got no answer" in out
    assert "(forward_failed)" in out
    assert ask("approvals", "approve", approval, key=second)[0] == 1


def test_what_a_terminal_would_obey_is_shown_as_it_is_written() -> None:
    """Colours, returns and letters that turn the reading direction are escapes; lines stay lines."""
    assert visible("Zoë\n\x1b[31m\r\u202e\u200b") == "Zoë\n\\x1b[31m\\r\\u202e\\u200b"
