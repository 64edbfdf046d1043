"""Cloudflare's public schema as a judge: are these its requests, are these its answers?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesParser
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from jsonschema.exceptions import best_match
from openapi_schema_validator import OAS30ReadValidator, OAS30WriteValidator

from tests.cloudflare_fake import ROOT
from tests.process import ROOT as HERE
from tests.upstream import Received, Told

_HERE = HERE / "tests/corpora/cloudflare/openapi-subset.json"


class Schema:
    """Checks exchanges. Raises `AssertionError` with what is wrong."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = json.loads(_HERE.read_text("utf-8"))
        self._paths = [
            (re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)), operations)
            # The longer a path is without its names, the more exactly it is meant.
            for path, operations in sorted(
                self.document["paths"].items(), key=lambda item: item[0].count("{"), reverse=False
            )
        ]

    def operation(self, request: Received) -> Mapping[str, Any] | None:
        """Return the operation of a request, None for one that is not in the subset."""
        path = urlsplit(request.path).path.removeprefix(ROOT)
        for pattern, operations in self._paths:
            if pattern.fullmatch(path):
                return cast("Mapping[str, Any] | None", operations.get(request.method.lower()))
        return None

    def check(self, request: Received, told: Told) -> None:
        """Hold an answer to the schema of its operation; of one that succeeded, the request too."""
        operation = self.operation(request)
        body = json.loads(told.body)
        if operation is None or told.status >= 400:
            self._judge({"$ref": "#/components/schemas/envelope_failure"}, body, request, reading=True)
            return
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
        self._judge(answer, body, request, reading=True)
        self.check_request(request, operation)

    def check_request(self, request: Received, operation: Mapping[str, Any]) -> None:
        """Hold a request's query and body to the schema."""
        known = {
            one["name"]: one["schema"] for one in operation.get("parameters", ()) if one["in"] == "query"
        }
        for name, value in parse_qsl(urlsplit(request.path).query):
            assert name in known, f"{request.path}: {name} is no parameter"
            number = known[name].get("type") in {"number", "integer"}
            self._judge(known[name], int(value) if number else value, request, reading=False)
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            self._judge(
                content["application/json"]["schema"], json.loads(request.body), request, reading=False
            )
        if "multipart/form-data" in content:
            metadata = self.document["components"]["schemas"]["workers_upload_metadata"]
            self._judge(metadata, metadata_of(request), request, reading=False)

    def _judge(self, schema: Any, value: Any, request: Received, *, reading: bool) -> None:
        judge = OAS30ReadValidator if reading else OAS30WriteValidator
        whole = {**schema, "components": self.document["components"]}
        error = best_match(judge(whole).iter_errors(value))
        assert error is None, f"{request.method} {request.path}: {error.json_path} {error.message}"


def parts_of(request: Received) -> dict[str, Message]:
    """Return the parts of a multipart request by name."""
    head = b"content-type: " + request.headers["content-type"].encode() + b"\r\n\r\n"
    parts = cast("list[Message]", BytesParser().parsebytes(head + request.body).get_payload())
    return {str(part.get_param("name", header="content-disposition")): part for part in parts}


def metadata_of(request: Received) -> Any:
    """Return the metadata of an upload."""
    return json.loads(cast(bytes, parts_of(request)["metadata"].get_payload(decode=True)))
