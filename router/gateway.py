"""HTTP events of AWS made into what Mangum takes without fail, or refused.

An event is not the caller's, but much in it is: a Host header without a number where a port should be, a body
that is no base64, and Mangum raises before any app could answer. So each of the shapes below is read strictly
and made anew out of what was found, and everything else is malformed.

    a function URL, an HTTP API       payload 2.0
    a REST API, an HTTP API           payload 1.0
    a load balancer                   headers with one value each, or with several
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from router.errors import AutopilotError, Malformed
from router.headers import check_single
from router.problem import MEDIA_TYPE, document_of, status_of
from router.trace import Trace

_METHOD = re.compile(r"[A-Z]{1,20}")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DOMAIN = re.compile(r"[A-Za-z0-9._-]{1,253}")
_HOST = re.compile(rf"{_DOMAIN.pattern}(?::([0-9]{{1,5}}))?")
_PORT = re.compile(r"([0-9]{1,5})")
_SCHEMES = ("http", "https")

Fields = list[tuple[str, str]]


class Request(NamedTuple):
    """An event for Mangum, which has the caller's address under `client` too.

    `domain` is where the event says the function is reached, empty for a load balancer, which does not.
    """

    event: dict[str, Any]
    domain: str


def read(event: object) -> Request:
    """Return an HTTP event as a request. Raises `Malformed`."""
    context = event.get("requestContext") if isinstance(event, dict) else None
    if isinstance(event, dict) and isinstance(context, dict):
        if "elb" in context:
            return _from_load_balancer(event)
        if event.get("version") == "2.0":
            return _from_payload_2(event, context)
        if event.get("version", "1.0") == "1.0" and "httpMethod" in event:
            return _from_payload_1(event, context)
    raise Malformed("this is no event of a function URL, an API or a load balancer")


def refusal(event: object, error: AutopilotError) -> dict[str, Any]:
    """Return an error as the answer to an event, whatever the event is."""
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", "x-content-type-options": "nosniff"}
    several = isinstance(event, dict) and "multiValueHeaders" in event
    return {
        "statusCode": status_of(error),
        **({"multiValueHeaders": {k: [v] for k, v in headers.items()}} if several else {"headers": headers}),
        "body": msgspec.json.encode(document_of(error, Trace().id)).decode(),
        "isBase64Encoded": False,
    }


def _from_payload_2(event: Mapping[str, Any], context: Mapping[str, Any]) -> Request:
    http = _object(context.get("http"), "requestContext.http")
    fields = _fields(event)
    cookies = event.get("cookies") or []
    if not isinstance(cookies, list):
        raise Malformed("cookies must be a list")
    if cookies:
        fields.append(("cookie", "; ".join(_value(cookie, "a cookie") for cookie in cookies)))
    client = _text(http.get("sourceIp"), "requestContext.http.sourceIp")
    body = _body(event)
    made = {
        "version": "2.0",
        "rawQueryString": _text(event.get("rawQueryString", ""), "rawQueryString"),
        "headers": {name: ", ".join(values) for name, values in _by_name(fields, body).items()},
        "requestContext": {
            "http": {
                "method": _method(http.get("method")),
                "path": _path(http.get("path")),
                "sourceIp": client,
            }
        },
    }
    return _request(made, body, client, _domain(context))


def _from_payload_1(event: Mapping[str, Any], context: Mapping[str, Any]) -> Request:
    identity = _object(context.get("identity"), "requestContext.identity")
    client = _text(identity.get("sourceIp"), "requestContext.identity.sourceIp")
    body = _body(event)
    made = {
        "resource": "/",
        "httpMethod": _method(event.get("httpMethod")),
        "path": _path(event.get("path")),
        "multiValueQueryStringParameters": _query(event),
        "multiValueHeaders": _by_name(_fields(event), body),
        "requestContext": {"identity": {"sourceIp": client}},
    }
    return _request(made, body, client, _domain(context))


def _from_load_balancer(event: Mapping[str, Any]) -> Request:
    body = _body(event)
    headers = _by_name(_fields(event), body)
    # What the caller wrote there itself stands before the address that the load balancer saw.
    client = ", ".join(headers.get("x-forwarded-for", [])).rpartition(",")[2].strip()
    if not client:
        raise Malformed("x-forwarded-for is missing")
    made = {
        "httpMethod": _method(event.get("httpMethod")),
        "path": _path(event.get("path")),
        "multiValueQueryStringParameters": _query(event),
        "requestContext": {"elb": {}},
    }
    if "multiValueHeaders" in event:
        made["multiValueHeaders"] = headers
    else:
        made["headers"] = {name: ", ".join(values) for name, values in headers.items()}
    return _request(made, body, client, "")


def _request(made: dict[str, Any], body: bytes, client: str, domain: str) -> Request:
    return Request({**made, "body": body, "isBase64Encoded": False, "client": client}, domain)


# headers


def _fields(event: Mapping[str, Any]) -> Fields:
    """Return the header fields of an event, names in small letters."""
    several = event.get("multiValueHeaders")
    given = _object(event.get("headers") if several is None else several, "headers")
    fields: Fields = []
    for name, values in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Malformed("the name of a header is none")
        if several is None:
            fields.append((name.lower(), _value(values, f"the header {name}")))
        elif isinstance(values, list):
            fields += [(name.lower(), _value(value, f"the header {name}")) for value in values]
        else:
            raise Malformed(f"the header {name} must be a list")
    return fields


def _by_name(fields: Fields, body: bytes) -> dict[str, list[str]]:
    """Return the values of each header, with the length that the body has."""
    check_single((name.encode(), b"") for name, _ in fields)
    headers: dict[str, list[str]] = {}
    for name, value in fields:
        headers.setdefault(name, []).append(value)
    _check_port(headers.get("host"), _HOST, "host")
    _check_port(headers.get("x-forwarded-port"), _PORT, "x-forwarded-port")
    if ", ".join(headers.get("x-forwarded-proto", ["https"])) not in _SCHEMES:
        raise Malformed("x-forwarded-proto must be http or https")
    headers.pop("transfer-encoding", None)  # here is no transfer any more
    headers["content-length"] = [str(len(body))]
    return headers


def _check_port(values: list[str] | None, form: re.Pattern[str], name: str) -> None:
    """Raise `Malformed` where Mangum would not find the number of a port."""
    if values is not None:
        match = form.fullmatch(", ".join(values))
        if not match or int(match[1] or 0) > 65_535:
            raise Malformed(f"{name} is malformed")


def _value(value: object, name: str) -> str:
    text = _text(value, name)
    if _CONTROL.search(text):
        raise Malformed(f"{name} has a control character")
    return text


# the rest


def _domain(context: Mapping[str, Any]) -> str:
    domain = context.get("domainName")
    return domain if isinstance(domain, str) and _DOMAIN.fullmatch(domain) else ""


def _method(value: object) -> str:
    text = _text(value, "the method")
    if not _METHOD.fullmatch(text):
        raise Malformed("the method is none")
    return text


def _path(value: object) -> str:
    text = _text(value, "the path")
    if not text.startswith("/"):
        raise Malformed("the path must begin with /")
    return text


def _query(event: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the values of each query parameter."""
    several = event.get("multiValueQueryStringParameters")
    given = event.get("queryStringParameters") if several is None else several
    found = {}
    for name, values in _object({} if given is None else given, "the query").items():
        if several is not None and not isinstance(values, list):
            raise Malformed("the values of a query parameter must be a list")
        one = f"the query parameter {name!r}"
        found[_text(name, one)] = [_text(value, one) for value in ([values] if several is None else values)]
    return found


def _body(event: Mapping[str, Any]) -> bytes:
    text = event.get("body")
    encoded = event.get("isBase64Encoded", False)
    if not isinstance(encoded, bool):
        raise Malformed("isBase64Encoded must be true or false")
    text = "" if text is None else _text(text, "the body")
    if not encoded:
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("the body is not base64") from None


def _object(value: object, name: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{name} must be an object")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{name} must be a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Malformed(f"{name} is no Unicode") from None
    return value
