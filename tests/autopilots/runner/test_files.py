"""`file.change` and `file.check`: real files, inside the folder, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilots.runner import RunnerParts, files
from autopilots.runner.change import BUCKET, _appended, _replaced
from infra.table.sqlite import SqliteTable
from router.errors import Invalid, StoreUnavailable
from tests.autopilots.runner.parts import CANARY, send
from tests.fakes import FakeClock


async def change(parts: RunnerParts, meta: Any, key: str = "", *, status: int = 200) -> dict[str, Any]:
    """Send a change."""
    return await send(parts, "file.change", meta, key, status=status)


async def check(parts: RunnerParts, meta: Any, *, status: int = 200) -> dict[str, Any]:
    """Send a check."""
    return await send(parts, "file.check", meta, status=status)


def sha(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


async def test_a_file_is_written_with_its_folders(parts: RunnerParts) -> None:
    """The text is there to the byte, blanks and all; again changes nothing."""
    meta = {"path": "b/c.txt", "cwd": "a", "action": "write", "text": " ä \n\n"}
    told = await change(parts, meta)
    assert (parts.root / "a/b/c.txt").read_bytes() == " ä \n\n".encode()
    assert told == {
        "path": "a/b/c.txt",
        "action": "write",
        "changed": True,
        "before": None,
        "sha256": sha(" ä \n\n"),
        "backup": "",
    }
    again = await change(parts, meta)
    assert (again["changed"], again["before"], again["sha256"]) == (False, told["sha256"], told["sha256"])
    assert [path.name for path in (parts.root / "a/b").iterdir()] == ["c.txt"]


async def test_a_change_keeps_the_permissions(parts: RunnerParts) -> None:
    """A script stays one that may be run, also when it was deleted and comes back."""
    path = parts.root / "build.sh"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o750)
    await change(parts, {"path": "build.sh", "action": "append", "text": "make\n"})
    assert path.read_text() == "#!/bin/sh\nmake\n"
    assert path.stat().st_mode & 0o777 == 0o750
    gone = await change(parts, {"path": "build.sh", "action": "delete"})
    assert (gone["changed"], gone["sha256"]) == (True, None)
    assert not path.exists()
    await change(parts, {"path": "build.sh", "action": "restore", "backup": gone["backup"]})
    assert path.read_text() == "#!/bin/sh\nmake\n"
    assert path.stat().st_mode & 0o777 == 0o750


async def test_text_at_the_end_is_not_appended_again(parts: RunnerParts) -> None:
    """A file without a newline at its end gets one first; where there is no file one is made."""
    path = parts.root / ".gitignore"
    meta = {"path": ".gitignore", "action": "append", "text": ".env\n"}
    assert (await change(parts, meta))["changed"]
    assert path.read_text() == ".env\n"
    assert not (await change(parts, meta))["changed"]
    path.write_text("node_modules")
    assert (await change(parts, meta))["changed"]
    assert path.read_text() == "node_modules\n.env\n"


async def test_a_text_is_replaced_where_it_is_once(parts: RunnerParts) -> None:
    """Several times or not at all is a 424 unless `all` says so, and then the file is as it was."""
    path = parts.root / "next.config.js"
    path.write_text("a: old, b: old")
    meta = {"path": "next.config.js", "action": "replace", "find": "old", "with": "new"}
    told = await change(parts, meta, status=424)
    assert told["unmet"] == ["the text to replace is in the file 2 times, not once"]
    assert path.read_text() == "a: old, b: old"
    assert (await change(parts, meta | {"all": True}))["changed"]
    assert path.read_text() == "a: new, b: new"
    assert not (await change(parts, meta))["changed"]
    told = await change(parts, meta | {"find": "other", "with": "thing"}, status=424)
    assert told["unmet"] == ["the text to replace is not in the file"]
    told = await change(parts, meta | {"path": "nothing"}, status=424)
    assert told["unmet"] == ["there is no such file"]


@given(
    st.text("ab", max_size=12), st.text("ab", min_size=1, max_size=3), st.text("<>", min_size=1, max_size=3)
)
def test_replacing_and_appending_again_changes_nothing(old: str, find: str, new: str) -> None:
    """Whatever the texts are, also where the new one has the old one in it."""
    new = f"<{find}>" if new.endswith(">") else new
    one = old.encode() + find.encode()
    once = _replaced(one, find.encode(), new.encode(), everywhere=True)
    assert _replaced(once, find.encode(), new.encode(), everywhere=True) == once
    appended = _appended(old.encode(), new.encode())
    assert _appended(appended, new.encode()) == appended
    assert appended.endswith(new.encode())


async def test_what_is_there_may_be_left_alone(parts: RunnerParts) -> None:
    """With `if_missing` a file is written only where there is none."""
    meta = {"path": "x", "action": "write", "text": "new", "if_missing": True}
    assert (await change(parts, meta))["changed"]
    (parts.root / "x").write_text("mine")
    assert not (await change(parts, meta))["changed"]
    assert (parts.root / "x").read_text() == "mine"


async def test_every_change_can_be_undone(parts: RunnerParts) -> None:
    """The backup brings back what was before, byte for byte; an empty one that there was no file."""
    path = parts.root / "x"
    data = bytes(range(256))
    path.write_bytes(data)
    for action in ({"action": "write", "text": "n"}, {"action": "append", "text": "n"}, {"action": "delete"}):
        told = await change(parts, {"path": "x", **action})
        assert path.exists() == (action["action"] != "delete")
        undone = await change(parts, {"path": "x", "action": "restore", "backup": told["backup"]})
        assert path.read_bytes() == data
        assert undone["sha256"] == hashlib.sha256(data).hexdigest()
    new = await change(parts, {"path": "y", "action": "write", "text": "n"})
    undo = {"path": "y", "action": "restore", "backup": new["backup"]}
    assert (await change(parts, undo))["changed"]
    assert not (parts.root / "y").exists()
    assert not (await change(parts, undo))["changed"]
    assert not (await change(parts, {"path": "y", "action": "delete"}))["changed"]


async def test_a_backup_belongs_to_its_file(parts: RunnerParts) -> None:
    """That of another one is refused, and one that is not there is not found."""
    (parts.root / "x").write_text("secret of x")
    told = await change(parts, {"path": "x", "action": "delete"})
    undo = {"path": "y", "action": "restore", "backup": told["backup"]}
    assert (await change(parts, undo, status=422))["errors"][0]["message"] == "is that of another file"
    assert not (parts.root / "y").exists()
    other = told["backup"][:-64] + "0" * 64
    await change(parts, undo | {"path": "x", "backup": other}, status=404)
    for bad in ("../../x", f"{told['backup']}/..", "x"):
        await change(parts, undo | {"backup": bad}, status=422)


ESCAPES = [
    {"path": "/etc/passwd"},
    {"path": "../x"},
    {"path": "a/../../x"},
    {"path": "a/.."},
    {"path": "x", "cwd": ".."},
    {"path": "x", "cwd": "/tmp"},
    {"path": "x\x00y"},
    {"path": "out/x"},
    {"path": "file-out"},
    {"path": "dangling"},
    {"path": "x", "cwd": "out"},
    {"path": "far/x"},
    {"path": "loop"},
    {"path": "loop/x"},
    {"path": "."},
    {"path": "dir"},
    {"path": "pipe"},
    {"path": "plain/x"},
    {"path": "n" * 300},
    {"path": ""},
]


@pytest.mark.parametrize("where", ESCAPES, ids=str)
async def test_nothing_outside_of_the_folder_is_reached(
    parts: RunnerParts, tmp_path: Path, where: dict[str, str]
) -> None:
    """Neither by name nor by a link, nor a folder or pipe by the name of a file: refused, nothing changed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    root = parts.root
    (root / "out").symlink_to(outside)
    (root / "far").symlink_to("out")
    (root / "file-out").symlink_to(outside / "kept")
    (root / "dangling").symlink_to(outside / "new")
    (root / "loop").symlink_to("loop")
    (root / "dir").mkdir()
    (root / "plain").write_text("plain")
    os.mkfifo(root / "pipe")
    for action in ({"action": "write", "text": "x"}, {"action": "append", "text": "x"}):
        await change(parts, where | action, status=422)
    if where["path"] not in ("dir", ".", "plain/x"):
        await check(parts, where | {"contains": ["kept"]}, status=422)
    assert {one.name: one.read_text() for one in outside.iterdir()} == {"kept": "kept"}
    assert (root / "plain").read_text() == "plain"
    assert not list(root.glob("**/.autopilot*"))


async def test_a_link_inside_of_the_folder_is_followed(parts: RunnerParts) -> None:
    """What it points to is changed, and the link stays one."""
    (parts.root / "real").write_text("a")
    (parts.root / "link").symlink_to("real")
    told = await change(parts, {"path": "link", "action": "write", "text": "b"})
    assert told["path"] == "real"
    assert (parts.root / "link").is_symlink()
    assert (parts.root / "real").read_text() == "b"


@pytest.mark.parametrize(
    "meta",
    [
        {"action": "write"},
        {"action": "write", "text": "x", "find": "y"},
        {"action": "replace", "find": "x"},
        {"action": "replace", "find": "", "with": "x"},
        {"action": "delete", "text": "x"},
        {"action": "restore"},
        {"action": "append", "text": "x", "all": True},
        {"action": "append", "text": "x", "if_missing": True},
        {"action": "chmod"},
    ],
)
async def test_what_is_no_change_is_refused(parts: RunnerParts, meta: Any) -> None:
    """Each action takes its own fields, all of them and no others."""
    await change(parts, {"path": "x", **meta}, status=422)
    assert list(parts.root.iterdir()) == []


async def test_a_change_that_fails_half_way_leaves_the_file_as_it_was(
    parts: RunnerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full is told, and neither the file nor its folder shows a trace."""
    (parts.root / "x").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    told = await change(parts, {"path": "x", "action": "write", "text": "new"}, status=422)
    assert told["errors"] == [{"field": "meta.path", "message": "cannot be used: No space left on device"}]
    assert {path.name: path.read_text() for path in parts.root.iterdir()} == {"x": "old"}


async def test_changes_of_one_file_at_once_are_all_made(parts: RunnerParts) -> None:
    """None is made of what another one has changed meanwhile."""
    (parts.root / "x").write_text("".join(f"<{n}>" for n in range(20)))
    metas = [{"path": "x", "action": "replace", "find": f"<{n}>", "with": f"[{n}]"} for n in range(20)]
    told = await asyncio.gather(*(change(parts, meta) for meta in metas))
    assert all(one["changed"] for one in told)
    assert (parts.root / "x").read_text() == "".join(f"[{n}]" for n in range(20))


async def test_under_a_key_a_change_is_made_once(parts: RunnerParts) -> None:
    """A late second delivery answers the same and does not put its text over what came after."""
    meta = {"path": "x", "action": "write", "text": "one"}
    told = await change(parts, meta, "key")
    (parts.root / "x").write_text("two")
    assert await change(parts, meta, "key") == told
    assert (parts.root / "x").read_text() == "two"


class Dies(SqliteTable):
    """A table of a process that dies before it writes how something ended."""

    async def put(self, key: Any, document: Any, **options: Any) -> int:
        """Write all but an end."""
        if "ended" in document:
            raise StoreUnavailable("the process died here")
        return await super().put(key, document, **options)


async def test_a_change_nobody_saw_the_end_of_is_recognised(
    parts: RunnerParts, clock: FakeClock, tmp_path: Path
) -> None:
    """The repeat finds the file as it should be, changes nothing, and knows the backup of what was before."""
    (parts.root / "x").write_text("old")
    meta = {"path": "x", "action": "append", "text": "new"}
    dying = Dies(tmp_path / "table.db", clock)
    await change(replace(parts, table=dying, running=set()), meta, "key", status=503)
    await dying.close()
    assert (parts.root / "x").read_text() == "old\nnew"
    told = await change(parts, meta, "key")
    assert not told["changed"]
    assert (parts.root / "x").read_text() == "old\nnew"
    await change(parts, {"path": "x", "action": "restore", "backup": told["backup"]})
    assert (parts.root / "x").read_text() == "old"


async def test_tries_within_one_run_have_the_backup_of_the_first(parts: RunnerParts) -> None:
    """However often a step is tried, its undo brings back what was before the run; each run has its own."""
    (parts.root / "x").write_text("old")
    meta = {"path": "x", "action": "write", "text": "new"}
    first = await change(parts, meta | {"within": "run_1"}, "attempt-1")
    second = await change(parts, meta | {"within": "run_1"}, "attempt-2")
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["backup"] == second["backup"]
    other = await change(parts, meta | {"within": "run_2"}, "attempt-1 of another")
    await change(parts, {"path": "x", "action": "restore", "backup": other["backup"]})
    assert (parts.root / "x").read_text() == "new"
    await change(parts, {"path": "x", "action": "restore", "backup": second["backup"]})
    assert (parts.root / "x").read_text() == "old"
    assert len(await parts.blobs.list(BUCKET)) == 2


async def test_a_file_as_expected_is_told(parts: RunnerParts) -> None:
    """Its size, hash and JSON, where something is expected of that; changed is nothing."""
    text = '{"name": "site", "scripts": {"build": "next build"}}'
    (parts.root / "package.json").write_text(text)
    told = await check(
        parts,
        {
            "path": "package.json",
            "contains": ["next build"],
            "lacks": ["old"],
            "json": {"scripts": {"contains": "build"}, "name": {"is": "site"}},
            "at_most_bytes": len(text),
            "sha256": sha(text),
        },
    )
    assert told == {
        "path": "package.json",
        "exists": True,
        "bytes": len(text),
        "sha256": sha(text),
        "json": {"name": "site", "scripts": {"build": "next build"}},
    }
    (parts.root / "dir").mkdir()
    assert await check(parts, {"path": "dir"}) == {
        "path": "dir",
        "exists": True,
        "bytes": None,
        "sha256": None,
        "json": None,
    }
    assert not (await check(parts, {"path": "nothing", "exists": False}))["exists"]


@pytest.mark.parametrize(
    ("meta", "unmet"),
    [
        ({"path": "nothing"}, "there is no file nothing"),
        ({"path": "x", "exists": False}, "there is a file x"),
        ({"path": "x", "contains": ["b"]}, 'it does not contain "b"'),
        ({"path": "x", "lacks": ["a"]}, 'it contains "a"'),
        ({"path": "x", "at_most_bytes": 2}, "it has 3 bytes, not at most 2"),
        ({"path": "x", "sha256": "0" * 64}, f"its SHA-256 is {sha('aaa')}"),
        ({"path": "x", "json": {"$": {"exists": True}}}, "it is no JSON"),
        ({"path": "j", "json": {"a": {"is": 2}}}, "its JSON a has to be 2, but is 1"),
        ({"path": "dir", "contains": ["b"]}, "it is a folder"),
        ({"path": "huge", "at_most_bytes": 5}, f"it has {files.MAX_FILE + 1} bytes, not at most 5"),
    ],
)
async def test_a_file_that_is_not_as_expected_fails(parts: RunnerParts, meta: Any, unmet: str) -> None:
    """Each is a 424 that says what is wrong, with what was seen."""
    (parts.root / "x").write_text("aaa")
    (parts.root / "j").write_text('{"a": 1}')
    (parts.root / "dir").mkdir()
    with (parts.root / "huge").open("wb") as file:
        file.truncate(files.MAX_FILE + 1)
    told = await check(parts, meta, status=424)
    assert told["unmet"] == [unmet]
    assert told["result"]["path"] == meta["path"]


async def test_a_file_that_is_too_large_is_neither_read_nor_made(parts: RunnerParts) -> None:
    """More than a file may have is a 413, and it stays as it was."""
    with (parts.root / "huge").open("wb") as file:
        file.truncate(files.MAX_FILE)
    await check(parts, {"path": "huge", "contains": ["x"]}, status=424)
    await change(parts, {"path": "huge", "action": "append", "text": "x"}, status=413)
    with (parts.root / "huge").open("ab") as file:
        file.write(b"x")
    await check(parts, {"path": "huge", "contains": ["x"]}, status=413)
    assert (parts.root / "huge").stat().st_size == files.MAX_FILE + 1


async def test_a_secret_in_a_file_is_not_told(parts: RunnerParts) -> None:
    """A check may be about one, but neither its JSON nor what is wrong with it shows it."""
    (parts.root / "x").write_text(f'{{"token": "{CANARY}"}}')
    told = await check(parts, {"path": "x", "json": {"token": {"exists": True}}})
    assert told["json"] == {"token": "****"}
    told = await check(parts, {"path": "x", "json": {"token": {"is": "y"}}}, status=424)
    assert told["unmet"] == ['its JSON token has to be "y", but is "****"']


async def test_nothing_can_be_expected_of_what_must_not_be_there(parts: RunnerParts) -> None:
    """Such a check would never hold, so it is refused."""
    await check(parts, {"path": "x", "exists": False, "contains": ["x"]}, status=422)


def test_what_the_system_refuses_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read is forbidden, whatever else fails is the path's fault."""
    from router.errors import Forbidden

    def refuse(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "no")

    (tmp_path / "x").write_text("x")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Forbidden, match="may not do that to 'x'"):
        files.read(tmp_path / "x")
    monkeypatch.undo()
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(Invalid):
        files.read(tmp_path / "link")
    assert files.about(tmp_path / "x/y") is None
