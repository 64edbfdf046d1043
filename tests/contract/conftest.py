"""The adapters the contract suites run on, and a MiniStack server for the session."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import boto3
import pytest
from moto import mock_aws

from infra.blobs import Blobs
from infra.blobs.folder import FolderBlobs
from infra.table import Table
from infra.table.dynamodb import DynamoTable, Patience
from infra.table.sqlite import SqliteTable
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

START_SECONDS = 30
"""How long MiniStack may take to answer; it takes under one on an idle machine."""


class Server(NamedTuple):
    """A running MiniStack and a client of it that all tests share."""

    url: str
    client: DynamoDBClient


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give boto3 credentials that open nothing, whatever the developer's environment holds."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands in the year 2100: MiniStack deletes what has expired by the real clock."""
    return FakeClock(4_102_444_800.0)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run MiniStack on a free loopback port until the session ends."""
    home, port = tmp_path_factory.mktemp("ministack"), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",  # would listen on every interface
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack"], env=environment, stdout=log, stderr=log, cwd=home
        )
        try:
            _wait_for(port, process, home / "log")
            client = _client(f"http://127.0.0.1:{port}")
            yield Server(f"http://127.0.0.1:{port}", client)
            client.close()
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def moto_client() -> DynamoDBClient:
    """Give a client for use inside `mock_aws`; making one for each test would cost more than the tests."""
    return _client(None)


def _client(url: str | None) -> DynamoDBClient:
    return boto3.session.Session("test", "test", region_name="us-east-1").client("dynamodb", endpoint_url=url)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"MiniStack does not listen on {port}: {log.read_text()[-2000:]}")


@pytest.fixture(params=["sqlite", "moto", "ministack"])
async def table(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[SqliteTable | DynamoTable]:
    """Give an empty table on each adapter, DynamoDB's both on moto and on MiniStack."""
    if request.param == "sqlite":
        sqlite = SqliteTable(tmp_path / "table.db", clock)
        yield sqlite
        await sqlite.close()
    elif request.param == "moto":
        client: DynamoDBClient = request.getfixturevalue("moto_client")
        with mock_aws():
            dynamodb = DynamoTable("contract", clock, client=client)
            await dynamodb.create()
            yield dynamodb
            await dynamodb.close()
    else:
        server: Server = request.getfixturevalue("ministack")
        dynamodb = DynamoTable(tmp_path.name, clock, client=server.client)
        await dynamodb.create()
        yield dynamodb
        await dynamodb.close()


@pytest.fixture(params=["sqlite", "ministack"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Table]:
    """Give a table for many threads at once. Not on moto: it loses updates then, which is its own fault."""
    if request.param == "sqlite":
        sqlite = SqliteTable(tmp_path / "table.db", clock)
        yield sqlite
        await sqlite.close()
    else:
        server: Server = request.getfixturevalue("ministack")
        dynamodb = DynamoTable(tmp_path.name, clock, client=server.client)
        await dynamodb.create()
        yield dynamodb
        await dynamodb.close()


@pytest.fixture(params=["sqlite closed", "dynamodb closed", "dynamodb nobody listens"])
async def down(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Table]:
    """Give a table whose store cannot be reached."""
    if request.param == "sqlite closed":
        sqlite = SqliteTable(tmp_path / "table.db", clock)
        await sqlite.close()
        yield sqlite
        return
    quick = Patience(connect_seconds=0.2, read_seconds=0.2, sends=1)
    dynamodb = DynamoTable("down", clock, endpoint_url=f"http://127.0.0.1:{free_port()}", patience=quick)
    if request.param == "dynamodb closed":
        await dynamodb.close()
    yield dynamodb
    await dynamodb.close()


@pytest.fixture(params=["folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Give an empty blob store on each adapter."""
    assert request.param == "folder"
    return FolderBlobs(tmp_path / "blobs")
