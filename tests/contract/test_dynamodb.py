"""What only DynamoDB has: how items lie in the table, contention, lost answers and refusals."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.stub import Stubber

from infra.table import Check, Delete, Put
from infra.table.dynamodb import DynamoTable, Patience, dice
from router.errors import AutopilotError, Stale, StoreUnavailable
from tests.contract.conftest import Server
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY, OTHER = ("thing", "one"), ("thing", "two")
RAW_KEY = {"pk": {"S": "thing"}, "sk": {"S": "one"}}


class TestStored:
    """The table itself, seen past the adapter."""

    @pytest.fixture
    async def table(self, ministack: Server, tmp_path: Path, clock: FakeClock) -> AsyncIterator[DynamoTable]:
        """Give an empty table on MiniStack."""
        made = DynamoTable(tmp_path.name, clock, client=ministack.client)
        await made.create()
        yield made
        await made.close()

    async def test_create(self, table: DynamoTable, ministack: Server, tmp_path: Path) -> None:
        """The table is billed by request and expires by `ttl`; making it again changes nothing."""
        await table.put(KEY, {})
        await table.create()
        assert await table.get(KEY)
        about = ministack.client.describe_table(TableName=tmp_path.name)["Table"]
        assert about["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        expiry = ministack.client.describe_time_to_live(TableName=tmp_path.name)["TimeToLiveDescription"]
        assert (expiry["TimeToLiveStatus"], expiry["AttributeName"]) == ("ENABLED", "ttl")

    @pytest.mark.parametrize("how", [{}, {"if_revision": 0}], ids=["overwrite", "if absent"])
    async def test_expiry(
        self, table: DynamoTable, ministack: Server, tmp_path: Path, how: dict[str, int]
    ) -> None:
        """`ttl` is in whole seconds and rounded up: DynamoDB never deletes what is still alive."""
        await table.put(KEY, {"a": "é"}, expires_at=5_000_000_000.25, **how)
        raw = ministack.client.get_item(TableName=tmp_path.name, Key=RAW_KEY)["Item"]
        mark = raw.pop("mark")
        assert mark["S"].startswith("w_")
        assert raw == {
            **RAW_KEY,
            "doc": {"S": '{"a":"é"}'},
            "rev": {"N": "1"},
            "exp": {"N": "5000000000.25"},
            "ttl": {"N": "5000000001"},
        }

    async def test_own_client(self, table: DynamoTable, ministack: Server, clock: FakeClock) -> None:
        """Without a client the table makes its own, from the address and the environment."""
        own = DynamoTable("of-its-own", clock, endpoint_url=ministack.url)
        await own.create()
        assert await own.put(KEY, {}) == 1
        await own.close()

    async def test_given_client_stays_open(self, table: DynamoTable, ministack: Server) -> None:
        """Closing the table leaves a client that was given to it usable."""
        await table.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await table.get(KEY)
        assert ministack.client.list_tables()["TableNames"]


class TestLostAnswers:
    """A write that was done though its answer never came."""

    @pytest.fixture
    def lossy(self, ministack: Server) -> Iterator[str]:
        """Give the address of a wire to MiniStack that swallows the first answer to a PutItem."""
        wire = Wire(int(ministack.url.rpartition(":")[2]), b"PutItem")
        yield wire.url
        wire.close()

    async def test_our_own_write_is_not_in_the_way(
        self, lossy: str, ministack: Server, tmp_path: Path, clock: FakeClock
    ) -> None:
        """A conditional put that boto3 repeats succeeds, though by then the condition does not hold."""
        made = DynamoTable(tmp_path.name, clock, client=ministack.client)
        await made.create()
        table = DynamoTable(tmp_path.name, clock, endpoint_url=lossy)
        assert await table.put(KEY, {"n": 1}, if_revision=0) == 1
        assert await table.put(KEY, {"n": 2}, if_revision=1) == 2
        with pytest.raises(Stale):
            await table.put(KEY, {"n": 3}, if_revision=1)
        await table.close()
        await made.close()

    async def test_somebody_elses_write_is(
        self, lossy: str, ministack: Server, tmp_path: Path, clock: FakeClock
    ) -> None:
        """A repeated put is stale all the same when what is there was written by somebody else."""
        made = DynamoTable(tmp_path.name, clock, client=ministack.client)
        await made.create()
        await made.put(KEY, {"by": "else"})
        table = DynamoTable(tmp_path.name, clock, endpoint_url=lossy)
        with pytest.raises(Stale):
            await table.put(KEY, {"by": "me"}, if_revision=0)
        await table.close()
        await made.close()


class Wire:
    """Passes bytes between its clients and a port, but hangs up instead of passing one answer on."""

    def __init__(self, port: int, swallow: bytes) -> None:
        self._port = port
        self._swallow = swallow
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        """Hang up everywhere and wait for all threads."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, work: Callable[..., None], *values: object) -> None:
        thread = threading.Thread(target=work, args=values)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, far]
                cut = threading.Event()
                self._start(self._pass, near, far, cut)
                self._start(self._answer, far, near, cut)

    def _pass(self, near: socket.socket, far: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if self._swallow and self._swallow in data:
                    self._swallow = b""
                    cut.set()
                far.sendall(data)

    def _answer(self, far: socket.socket, near: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while (data := far.recv(65536)) and not cut.is_set():
                near.sendall(data)
            near.shutdown(socket.SHUT_RDWR)


class TestRefusals:
    """What DynamoDB's errors become. The answers are planned; the client is boto3's own."""

    @pytest.fixture
    def client(self) -> DynamoDBClient:
        """Give a client whose answers the test plans."""
        return boto3.session.Session().client("dynamodb", endpoint_url="http://planned.invalid")

    @pytest.fixture
    def plan(self, client: DynamoDBClient) -> Iterator[Stubber]:
        """Give the plan of answers; in the end every one must have been used."""
        with Stubber(client) as stubber:
            yield stubber
            stubber.assert_no_pending_responses()

    @pytest.fixture
    def waits(self) -> list[float]:
        """Give the list that waits are written to."""
        return []

    @pytest.fixture
    async def table(
        self, client: DynamoDBClient, clock: FakeClock, waits: list[float], plan: Stubber
    ) -> AsyncIterator[DynamoTable]:
        """Give a table over the planned client that notes its waits instead of waiting."""

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        patience = Patience(rounds=4, wait_seconds=0.5)
        made = DynamoTable(
            "planned", clock, client=client, patience=patience, sleep=sleep, jitter=lambda: 0.5
        )
        yield made
        await made.close()

    async def test_conflict_passes(self, table: DynamoTable, plan: Stubber, waits: list[float]) -> None:
        """A transaction that met another one starts over after a random, doubling wait, up to a second."""
        for _ in range(3):
            cancelled(plan, "TransactionConflict", "None")
        plan.add_response("transact_write_items", {})
        assert await table.transact([Delete(KEY), Check(OTHER, 0)]) == [0, 0]
        assert waits == [0.25, 0.5, 0.5]

    async def test_conflict_stays(self, table: DynamoTable, plan: Stubber, waits: list[float]) -> None:
        """When conflicts do not end the store counts as unavailable, after the rounds it was given."""
        for _ in range(4):
            cancelled(plan, "TransactionConflict", "ThrottlingError")
        with pytest.raises(StoreUnavailable, match="TransactionConflict"):
            await table.transact([Delete(KEY), Check(OTHER, 0)])
        assert len(waits) == 3

    async def test_single_write_meets_a_transaction(
        self, table: DynamoTable, plan: Stubber, waits: list[float]
    ) -> None:
        """A plain write that met a transaction starts over too."""
        plan.add_client_error("put_item", "TransactionConflictException")
        plan.add_response("put_item", {})
        assert await table.put(KEY, {}, if_revision=4) == 5
        assert len(waits) == 1

    async def test_condition_outweighs_conflict(
        self, table: DynamoTable, plan: Stubber, waits: list[float]
    ) -> None:
        """A condition of the caller's that failed is `Stale` at once, whatever else went wrong."""
        cancelled(plan, "TransactionConflict", "ConditionalCheckFailed")
        with pytest.raises(Stale, match="thing/two is not at revision 7"):
            await table.transact([Delete(KEY), Check(OTHER, 7)])
        assert waits == []

    async def test_overtaken(self, table: DynamoTable, plan: Stubber, waits: list[float]) -> None:
        """An unconditional put overtaken between reading and writing reads again, and is never `Stale`."""
        for revision in ("1", "2"):
            row = {**RAW_KEY, "rev": {"N": revision}}
            plan.add_response("batch_get_item", {"Responses": {"planned": [row]}})
            if revision == "1":
                cancelled(plan, "ConditionalCheckFailed", "None")
        plan.add_response("transact_write_items", {})
        assert await table.transact([Put(KEY, {}), Check(OTHER, 0)]) == [3, 0]
        assert len(waits) == 1

    async def test_expired_then_overtaken(
        self, table: DynamoTable, plan: Stubber, waits: list[float]
    ) -> None:
        """An unconditional put over an expired item that somebody replaces meanwhile starts over."""
        plan.add_client_error("update_item", "ConditionalCheckFailedException")
        plan.add_client_error("put_item", "ConditionalCheckFailedException")
        plan.add_response("update_item", {"Attributes": {"rev": {"N": "2"}}})
        assert await table.put(KEY, {}) == 2
        assert len(waits) == 1

    async def test_read_in_parts(self, table: DynamoTable, plan: Stubber) -> None:
        """Revisions that DynamoDB hands over in parts are all read before the write."""
        left = {"planned": {"Keys": [{"pk": {"S": "thing"}, "sk": {"S": "two"}}]}}
        first = {**RAW_KEY, "rev": {"N": "4"}}
        second = {"pk": {"S": "thing"}, "sk": {"S": "two"}, "rev": {"N": "9"}}
        plan.add_response("batch_get_item", {"Responses": {"planned": [first]}, "UnprocessedKeys": left})
        plan.add_response("batch_get_item", {"Responses": {"planned": [second]}, "UnprocessedKeys": {}})
        plan.add_response("transact_write_items", {})
        assert await table.transact([Put(KEY, {}), Put(OTHER, {})]) == [5, 10]

    async def test_nothing_read(self, table: DynamoTable, plan: Stubber, waits: list[float]) -> None:
        """A read that gives nothing at all, time after time, ends as unavailable."""
        keys: list[Any] = [RAW_KEY, {"pk": {"S": "thing"}, "sk": {"S": "two"}}]
        for _ in range(4):
            plan.add_response(
                "batch_get_item", {"Responses": {}, "UnprocessedKeys": {"planned": {"Keys": keys}}}
            )
        with pytest.raises(StoreUnavailable):
            await table.transact([Put(KEY, {}), Put(OTHER, {})])
        assert len(waits) == 3

    @pytest.mark.parametrize(
        ("code", "says"),
        [
            ("ResourceNotFoundException", "no such table"),
            ("UnrecognizedClientException", "credentials"),
            ("ExpiredTokenException", "expired"),
            ("AccessDeniedException", "may not"),
            ("ProvisionedThroughputExceededException", "ProvisionedThroughputExceededException"),
            ("ThrottlingException", "ThrottlingException"),
            ("InternalServerError", "InternalServerError"),
        ],
    )
    async def test_unavailable(self, table: DynamoTable, plan: Stubber, code: str, says: str) -> None:
        """Other refusals are `StoreUnavailable`: they name table and reason, not what DynamoDB wrote."""
        plan.add_client_error(
            "get_item", code, "User: arn:aws:iam::123456789012:user/secret is not authorised"
        )
        with pytest.raises(StoreUnavailable, match=says) as caught:
            await table.get(KEY)
        assert "planned" in caught.value.detail
        assert "secret" not in told(caught.value)

    @pytest.mark.parametrize("beside", ["None", "TransactionConflict"])
    async def test_cancelled_for_another_reason(
        self, table: DynamoTable, plan: Stubber, waits: list[float], beside: str
    ) -> None:
        """A transaction cancelled for a reason that will not pass is unavailable at once."""
        cancelled(plan, beside, "ValidationError")
        with pytest.raises(StoreUnavailable, match="ValidationError"):
            await table.transact([Delete(KEY), Check(OTHER, 0)])
        assert waits == []


class TestReach:
    """No answer at all. Every verb is tried against a closed port in `test_table.py`."""

    async def test_no_credentials(
        self, ministack: Server, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without credentials the store is unavailable, and the message says why."""
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        table = DynamoTable("any", clock, endpoint_url=ministack.url)
        with pytest.raises(StoreUnavailable, match="NoCredentialsError"):
            await table.get(KEY)
        await table.close()

    async def test_silence(self, clock: FakeClock) -> None:
        """A server that accepts and says nothing is given up after the read time, with no address told."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://name:secret@127.0.0.1:{silent.getsockname()[1]}"
            table = DynamoTable("any", clock, endpoint_url=url, patience=Patience(read_seconds=0.1, sends=1))
            with pytest.raises(StoreUnavailable, match="ReadTimeoutError") as caught:
                await table.get(KEY)
            assert "secret" not in told(caught.value)
            await table.close()

    async def test_missing_table(self, ministack: Server, clock: FakeClock) -> None:
        """A table that was never made is unavailable to reads, writes and transactions."""
        table = DynamoTable("never-made", clock, client=ministack.client)
        for call in (
            lambda: table.get(KEY),
            lambda: table.put(KEY, {}),
            lambda: table.transact([Put(KEY, {}), Delete(OTHER)]),
        ):
            with pytest.raises(StoreUnavailable, match="no such table"):
                await call()
        await table.close()


def cancelled(plan: Stubber, *codes: str) -> None:
    """Plan a cancelled transaction with these reasons."""
    plan.add_client_error(
        "transact_write_items",
        "TransactionCanceledException",
        modeled_fields={"CancellationReasons": [{"Code": code} for code in codes]},
    )


def told(error: AutopilotError) -> str:
    """Return everything of an error that callers may see."""
    return f"{error} {error.detail} {error.extra}"


def test_dice() -> None:
    """The dice give numbers from 0 up to 1, and not always the same."""
    rolls = [dice() for _ in range(100)]
    assert all(0 <= roll < 1 for roll in rolls)
    assert len(set(rolls)) > 90
