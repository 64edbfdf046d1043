"""What a refusal means: by product, operation and code, never by the code alone."""

from __future__ import annotations

import pytest

from infra.cloudflare import failures
from infra.cloudflare.failures import (
    TABLE,
    BadToken,
    CloudflareError,
    Denied,
    Exists,
    Full,
    Incomplete,
    Missing,
    NotEnabled,
    Refused,
    Throttled,
    Trouble,
    Unknown,
    Unsupported,
    WrongAccount,
    WrongPlace,
    failure,
    kind_of,
)
from infra.provider import ProviderFailed, Unread, unread

LOCATION = "Cannot use the access token from location: 203.0.113.7"
NAMED = "Actor 'com.cloudflare.api.token.1' requires permission 'com.cloudflare.api.account.zone.list'"


@pytest.mark.parametrize(
    ("product", "operation", "status", "code", "message", "error"),
    [
        # one number, several products
        ("kv", "create", 400, 10014, "title exists", Exists),
        ("workers", "list", 500, 10014, "internal error in authorization checks", Unknown),
        ("kv", "list", 400, 10014, "title exists", Refused),
        ("r2", "create", 409, 10004, "exists", Exists),
        ("r2", "create", 400, 10004, "exists", Exists),
        ("workers", "upload", 400, 10004, "malformed URL parameter", Refused),
        ("r2", "get", 404, 10006, "no such bucket", Missing),
        ("workers", "upload", 400, 10006, "unparseable script body", Refused),
        ("r2", "create", 400, 10009, "too many", Full),
        ("kv", "get", 404, 10009, "key not found", Missing),
        # every product
        ("kv", "list", 403, 10000, "Authentication error", Denied),
        ("kv", "list", 401, 10000, "Authentication error", Denied),
        ("kv", "create", 405, 10000, "POST method not allowed for api_token", Unsupported),
        ("kv", "create", 405, 10405, "method not allowed", Unsupported),
        ("r2", "get", 405, 7001, "Method PATCH not available for that URI", Unsupported),
        ("tokens", "details", 403, 9109, "Unauthorized to access requested resource", Denied),
        ("kv", "list", 403, 9109, LOCATION, WrongPlace),
        ("kv", "list", 403, 0, NAMED, Denied),
        ("kv", "list", 400, 6003, "Invalid request headers", BadToken),
        ("kv", "list", 400, 9106, "Authentication failed", BadToken),
        ("tokens", "verify", 401, 1000, "Invalid API Token", BadToken),
        ("tokens", "verify", 400, 1000, "Invalid API Token", BadToken),
        ("tokens", "verify", 400, 1001, "missing", BadToken),
        ("kv", "list", 404, 7003, "Could not route", WrongAccount),
        ("kv", "list", 429, 971, "throttling", Throttled),
        ("kv", "list", 400, 971, "throttling", Throttled),
        ("kv", "list", 429, 0, "", Throttled),
        ("kv", "list", 429, 10000, "whatever it says", Throttled),
        # one product
        ("kv", "create", 400, 10019, "title required", Refused),
        ("kv", "get", 404, 10013, "namespace not found", Missing),
        ("r2", "list", 403, 10042, "Please enable R2", NotEnabled),
        ("r2", "create", 409, 10073, "conflict", Exists),
        ("r2", "create", 400, 10005, "invalid name", Refused),
        ("r2", "list", 401, 10002, "unauthorized", Denied),
        ("r2", "list", 403, 10003, "access denied", Denied),
        ("r2", "list", 429, 10058, "rate", Throttled),
        ("r2", "list", 500, 10001, "internal", Unknown),
        ("r2", "list", 503, 10043, "unavailable", Unknown),
        ("workers", "settings", 404, 10007, "not found", Missing),
        ("workers", "subdomain", 404, 10007, "no subdomain", NotEnabled),
        ("workers", "list", 403, 10015, "not authorised", NotEnabled),
        ("workers", "upload", 400, 10063, "no subdomain", NotEnabled),
        ("workers", "route", 403, 10034, "email_verification_required", NotEnabled),
        ("workers", "upload", 403, 10075, "paid plan", NotEnabled),
        ("workers", "upload", 403, 10023, "unauthorized", Denied),
        ("workers", "upload", 500, 10002, "internal", Unknown),
        ("workers", "upload", 400, 10021, "validation", Refused),
        ("workers", "upload", 400, 10068, "validation", Refused),
        ("workers", "upload", 413, 10027, "too large", Full),
        ("d1", "create", 400, 7502, "exists", Exists),
        ("d1", "create", 400, 7406, "limit", Full),
        ("d1", "get", 404, 7404, "not found", Missing),
        ("d1", "create", 400, 7400, "invalid property", Refused),
        ("queues", "create", 409, 11009, "taken", Exists),
        ("queues", "create", 400, 11003, "invalid name", Refused),
        # nothing but a status
        ("kv", "list", 401, 0, "", BadToken),
        ("kv", "list", 403, 0, "", Denied),
        ("kv", "list", 404, 0, "", Missing),
        ("kv", "list", 405, 0, "", Unsupported),
        ("kv", "list", 408, 0, "", Unknown),
        ("kv", "list", 418, 0, "", Refused),
        ("kv", "list", 502, 0, "", Unknown),
        ("kv", "list", 302, 0, "", Unknown),
        ("kv", "list", 200, 12345, "success is false", Unknown),
    ],
)
def test_an_answer_has_its_class(
    product: str, operation: str, status: int, code: int, message: str, error: type[CloudflareError]
) -> None:
    """The class follows from all that is known of an answer; the code is kept, and shown in the text."""
    found = failure(product, operation, status, [Trouble(code, message)])
    assert type(found) is error
    assert found.number == (code or None)
    assert found.hint
    if code:
        assert found.detail == f"{message} [code: {code}]"
        assert found.word == str(code)


def test_every_row_of_the_table_is_reached() -> None:
    """No row stands behind another that always fits before it."""
    for row in TABLE:
        product, operation = row.product or "kv", row.operation or "list"
        status = row.status or 400
        found = failure(product, operation, status, [Trouble(row.code, row.says)])
        assert type(found) is row.error, row


def test_a_permission_that_an_endpoint_names_is_quoted() -> None:
    """Some answers say what is missing in words: they reach the report."""
    assert "account.zone.list" in failure("accounts", "list", 403, [Trouble(0, NAMED)]).detail


def test_of_several_errors_the_first_that_is_known_decides() -> None:
    """A general remark in front of the reason does not hide it."""
    found = failure("r2", "list", 403, [Trouble(0, "request failed"), Trouble(10042, "Please enable R2")])
    assert isinstance(found, NotEnabled)


def test_an_answer_without_any_error_is_told_by_its_status() -> None:
    """A failure that lists no errors still says something."""
    found = failure("kv", "list", 503, [])
    assert isinstance(found, Unknown)
    assert found.detail == "HTTP 503 without a message"
    assert found.word == "unknown"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (Denied, "Workers KV Storage"),
        (NotEnabled, "dashboard"),
        (WrongPlace, "IP condition"),
        (WrongAccount, "32 hexadecimal digits"),
        (BadToken, "Copy the token again"),
    ],
)
def test_what_a_person_has_to_do_is_said(error: type[CloudflareError], word: str) -> None:
    """Each situation of a token has a sentence of its own."""
    assert any(row.error is error and word in row.hint for row in TABLE)


def test_how_far_a_failure_reaches() -> None:
    """A bad token ends everything, a missing permission its kind, a taken name only itself."""
    classes = [
        one for one in vars(failures).values() if isinstance(one, type) and issubclass(one, CloudflareError)
    ]
    reaches = {one.__name__: one("x").reach for one in classes}
    assert {name for name, reach in reaches.items() if reach == "all"} == {
        "BadToken",
        "WrongPlace",
        "WrongAccount",
        "Throttled",
    }
    assert {name for name, reach in reaches.items() if reach == "kind"} == {"Denied", "NotEnabled", "Full"}
    assert all(issubclass(one, ProviderFailed) for one in classes)
    assert {one.__name__ for one in classes if one.retryable} == {
        "Unknown",
        "Throttled",
        "Incomplete",
        "Garbled",
    }


@pytest.mark.parametrize(
    "error",
    [
        failure("kv", "list", 403, [Trouble(10000, "Authentication error")]),
        failure("r2", "list", 403, [Trouble(10042, "Please enable R2")]),
        failure("kv", "list", 403, [Trouble(9109, LOCATION)]),
        failure("kv", "list", 403, [Trouble(9109, "Unauthorized")]),
        failure("kv", "list", 403, []),
        failure("kv", "list", 502, []),
        Incomplete("no end"),
        WrongAccount("none"),
    ],
)
def test_a_reported_failure_is_known_again(error: CloudflareError) -> None:
    """From what an inventory says could not be read, the class can be told."""
    expected = Unknown if isinstance(error, Unknown) else type(error)
    assert kind_of("r2" if error.number == 10042 else "kv", unread(error)) is expected


def test_what_others_report_is_not_known() -> None:
    """A word that is none of ours says nothing about permissions."""
    assert kind_of("kv", Unread("store_unavailable", "", "")) is Unknown
    assert kind_of("kv", Unread("99999", "", "")) is Unknown
