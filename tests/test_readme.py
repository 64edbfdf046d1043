"""The README says nothing that is not so: what it names exists, and what exists to be set is named."""

from __future__ import annotations

import argparse
import re
import shlex
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.signing import new_secret, sign
from router.cli import _parser
from router.settings import read
from router.wiring import BUILT_IN, ON_REQUEST, build, manifests
from tests.process import ROOT
from tests.router.api.conftest import client_of
from tests.upstream import upstream

README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
PROSE = FENCE.sub("", README)
CODE = re.findall(r"`([^`\n]+)`", PROSE)


def blocks(language: str) -> list[str]:
    """Return the fenced blocks in a language."""
    return [text for kind, text in FENCE.findall(README) if kind == language]


def section(title: str) -> str:
    """Return the text under a heading."""
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the subcommands of a command, none for one that has no more."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def command_of(words: list[str]) -> argparse.ArgumentParser:
    """Return the command that words lead to. Raises `KeyError` where they name none."""
    parser = _parser()
    for word in words:
        known = commands(parser)
        if not known:
            break
        parser = known[word]
    return parser


def curls() -> list[list[str]]:
    """Return every curl command of the README as words."""
    lines = "\n".join(blocks("console")).replace("\\\n", " ").splitlines()
    return [shlex.split(line[2:]) for line in lines if line.startswith("$ curl ")]


def test_every_path_it_names_exists() -> None:
    """Each script, folder and file in the text is there, and each script can be run."""
    named = {
        one
        for text in CODE
        for one in re.findall(r"(?:scripts|router|autopilots|infra|tests)/[\w./-]*", text)
    }
    named |= {one for text in blocks("console") for one in re.findall(r"scripts/[\w./-]+", text)}
    assert len(named) > 8
    for path in named:
        assert (ROOT / path).exists(), path
        if path.startswith("scripts/"):
            assert (ROOT / path).stat().st_mode & 0o100, path
    for path in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / path).exists(), path


def test_every_room_and_module_of_the_structure_exists() -> None:
    """The drawing of the project names folders and modules that are there."""
    [drawing] = [text for text in blocks("") if text.startswith("router/")]
    folder = ""
    found = 0
    for line in drawing.splitlines():
        if match := re.match(r"(\w+/)\s+(.*)", line):
            folder = match[1]
            assert (ROOT / folder).is_dir()
            listed = match[2] if folder in {"scripts/", "infra/"} else ""
        else:
            listed = line.split("  ")[1] if line.startswith("  ") and folder == "router/" else ""
        for name in re.findall(r"[\w-]+(?:/|\.py)?", re.sub(r"\(.*?(\)|$)", "", listed)):
            candidates = [folder + name, f"{folder}{name}.py"]
            if folder == "infra/" and not name.endswith(("/", ".py")):
                continue
            assert any((ROOT / one).exists() for one in candidates), folder + name
            found += 1
    assert found > 30


def test_every_command_and_flag_it_names_exists() -> None:
    """`autopilot X` is a subcommand with the flags shown, and a script answers to its own."""
    shown: set[str] = set()
    for text in CODE:
        if text.startswith("autopilot "):
            for alternative in text.removeprefix("autopilot ").split("\\|"):
                words = alternative.split()
                flags = set(re.findall(r"--[\w-]+", alternative))
                assert flags <= set(command_of(words)._option_string_actions), text
                shown.add(words[0])
    known = commands(_parser())
    assert shown == set(known), "the README names every subcommand"
    for parser in known.values():
        for action in commands(parser):
            assert any(action in text.split() for text in CODE), action
    for script, flag in re.findall(r"`(scripts/[\w/-]+) (?:\[)?(--[\w-]+)", README):
        sources = [
            ROOT / script,
            ROOT / "scripts/_demo.py",
            ROOT / "router/cli.py",
            *(ROOT / "scripts/bench").glob("*.py"),
        ]
        assert any(f'"{flag}"' in one.read_text() or f"{flag})" in one.read_text() for one in sources), flag


def test_the_settings_table_is_what_settings_reads() -> None:
    """Every variable the product reads is in the table, and every one in the table is read."""
    source = (ROOT / "router/settings.py").read_text(encoding="utf-8")
    reads = set(re.findall(r'(?:environment\.get|given\.\w+)\(\s*"((?!AWS_)[A-Z_]+)"', source))
    rows = [line.split("|")[1] for line in section("Settings").splitlines() if line.startswith("| `")]
    table = [name for row in rows for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row)]
    assert set(table) == reads
    assert len(table) == len(set(table))


def test_the_defaults_in_the_settings_table_are_the_defaults() -> None:
    """What stands in the third column is what an empty environment gives."""
    settings = read({})
    assert settings.auth == "local"
    assert str(settings.data) == ".autopilot"
    assert settings.model == "gpt-4o-mini"
    assert settings.allowed.name("localhost")
    rows = {
        line.split("|")[1].strip(): line.split("|")[3].strip()
        for line in section("Settings").splitlines()
        if line.startswith("| `")
    }
    assert rows["`AUTOPILOT_DATA`"] == "`.autopilot`"
    assert rows["`ORCHESTRATOR_URL`"] == "`http://127.0.0.1:8080`"
    assert rows["`OPENAI_API_KEY`, `OPENAI_BASE_URL`, `AUTOPILOT_MODEL`"] == "`gpt-4o-mini`"


def test_those_that_ship_are_told_with_all_they_offer() -> None:
    """The table has every built-in autopilot, every capability, and which of them are asked for first."""
    told = {}
    for line in section("Those that ship").splitlines():
        if match := re.match(r"\| `([\w-]+)` \| (.*) \|", line):
            always, _, configured = match[2].partition("when configured")
            told[match[1]] = (
                set(re.findall(r"`([\w.]+)`", always)),
                set(re.findall(r"`([\w.]+)`", configured)),
            )
    offered = {}
    for pilot in (*BUILT_IN, *ON_REQUEST):
        optional = {offer.name for offer in pilot._offers.values() if offer.optional}
        offered[pilot.name] = (set(pilot._offers) - optional, optional)
    assert told == offered


def test_every_reason_of_the_troubleshooting_table_is_real() -> None:
    """Statuses and the texts beside them are those the product answers with."""
    from router import errors
    from router.problem import STATUS

    titles = {
        f"{STATUS[one.code]} `{one.title}`"
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.AutopilotError) and one.code in STATUS
    }
    answers = re.findall(r"\| (\d{3}[^|]*?) \|", section("When something is wrong"))
    assert len(answers) >= 6
    for answer in answers:
        if "`" in answer and "errors" not in answer and "…" not in answer:
            assert answer in titles, answer
        assert int(answer[:3]) in STATUS.values()


def _routes(system: Any) -> set[str]:
    return {route.path for route in system.app._rest.routes}


async def test_every_endpoint_it_names_exists(tmp_path: Path) -> None:
    """Each path of the API in the text is a route of the app, by the method it stands with."""
    system = build(read({"AUTOPILOT_DATA": str(tmp_path)}), url="http://127.0.0.1:8080")
    try:
        paths = _routes(system)
        named = re.findall(r"\b(?:GET|POST|DELETE) (/[\w/{}-]+)", README)
        named += [httpx.URL(word).path for words in curls() for word in words if word.startswith("http://")]
        assert len(named) >= 3
        for path in named:
            assert path in paths, path
    finally:
        await system.close()


async def test_its_curl_lines_give_what_it_shows(tmp_path: Path) -> None:
    """The first task is done by who the README says, and the greeter is registered."""
    system = build(read({"AUTOPILOT_DATA": str(tmp_path)}), url="http://127.0.0.1:8080")
    async with client_of(system) as client, upstream() as up:
        for manifest in manifests():
            await client.post("/autopilot/registry", json=manifest)
        answers = []
        for words in curls():
            body = words[words.index("-d") + 1].replace("http://127.0.0.1:9000", up.url)
            headers = {"content-type": "application/json"}
            answers.append(await client.post(words[1], content=body, headers=headers))
        planned, registered = answers
        shown = re.search(r'^(\{"autopilot":.*?),"result":…', README, re.MULTILINE)
        assert shown is not None
        assert planned.text.startswith(shown[1])
        assert registered.status_code == 201
        assert registered.json()["signing_secret"]
        greeted = await client.post("/autopilot/plan", json={"task": "greet", "meta": {"name": "Ada"}})
        assert greeted.json()["ok"]
        assert up.tasks[0].json() == {"task": "greet", "capability": "text.greet", "meta": {"name": "Ada"}}
    await system.close()


async def test_its_example_of_an_autopilot_works(tmp_path: Path) -> None:
    """The code is complete: it answers a task, and its manifest registers it with a schema."""
    code, _ = blocks("python")
    # As a module: the annotations of its functions are looked up there.
    namespace: dict[str, Any] = {"__name__": "greeter"}
    exec(compile(code, "README.md", "exec"), namespace)
    pilot = namespace["pilot"]
    transport = httpx.ASGITransport(app=pilot.app(None))
    async with httpx.AsyncClient(transport=transport, base_url="http://greeter") as client:
        task = {"task": "greet", "capability": "text.greet", "meta": {"name": "Ada"}}
        assert (await client.post("/tasks", json=task)).json() == {"text": "Hello Ada"}
    manifest = pilot.manifest("https://greeter.invalid")
    assert manifest["capabilities"][0]["input_schema"]["required"] == ["name"]
    system = build(read({"AUTOPILOT_DATA": str(tmp_path)}), url="http://127.0.0.1:8080")
    async with client_of(system) as client:
        assert (await client.post("/autopilot/registry", json=manifest)).status_code == 201
        bad = await client.post("/autopilot/plan", json={"task": "greet", "meta": {"nam": "Ada"}})
        assert {one["field"] for one in bad.json()["errors"]} == {"meta.name", "meta.nam"}
    await system.close()


async def test_its_example_of_a_verifying_autopilot_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """With both secrets of a rotation in the variable, what either signed is done and the rest is refused."""
    secrets = [new_secret(), new_secret()]
    monkeypatch.setenv("GREETER_SECRETS", " ".join(secrets))
    namespace: dict[str, Any] = {"__name__": "greeter", "parts": None}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), namespace)
    transport = httpx.ASGITransport(app=namespace["app"])
    task = b'{"task":"greet","capability":"text.greet","meta":{"name":"Ada"}}'
    statuses = []
    async with httpx.AsyncClient(transport=transport, base_url="http://greeter") as client:
        for number, secret in enumerate([*secrets, secrets[0], new_secret()]):
            message_id, now = f"msg_{number % 2}", int(time.time())
            headers = {
                "content-type": "application/json",
                "webhook-id": message_id,
                "webhook-timestamp": str(now),
                "webhook-signature": sign(secret, message_id, now, task),
            }
            statuses.append((await client.post("/tasks", content=task, headers=headers)).status_code)
    assert statuses == [200, 200, 401, 401]


def test_the_registration_it_shows_is_what_the_script_prints() -> None:
    """The lines after `scripts/register-autopilots` are the command's own, one per autopilot."""
    shown = re.findall(r"^Autopilot '([\w-]+)' registered successfully$", README, re.MULTILINE)
    assert shown == [pilot.name for pilot in BUILT_IN]


@pytest.mark.parametrize("name", ["CHANGELOG.md", "LICENSE", "pyproject.toml"])
def test_what_a_reader_expects_beside_it_is_there(name: str) -> None:
    """The licence, the changes and the package file are in place and not empty."""
    assert (ROOT / name).stat().st_size > 100


def test_the_python_it_asks_for_is_the_one_the_package_asks_for() -> None:
    """The version in the text, in the package file and in scripts/setup is one."""
    needed = re.search(r"It needs Python (3\.\d+)", README)
    assert needed is not None
    assert f'requires-python = ">={needed[1]}"' in (ROOT / "pyproject.toml").read_text()
    assert needed[1].replace(".", ", ") in (ROOT / "scripts/setup").read_text()
