"""`autopilot plan --async` and `autopilot tasks`: submit, see, cancel, send again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from router.cli import main
from tests.process import Served, autopilot, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server where tasks of payouts wait, so that there are some to cancel."""
    env = {"AUTOPILOT_REQUIRE_APPROVAL": "payouts.*"}
    with serving(tmp_path_factory.mktemp("tasks"), env=env) as one:
        done = autopilot("register", "--built-in", "--url", one.url)
        assert done.returncode == 0, done.stderr
        yield one


@pytest.fixture
def ask(served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Give a function that runs a command and returns its status and what it printed."""
    monkeypatch.setenv("ORCHESTRATOR_URL", served.url)
    monkeypatch.delenv("AUTOPILOT_API_KEY", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


def submit(ask: Any, task: str, meta: str = "{}") -> str:
    """Submit a task and return its id."""
    status, out, _ = ask("plan", task, "--meta", meta, "--async", "--json")
    document = json.loads(out)
    assert (status, document["status"]) == (0, "queued")
    return str(document["id"])


def ended(ask: Any, task: str) -> dict[str, Any]:
    """Return a task as it is shown in the end."""
    for _ in range(400):
        document: dict[str, Any] = json.loads(ask("tasks", "show", task, "--json")[1])
        if document["status"] not in {"queued", "running"}:
            return document
    raise AssertionError(document)


def test_a_task_is_submitted_and_done(ask: Any) -> None:
    """The command does not wait, and says what to type next; then everything is shown."""
    meta = '{"pageType": "home", "description": "A bakery \\u202e"}'
    status, out, _ = ask("plan", "generate_page", "--meta", meta, "--async")
    task = out.split()[0]
    assert (status, out) == (0, f"{task} is queued: autopilot tasks show {task}\n")
    assert ended(ask, task)["status"] == "completed"
    status, out, _ = ask("tasks", "show", task)
    assert status == 0
    assert "status: completed" in out
    assert '"autopilot": "ai-stylist"' in out
    assert "\u202e" not in out


def test_a_failed_one_is_found_and_sent_again(ask: Any) -> None:
    """It is in the list with its reason; what cannot be sent again is a failure of the command."""
    task = submit(ask, "task.schedule", '{"cancel": "schedule_0"}')
    assert ended(ask, task)["status"] == "failed"
    status, out, _ = ask("tasks", "list", "--status", "failed")
    head, *lines = out.splitlines()
    assert status == 0
    assert head.split()[:3] == ["ID", "STATUS", "CAPABILITY"]
    assert any(line.startswith(f"{task}  failed  task.schedule  local") for line in lines)
    assert "'ai-employee' answered 404" in out
    assert ask("tasks", "retry", task)[:2] == (0, f"{task} is queued again\n")
    assert ended(ask, task)["attempts"] == 2
    again = json.loads(ask("tasks", "retry", task, "--json")[1])
    assert again["id"] == task
    assert ended(ask, task)["attempts"] == 3


def test_one_is_cancelled(ask: Any) -> None:
    """Once; a second time the command fails and says why."""
    task = submit(ask, "run_payout_batch")
    assert ask("tasks", "cancel", task)[:2] == (0, f"{task} is cancelled\n")
    status, out, err = ask("tasks", "cancel", task)
    assert (status, out) == (1, "")
    assert "a task that is cancelled cannot be cancelled" in err
    other = submit(ask, "run_payout_batch")
    assert json.loads(ask("tasks", "cancel", other, "--json")[1])["status"] == "cancelled"


def test_the_list_has_as_many_as_are_wanted(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest ones, whether that is a page or several."""
    monkeypatch.setattr("router.commands_tasks._PAGE", 2)
    made = [submit(ask, "run_payout_batch") for _ in range(4)]
    for most in (1, 3):
        document = json.loads(ask("tasks", "list", "--most", str(most), "--json")[1])
        assert document["count"] == most
        assert [one["id"] for one in document["tasks"]] == made[: -most - 1 : -1]
    everything = json.loads(ask("tasks", "list", "--most", "1000", "--json")[1])
    assert everything["next"] is None
    assert {*made} <= {one["id"] for one in everything["tasks"]}


def test_what_is_wrong_is_said(ask: Any) -> None:
    """An unknown task, an unknown state, a callback that cannot be signed, two ways at once."""
    status, _, err = ask("tasks", "show", "task_0")
    assert (status, "there is no task of that id" in err) == (1, True)
    status, _, err = ask("tasks", "list", "--status", "new")
    assert (status, "status: must be one of queued" in err) == (1, True)
    status, _, err = ask("plan", "generate_page", "--async", "--callback-url", "https://a.example")
    assert (status, "AUTOPILOT_CALLBACK_SECRET" in err) == (1, True)
    status, _, err = ask("plan", "generate_page", "--callback-url", "https://a.example")
    assert (status, "goes with the mode async" in err) == (1, True)
    assert ask("plan", "generate_page", "--async", "--explain")[0] == 2
