"""The command line against a real server, and what it says when there is none."""

from __future__ import annotations

import io
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from router import __version__
from router.cli import main
from tests.process import BIN, Served, autopilot, environment, serving

REFUSED = "http://127.0.0.1:9"
PAGE = '{"pageType": "home", "description": "Willkommen, schöne Grüße"}'


class Said:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, captured: Any) -> None:
        self.status = status
        self.out: str = captured.out
        self.err: str = captured.err

    def json(self) -> Any:
        """Return the JSON on standard output."""
        return json.loads(self.out)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server with the built-in autopilots registered."""
    with serving(tmp_path_factory.mktemp("cli")) as one:
        done = autopilot("register", "--built-in", "--url", one.url)
        assert done.returncode == 0, done.stderr
        yield one


@pytest.fixture
def ask(served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Give a function that runs a command in this process against the server."""
    monkeypatch.setenv("ORCHESTRATOR_URL", served.url)
    monkeypatch.delenv("AUTOPILOT_API_KEY", raising=False)

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        said = Said(status, capsys.readouterr())
        assert "Traceback" not in said.err
        return said

    return run


def test_list_shows_a_row_per_autopilot(ask: Any) -> None:
    """The table has a head and each autopilot with its endpoint and capabilities."""
    said = ask("list")
    lines = said.out.splitlines()
    assert said.status == 0
    assert lines[0].split() == ["NAME", "HEALTH", "ENDPOINT", "CAPABILITIES"]
    assert [line.split()[0] for line in lines[1:]] == [
        "ai-employee",
        "ai-stylist",
        "page-deployer",
        "payout-batch",
    ]
    assert "local:ai-stylist" in said.out
    assert "web.pages.generate, web.section.generate" in said.out


def test_list_json_is_what_the_api_answers(ask: Any, served: Served) -> None:
    """The rows are those of `/autopilot/list`, all pages of it."""
    said = ask("list", "--json")
    rows = httpx.get(f"{served.url}/autopilot/list").json()["autopilots"]
    assert (said.status, said.json()) == (0, {"autopilots": rows, "count": 4, "next": None})
    assert ask("list", "--json", "--capability", "email.send").json()["count"] == 1


def test_list_says_when_there_is_nothing(ask: Any) -> None:
    """An empty list tells how to fill it."""
    said = ask("list", "--capability", "nobody.offers")
    assert said.status == 0
    assert "autopilot register --built-in" in said.out


def test_list_walks_every_page(ask: Any, served: Served) -> None:
    """More autopilots than one page holds are all shown."""
    names = [f"many-{n:03}" for n in range(205)]
    with httpx.Client(base_url=served.url) as client:
        for name in names:
            body = {"name": name, "endpoint": "local:ai-stylist", "capabilities": ["many.things"]}
            assert client.post("/autopilot/registry", json=body).status_code == 201
        said = ask("list", "--json", "--capability", "many.things")
        for name in names:
            client.delete(f"/autopilot/registry/{name}")
    assert [row["name"] for row in said.json()["autopilots"]] == names


def test_register_reads_a_file_and_shows_the_secret_once(ask: Any, served: Served, tmp_path: Path) -> None:
    """The first registration prints the signing secret and warnings, the second no secret."""
    file = tmp_path / "greeter.json"
    body = {"name": "greeter", "endpoint": f"{REFUSED}/greeter", "capabilities": ["text.greet"]}
    file.write_text(json.dumps(body))
    first, second = ask("register", str(file)), ask("register", str(file))
    assert (first.status, second.status) == (0, 0)
    assert "Autopilot 'greeter' registered successfully" in first.out
    assert "whsec_" in first.out
    assert "whsec_" not in second.out
    shown = ask("register", str(file), "--json").json()
    assert shown["autopilot"]["name"] == "greeter"
    assert httpx.delete(f"{served.url}/autopilot/registry/greeter").status_code == 204


def test_a_signing_secret_is_rotated(ask: Any, served: Served) -> None:
    """The new secret alone is on standard output, and until when earlier ones sign beside it."""
    with httpx.Client(base_url=served.url) as client:
        body = {"name": "rotated", "endpoint": "local:ai-stylist", "capabilities": ["text.turn"]}
        first = client.post("/autopilot/registry", json=body).json()["signing_secret"]
        said = ask("secret", "rotate", "rotated", "--overlap", "60")
        assert said.status == 0
        assert said.out.startswith("whsec_")
        assert said.out.strip() != first
        assert "rotated sign until 20" in said.err
        assert "whsec_" not in said.err
        assert ask("secret", "rotate", "rotated", "--json").json()["autopilot"] == "rotated"
        assert client.delete("/autopilot/registry/rotated").status_code == 204
    for name in ("rotated", "no/such name"):
        missing = ask("secret", "rotate", name)
        assert (missing.status, missing.out) == (1, "")
    wrong = ask("secret", "rotate", "rotated", "--overlap", "-1")
    assert (wrong.status, "overlap_seconds" in wrong.err) == (1, True)


def test_register_reads_standard_input(ask: Any, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` stands for standard input."""
    body = {"name": "piped", "endpoint": "local:ai-stylist", "capabilities": ["text.greet"]}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(body)))
    said = ask("register", "-")
    assert (said.status, said.out) == (0, "Autopilot 'piped' registered successfully\n")
    httpx.delete(f"{served.url}/autopilot/registry/piped")


def test_register_built_in_again_changes_nothing(ask: Any) -> None:
    """Each is named, and their secrets, which nobody needs in one process, are not shown."""
    said = ask("register", "--built-in")
    assert said.status == 0
    assert said.out.count("registered successfully") == 4
    assert "whsec_" not in said.out
    assert len(ask("register", "--built-in", "--json").json()) == 4


def test_register_built_in_registers_the_runner_where_there_is_one(tmp_path: Path) -> None:
    """The router knows whether it has one: whoever registers need not have its settings."""
    (tmp_path / "work").mkdir()
    with serving(tmp_path / "data", env={"AUTOPILOT_RUNNER_ROOT": str(tmp_path / "work")}) as one:
        done = autopilot("register", "--built-in", "--url", one.url)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("registered successfully") == 5
        assert "Autopilot 'runner' registered" in done.stdout
        ran = autopilot("plan", "command.run", "--meta", '{"run": ["pwd"]}', "--url", one.url)
        assert str(tmp_path / "work") in ran.stdout


def test_register_names_every_wrong_field(ask: Any, tmp_path: Path) -> None:
    """What the router refuses is told line by line, and the exit status is 1."""
    file = tmp_path / "bad.json"
    file.write_text('{"name": "Bad Name", "endpoint": "nowhere", "capabilities": [], "colour": 1}')
    said = ask("register", str(file))
    assert said.status == 1
    for field in ("name:", "endpoint:", "capabilities:", "colour:"):
        assert field in said.err
    assert said.out == ""


def test_plan_prints_who_answered_and_the_result(ask: Any) -> None:
    """A task that is done exits 0 with its result as JSON after one line."""
    said = ask("plan", "generate_page", "--meta", PAGE)
    first, _, rest = said.out.partition("\n")
    assert said.status == 0
    assert first.startswith("ai-stylist answered 200 in ")
    assert "schöne Grüße" in json.loads(rest)["page"]["html"]


def test_plan_json_is_the_envelope(ask: Any) -> None:
    """With --json the whole envelope is printed."""
    envelope = ask("plan", "generate_page", "--meta", PAGE, "--json").json()
    assert (envelope["ok"], envelope["task"], envelope["autopilot"]) == (True, "generate_page", "ai-stylist")


def test_plan_takes_meta_from_a_file_and_from_standard_input(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`@FILE` reads a file, `@-` standard input."""
    file = tmp_path / "meta.json"
    file.write_text(PAGE, encoding="utf-8")
    assert ask("plan", "generate_page", "--meta", f"@{file}").status == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(PAGE))
    assert ask("plan", "generate_page", "--meta", "@-").status == 0


def test_plan_takes_a_capability_and_an_autopilot(ask: Any) -> None:
    """What has a dot is a capability; --autopilot pins one, which has to offer it."""
    section = ("plan", "web.section.generate", "--meta", '{"sectionType": "hero"}', "--json")
    assert ask(*section, "--autopilot", "ai-stylist").json()["capability"] == "web.section.generate"
    refused = ask(*section, "--autopilot", "page-deployer")
    assert refused.status == 1
    assert "No autopilot currently supports web.section.generate" in refused.err


def test_plan_explains_without_sending(ask: Any, served: Served) -> None:
    """--explain shows the candidates and the reason, and needs no meta that would do."""
    said = ask("plan", "web.section.generate", "--explain", "--meta", '{"sectionType": "hero"}')
    assert said.status == 0
    assert "RANK" in said.out
    assert "chosen" in said.out
    explained = ask("plan", "run_payout_batch", "--explain", "--json").json()
    assert (explained["mode"], explained["autopilot"]) == ("explain", "payout-batch")


def test_plan_that_is_answered_with_an_error_exits_1(ask: Any) -> None:
    """The autopilot's own 4xx is printed as its result, and the task counts as failed."""
    said = ask("plan", "crm.lead.update", "--meta", '{"email": "nobody@example.com", "note": "x"}')
    assert said.status == 1
    assert said.out.startswith("ai-employee answered 404")


def test_plan_of_an_unknown_task_says_what_was_meant(ask: Any) -> None:
    """The nearest names are offered."""
    said = ask("plan", "generate_pag")
    assert said.status == 1
    assert said.err.startswith("Unknown task: generate_pag")
    assert "did you mean generate_page" in said.err


def test_plan_with_a_meta_that_is_refused_names_the_fields(ask: Any) -> None:
    """A meta that breaks the schema is told field by field."""
    said = ask("plan", "generate_page", "--meta", '{"pageType": "castle", "colour": 1}')
    assert said.status == 1
    assert "meta.pageType" in said.err
    assert "meta.colour" in said.err


@pytest.mark.parametrize(
    "meta",
    [
        "{",
        "",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        '{"a": "\\ud800"}',
        "[" * 5000,
        "\udcff",
        "@missing",
    ],
    ids=lambda meta: ascii(meta[:12]),
)
def test_meta_that_is_no_json_is_wrong_usage(ask: Any, meta: str) -> None:
    """It is refused here, with exit status 2, before anything is sent."""
    said = ask("plan", "generate_page", "--meta", meta)
    assert said.status == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


def test_a_file_that_cannot_be_read_is_wrong_usage(ask: Any, tmp_path: Path) -> None:
    """A missing file, a folder and a file that is no text are told by their names."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "missing", tmp_path, binary):
        said = ask("register", str(file))
        assert said.status == 2
        assert str(file) in said.err


def test_catalogue_lists_the_tasks_with_who_does_them(ask: Any, served: Served) -> None:
    """Each of the 11 built-in tasks and those that registrations bring is a row."""
    said = ask("catalogue")
    assert said.status == 0
    rows = {line.split()[0]: line.split() for line in said.out.splitlines()[1:]}
    assert rows["generate_page"] == ["generate_page", "web.pages.generate", "built-in", "ai-stylist"]
    assert rows["schedule_task"][2] == "ai-employee"
    assert ask("catalogue", "--json").json() == httpx.get(f"{served.url}/autopilot/catalogue").json()


def test_the_infrastructure_is_diagnosed_planned_made_and_healed(ask: Any, served: Served) -> None:
    """diagnose names what is missing, a dry run what it would do, the real run does it, heal keeps it."""
    body = {"name": "needy", "endpoint": "local:ai-stylist", "capabilities": ["a.b"]}
    httpx.post(f"{served.url}/autopilot/registry", json={**body, "needs": {"queues": ["jobs"]}})
    missing = ask("diagnose")
    assert missing.status == 0
    assert missing.out.startswith("provider local, token none\n")
    row = ["missing", "queues", "jobs", "needy", "it", "does", "not", "exist"]
    assert row in [line.split() for line in missing.out.splitlines()]
    dry = ask("ensure-infra", "--dry-run")
    assert dry.status == 0
    assert dry.out.endswith("nothing was created: a dry run\n")
    assert ask("ensure-infra", "--dry-run", "--json").json()["created"]["queues"] == []
    assert row in [line.split() for line in ask("diagnose").out.splitlines()]
    made = ask("ensure-infra")
    assert made.status == 0
    assert ["create", *row[1:]] in [line.split() for line in made.out.splitlines()]
    assert "missing  " not in ask("diagnose", "--probe-writes").out
    healed = ask("heal")
    assert (healed.status, healed.out.splitlines()[-1]) == (0, "created 0")
    assert ask("heal", "--json").json()["ok"] is True
    assert ask("diagnose", "--json").json()["drift"]["missing"] == []
    httpx.delete(f"{served.url}/autopilot/registry/needy")


def test_keys_are_created_listed_rotated_and_revoked(ask: Any) -> None:
    """The key itself is all that standard output has; the list shows what it may do and how it is."""
    created = ask(
        "keys", "create", "page builder", "read", "plan:web.*", "--expires-at", "2099-01-01T00:00:00Z"
    )
    assert created.status == 0
    assert created.out.startswith("apr_")
    assert len(created.out.splitlines()) == 1
    assert "shown only now" in created.err
    [key_id] = [one["id"] for one in ask("keys", "list", "--json").json()["keys"]]
    rotated = ask("keys", "rotate", key_id, "--overlap", "60", "--json").json()
    assert rotated["record"]["scopes"] == ["plan:web.*", "read"]
    assert ask("keys", "revoke", key_id).out == f"key {key_id} is revoked\n"
    listed = ask("keys", "list").out
    assert "plan:web.* read" in listed
    assert "revoked 2" in listed
    assert "ends 2099" in listed
    assert created.out.strip() not in listed
    refused = ask("keys", "create", "x", "everything")
    assert (refused.status, "scopes[0]" in refused.err) == (1, True)


def test_what_could_not_be_made_fails_the_check(ask: Any, served: Served) -> None:
    """A refusal is printed with its reason, and the exit status is 1 for both commands."""
    folder = served.log.parent / "r2"
    folder.mkdir(exist_ok=True)
    (folder / "in-the-way").write_text("a file")
    body = {"name": "needy", "endpoint": "local:ai-stylist", "capabilities": ["a.b"]}
    httpx.post(f"{served.url}/autopilot/registry", json={**body, "needs": {"r2Buckets": ["in-the-way"]}})
    for command in ("ensure-infra", "heal"):
        said = ask(command)
        assert said.status == 1
        assert "failed: r2 in-the-way: " in said.out
    httpx.delete(f"{served.url}/autopilot/registry/needy")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("plan",),
        ("plan", "a_task", "--colour", "red"),
        ("register",),
        ("register", "file", "--built-in"),
        ("serve", "--port", "many"),
    ],
)
def test_wrong_usage_exits_2_with_the_usage(ask: Any, arguments: tuple[str, ...]) -> None:
    """What the command does not know is answered with how to use it."""
    said = ask(*arguments)
    assert said.status == 2
    assert "usage: autopilot" in said.err


def test_help_and_version_exit_0(ask: Any) -> None:
    """Both print to standard output."""
    said = ask("--help")
    assert said.status == 0
    for command in ("serve", "list", "register", "plan", "catalogue", "diagnose", "ensure-infra", "heal"):
        assert f"\n    {command} " in said.out or f"\n    {command}\n" in said.out
    assert ask("--version").out == f"autopilot-router {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("register", "--built-in"),
        ("plan", "generate_page"),
        ("catalogue",),
        ("diagnose",),
        ("ensure-infra",),
        ("heal",),
    ],
)
def test_a_router_that_is_not_there_is_said_so(ask: Any, arguments: tuple[str, ...]) -> None:
    """Every command exits 1 with the address and the way to start one."""
    said = ask(*arguments, "--url", REFUSED)
    assert said.status == 1
    assert REFUSED in said.err
    assert "autopilot serve" in said.err
    assert said.out == ""


@pytest.mark.parametrize("url", ["nowhere", "ftp://127.0.0.1", "http://[::1", "http://ü..x", "http://\x00"])
def test_a_url_that_is_none_is_wrong_usage(ask: Any, url: str) -> None:
    """It is refused before anything is sent."""
    said = ask("list", "--url", url)
    assert said.status == 2
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("key", ["schlüssel-der-keiner-ist", "a-key\nof-two-lines"])
def test_a_key_that_cannot_be_sent_is_wrong_usage(
    ask: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The variable is named and the key is not shown."""
    monkeypatch.setenv("AUTOPILOT_API_KEY", key)
    said = ask("list")
    assert said.status == 2
    assert "AUTOPILOT_API_KEY" in said.err
    assert "schl" not in said.err
    assert "two-lines" not in said.err


def test_without_the_key_a_router_that_wants_one_refuses(tmp_path: Path) -> None:
    """AUTOPILOT_API_KEY is what the command sends; without it the router's own words are shown."""
    key = {"AUTOPILOT_API_KEY": "a-key-of-32-characters-for-tests"}
    with serving(tmp_path, env=key) as locked:
        refused = autopilot("list", "--url", locked.url)
        taken = autopilot("list", "--url", locked.url, env=key)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "A valid API key is needed" in refused.stderr
    assert (taken.returncode, taken.stderr) == (0, "")


@pytest.fixture(scope="module")
def stranger() -> Iterator[tuple[str, list[tuple[int, str, bytes]]]]:
    """Give a server that is no router, and the list it takes its answers from."""
    answers: list[tuple[int, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answers[-1]
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  the name is the library's

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<p>Hello</p>"),
        (200, "application/json", b"[]"),
        (200, "application/json", b'{"hello": 1}'),
        (500, "text/plain", b"Internal Server Error"),
        (404, "application/json", b'{"message": "Not Found"}'),
        (200, "application/json", b"\xff\xfe"),
    ],
)
@pytest.mark.parametrize("command", ["list", "catalogue", "diagnose"])
def test_an_answer_that_is_no_routers_is_said_so(ask: Any, stranger: Any, answer: Any, command: str) -> None:
    """Something else that listens there is told from a router, without a traceback."""
    url, answers = stranger
    answers.append(answer)
    said = ask(command, "--url", url)
    assert (said.status, said.out) == (1, "")
    assert f"answered {answer[0]}" in said.err


def test_diagnose_says_what_could_not_be_read(ask: Any, stranger: Any) -> None:
    """A part that is an error is printed as one, and the check counts as failed."""
    url, answers = stranger
    unread = {"error": {"code": "10000", "message": "Authentication error", "hint": "Give it more."}}
    body: dict[str, Any] = {
        "provider": "cloudflare", "token": unread, "permissions": unread, "drift": unread,
        "resources": {"kv": unread, "r2": []},
    }  # fmt: skip
    answers.append((502, "application/json", json.dumps(body).encode()))
    said = ask("diagnose", "--url", url)
    assert said.status == 1
    assert "kv    unknown" in said.out
    for part in ("token", "permissions", "kv", "drift"):
        assert f"{part} could not be read: Authentication error (10000)\n  Give it more." in said.out
    assert ask("diagnose", "--url", url, "--json").status == 1


def test_diagnose_says_what_a_token_lacks(ask: Any, stranger: Any) -> None:
    """Each permission with what is known of it and by what, and the way to a token that has it."""
    url, answers = stranger
    permission = {
        "permission": "Workers KV Storage", "needs": "Edit", "has": "None", "evidence": "read",
        "probe": "the list was refused", "hint": "Add the group.", "link": "",
    }  # fmt: skip
    body: dict[str, Any] = {
        "provider": "cloudflare", "token": {"status": "active", "warning": "it expires tomorrow"},
        "permissions": [permission], "missing": ["Workers KV Storage Write"], "link": "https://dash.example",
        "resources": {"kv": []}, "drift": {"unmanaged": [{"kind": "kv", "name": "OLD"}]},
    }  # fmt: skip
    answers.append((200, "application/json", json.dumps(body).encode()))
    said = ask("diagnose", "--url", url)
    assert said.status == 1
    for line in (
        "it expires tomorrow",
        "Workers KV Storage  Edit   None  read      the list was refused",
        "the token lacks: Workers KV Storage Write",
        "  Add the group.",
        "a token with what is missing: https://dash.example",
        "unmanaged  kv    OLD   nobody",
    ):
        assert f"{line}\n" in said.out


def test_a_report_says_what_a_person_has_to_look_at(ask: Any, stranger: Any) -> None:
    """Errors with their hints, alerts by kind or by name."""
    url, answers = stranger
    trouble = {"kind": "kv", "name": "A", "code": "10000", "message": "no", "hint": "Give it more."}
    body = {
        "ok": False, "created": {"kv": []}, "skipped": {}, "dry_run": False, "plan": [], "errors": [trouble],
        "alerts": [{**trouble, "name": ""}, trouble],
    }  # fmt: skip
    answers.append((502, "application/json", json.dumps(body).encode()))
    said = ask("heal", "--url", url)
    assert said.status == 1
    assert said.out == (
        "failed: kv A: no (10000)\n  Give it more.\nalert: kv: no\nalert: kv A: no\ncreated 0\n"
    )


def test_a_reader_that_leaves_early_is_no_error(served: Served) -> None:
    """`autopilot list | head` ends without a traceback, be the output short or long."""
    for arguments in (("list",), ("catalogue", "--json")):
        process = subprocess.Popen(
            [BIN / "autopilot", *arguments, "--url", served.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment({"PYTHONUNBUFFERED": ""}),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        process.stderr.close()
        assert (process.wait(timeout=15), errors) == (1, b"")


def test_a_terminal_without_the_letters_still_shows_the_rest(served: Served) -> None:
    """What an encoding lacks is escaped, not a traceback."""
    done = autopilot(
        "plan", "generate_page", "--meta", PAGE, "--url", served.url, env={"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "sch\\xf6ne" in done.stdout


def test_a_slow_router_is_waited_for_with_a_word(tmp_path: Path) -> None:
    """What takes over a second says what is waited for, on standard error."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as slow:
        url = f"http://127.0.0.1:{slow.getsockname()[1]}"
        process = subprocess.Popen(
            [BIN / "autopilot", "list", "--url", url], stderr=subprocess.PIPE, text=True, env=environment()
        )
        connection, _ = slow.accept()
        assert process.stderr is not None
        assert process.stderr.readline() == f"waiting for {url} …\n"
        connection.close()
        assert process.wait(timeout=15) == 1
        assert "cannot reach the router" in process.stderr.read()
        process.stderr.close()
