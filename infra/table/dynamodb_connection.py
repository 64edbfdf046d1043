"""The boto3 client under the DynamoDB table, and what its errors mean to us."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from router.errors import AutopilotError, Stale, StoreUnavailable

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

_CONTENTION = {
    "ProvisionedThroughputExceeded",
    "ThrottlingError",
    "TransactionConflict",
    "TransactionConflictException",
    "TransactionInProgressException",
}
"""Refusals because of other writers: nothing was written, and starting over helps."""

_HINTS = {
    "AccessDeniedException": "these credentials may not do that",
    "ExpiredTokenException": "the credentials have expired",
    "InvalidSignatureException": "the credentials were refused",
    "ResourceNotFoundException": "there is no such table",
    "UnrecognizedClientException": "the credentials were refused",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try before the store counts as unavailable.

    `connect_seconds` and `read_seconds` bound one exchange. `sends` is how often boto3 sends a request that
    was lost, was throttled or met a 5xx. `rounds` is how often we start over because of other writers; the
    wait before is random, up to `wait_seconds` doubled each time, never over a second. `threads` is how
    many requests may be under way at once.
    """

    connect_seconds: float = 1.0
    read_seconds: float = 3.0
    sends: int = 3
    rounds: int = 10
    wait_seconds: float = 0.02
    threads: int = 8


class Contended(StoreUnavailable):
    """Raise when other writers were in the way and nothing was written: start over."""


class Connection:
    """The client, made at first use by whichever thread comes first, unless one is given."""

    def __init__(
        self, table: str, client: DynamoDBClient | None, endpoint_url: str | None, patience: Patience
    ) -> None:
        self._table = table
        self._given = client
        self._made: DynamoDBClient | None = None
        self._endpoint_url = endpoint_url
        self._patience = patience
        self._making = threading.Lock()

    def ask(self, request: Callable[[DynamoDBClient], T]) -> T:
        """Do one request. Raises `Stale`, `Contended` or `StoreUnavailable`, never an error of boto3's."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request(self._client())
        except ClientError as error:
            raise _meaning(self._table, error) from error
        except BotoCoreError as error:
            # Its text may hold an address or what came from there; its name says enough.
            text = f"table {self._table}: DynamoDB cannot be used ({type(error).__name__})"
            raise StoreUnavailable(text) from error

    def close(self) -> None:
        """Close the client we made."""
        if self._made:
            self._made.close()

    def _client(self) -> DynamoDBClient:
        if self._given:
            return self._given
        with self._making:
            if self._made is None:
                self._made = _make(self._endpoint_url, self._patience)
            return self._made


def sent_again(error: BaseException | None) -> bool:
    """Tell whether boto3 sent the refused request more than once."""
    response = getattr(error, "response", {})
    return bool(response.get("ResponseMetadata", {}).get("RetryAttempts"))


def reasons(error: BaseException | None) -> list[str]:
    """Return for each write of a cancelled transaction why it was refused, `None` for one that was not."""
    response = getattr(error, "response", {})
    return [reason.get("Code", "None") for reason in response.get("CancellationReasons", [])]


def _make(endpoint_url: str | None, patience: Patience) -> DynamoDBClient:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.read_seconds,
        retries={"mode": "standard", "total_max_attempts": patience.sends},
        max_pool_connections=patience.threads,
    )
    return boto3.session.Session().client("dynamodb", endpoint_url=endpoint_url, config=config)


def _meaning(table: str, error: ClientError) -> AutopilotError:
    code = error.response.get("Error", {}).get("Code", "no code")
    codes = set(reasons(error)) - {"None"} if code == "TransactionCanceledException" else {code}
    if codes & {"ConditionalCheckFailed", "ConditionalCheckFailedException"}:
        return Stale(f"table {table}: a condition does not hold")
    if codes and codes <= _CONTENTION:
        return Contended(f"table {table}: too many writers at once ({', '.join(sorted(codes))})")
    text = f"table {table}: DynamoDB refused, {', '.join(sorted(codes)) or code}"
    return StoreUnavailable(f"{text}: {_HINTS[code]}" if code in _HINTS else text)
