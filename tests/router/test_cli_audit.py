"""`autopilot audit`: who did what, and whether somebody changed it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from infra.keyfile import key_in
from router.cli import main
from tests.process import Served, autopilot, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server that four autopilots were registered with."""
    with serving(tmp_path_factory.mktemp("audit")) as one:
        done = autopilot("register", "--built-in", "--url", one.url)
        assert done.returncode == 0, done.stderr
        yield one


def copy_of(served: Served, folder: Path) -> Path:
    """Return a folder with what a server's data folder holds now: its store, and the key beside it."""
    with (
        closing(sqlite3.connect(served.data / "router.db")) as from_,
        closing(sqlite3.connect(folder / "router.db")) as to,
    ):
        from_.backup(to)
    (folder / "audit.key").write_bytes((served.data / "audit.key").read_bytes())
    return folder


def test_records_are_listed(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has a line for each change, and --json what the API answers."""
    assert main(["audit", "list", "--url", served.url]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["TIME", "WHO", "WHAT", "TO"]
    assert lines[0].split()[1:] == ["local", "autopilot.register", "ai-employee"]
    assert len(lines) == 4
    assert main(["audit", "list", "--url", served.url, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["events"]) == 4


def test_what_nobody_changed_holds(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """While the server runs its audit can be verified from its folder."""
    assert main(["audit", "verify", "--data", str(served.data)]) == 0
    assert capsys.readouterr().out == "4 records, 0 findings\n"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            "UPDATE item"
            " SET document = CAST(replace(CAST(document AS TEXT), 'ai-stylist', 'ai-barber') AS BLOB)"
            " WHERE partition LIKE 'audit:w%' AND CAST(document AS TEXT) LIKE '%ai-stylist%'",
            "2: the record was changed",
        ),
        (
            "DELETE FROM item WHERE partition LIKE 'audit:w%' AND sort = '000000000003'",
            "4: a record before it",
        ),
        (
            "DELETE FROM item WHERE partition LIKE 'audit:w%' AND sort = '000000000004'",
            "4: the record is gone",
        ),
        ("DELETE FROM item WHERE partition LIKE 'audit%'", "there is no record of what stands here"),
    ],
)
def test_what_somebody_changed_is_found(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, found: str
) -> None:
    """An edit, a deletion, a truncation and the loss of all of it are named and fail the check."""
    data = copy_of(served, tmp_path)
    with closing(sqlite3.connect(data / "router.db")) as database, database:
        assert database.execute(change).rowcount > 0
    assert main(["audit", "verify", "--data", str(data)]) == 1
    assert found in capsys.readouterr().out
    assert main(["audit", "verify", "--data", str(data), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"]


def test_no_store_is_no_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no store the check fails, and none is made."""
    assert main(["audit", "verify", "--data", str(tmp_path / "nothing")]) == 1
    assert "there is no store" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    """A key file that is missing is made, is read again, and is nobody else's to read."""
    path = tmp_path / "folder" / "audit.key"
    key = key_in(path)
    assert key_in(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["audit.key"]


@pytest.mark.parametrize("text", ["", "short", "x" * 65])
def test_a_key_file_that_holds_something_else_is_refused(tmp_path: Path, text: str) -> None:
    """The start does not go on with a key that is none."""
    path = tmp_path / "audit.key"
    path.write_text(text)
    with pytest.raises(ValueError, match="does not hold a key of 64 characters"):
        key_in(path)
