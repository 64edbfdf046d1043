"""How an item is stored in DynamoDB, and the verbs of the table as blocking requests.

An item has `pk` and `sk` (the key), `doc` (the document as JSON text), `rev` (its revision), `mark` (an id
of the write that made it) and, when it expires, `exp` (the exact instant, which we filter on) and `ttl`
(whole seconds, rounded up, which DynamoDB deletes by, hours late).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from infra.clock import Clock, NewId
from infra.table import Check, Delete, Item, Key, Page, Put, Write
from infra.table.dynamodb_connection import Contended, reasons, sent_again
from router.errors import Stale

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")
Attributes = dict[str, Any]

_LIVE = "(attribute_not_exists(exp) OR exp > :now)"
_ABSENT = "(attribute_not_exists(pk) OR exp <= :now)"

_READ_AHEAD = 100
"""Items a range asks for at least, once it met expired ones: fewer requests where many have expired."""


class Ask(Protocol):
    """Does one request; `Connection.ask` is it."""

    def __call__(self, request: Callable[[DynamoDBClient], T]) -> T:
        """Return what the request returns. Raises `Stale`, `Contended` or `StoreUnavailable`."""
        ...


class Requests:
    """Each verb may be started over after `Contended`."""

    def __init__(self, table: str, clock: Clock, ask: Ask, new_mark: NewId) -> None:
        self._table = table
        self._clock = clock
        self._ask = ask
        self._new_mark = new_mark

    def get(self, key: Key) -> Item | None:
        """Return the item unless it has expired."""
        found = self._ask(
            lambda db: db.get_item(TableName=self._table, Key=_key(key), ConsistentRead=True)
        ).get("Item")
        return _item(found) if found and self._live(found) else None

    def delete(self, key: Key, if_revision: int | None) -> bool:
        """Remove the item and return whether there was one that had not expired."""
        condition = _condition(if_revision, self._clock())
        try:
            was = self._ask(
                lambda db: db.delete_item(
                    TableName=self._table, Key=_key(key), ReturnValues="ALL_OLD", **condition
                )
            ).get("Attributes")
        except Stale as error:
            raise _stale(key, if_revision) from error
        return was is not None and self._live(was)

    def range(self, partition: str, after: str | None, limit: int, *, reverse: bool) -> Page:
        """Read on until there is one item more than asked for, or no more."""
        query = _query(self._table, partition, after, reverse=reverse, now=self._clock())
        query["Limit"] = limit + 1
        items: list[Item] = []
        while len(items) <= limit:
            answer = self._ask(lambda db: db.query(**query))
            items += [_item(found) for found in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                break
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
            query["Limit"] = max(limit + 1 - len(items), _READ_AHEAD)
        return Page(items[:limit], items[limit - 1].key[1] if len(items) > limit else None)

    def write(self, write: Write, body: bytes) -> int:
        """Do one write by itself; `body` is the document of a put as JSON."""
        if isinstance(write, Put):
            return self._put(write, body)
        if isinstance(write, Delete):
            self.delete(write.key, write.if_revision)
        elif self._revisions([write.key]).get(write.key, 0) != write.if_revision:
            raise _stale(write.key, write.if_revision)
        return 0

    def transact(self, writes: Sequence[Write], bodies: Sequence[bytes]) -> list[int]:
        """Do several writes. DynamoDB does not tell new revisions, so those not given are read before.

        They become conditions too; when one of those fails, somebody wrote in between: `Contended`.
        """
        unknown = [write.key for write in writes if isinstance(write, Put) and write.if_revision is None]
        seen = self._revisions(unknown)
        expected = [seen.get(w.key, 0) if w.key in unknown else w.if_revision for w in writes]
        now = self._clock()
        actions = [
            self._action(write, body, revision, now)
            for write, body, revision in zip(writes, bodies, expected, strict=True)
        ]
        try:
            self._ask(lambda db: db.transact_write_items(TransactItems=actions))
        except Stale as error:
            for write, reason in zip(writes, reasons(error.__cause__), strict=True):
                if reason == "ConditionalCheckFailed" and write.if_revision is not None:
                    raise _stale(write.key, write.if_revision) from error
            raise Contended(f"table {self._table}: others keep writing the same items") from error
        return [(was or 0) + 1 if isinstance(w, Put) else 0 for w, was in zip(writes, expected, strict=True)]

    def create(self) -> None:
        """Make the table and turn expiry on, whichever is missing."""
        self._ask(lambda db: _create(db, self._table))

    def _put(self, put: Put, body: bytes) -> int:
        if put.if_revision is not None:
            return self._put_if(put, body, put.if_revision)
        try:
            return self._overwrite(put, body)
        except Stale:  # what is there has expired, so the count starts again
            try:
                return self._put_if(put, body, 0)
            except Stale as error:
                raise Contended(f"table {self._table}: others keep writing the same item") from error

    def _put_if(self, put: Put, body: bytes, revision: int) -> int:
        item = _attributes(put, body, revision + 1, self._new_mark("w"))
        condition = _condition(revision, self._clock())
        try:
            self._ask(lambda db: db.put_item(TableName=self._table, Item=item, **condition))
        except Stale as error:
            # boto3 repeats a request whose answer was lost, and then our own write stands in its way.
            if not (sent_again(error.__cause__) and self._mark(put.key) == item["mark"]):
                raise _stale(put.key, revision) from error
        return revision + 1

    def _overwrite(self, put: Put, body: bytes) -> int:
        update = _update(put, body, self._new_mark("w"), self._clock())
        answer = self._ask(lambda db: db.update_item(TableName=self._table, Key=_key(put.key), **update))
        return int(answer["Attributes"]["rev"]["N"])

    def _action(self, write: Write, body: bytes, expected: int | None, now: float) -> Any:
        where = {"TableName": self._table, **_condition(expected, now)}
        if isinstance(write, Put):
            item = _attributes(write, body, (expected or 0) + 1, self._new_mark("w"))
            return {"Put": {**where, "Item": item}}
        return {"ConditionCheck" if isinstance(write, Check) else "Delete": {**where, "Key": _key(write.key)}}

    def _revisions(self, keys: Sequence[Key]) -> dict[Key, int]:
        found: dict[Key, int] = {}
        wanted: Any = {"ConsistentRead": True, "ProjectionExpression": "pk, sk, rev, exp"}
        wanted["Keys"] = [_key(key) for key in keys]
        while asked := len(wanted["Keys"]):
            answer = self._ask(lambda db: db.batch_get_item(RequestItems={self._table: wanted}))
            for row in filter(self._live, answer["Responses"].get(self._table, [])):
                found[row["pk"]["S"], row["sk"]["S"]] = int(row["rev"]["N"])
            left = answer.get("UnprocessedKeys", {})
            wanted["Keys"] = left[self._table]["Keys"] if left else []
            if len(wanted["Keys"]) == asked:
                raise Contended(f"table {self._table}: DynamoDB reads nothing just now")
        return found

    def _mark(self, key: Key) -> Any:
        answer = self._ask(lambda db: db.get_item(TableName=self._table, Key=_key(key), ConsistentRead=True))
        return answer.get("Item", {}).get("mark")

    def _live(self, attributes: Mapping[str, Any]) -> bool:
        return "exp" not in attributes or float(attributes["exp"]["N"]) > self._clock()


def _stale(key: Key, revision: int | None) -> Stale:
    return Stale(f"{'/'.join(key)} is not at revision {revision}")


def _key(key: Key) -> Attributes:
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


def _number(value: float) -> Attributes:
    return {"N": repr(value)}


def _attributes(put: Put, body: bytes, revision: int, mark: str) -> Attributes:
    item = {**_key(put.key), "doc": {"S": body.decode()}, "rev": _number(revision), "mark": {"S": mark}}
    if put.expires_at is not None:
        item |= {"exp": _number(put.expires_at), "ttl": _number(math.ceil(put.expires_at))}
    return item


def _item(attributes: Mapping[str, Any]) -> Item:
    return Item(
        (attributes["pk"]["S"], attributes["sk"]["S"]),
        msgspec.json.decode(attributes["doc"]["S"]),
        int(attributes["rev"]["N"]),
        float(attributes["exp"]["N"]) if "exp" in attributes else None,
    )


def _condition(revision: int | None, now: float) -> Attributes:
    if revision is None:
        return {}
    values = {":now": _number(now)}
    if revision == 0:
        return {"ConditionExpression": _ABSENT, "ExpressionAttributeValues": values}
    values[":rev"] = _number(revision)
    return {"ConditionExpression": f"rev = :rev AND {_LIVE}", "ExpressionAttributeValues": values}


def _update(put: Put, body: bytes, mark: str, now: float) -> Attributes:
    """Return an update of an item that is absent or has not expired: the revision goes up by one."""
    values = {":doc": {"S": body.decode()}, ":mark": {"S": mark}, ":one": _number(1), ":now": _number(now)}
    expiry = "REMOVE exp, #ttl"
    if put.expires_at is not None:
        values |= {":exp": _number(put.expires_at), ":ttl": _number(math.ceil(put.expires_at))}
        expiry = ", exp = :exp, #ttl = :ttl"
    return {
        "UpdateExpression": f"SET doc = :doc, mark = :mark {expiry} ADD rev :one",
        "ConditionExpression": _LIVE,
        "ExpressionAttributeNames": {"#ttl": "ttl"},
        "ExpressionAttributeValues": values,
        "ReturnValues": "UPDATED_NEW",
    }


def _query(table: str, partition: str, after: str | None, *, reverse: bool, now: float) -> Attributes:
    condition, values = "pk = :pk", {":pk": {"S": partition}, ":now": _number(now)}
    if after is not None:
        condition += " AND sk < :after" if reverse else " AND sk > :after"
        values[":after"] = {"S": after}
    return {
        "TableName": table,
        "ConsistentRead": True,
        "KeyConditionExpression": condition,
        "FilterExpression": _LIVE,
        "ExpressionAttributeValues": values,
        "ScanIndexForward": not reverse,
    }


def _create(db: DynamoDBClient, table: str) -> None:
    with suppress(db.exceptions.ResourceInUseException):  # it is there, or somebody else is making it
        db.create_table(
            TableName=table,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
    db.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    expiry = db.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    if expiry.get("TimeToLiveStatus") not in {"ENABLED", "ENABLING"}:
        db.update_time_to_live(
            TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
        )
