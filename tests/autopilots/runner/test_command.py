"""`command.run`: real processes, what they may have, and what is told of them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilots.runner import RunnerParts
from autopilots.runner.process import Capture
from infra.table import MAX_DOCUMENT
from infra.table.sqlite import SqliteTable
from router.errors import StoreUnavailable
from tests.autopilots.runner.parts import CANARY, runner_parts, send
from tests.fakes import FakeClock

PYTHON = sys.executable


def python(code: str, *arguments: str) -> list[str]:
    """Return a command that runs some Python."""
    return [PYTHON, "-I", "-S", "-c", code, *arguments]


async def run(parts: RunnerParts, meta: Any, key: str = "", *, status: int = 200) -> dict[str, Any]:
    """Send a command."""
    return await send(parts, "command.run", meta, key, status=status)


async def test_a_command_runs_in_its_folder_and_says_how_it_ended(parts: RunnerParts) -> None:
    """Program, arguments with blanks and signs, folder, both outputs and the exit code are what they were."""
    (parts.root / "site").mkdir()
    code = "import os, sys; print(os.getcwd(), sys.argv[1:]); print('oh', file=sys.stderr)"
    told = await run(parts, {"run": python(code, " a b ", "$HOME", "*", ""), "cwd": "site"})
    assert told["stdout"] == f"{parts.root}/site [' a b ', '$HOME', '*', '']"
    assert told["stderr"] == "oh"
    assert (told["exit_code"], told["timed_out"], told["truncated"], told["json"]) == (0, False, False, None)
    assert 0 < told["seconds"] < 10


async def test_another_exit_code_than_expected_fails_with_what_was_seen(parts: RunnerParts) -> None:
    """A command that fails is a 4xx with its whole result; the same code is good where it is expected."""
    meta = {"run": python("import sys; print('half'); sys.exit('no such table')")}
    told = await run(parts, meta, status=424)
    assert told["code"] == "unmet"
    assert told["unmet"] == ["its exit code is 1, not 0"]
    assert (told["result"]["stdout"], told["result"]["stderr"]) == ("half", "no such table")
    good = await run(parts, meta | {"expect": {"exit": [0, 1]}})
    assert good["exit_code"] == 1


async def test_a_program_that_is_not_there_is_told_by_its_end(parts: RunnerParts) -> None:
    """As in every shell: exit code 127, and the output says what was not found."""
    told = await run(parts, {"run": ["no-such-program", "x"]}, status=424)
    assert told["result"]["exit_code"] == 127
    assert "no-such-program: not found" in told["result"]["stderr"]


async def test_arguments_no_system_takes_are_refused(parts: RunnerParts) -> None:
    """A longer argument than the system has room for is a 422, and nothing is kept under the key."""
    meta = {"run": ["true", "x" * 131_072]}
    told = await run(parts, meta, "key", status=422)
    assert told["errors"][0]["field"] == "meta.run"
    assert (await parts.table.range("runner-once")).items == []


async def test_expectations_look_at_all_of_the_standard_output(parts: RunnerParts) -> None:
    """Texts anywhere count, also across pieces and in what is not kept; standard error does not."""
    code = "import sys; print('a' * 300_000 + 'needle' + 'b' * 300_000); print('err', file=sys.stderr)"
    meta = {"run": python(code)}
    told = await run(parts, meta | {"expect": {"contains": ["needle"], "lacks": ["err"]}})
    assert "needle" not in told["stdout"]
    assert told["truncated"]
    expect = {"contains": ["err", "needle"], "lacks": ["needle", "none"]}
    bad = await run(parts, meta | {"expect": expect}, status=424)
    assert bad["unmet"] == [
        'its standard output does not contain "err"',
        'its standard output contains "needle"',
    ]


async def test_the_standard_output_may_be_expected_to_be_json(parts: RunnerParts) -> None:
    """Conditions hold or are told by path, and the JSON is in the result; what is none is told."""
    meta = {"run": python("""print('{"n": 3, "items": [{"id": "x", "ok": true}]}')""")}
    good = {"json": {"n": {"at_least": 3}, "items": {"contains": {"id": "x"}}, "items.0.ok": {"is": True}}}
    told = await run(parts, meta | {"expect": good})
    assert told["json"]["n"] == 3
    bad = {"json": {"n": {"is": 4}, "items.1": {"exists": True}}}
    told = await run(parts, meta | {"expect": bad}, status=424)
    assert told["unmet"] == ["its JSON n has to be 4, but is 3", "its JSON items.1 is not there"]
    told = await run(parts, {"run": ["echo", "{"], "expect": bad}, status=424)
    assert told["unmet"] == ["its standard output is no JSON of at most 2097152 bytes"]
    code = "print('[' + '1,' * 2_000_000 + '1]')"
    told = await run(parts, {"run": python(code), "expect": {"json": {"$": {"exists": True}}}}, status=424)
    assert "no JSON" in told["unmet"][0]


async def test_a_command_gets_no_variable_that_was_not_listed(
    parts: RunnerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the plain ones, those it asked for and those it was given: never the process's own."""
    monkeypatch.setenv("AUTOPILOT_API_KEY", CANARY)
    code = "import os, json; print(json.dumps(sorted(n for n in os.environ if n not in ('PWD', 'LC_CTYPE'))))"
    told = await run(parts, {"run": python(code)})
    assert told["stdout"] == '["PATH"]'
    told = await run(parts, {"run": python(code), "env": ["API_TOKEN", "NOT_SET"], "set": {"MODE": "x"}})
    assert told["stdout"] == '["API_TOKEN", "MODE", "PATH"]'


async def test_a_variable_nobody_listed_is_refused(parts: RunnerParts) -> None:
    """Neither `env` nor `secrets` get at one that the operator did not allow, set or not."""
    for meta in (
        {"env": ["HOME"]},
        {"secrets": ["AUTOPILOT_API_KEY"], "set": {"A": "${env.AUTOPILOT_API_KEY}"}},
    ):
        told = await run(parts, {"run": ["env"], **meta}, status=403)
        assert "AUTOPILOT_RUNNER_ENV" in told["detail"]
    told = await run(parts, {"run": ["env"], "secrets": ["NOT_SET"]}, status=422)
    assert told["errors"][0]["message"] == "NOT_SET is not set for the runner"


async def test_what_a_command_says_of_its_secrets_is_not_shown(
    parts: RunnerParts, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain, escaped, across both outputs, in JSON, in a failure, in the store: no canary comes out."""
    code = (
        "import os, sys, json; t = os.environ['T']; print(json.dumps({'t': t, t: 1}));"
        "print(repr(t), t[::1], file=sys.stderr); sys.exit(int(sys.argv[1]))"
    )
    meta = {
        "set": {"T": "${env.API_TOKEN}"},
        "secrets": ["API_TOKEN"],
        "expect": {"json": {"t": {"is": "x"}}},
    }
    told = await run(parts, {"run": python(code, "1"), **meta}, "one", status=424)
    assert told["result"]["json"] == {"t": "****", "****": 1}
    assert told["result"]["stderr"] == "'****' ****"
    assert told["unmet"][1] == 'its JSON t has to be "x", but is "****"'
    good = await run(parts, {"run": python(code, "0"), **meta, "expect": {}}, "two")
    assert good["stdout"] == '{"t": "****", "****": 1}'
    kept = await parts.table.range("runner-once")
    assert len(kept.items) == 2
    assert CANARY not in str(kept)
    assert CANARY not in caplog.text


async def test_a_secret_is_filled_in_where_it_may_stand_and_nowhere_else(parts: RunnerParts) -> None:
    """Into `set` and standard input; in an argument it is refused; `$$` is a dollar sign everywhere."""
    code = (
        "import os, sys; print(sys.argv[1], os.environ['X'] == sys.stdin.read() == sys.argv[2][::-1] + '$')"
    )
    told = await run(
        parts,
        {
            "run": python(code, "$$5", CANARY[::-1]),
            "set": {"X": "${env.API_TOKEN}$$"},
            "stdin": "${env.API_TOKEN}$$",
            "secrets": ["API_TOKEN"],
        },
    )
    assert told["stdout"] == "$5 True"
    for argument in ("${env.API_TOKEN}", "${params.x}", "${"):
        meta = {"run": ["echo", argument], "secrets": ["API_TOKEN"]}
        assert (await run(parts, meta, status=422))["errors"][0]["field"] == "meta.run"
    untouched = await run(parts, {"run": ["echo", "${env.API_TOKEN} $$"]})
    assert untouched["stdout"] == "${env.API_TOKEN} $$"


async def test_standard_input_is_what_was_given_or_empty(parts: RunnerParts) -> None:
    """A program that reads gets the text, or the end at once; one that does not read does not mind."""
    assert (await run(parts, {"run": ["cat"], "stdin": " ä\n"}))["stdout"] == " ä"
    assert (await run(parts, {"run": ["cat"]}))["stdout"] == ""
    assert (await run(parts, {"run": ["true"], "stdin": "x" * 1_000_000}))["exit_code"] == 0


async def test_a_script_needs_the_operator(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> None:
    """`shell` is refused unless allowed; then the script is run by sh with its variables."""
    meta = {
        "run": ["echo $X | tr a-z A-Z; exit 3"],
        "shell": True,
        "set": {"X": "abc"},
        "expect": {"exit": [3]},
    }
    without = runner_parts(table, clock, tmp_path)
    assert "AUTOPILOT_RUNNER_SHELL" in (await run(without, meta, status=403))["detail"]
    told = await run(runner_parts(table, clock, tmp_path, shell=True), meta)
    assert told["stdout"] == "ABC"


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"run": []}, "meta.run"),
        ({"run": [" "]}, "meta"),
        ({"run": ["a", "b"], "shell": True}, "meta"),
        ({"run": ["a\x00b"]}, "meta.run[0]"),
        ({"run": ["a"], "timeout_seconds": 0}, "meta.timeout_seconds"),
        ({"run": ["a"], "set": {"A=B": "x"}}, "meta.set.A=B.[key]"),
        ({"run": ["a"], "expect": {"json": {"x": {"equals": 1}}}}, "meta.expect.json.x.equals"),
        ({"run": ["a"], "cwd": "../x"}, "meta.cwd"),
        ({"run": ["a"], "cwd": "/"}, "meta.cwd"),
        ({"run": ["a"], "cwd": "out"}, "meta.cwd"),
    ],
)
async def test_what_is_no_command_is_refused(parts: RunnerParts, meta: Any, field: str) -> None:
    """Each names its field; a folder outside of the root is none, by whatever name."""
    (parts.root / "out").symlink_to("/")
    assert field in {one["field"] for one in (await run(parts, meta, status=422))["errors"]}


async def test_a_folder_that_is_not_there_is_not_made(parts: RunnerParts) -> None:
    """A command does not run somewhere else instead."""
    told = await run(parts, {"run": ["touch", "x"], "cwd": "nowhere"}, status=404)
    assert "'nowhere'" in told["detail"]
    assert list(parts.root.iterdir()) == []


def _alive(pid: int) -> bool:
    """Whether a process runs: one that is dead but not yet buried does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def _becomes(true: Callable[[], bool]) -> bool:
    """Whether something comes true: looked at every few milliseconds, for some seconds."""
    for _ in range(2000):
        if true():
            return True
        await asyncio.sleep(0.003)
    return False


async def _gone(*pids: int) -> bool:
    """Whether processes end, which takes the system a moment after they were killed."""
    return await _becomes(lambda: not any(map(_alive, pids)))


def _pids(folder: Path) -> list[int]:
    """Return the processes that wrote down their ids in a folder."""
    path = folder / "pids"
    return [int(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


TREE = """
import os, sys
reading, writing = os.pipe()
for _ in range(2):
    os.fork()
with open('pids', 'a') as file:
    file.write(f'{os.getpid()}\\n')
print('begun', flush=True)
os.read(reading, 1)
"""
"""Four processes, each of which waits for what never comes: all of them hold both ends of the pipe."""


async def test_at_its_time_limit_a_command_is_killed_with_all_it_started(parts: RunnerParts) -> None:
    """The whole tree is gone, what it said until then is told, and that it was late."""
    meta = {"run": python(TREE), "timeout_seconds": 0.4}
    told = await run(parts, meta, status=424)
    assert told["unmet"] == ["it was killed after 0.4 seconds"]
    assert told["result"]["timed_out"]
    assert told["result"]["exit_code"] == -9
    assert told["result"]["stdout"].startswith("begun")
    pids = _pids(parts.root)
    assert pids
    assert await _gone(*pids)


async def test_what_a_command_leaves_running_ends_with_it(parts: RunnerParts) -> None:
    """A child in the background neither holds up the answer nor outlives the command."""
    code = "import os; r, w = os.pipe(); pid = os.fork(); print(pid) if pid else os.read(r, 1)"
    told = await run(parts, {"run": python(code), "timeout_seconds": 20})
    assert told["seconds"] < 5
    assert await _gone(int(told["stdout"]))


async def test_a_caller_that_gives_up_ends_the_command(parts: RunnerParts) -> None:
    """When the call is cancelled nothing of it goes on."""
    call = asyncio.ensure_future(run(parts, {"run": python(TREE)}))
    assert await _becomes(lambda: len(_pids(parts.root)) == 4)
    pids = _pids(parts.root)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await _gone(*pids)


async def test_a_command_does_not_outlive_the_process_that_runs_it(tmp_path: Path) -> None:
    """Killed without a word, the runner takes its commands with it: the pipe they are guarded by closes."""
    code = (
        "import asyncio, sys, time\n"
        "from pathlib import Path\n"
        "from autopilots.runner.process import Capture, run\n"
        f"arguments = {python(TREE)!r}\n"
        f"asyncio.run(run(arguments, cwd=Path({str(tmp_path)!r}), environment={{}}, stdin=b'', seconds=60,"
        " out=Capture(100), err=Capture(100), monotonic=time.monotonic))"
    )
    runner = await asyncio.create_subprocess_exec(PYTHON, "-c", code, cwd=Path(__file__).parents[3])
    assert await _becomes(lambda: len(_pids(tmp_path)) == 4)
    pids = _pids(tmp_path)
    assert all(map(_alive, pids))
    runner.kill()
    await runner.wait()
    assert await _gone(*pids)


async def test_ten_megabytes_of_output_take_no_memory_and_fit_into_the_answer(parts: RunnerParts) -> None:
    """Beginning and end are told with what is missing between, of each output, and the record holds it."""
    code = (
        "import sys\n"
        "for stream in (sys.stdout, sys.stderr):\n"
        "    stream.write('first\\x1b')\n"
        "    for _ in range(100): stream.write('\\x01' * 100_000)\n"
        "    stream.write('last\\n')\n"
    )
    told = await run(parts, {"run": python(code)}, "key")
    for name in ("stdout", "stderr"):
        assert told[name].startswith("first")
        assert told[name].endswith("last")
        assert "not all of it is shown" in told[name]
        assert len(told[name]) < 25_000
    assert told["truncated"]
    item = (await parts.table.range("runner-once")).items[0]
    assert len(str(item.document)) < MAX_DOCUMENT


async def test_what_is_held_of_an_output_is_bounded(parts: RunnerParts) -> None:
    """However much comes, so much of beginning and end is kept, and a text across two pieces is found."""
    capture = Capture(1000, ["xyz", "abcabc"])
    for number in range(10_000):
        capture.feed(b"%04d" % number + (b"x" if number == 5000 else b"yz" if number == 5001 else b"-" * 90))
        assert len(capture._head) + len(capture._tail) + len(capture._window) <= 1700
    capture.feed(b"abc")
    capture.feed(b"abc")
    assert capture.found == {"abcabc"}
    head, tail = capture.pieces
    assert (len(head), len(tail)) == (500, 500)
    assert tail.endswith(b"9999" + b"-" * 90 + b"abcabc")


async def test_a_secret_that_is_cut_in_two_is_not_shown(parts: RunnerParts) -> None:
    """Wherever the output is cut, no part of a secret stands at the cut."""
    code = "import os, sys; sys.stdout.write(os.environ['API_TOKEN'] * 20_000)"
    told = await run(parts, {"run": python(code), "env": ["API_TOKEN"]})
    assert told["truncated"] or set(told["stdout"]) == {"*"}
    for piece in (CANARY[:12], CANARY[7:19], CANARY[-12:]):
        assert piece not in told["stdout"]


async def test_under_a_key_a_command_runs_once(parts: RunnerParts) -> None:
    """A repeat answers what came of it, good or bad; another command under the key is refused."""
    meta = {"run": python("open('ran', 'a').write('x'); print('done')")}
    first = await run(parts, meta, "key")
    assert await run(parts, meta, "key") == first
    bad = {"run": python("open('ran', 'a').write('y'); raise SystemExit(7)")}
    failed = await run(parts, bad, "other", status=424)
    assert await run(parts, bad, "other", status=424) == failed
    assert (parts.root / "ran").read_text() == "xy"
    told = await run(parts, {"run": ["true"]}, "key", status=409)
    assert told["detail"] == "this idempotency key was used for something else"
    await run(parts, meta)
    assert (parts.root / "ran").read_text() == "xyx"


class Dies(SqliteTable):
    """A table of a process that dies before it writes how something ended."""

    async def put(self, key: Any, document: Any, **options: Any) -> int:
        """Write what is begun, and nothing of an end."""
        if "ended" in document:
            raise StoreUnavailable("the process died here")
        return await super().put(key, document, **options)


async def test_a_command_nobody_saw_the_end_of_is_not_run_again_by_itself(
    parts: RunnerParts, clock: FakeClock, tmp_path: Path
) -> None:
    """It may have run: 409 says so, and a person or a check decides. One that is idempotent runs again."""
    dying = Dies(tmp_path / "table.db", clock)
    dead = replace(parts, table=dying, running=set())
    meta = {"run": python("open('ran', 'a').write('x')")}
    await run(dead, meta, "key", status=503)
    await run(dead, meta | {"idempotent": True}, "twice", status=503)
    await dying.close()
    told = await run(parts, meta, "key", status=409)
    assert told["title"] == "It was begun before, and nobody knows how it ended"
    assert "may have been done" in told["detail"]
    assert (parts.root / "ran").read_text() == "xx"
    await run(parts, meta | {"idempotent": True}, "twice")
    assert (parts.root / "ran").read_text() == "xxx"


async def test_a_command_that_still_runs_is_not_begun_again(parts: RunnerParts) -> None:
    """The second delivery is told to wait, and the first is answered."""
    os.mkfifo(parts.root / "pipe")
    meta = {"run": ["cat", "pipe"], "idempotent": True}
    first = asyncio.ensure_future(run(parts, meta, "key"))
    assert await _becomes(lambda: bool(parts.running))
    told = await run(parts, meta, "key", status=409)
    assert told["detail"] == "this is being done at the moment"
    await asyncio.to_thread((parts.root / "pipe").write_text, "through")
    assert (await first)["stdout"] == "through"
