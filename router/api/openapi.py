"""The description of the API by itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from router.api.http import Call, Endpoint, Reply, encode
from router.auth import Scope


class OpenApi:
    """`/openapi.json`: the document of `endpoints` and of itself. `local` says that no key is needed here."""

    def __init__(self, endpoints: Iterable[Endpoint], *, local: bool) -> None:
        self._described = [*endpoints, *self.endpoints()]
        self._local = local
        self._body = b""

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        return [Endpoint("GET", "/openapi.json", Scope.PUBLIC, self.describe)]

    async def describe(self, _: Call) -> Reply:
        """Describe every endpoint."""
        if not self._body:
            from router.openapi import Entry, document  # at the first question: many processes are asked none

            entries = [Entry(one.method, one.path, one.scope.value, _summary(one)) for one in self._described]
            self._body = encode(document(entries, local=self._local))
        return Reply(200, self._body)


def _summary(endpoint: Endpoint) -> str:
    """Return the first line of an endpoint's docstring, without its full stop."""
    return (inspect.getdoc(endpoint.answer) or "").partition("\n")[0].removesuffix(".")
